import base64
import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fewshot.data.images import LabeledImages, check_images, check_rows


def make(labels, shape=(4, 5)):
    n = len(labels)
    images = np.random.default_rng(0).integers(0, 256, (n, *shape), dtype=np.uint8)
    return LabeledImages(images, np.asarray(labels))


@given(st.lists(st.integers(-3, 3), max_size=30))
def test_classes_and_counts_are_those_of_the_labels(labels):
    data = make(np.array(labels, dtype=np.int64))
    assert data.classes.tolist() == sorted(set(labels))
    assert data.counts.tolist() == [labels.count(c) for c in sorted(set(labels))]
    assert len(data) == len(labels)


@pytest.mark.parametrize(
    "labels", [["b", "a", "b"], [2.5, -1.0, 2.5], [True, False, True], np.array(["b", "a", "b"], object)]
)
def test_labels_of_any_type(labels):
    data = make(labels)
    assert data.counts.tolist() == [1, 2]
    assert data.with_classes(data.classes[:1]).labels.tolist() == [labels[1]]


@given(st.lists(st.integers(-6, 5), max_size=10))
def test_select_is_numpy_indexing(rows):
    data = make(list("abcabc"))
    chosen = data.select(rows)
    index = np.array(rows, dtype=int)
    np.testing.assert_array_equal(chosen.images, data.images[index])
    np.testing.assert_array_equal(chosen.labels, data.labels[index])


def test_select_takes_a_mask():
    data = make(list("abcabc"))
    assert data.select(data.labels == "b").labels.tolist() == ["b", "b"]


def test_with_classes_keeps_the_order_of_the_rows():
    data = make([3, 1, 2, 1, 3])
    chosen = data.with_classes([1, 3])
    assert chosen.labels.tolist() == [3, 1, 1, 3]
    np.testing.assert_array_equal(chosen.images, data.images[[0, 1, 3, 4]])
    assert len(data.with_classes([])) == 0


def test_with_classes_does_not_take_one_for_its_digit():
    with pytest.raises(ValueError, match=r"the class '1' does not occur \(1 of 1 class\)"):
        make([1, 2]).with_classes(["1"])


def test_the_users_arrays_are_left_alone_and_may_be_read_only():
    images = np.full((3, 4, 4), 7, np.uint8)
    labels = np.array([2, 0, 2])
    images.flags.writeable = labels.flags.writeable = False
    data = LabeledImages(images[::-1], labels)
    data.select([0]).images[:] = 0
    data.classes[:] = 9
    assert (images == 7).all()
    assert data.classes.tolist() == [0, 2]


def test_repr_says_what_is_in_it():
    assert repr(make([0, 1, 1])) == "LabeledImages(3 images of 4 x 5, 2 classes)"


@pytest.mark.parametrize(
    ("images", "labels", "error", "match"),
    [
        (np.zeros((2, 4, 4)), [0, 1], TypeError, "images are float64; expected uint8"),
        (np.zeros((4, 4), np.uint8), [0] * 4, ValueError, r"shape \(4, 4\); expected a stack \(n, H, W\)"),
        (np.zeros((2, 0, 4), np.uint8), [0, 1], ValueError, r"shape \(2, 0, 4\)"),
        (np.zeros((2, 3, 32, 32), np.uint8), [0, 1], ValueError, r"32 channels.*transpose\(0, 2, 3, 1\)"),
        (np.zeros((2, 4, 4), np.uint8), [0], ValueError, r"labels have shape \(1,\); expected \(2,\)"),
        (np.zeros((2, 4, 4), np.uint8), [[0, 1], [1, 0]], ValueError, r"shape \(2, 2\)"),
        (np.zeros((2, 4, 4), np.uint8), [0.0, np.nan], ValueError, "contains NaN at index 1"),
        (np.zeros((2, 4, 4), np.uint8), np.array(["a", None]), ValueError, "contains None at index 1"),
        (np.zeros((2, 4, 4), np.uint8), np.array(["a", 1], object), TypeError, "mix the types integer and string"),
        (np.zeros((2, 4, 4), np.uint8), [object(), object()], TypeError, "cannot be sorted"),
    ],
)
def test_bad_data_is_told_in_a_sentence(images, labels, error, match):
    with pytest.raises(error, match=match):
        LabeledImages(images, labels)


@pytest.mark.parametrize(
    ("rows", "error", "match"),
    [
        ([3], ValueError, r"from 3 to 3; expected row numbers in 0\.\.2"),
        ([-4], ValueError, "from -4"),
        ([True, False], ValueError, "mask has 2 entries; expected 3"),
        ([0.5], TypeError, "rows are float64"),
        (0, ValueError, r"shape \(\)"),
    ],
)
def test_bad_rows_are_told_in_a_sentence(rows, error, match):
    with pytest.raises(error, match=match):
        make([0, 1, 2]).select(rows)


def test_one_string_is_not_a_list_of_classes():
    with pytest.raises(ValueError, match="is not a list of labels: found 'a'"):
        make(["a", "b"]).with_classes("a")


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


def test_images_of_any_kind_and_size_stay_what_they_are():
    given = [b"a\0", Image.new("L", (3, 2)), np.zeros((4, 4), np.uint8), io.BytesIO(b"x"), "data:image/png;base64,"]
    images = check_images(given)
    assert all(one is other for one, other in zip(images, given, strict=True))
    assert [one.shape for one in check_images([np.zeros((4, 5), np.uint8), np.zeros((5, 5, 3))])] == [(4, 5), (5, 5, 3)]
    assert repr(LabeledImages(given, list("abcde"))) == "LabeledImages(5 images of any size, 5 classes)"


