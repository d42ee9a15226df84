import io
import threading

import numpy as np
import pytest
from PIL import Image

from fewshot.data.opening import check_paths
from fewshot.data.preprocess import Preprocessing
from fewshot.embedding.batches import THUMBNAIL, embed_items, make_thumbnail, prepared_chunks
from fewshot.errors import ImageDecodeError
from tests.photographs import photos, quick_embedder

IMAGES, _ = photos(3)
LOADED = quick_embedder()._load()


@pytest.mark.parametrize("batch_size", [1, 4, None])
@pytest.mark.parametrize("n_jobs", [1, 3])
def test_batches_and_threads_change_nothing_but_rounding(batch_size, n_jobs):
    expected = np.concatenate([embed_items(LOADED, [image]).embeddings for image in IMAGES])
    found = embed_items(LOADED, IMAGES, batch_size=batch_size, n_jobs=n_jobs, thumbnails=True)
    np.testing.assert_allclose(found.embeddings, expected, atol=1e-5)
    assert len(found.thumbnails) == 6
    assert not found.errors


def test_an_unreadable_image_is_raised_or_keeps_its_place():
    items = [IMAGES[0], b"no image", IMAGES[1]]
    with pytest.raises(ImageDecodeError, match="image 1"):
        embed_items(LOADED, items)
    found = embed_items(LOADED, items, on_error="skip", thumbnails=True)
    assert np.isnan(found.embeddings).all(1).tolist() == [False, True, False]
    assert [error.index for error in found.errors] == [1]
    assert found.thumbnails[1] == b""


def test_nothing_has_the_width_of_something():
    assert embed_items(LOADED, []).embeddings.shape == (0, embed_items(LOADED, IMAGES[:1]).embeddings.shape[1])


SEEN = Preprocessing(1, 4, 4)


@pytest.mark.parametrize("n", [0, 1, 7, 8, 9, 40])
@pytest.mark.parametrize("ahead", [0, 2])
@pytest.mark.parametrize("n_jobs", [1, 3])
def test_chunks_come_whole_and_in_order(n, ahead, n_jobs):
    items = [np.full((4, 4), i, np.uint8) for i in range(n)]
    chunks = list(prepared_chunks(items, SEEN, 8, n_jobs, ahead, False))
    assert [len(chunk) for chunk in chunks] == [8] * (n // 8) + [n % 8] * (n % 8 > 0)
    assert [pixels[0, 0] for chunk in chunks for pixels, _, _ in chunk] == list(range(n))


def test_an_error_has_its_place_and_the_others_are_there():
    items = [np.zeros((4, 4), np.uint8), b"no image", np.zeros((4, 4), np.uint8)]
    ((good, bad, last),) = prepared_chunks(items, SEEN, 8, 2, 0, True)
    assert (bad[0], bad[2].index) == (None, 1)
    assert good[1] is not None
    assert last[2] is None


def test_giving_up_early_leaves_no_thread():
    chunks = prepared_chunks([np.zeros((4, 4), np.uint8)] * 100, SEEN, 8, 4, 2, False)
    next(chunks)
    chunks.close()
    workers = [thread for thread in threading.enumerate() if thread.name.startswith("fewshot-decode")]
    for thread in workers:
        thread.join(5)
    assert not [thread for thread in workers if thread.is_alive()]


def test_only_paths_are_looked_up(tmp_path):
    (tmp_path / "a").write_bytes(b"x")
    errors = list(check_paths([tmp_path / "a", b"x", str(tmp_path / "gone"), np.zeros(3)]))
    assert [error.index for error in errors] == [2]


@pytest.mark.parametrize(("side", "format"), [(28, "PNG"), (THUMBNAIL, "PNG"), (224, "JPEG")])
def test_a_thumbnail_is_small(side, format):
    picture = Image.open(io.BytesIO(make_thumbnail(np.full((side, side, 3), 90, np.uint8))))
    assert picture.format == format
    assert picture.size == (min(side, THUMBNAIL),) * 2
    assert abs(int(np.asarray(picture).mean()) - 90) < 3
