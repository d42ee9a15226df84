import unicodedata

import numpy as np
import pytest

from fewshot import glyphs
from fewshot.data.glyphs import COINCIDE, MIN_DRAWINGS, SPLITS, _distinct_drawings, _for_comparison


@pytest.fixture(scope="module")
def drawings():
    return _distinct_drawings()


def test_splits_share_no_class_and_make_up_the_whole():
    parts = [set(glyphs(split).classes) for split in SPLITS]
    assert sum(map(len, parts)) == len(set().union(*parts)) == len(glyphs().classes)
    assert len(parts[0]) > len(parts[2]) > len(parts[1]) > 50


def test_no_two_images_come_from_drawings_that_coincide(drawings):
    """Across classes a shared drawing would be a leak between splits; within one, a query equal to its support."""
    rows = _for_comparison(drawings[0])
    for start in range(0, len(rows), 2048):
        cosine = rows[start : start + 2048] @ rows.T
        cosine[np.arange(len(cosine)), start + np.arange(len(cosine))] = 0
        assert 2 - 2 * cosine.max() > COINCIDE


@pytest.mark.parametrize("twins", ["AΑА", "sѕS", "Hн", "BВΒ", "pр"])
def test_look_alikes_are_one_class(twins):
    assert len(set(twins) & set(glyphs().classes)) <= 1


def test_nothing_numeric_nor_like_a_digit_remains():
    classes = glyphs().classes
    assert all(unicodedata.numeric(c, None) is None for c in classes)
    assert not set("OIlΘЗз") & set(classes)


def test_every_class_has_enough_drawings(drawings):
    assert np.unique(drawings[1], return_counts=True)[1].min() >= MIN_DRAWINGS


def test_no_image_is_blank_or_cut_to_a_speck():
    ink = glyphs().images.mean((1, 2))
    assert ink.min() > 3
    assert glyphs(size=20).images.shape[1:] == (20, 20)


def test_the_same_seed_gives_the_same_images_and_another_others():
    assert np.array_equal(glyphs("val").images, glyphs("val").images)
    assert set(glyphs("val", seed=1).classes) != set(glyphs("val").classes)
    whole, part = glyphs(), glyphs("test")
    np.testing.assert_array_equal(whole.with_classes(part.classes).images, part.images)


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="split is 'tset'; expected one of train, val, test"):
        glyphs("tset")
    with pytest.raises(ValueError, match="size is 4"):
        glyphs(size=4)
