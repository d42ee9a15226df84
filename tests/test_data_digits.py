import numpy as np
import pytest
from sklearn.datasets import load_digits

from fewshot import digits


def test_they_are_scikit_learns_digits_enlarged():
    data = digits()
    assert data.images.shape == (1797, 28, 28)
    np.testing.assert_array_equal(data.labels, load_digits().target)
    small = data.images[:, 2:26, 2:26].reshape(-1, 8, 3, 8, 3).mean((2, 4))
    correlation = np.corrcoef(small.ravel(), load_digits().images.ravel())[0, 1]
    assert correlation > 0.98


def test_ink_is_bright_and_there_is_a_margin():
    images = digits(size=32).images
    assert images.shape[1:] == (32, 32)
    assert images.max() == 255
    assert images[:, 0].max() == images[:, :, -1].max() == 0


def test_a_size_below_the_originals_is_refused():
    with pytest.raises(ValueError, match="size is 7"):
        digits(size=7)
