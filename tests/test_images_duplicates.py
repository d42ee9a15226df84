"""Images that are nearly the same."""

import io

import numpy as np
import pytest
from PIL import Image

from fewshot import FewShotImageClassifier
from fewshot.images import duplicates
from fewshot.images.duplicates import NEAR_ITEMS, NEIGHBOUR, OF_USUAL, near_duplicates
from fewshot.images.support import Support
from tests.photographs import photos, quick_embedder


def items(x):
    n = len(x)
    return Support(tuple(map(str, range(n))), np.zeros(n), np.asarray(x, np.float32), (b"",) * n)


@pytest.mark.parametrize("d", [5, 200])
def test_without_pictures_the_cosine_decides_as_by_brute_force(d, monkeypatch):
    monkeypatch.setattr(duplicates, "PART", 180 if d == 5 else 50)
    rng = np.random.default_rng(d)
    x = rng.normal(size=(180, d)) + 0.5
    x[rng.integers(0, 180, 40)] = x[rng.integers(0, 180, 40)] * 3 + 0.1 * rng.normal(size=(40, d))
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    cosine = np.where(np.tri(180, k=-1) == 1, unit @ unit.T, -1)
    usual = np.median(np.sort(1 - unit @ unit.T, 1)[:, NEIGHBOUR])
    least = max(NEAR_ITEMS, 1 - OF_USUAL[1] * usual)
    expected = np.where(cosine.max(1) >= least, cosine.argmax(1), -1)
    assert (expected >= 0).sum() > 10
    np.testing.assert_array_equal(near_duplicates(items(x)), expected)


def test_one_item_and_equal_ones():
    assert near_duplicates(Support.none()).tolist() == []
    assert near_duplicates(items([[1, 2]])).tolist() == [-1]
    assert near_duplicates(items([[1, 2]] * 3 + [[0, 0]])).tolist() == [-1, 0, 0, -1]


def test_recompressed_resized_and_shifted_photographs_are_found_and_others_are_not():
    images, labels = photos(8, side=120)
    buffer = io.BytesIO()
    images[3].save(buffer, "JPEG", quality=60)
    shifted = np.pad(np.asarray(images[9]), ((0, 0), (2, 0), (0, 0)), "edge")[:, :120]
    copies = [Image.open(buffer), images[5].resize((60, 60)), Image.fromarray(shifted)]
    model = FewShotImageClassifier(quick_embedder())
    model.fit([*images, *copies], [*labels, labels[3], labels[5], labels[9]])
    found = near_duplicates(model.support_)
    assert found[16:].tolist() == [3, 5, 9]
    assert (found[:16] < 0).sum() >= 14  # pieces of one photograph may overlap
    assert set(model.check().near_duplicates) == {(i, j) for i, j in enumerate(found.tolist()) if j >= 0}
    frame = model.audit()
    assert frame["near_duplicate_of"][16] == model.support_.ids[3]
