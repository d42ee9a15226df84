"""Labels as people type them."""

import unicodedata
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from fewshot import LabeledImages, PrototypicalClassifier
from fewshot.data.frames import known_labels
from fewshot.data.typed_labels import clean_label, clean_labels, look_alikes

TYPED = ["coding ", "coding", "Flu\u0308sse", "Fl\u00fcsse", "\tlogic"]
CLEAN = ["coding", "coding", "Fl\u00fcsse", "Fl\u00fcsse", "logic"]


def test_what_looks_the_same_is_one_label():
    assert [clean_label(one) for one in TYPED] == CLEAN
    assert clean_labels(np.array(TYPED), "it").tolist() == CLEAN
    assert clean_labels(np.array([3, 5]), "it").tolist() == [3, 5]
    assert list(look_alikes(["Owl", "owl", "\u00e9t\u00e9", "ete"])) == [("Owl", "owl"), ("\u00e9t\u00e9", "ete")]


@pytest.mark.parametrize("make", [pd.DataFrame, pl.DataFrame, pa.table])
def test_frames_are_cleaned_as_tables_are(make, tmp_path):
    frame = make({"path": [f"{i}.png" for i in range(5)], "label": TYPED})
    assert LabeledImages.from_frame(frame).labels.tolist() == known_labels(frame) == CLEAN
    with pytest.warns(UserWarning, match="'Owl' and 'owl' in the frame differ only in case"):
        LabeledImages.from_frame(make({"path": ["a.png", "b.png"], "label": ["Owl", "owl"]}))
    with pytest.raises(ValueError, match="the column 'label' has an empty label in row 1"):
        LabeledImages.from_frame(make({"path": ["a.png", "b.png"], "label": ["owl", " "]}))
    numbers = LabeledImages.from_frame(make({"path": ["a.png", "b.png"], "label": [4, 7]}))
    assert numbers.labels.tolist() == [4, 7]


def test_values_given_in_python_are_taken_exactly():
    given = ["coding ", "coding", unicodedata.normalize("NFD", CLEAN[2])]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert set(PrototypicalClassifier().fit(np.eye(3)[:, :2], given).classes_) == set(given)
