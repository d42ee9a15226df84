import numpy as np
import pytest

from fewshot import LabeledImages


def images(n=4):
    return np.arange(n * 64, dtype=np.uint8).reshape(n, 8, 8)


def test_classes_counts_and_selection():
    data = LabeledImages(images(), ["b", "a", "b", "b"])
    assert data.classes.tolist() == ["a", "b"]
    assert data.counts.tolist() == [1, 3]
    assert data.select([1, 3]).labels.tolist() == ["a", "b"]
    assert data.select(np.array([True, False, False, True])).labels.tolist() == ["b", "b"]
    np.testing.assert_array_equal(data.with_classes(["a"]).images, images()[1:2])


@pytest.mark.parametrize(("shape", "expected"), [((2, 8, 8), (2, 1, 8, 8)), ((2, 8, 8, 3), (2, 3, 8, 8))])
def test_tensor_is_channels_first_in_0_to_1(shape, expected):
    tensor = LabeledImages(np.full(shape, 255, np.uint8), [0, 1]).tensor()
    assert tuple(tensor.shape) == expected
    assert tensor.unique().tolist() == [1.0]


def test_the_users_arrays_are_not_written_to():
    array = images()
    array.flags.writeable = False
    LabeledImages(array, [0, 0, 1, 1]).tensor()


@pytest.mark.parametrize(
    ("array", "labels", "error", "match"),
    [
        (images().astype(float), [0] * 4, TypeError, "uint8"),
        (images()[0], [0] * 8, ValueError, "shape"),
        (images(), [0] * 3, ValueError, "3"),
        (images(), [0.0, 1.0, np.nan, 0.0], ValueError, "NaN|missing"),
    ],
)
def test_bad_input_is_named(array, labels, error, match):
    with pytest.raises(error, match=match):
        LabeledImages(array, labels)


def test_an_unknown_class_is_named():
    with pytest.raises(ValueError, match="zebra"):
        LabeledImages(images(), ["a", "b", "a", "b"]).with_classes(["zebra"])
