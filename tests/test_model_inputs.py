import numpy as np
import pandas as pd
import pytest

from fewshot import LabeledImages
from fewshot.embedding.batches import Embedded
from fewshot.errors import ImageDecodeError
from fewshot.model.inputs import labelled, leave_out_unread, names_of, on_invalid


def test_images_and_labels_come_together_or_side_by_side():
    items, labels = labelled(LabeledImages(["a.png", "b.png"], [1, 2]), None)
    assert (list(items), labels.tolist()) == (["a.png", "b.png"], [1, 2])
    items, labels = labelled(["a.png"], (label for label in "x"))
    assert (items, labels.tolist()) == (["a.png"], ["x"])
    with pytest.raises(TypeError, match="mix the types integer and string"):
        labelled(["a.png"], ["x"], known=np.array([1]))


def test_what_could_not_be_read_is_left_out_by_place_and_not_by_index():
    embedded = Embedded(
        np.array([[1.0], [np.nan], [3.0]], np.float32), [ImageDecodeError("b", "damaged", 1)], [b"1", b"", b"3"]
    )
    _, given = labelled(["a", "b", "c"], pd.Series([7, 8, 9], index=[5, 6, 7]))
    names, labels, read = leave_out_unread(["a", "b", "c"], given, embedded)
    assert (names, labels.tolist()) == (["a", "c"], [7, 9])
    assert (read.embeddings.tolist(), read.thumbnails, read.errors) == ([[1.0], [3.0]], [b"1", b"3"], [])


def test_where_nothing_could_be_read_the_first_reason_is_told():
    with pytest.raises(ImageDecodeError, match="image 0, b: damaged"):
        leave_out_unread(["b"], ["x"], Embedded(np.full((1, 1), np.nan), [ImageDecodeError("b", "damaged", 0)]))


def test_a_classifier_of_embeddings_is_told_what_becomes_of_nan():
    assert [on_invalid(kind) for kind in ("raise", "skip", "unknown")] == ["raise", "unknown", "unknown"]


def test_names_are_those_given_or_what_images_are_called():
    assert names_of(["x/a.png", b"12"], None, ()) == ["x/a.png", "<2 bytes>"]
    assert names_of([b"1", b"2"], ("one", "two"), {"three"}) == ["one", "two"]
    assert names_of([b"1", b"2"], pd.Series(["one", "two"], index=[3, 4]), ()) == ["one", "two"]
    for ids, message in (
        (["one"], "there are 1 ids for 2 images"),
        (["one", "one"], "the id 'one' is in use"),
        (["one", "three"], "the id 'three' is in use; remove that image first"),
    ):
        with pytest.raises(ValueError, match=message):
            names_of([b"1", b"2"], ids, {"three"})
    with pytest.raises(TypeError, match="id 1 is 7; expected text"):
        names_of([b"1", b"2"], ["one", 7], ())
