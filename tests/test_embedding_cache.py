"""No image is embedded twice, whatever it is called; a damaged cache costs time and nothing else."""

import multiprocessing
import sqlite3
import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.model_selection import GridSearchCV

from fewshot import Embedder, FewShotImageClassifier, MatchingLearner, PrototypicalLearner
from fewshot.cli import main
from fewshot.embedding.cache import EmbeddingCache, content_key
from fewshot.embedding.network import Loaded
from fewshot.errors import ImageDecodeError
from tests.photographs import photos, quick_embedder, write_photos

IMAGES, LABELS = photos(6)


@pytest.fixture
def seen(monkeypatch):
    """Count the images that a network sees."""
    counts, forward = [], Loaded._forward
    monkeypatch.setattr(Loaded, "_forward", lambda self, x: counts.append(len(x)) or forward(self, x))
    return counts


def test_an_image_is_embedded_once_whatever_it_is_called(tmp_path, seen):
    paths = write_photos(tmp_path / "photos", 2)
    embedder = quick_embedder(cache=tmp_path / "cache")
    first = embedder.transform(paths)
    assert sum(seen) == 4
    copies = [open(path, "rb").read() for path in paths]  # noqa: SIM115
    again = quick_embedder(cache=tmp_path / "cache").transform([*copies, *paths[:2]])
    assert sum(seen) == 5  # one blank image, for the width
    np.testing.assert_array_equal(again, first[[0, 1, 2, 3, 0, 1]])
    np.testing.assert_allclose(first, quick_embedder().transform(paths), atol=1e-5)


def test_equal_images_in_one_call_are_embedded_once(tmp_path, seen):
    x = quick_embedder(cache=tmp_path).transform([IMAGES[0], IMAGES[1], IMAGES[0]])
    assert sum(seen) == 2
    np.testing.assert_array_equal(x[0], x[2])


def test_another_network_or_size_has_embeddings_of_its_own(tmp_path):
    for embedder in (quick_embedder(cache=tmp_path), Embedder("conv4", weights="random", img_size=48, cache=tmp_path)):
        cached = [embedder.transform(IMAGES[:2]) for _ in range(2)]
        np.testing.assert_array_equal(*cached)
        np.testing.assert_allclose(cached[0], embedder.set_params(cache=None).transform(IMAGES[:2]), atol=1e-5)
    assert len(list(tmp_path.glob("*.sqlite"))) == 2


def test_what_differs_in_any_way_that_decoding_sees_has_another_key():
    pixels = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    grey = Image.fromarray(pixels[..., 0])
    turned = grey.copy()
    turned.getexif()[0x0112] = 6
    palette = Image.fromarray(pixels).quantize(4)
    other_palette = palette.copy()
    other_palette.putpalette(palette.getpalette()[::-1])
    see_through = palette.copy()
    see_through.info["transparency"] = 0
    different = [
        pixels, pixels.astype(float), pixels.reshape(3, 2, 2), torch.from_numpy(pixels), pixels + 1,
        grey, turned, palette, other_palette, see_through, pixels.tobytes(),
    ]  # fmt: skip
    keys = [content_key(item) for item in different]
    assert None not in keys
    assert len(set(keys)) == len(keys)
    assert content_key(pixels[::-1][::-1]) == content_key(np.asfortranarray(pixels)) == keys[0]
    assert content_key(bytearray(pixels.tobytes())) == keys[-1]
    assert [content_key(item) for item in ("gone.png", None, object(), {"a": 1})] == [None] * 4


def test_thumbnails_are_kept_too(tmp_path, seen):
    embedder = quick_embedder(cache=tmp_path)
    embedder.transform(IMAGES[:3])
    first = embedder.embed(IMAGES[:3], thumbnails=True)  # none were made before
    assert sum(seen) == 4  # one blank image, for the width
    again = embedder.embed(IMAGES[:3], thumbnails=True)
    assert again.thumbnails == first.thumbnails == quick_embedder().embed(IMAGES[:3], thumbnails=True).thumbnails


def test_what_cannot_be_read_is_told_at_its_place_and_the_others_are_kept(tmp_path, seen):
    items = [IMAGES[0], b"no image", IMAGES[1], b"no image"]
    embedder = quick_embedder(cache=tmp_path)
    with pytest.raises(ImageDecodeError, match="image 1"):
        embedder.transform(items)
    before = sum(seen)
    with pytest.warns(UserWarning, match="2 of 4 images could not be read"):
        embedded = embedder.set_params(on_error="unknown").embed(items)
    assert [error.index for error in embedded.errors] == [1, 3]
    assert np.isnan(embedded.embeddings).all(1).tolist() == [False, True, False, True]
    assert sum(seen) <= before + 1


def test_a_grid_search_embeds_each_image_once(tmp_path, seen):
    model = FewShotImageClassifier(quick_embedder(cache=tmp_path / "cache"), keep_support=False)
    grid = {"learner": [PrototypicalLearner("cosine", t) for t in (0.1, 1.0)] + [MatchingLearner()]}
    search = GridSearchCV(model, grid, cv=3, error_score="raise").fit(write_photos(tmp_path / "p", 6), LABELS)
    assert sum(n for n in seen if n > 1) == 12
    assert len(search.cv_results_["params"]) == 3


