import numpy as np
import pandas as pd
import pytest

from fewshot import LabeledImages
from fewshot.embedding.embedder import Embedded
from fewshot.errors import ImageDecodeError
from fewshot.model.inputs import labelled, leave_out_unread, on_invalid


def test_images_and_labels_come_together_or_side_by_side():
    items, labels = labelled(LabeledImages(["a.png", "b.png"], [1, 2]), None)
    assert (list(items), labels.tolist()) == (["a.png", "b.png"], [1, 2])
    assert labelled(["a.png"], ["x"]) == (["a.png"], ["x"])


def test_what_could_not_be_read_is_left_out_by_place_and_not_by_index():
    embedded = Embedded(
        np.array([[1.0], [np.nan], [3.0]], np.float32), [ImageDecodeError("b", "damaged", 1)], [b"1", b"", b"3"]
    )
    items, labels, read = leave_out_unread(["a", "b", "c"], pd.Series([7, 8, 9], index=[5, 6, 7]), embedded)
    assert (items, labels) == (["a", "c"], [7, 9])
    assert (read.embeddings.tolist(), read.thumbnails, read.errors) == ([[1.0], [3.0]], [b"1", b"3"], [])


def test_where_nothing_could_be_read_the_first_reason_is_told():
    with pytest.raises(ImageDecodeError, match="image 0, b: damaged"):
        leave_out_unread(["b"], ["x"], Embedded(np.full((1, 1), np.nan), [ImageDecodeError("b", "damaged", 0)]))


def test_a_classifier_of_embeddings_is_told_what_becomes_of_nan():
    assert [on_invalid(kind) for kind in ("raise", "skip", "unknown")] == ["raise", "unknown", "unknown"]
