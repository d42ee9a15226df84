import numpy as np
import pytest

from fewshot.embedding.batches import embed_items
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
    found = embed_items(LOADED, items, stop=False, thumbnails=True)
    assert np.isnan(found.embeddings).all(1).tolist() == [False, True, False]
    assert [error.index for error in found.errors] == [1]
    assert found.thumbnails[1] == b""


def test_nothing_has_the_width_of_something():
    assert embed_items(LOADED, []).embeddings.shape == (0, embed_items(LOADED, IMAGES[:1]).embeddings.shape[1])
