from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fewshot.data.arrays import check_image_labels, check_images, check_rows


@pytest.mark.parametrize("given", [["a.png", Path("b/c.png")], ("a.png", "b/c.png"), np.array(["a.png", "b/c.png"])])
def test_paths_of_any_kind_become_text(given):
    images = check_images(given)
    assert images.dtype == object
    assert [type(path) for path in images] == [str, str]
    assert images.tolist() == ["a.png", str(Path("b/c.png"))]


def test_no_images_are_no_paths():
    assert check_images([]).shape == (0,)
    assert check_images([]).dtype == object


@pytest.mark.parametrize("shape", [(2, 4, 5), (2, 4, 5, 1), (2, 4, 5, 2), (2, 4, 5, 4), (0, 4, 5)])
def test_pixels_are_taken_without_a_copy(shape):
    images = np.zeros(shape, np.uint8)
    assert check_images(images) is images


def test_equal_images_in_a_list_are_stacked():
    assert check_images([Image.new("RGB", (5, 4))] * 2).shape == (2, 4, 5, 3)
    assert check_images([np.zeros((4, 5), np.uint8)] * 3).shape == (3, 4, 5)


@pytest.mark.parametrize(
    ("given", "error", "match"),
    [
        (
            [np.zeros((4, 4), np.uint8), np.zeros((5, 5), np.uint8)],
            ValueError,
            "arrays of different shapes; scale them",
        ),
        ([np.zeros((4, 4), np.uint8), "a.png"], ValueError, "arrays of different shapes"),
        (["a.png", None], TypeError, "a list of object; expected one uint8 array .* or a list of paths"),
        (["a.png", 3, Path("b")], TypeError, "or a list of paths"),
        ("a.png", TypeError, "a str of <U5"),
        ([["a.png"], ["b.png"]], TypeError, "or a list of paths"),
        ([b"a.png"], TypeError, r"images are \|S5"),
        (None, TypeError, "a NoneType of object"),
        (np.zeros((2, 3, 4, 5, 3), np.uint8), ValueError, r"shape \(2, 3, 4, 5, 3\)"),
        (np.zeros((2, 8, 8, 5), np.uint8), ValueError, "so 5 channels; expected 1 to 4 in the last axis"),
        (np.zeros((2, 3, 0, 3), np.uint8), ValueError, r"shape \(2, 3, 0, 3\)"),
        (np.zeros((2, 3, 3), bool), TypeError, "images are bool; expected uint8"),
        (np.zeros((2, 3, 3), np.uint16), TypeError, "images are uint16; expected uint8"),
    ],
)
def test_what_is_no_list_of_images_is_told_in_a_sentence(given, error, match):
    with pytest.raises(error, match=match):
        check_images(given)


@pytest.mark.parametrize(
    "missing",
    [[None, "a"], ["a", float("nan")], np.array(["2020-01-01", "NaT"], "M8[D]"), np.array([1, "NaT"], "m8[D]")],
)
def test_a_missing_label_of_any_type_is_named(missing):
    labels = np.array(missing, dtype=object) if isinstance(missing, list) else missing
    with pytest.raises(ValueError, match=r"contains (None|NaN|NaT) at index [01]; give every row a label"):
        check_image_labels(labels, 2)


def test_large_whole_numbers_stay_what_they_are():
    labels = np.array([2**53, 2**53 + 1])
    assert check_image_labels(labels, 2) is labels


@pytest.mark.parametrize(("rows", "expected"), [([], []), ([-1, 0], [-1, 0]), (np.array([2], np.uint8), [2])])
def test_rows_are_whole_numbers(rows, expected):
    index = check_rows(rows, 3)
    assert index.tolist() == expected
    assert index.dtype.kind in "iu"


def test_rows_of_nothing():
    assert check_rows([], 0).tolist() == []
    with pytest.raises(ValueError, match="rows reach from 0 to 0"):
        check_rows([0], 0)