def test_a_flipped_bit_costs_one_embedding_and_a_damaged_file_a_warning(tmp_path, seen):
    embedder = quick_embedder(cache=tmp_path)
    expected = embedder.transform(IMAGES[:3])
    (path,) = tmp_path.glob("*.sqlite")
    with sqlite3.connect(path) as base:
        vector = bytearray(base.execute("SELECT vector FROM embeddings LIMIT 1").fetchone()[0])
        vector[5] ^= 4
        base.execute("UPDATE embeddings SET vector = ? WHERE rowid = 1", [bytes(vector)])
    base.close()
    before = sum(seen)
    np.testing.assert_allclose(embedder.transform(IMAGES[:3]), expected, atol=1e-5)
    assert sum(seen) == before + 1
    for other in tmp_path.glob("*.sqlite-*"):
        other.unlink()
    path.write_bytes(b"no database at all" * 100)
    with pytest.warns(UserWarning, match=r"the cache .* cannot be read .*; continuing without it; delete it"):
        np.testing.assert_allclose(embedder.transform(IMAGES[:3]), expected, atol=1e-5)
    path.unlink()
    path.mkdir()
    with pytest.warns(UserWarning, match="cannot be written"):
        embedder.transform(IMAGES[:1])


@pytest.mark.parametrize("value", ["'text'", "CAST(x'ff' AS TEXT)", "7", "1.5"])
@pytest.mark.parametrize("column", ["vector", "picture", "checksum"])
def test_a_bit_that_changes_the_type_of_a_value_costs_one_embedding(tmp_path, column, value):
    cache, rows = (
        EmbeddingCache(tmp_path, "f" * 64),
        {b"a": (np.ones(3, np.float32), b""), b"b": (np.ones(3, "f"), b"")},
    )
    cache.put(rows)
    with sqlite3.connect(cache.path) as base:
        base.execute(f"UPDATE embeddings SET {column} = {value} WHERE key = x'61'")
    base.close()
    assert list(cache.get(rows)) == [b"b"]


def put(folder, start):
    cache = EmbeddingCache(folder, "f" * 64)
    for i in range(start, start + 50):
        cache.put({i.to_bytes(4, "big"): (np.full(3, i, np.float32), b"")})


@pytest.mark.slow
def test_processes_share_it(tmp_path):
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=put, args=(tmp_path, 50 * i)) for i in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = EmbeddingCache(tmp_path, "f" * 64).get(i.to_bytes(4, "big") for i in range(1200))
    assert len(found) == 100
    assert all(int.from_bytes(key, "big") == vector[0] == vector[2] for key, (vector, _) in found.items())


def put_together(folder, start, barrier):
    barrier.wait(60)
    for i in range(start, start + 5):
        EmbeddingCache(folder, "f" * 64).put({i.to_bytes(4, "big"): (np.full(3, i, np.float32), b"")})


def test_processes_that_make_it_at_once_lose_nothing(tmp_path):
    context = multiprocessing.get_context("fork")
    for n in range(8):  # a fifth of them lost an embedding when none tried again
        barrier = context.Barrier(4)
        processes = [context.Process(target=put_together, args=(tmp_path / str(n), 5 * i, barrier)) for i in range(4)]
        for process in processes:
            process.start()
        for process in processes:
            process.join(60)
        found = EmbeddingCache(tmp_path / str(n), "f" * 64).get(i.to_bytes(4, "big") for i in range(20))
        assert len(found) == 20


def test_the_command_line_keeps_embeddings(tmp_path, capsys, seen):
    write_photos(tmp_path / "photos", 2)
    command = ["fit", str(tmp_path / "photos"), "--backbone", "conv4", "--weights", "random", "--size", "32", "--force"]
    for i in range(2):
        assert main([*command, "--out", str(tmp_path / str(i)), "--cache", str(tmp_path / "cache")]) == 0
    capsys.readouterr()
    assert sum(n for n in seen if n > 1) == 4


@pytest.mark.parametrize("end", [KeyboardInterrupt, MemoryError])
def test_what_is_interrupted_loses_one_chunk(tmp_path, seen, monkeypatch, end):
    monkeypatch.setattr("fewshot.embedding.network.CHUNK_PIXELS", 1)  # a chunk is a batch
    embedder, batches, forward = quick_embedder(cache=tmp_path, batch_size=2), [], Loaded._forward

    def fails(self, x):
        batches.append(x)
        if len(batches) == 4:
            raise end
        return forward(self, x)

    with monkeypatch.context() as patched:
        patched.setattr(Loaded, "_forward", fails)
        with pytest.raises(end):
            embedder.transform(IMAGES)
    seen.clear()
    found = embedder.transform(IMAGES)
    assert sum(seen) == len(IMAGES) - 6
    np.testing.assert_allclose(found, quick_embedder().transform(IMAGES), atol=1e-5)


def test_commands_embed_an_image_once_between_them(tmp_path, seen, capsys):
    write_photos(tmp_path / "photos", 4)
    photographs, cache = str(tmp_path / "photos"), ["--cache", str(tmp_path / "cache"), "--quiet"]
    network = ["--backbone", "conv4", "--weights", "random", "--size", "32"]
    few = ["--way", "2", "--shot", "1", "--query", "1", "--episodes", "2"]
    assert main(["evaluate", photographs, *network, *few, *cache]) == 0
    assert sum(seen) == 8
    assert main(["fit", photographs, "--out", str(tmp_path / "model"), *network, *cache]) == 0
    assert sum(n for n in seen if n > 1) == 8
    saved = FewShotImageClassifier.load(tmp_path / "model").support_
    whole = FewShotImageClassifier(quick_embedder()).fit(list(saved.ids), saved.labels).support_
    assert saved.thumbnails == whole.thumbnails
