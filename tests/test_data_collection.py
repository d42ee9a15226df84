"""What a collection comes in."""

import io
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy import sparse

from fewshot.data.collection import as_rows, as_sequence

PATHS = ["a.png", "b.png"]
FRAME = pd.DataFrame({"path": PATHS, "label": [0, 1]})


@pytest.mark.parametrize(
    "given",
    [
        PATHS,
        tuple(PATHS),
        np.array(PATHS),
        np.array(PATHS, object),
        np.array(PATHS, object)[:, None],
        FRAME["path"],
        FRAME["path"][::-1][::-1],
        FRAME[["path"]],
        FRAME[["path"]].rename(columns={"path": 7}),
        pd.array(PATHS, "string"),
    ],
)
@pytest.mark.parametrize("take", [as_sequence, as_rows])
def test_paths_are_taken_in_whatever_they_come(given, take):
    if take is as_rows and getattr(given, "ndim", 1) == 2 and isinstance(given, np.ndarray):
        pytest.skip("for other things than images an array of arrays is rows")
    items = take(given)
    assert [str(items[i]) for i in range(len(items))] == PATHS


def test_those_of_arrow_and_polars_are_taken():
    pyarrow = pytest.importorskip("pyarrow")
    assert as_sequence(pyarrow.array(PATHS)) == PATHS
    assert as_sequence(pyarrow.chunked_array([PATHS])) == PATHS
    polars = pytest.importorskip("polars")
    assert list(as_sequence(polars.DataFrame({"path": PATHS}))) == PATHS


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("a.png", r"X is one image \(str\); pass a list of images"),
        (memoryview(b"abc"), r"X is one image \(memoryview\)"),
        (io.BytesIO(b"abc"), r"X is one image \(BytesIO\)"),
        (SimpleNamespace(read=lambda: b""), r"X is one image \(SimpleNamespace\)"),
        (Image.new("L", (3, 3)), r"X is one image \(Image\)"),
        ((path for path in PATHS), r"X is a generator; expected a list or an array of items; pass list\(X\)"),
        (map(str, PATHS), r"X is a map; .*pass list\(X\)"),
        ({"a.png": 1}, r"X is a dict; expected a list or an array of items$"),
        (FRAME, r"X is a data frame; pass its column of images, e\.g\. frame\['path'\]"),
        (np.array("a.png"), r"X has shape \(\)"),
        (np.zeros((4, 5)), r"X has shape \(4, 5\)"),
        (np.zeros((4, 5, 3)), r"X has shape \(4, 5, 3\)"),
        (torch.zeros(3, 4, 5), r"X has shape \(3, 4, 5\)"),
    ],
)
def test_one_image_and_what_has_no_length_are_told_with_the_cure(given, message):
    with pytest.raises(TypeError, match=message):
        as_sequence(given)


def test_a_plural_name_has_its_verb():
    with pytest.raises(TypeError, match="^images are one image"):
        as_sequence("a.png", "images")


@pytest.mark.parametrize("shape", [(4, 5), (4, 1), (4, 5, 3), (4, 3, 5, 5)])
@pytest.mark.parametrize("kind", [np.zeros, torch.zeros])
def test_of_an_array_of_other_things_each_row_is_one(shape, kind):
    rows = as_rows(kind(shape))
    assert (len(rows), tuple(rows[0].shape)) == (4, shape[1:])


def test_so_is_each_row_of_a_table_of_numbers():
    assert np.asarray(as_rows(pd.DataFrame(np.eye(3)))).tolist() == np.eye(3).tolist()
    assert np.asarray(as_rows(pd.DataFrame({"x": [1.5, 2.5]}))).tolist() == [[1.5], [2.5]]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("text", "X is one item"),
        (np.array(3.0), "X is a single value"),
        (sparse.eye(3).tocsr(), r"pass X\.toarray\(\)"),
        (iter(PATHS), r"pass list\(X\)"),
    ],
)
def test_one_thing_is_told(given, message):
    with pytest.raises(TypeError, match=message):
        as_rows(given)
