import numpy as np
import pytest
from sklearn.datasets import load_digits

from fewshot.data.digits import digits
from fewshot.data.glyphs import glyphs


def extent(images):
    """Longest side of each image's ink, as a part of the image."""
    ink = images > 64
    spans = [np.ptp(np.flatnonzero(side)) + 1 for image in ink for side in (image.any(0), image.any(1))]
    return np.reshape(spans, (-1, 2)).max(axis=1) / images.shape[1]


def test_they_are_the_digits_of_scikit_learn():
    data, source = digits(), load_digits()
    assert data.images.shape == (1797, 28, 28)
    assert data.classes.tolist() == list(range(10))
    np.testing.assert_array_equal(data.labels, source.target)
    flat, original = data.images[:, 4:24, 4:24], source.images
    # Pixel (i, j) of the original lies at 4 + 2.5 * (i + 0.5), so its middle falls between pixels or on one.
    sampled = flat[:, np.arange(8) * 5 // 2 + 1][:, :, np.arange(8) * 5 // 2 + 1]
    assert np.corrcoef(sampled.ravel(), original.ravel())[0, 1] > 0.97


def test_ink_is_bright_inside_a_dark_margin():
    images = digits().images
    assert images.max() == 255
    assert images[:, [0, -1]].max() == images[:, :, [0, -1]].max() == 0


def test_they_are_framed_like_the_glyphs():
    of_digits, of_glyphs = extent(digits().images), extent(glyphs("val").images)
    assert np.median(of_digits) == pytest.approx(np.median(of_glyphs), abs=0.08)


def test_another_size_is_the_same_picture():
    small, large = digits().images, digits(size=56).images
    pooled = large.reshape(1797, 28, 2, 28, 2).mean(axis=(2, 4))
    assert np.abs(pooled - small).mean() < 4


def test_two_calls_are_equal_and_independent():
    first = digits()
    first.images[:] = 0
    assert digits().images.max() == 255
    np.testing.assert_array_equal(digits().images, digits().images)


def test_bad_size_is_told_in_a_sentence():
    with pytest.raises(ValueError, match="size is 7; expected at least 8"):
        digits(size=7)
