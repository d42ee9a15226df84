"""Labels and embeddings as users pass them; test names carry the rows of the project's bad-input matrix."""

import warnings

import numpy as np
import pandas as pd
import pytest

from fewshot.checks import check_labels, warn_if_look_alike

NAME = "SomeClassifier"


@pytest.mark.parametrize(
    ("y", "kinds"),
    [
        (["a", 1], "integer and string"),
        (np.array(["a", 1], dtype=object), "integer and string"),
        (pd.Series(["a", True]), "boolean and string"),
        ([True, 2], "boolean and integer"),
    ],
)
def test_row_33_mixed_types_are_refused_by_name(y, kinds):
    with pytest.raises(TypeError, match=f"labels mix the types {kinds}"):
        check_labels(y, NAME)


def test_row_33_a_second_call_may_not_bring_another_type():
    with pytest.raises(TypeError, match="labels mix the types integer and string"):
        check_labels(["a"], NAME, known=np.array([1, 2]))
    with pytest.raises(TypeError, match="labels mix the types boolean and integer"):
        check_labels([True], NAME, known=np.array([1, 2]))


@pytest.mark.parametrize("missing", [None, pd.NA, pd.NaT, np.nan, float("nan")])
def test_rows_34_and_35_a_missing_label_is_named_with_its_index(missing):
    with pytest.raises(ValueError, match="Input y contains .* at index 2; give every row a label"):
        check_labels(["a", "b", missing], NAME)


def test_row_35_nan_among_numbers():
    with pytest.raises(ValueError, match="NaN or infinity at index 1"):
        check_labels(np.array([1.0, np.nan]), NAME)


def test_row_36_continuous_labels_are_refused_with_the_cure():
    with pytest.raises(ValueError, match=r"Unknown label type: continuous.*y\.astype\(int\)"):
        check_labels([0.5, 1.5], NAME)
    assert check_labels([1.0, 2.0], NAME).tolist() == [1.0, 2.0]


@pytest.mark.parametrize("y", [[b"a", b"b"], np.array([b"a"])])
def test_row_37_bytes_are_refused(y):
    with pytest.raises(TypeError, match="labels are bytes; decode them"):
        check_labels(y, NAME)


@pytest.mark.parametrize("y", [[True, False], np.array([True]), pd.Series([True, False])])
def test_row_38_booleans_stay_booleans(y):
    assert check_labels(y, NAME).dtype == bool


def test_row_39_labels_of_two_unicode_forms_stay_two_classes_with_one_warning():
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    with pytest.warns(UserWarning, match="one text in two Unicode forms; they are kept as two classes") as record:
        warn_if_look_alike(np.array([composed, decomposed, "x"]))
    assert len(record) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_if_look_alike(np.array([composed, "cafe", "🦉", "שלום", "../x", "y" * 300]))
        warn_if_look_alike(np.array([1, 2]))


def test_row_41_unused_categories_are_no_labels():
    y = pd.Series(pd.Categorical(["b", "a"], categories=["a", "b", "ghost"]))
    assert set(check_labels(y, NAME)) == {"a", "b"}


def test_row_42_a_column_is_taken_with_a_warning_and_a_table_refused():
    with pytest.warns(UserWarning, match="column-vector"):
        assert check_labels(np.array([["a"], ["b"]]), NAME).tolist() == ["a", "b"]
    with pytest.raises(ValueError, match="1d array"):
        check_labels(np.array([[0, 1], [1, 0]]), NAME)


def test_row_46_huge_integers_keep_their_digits():
    big = 2**62 + 1
    assert check_labels([big, 3], NAME).tolist() == [big, 3]
    assert check_labels(np.array([big, 3], dtype=object), NAME).tolist() == [big, 3]


def test_a_missing_y_is_named():
    with pytest.raises(ValueError, match="SomeClassifier estimator requires y to be passed"):
        check_labels(None, NAME)