def test_pixels_of_images_in_memory_are_decoded_and_cached_by_content(tmp_path):
    buffer = io.BytesIO()
    Image.new("RGB", (9, 9), (200, 0, 0)).save(buffer, "PNG")
    encoded = f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    red = [
        buffer.getvalue(),
        buffer,
        encoded,
        Image.new("RGB", (7, 9), (200, 0, 0)),
        np.full((5, 6, 3), (200, 0, 0), "u1"),
    ]
    data = LabeledImages(red, list("abcde"))
    decoded = data.decoded(8, cache=tmp_path)
    assert decoded.images.shape == (5, 8, 8, 3)
    assert (decoded.images == (200, 0, 0)).all()
    data.decoded(8, cache=tmp_path)
    assert len(list(tmp_path.glob("*.npy"))) == 1
    other = LabeledImages([*red[:4], np.full((5, 6, 3), (201, 0, 0), "u1")], list("abcde")).decoded(8, cache=tmp_path)
    assert (other.images[4] == (201, 0, 0)).all()


def test_rows_are_indexed_as_in_numpy():
    data = make(list("abcabc"))
    image, label = data[-2]
    np.testing.assert_array_equal(image, data.images[4])
    assert label == "b"
    assert data[np.int64(2)][1] == "c"
    for rows in (slice(1, None, 2), slice(None, -7), [0, -1], np.arange(2), data.labels == "b", pd.Series([True] * 6)):
        part = data[rows]
        index = np.asarray(rows) if isinstance(rows, pd.Series) else rows
        np.testing.assert_array_equal(part.images, data.images[index])
        np.testing.assert_array_equal(part.labels, data.labels[index])
    with pytest.raises(IndexError):
        data[6]
    with pytest.raises(ValueError, match="mask has 2 entries"):
        data[[True, False]]


def test_iterating_gives_images_with_their_labels():
    data = make(list("abc"))
    assert [label for _, label in data] == ["a", "b", "c"]
    assert all(np.array_equal(image, data.images[i]) for i, (image, _) in enumerate(data))


@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=40), st.sampled_from([1, 2, 5, 0.3, 0.5, 0.9]), st.integers(0, 9)
)
def test_a_split_takes_some_of_each_class_and_leaves_the_rest(labels, n, seed):
    data = LabeledImages([f"{i}.png" for i in range(len(labels))], labels)
    drawn, rest = data.split(n, seed=seed)
    assert sorted([*drawn.images, *rest.images]) == sorted(data.images)
    for label, count in zip(data.classes.tolist(), data.counts.tolist(), strict=True):
        wanted = n if n >= 1 else round(n * count)
        assert (drawn.labels == label).sum() == max(1, min(wanted, count - 1))
    assert drawn.images.tolist() == data.split(n, seed=seed)[0].images.tolist()


def test_a_split_is_drawn_at_random_and_keeps_the_order():
    data = make([0] * 40 + [1] * 40)
    drawn = [data.split(5, seed=seed)[0].images.tobytes() for seed in range(20)]
    assert len(set(drawn)) == 20
    assert data.split(5)[1].labels.tolist() == [0] * 35 + [1] * 35
    for n in (0, -1, 1.5, True, float("nan")):
        with pytest.raises(ValueError, match="expected a number of images of each class"):
            data.split(n)


def test_equal_images_in_a_list_are_stacked():
    assert check_images([Image.new("RGB", (5, 4))] * 2).shape == (2, 4, 5, 3)
    assert check_images([np.zeros((4, 5), np.uint8)] * 3).shape == (3, 4, 5)


@pytest.mark.parametrize(
    ("given", "error", "match"),
    [
        ([np.zeros((4, 4), np.uint8), 7], TypeError, "or a list of paths, bytes, PIL images or arrays"),
        (["a.png", None], TypeError, "a list of object; expected one uint8 array .* or a list of paths"),
        (["a.png", 3, Path("b")], TypeError, "or a list of paths"),
        ("a.png", TypeError, "a str of <U5"),
        ([["a.png"], ["b.png"]], TypeError, "or a list of paths"),
        (np.array([b"a.png"]), TypeError, r"images are \|S5"),
        (None, TypeError, "a NoneType of object"),
        (np.zeros((2, 3, 4, 5, 3), np.uint8), ValueError, r"shape \(2, 3, 4, 5, 3\)"),
        (np.zeros((2, 8, 8, 5), np.uint8), ValueError, "so 5 channels; expected 1 to 4 channels last"),
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
        LabeledImages(np.zeros((2, 3, 3), np.uint8), labels)


def test_large_whole_numbers_stay_what_they_are():
    labels = np.array([2**53, 2**53 + 1])
    assert LabeledImages(np.zeros((2, 3, 3), np.uint8), labels).labels is labels


@pytest.mark.parametrize(("rows", "expected"), [([], []), ([-1, 0], [-1, 0]), (np.array([2], np.uint8), [2])])
def test_rows_are_whole_numbers(rows, expected):
    index = check_rows(rows, 3)
    assert index.tolist() == expected
    assert index.dtype.kind in "iu"


def test_rows_of_nothing():
    assert check_rows([], 0).tolist() == []
    with pytest.raises(ValueError, match="rows range from 0 to 0"):
        check_rows([0], 0)
