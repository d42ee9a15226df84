"""Labels and embeddings as users pass them; test names carry the rows of the project's bad-input matrix."""

import warnings
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
import torch

from fewshot import PrototypicalClassifier
from fewshot.classifiers.checks import check_labels, warn_if_look_alike
from fewshot.utils.values import check_values
from tests.together import together

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


@pytest.mark.parametrize("dtype", ["Int64", "boolean", "Float64", "string", "category"])
def test_row_34_a_missing_label_in_a_pandas_type_is_named_with_its_index(dtype):
    present = {"string": "a", "category": "a", "boolean": True}.get(dtype, 1)
    with pytest.raises(ValueError, match="Input y contains .* at index 1; give every row a label"):
        check_labels(pd.Series([present, None], dtype=dtype), NAME)
    assert check_labels(pd.Series([present, present], dtype=dtype), NAME).tolist() == [present] * 2


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


@pytest.mark.parametrize(
    "y",
    [
        [True, False],
        np.array([True]),
        np.array([True, False], dtype=object),
        pd.Series([True, False]),
        pd.Series([True, False], dtype="boolean"),
        torch.tensor([True, False]),
    ],
)
def test_row_38_booleans_stay_booleans(y):
    assert check_labels(y, NAME).dtype == bool


def test_row_39_labels_of_two_unicode_forms_stay_two_classes_with_one_warning():
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    with pytest.warns(UserWarning, match="one text in two Unicode forms; they stay two classes") as record:
        warn_if_look_alike(np.array([composed, decomposed, "x"]))
    assert len(record) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_if_look_alike(np.array([composed, "cafe", "🦉", "שלום", "../x", "y" * 300]))
        warn_if_look_alike(np.array([1, 2]))


@pytest.mark.parametrize("container", [list, tuple, lambda y: np.array(y, dtype=object), pd.Series])
def test_row_40_a_nul_at_the_end_of_a_label_is_kept(container):
    assert check_labels(container(["a\0", "a", "\0"]), NAME).tolist() == ["a\0", "a", "\0"]


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


def test_row_46_unsigned_integers_join_signed_ones_without_turning_into_floats():
    big = 2**62 + 1
    unsigned = check_labels(np.array([big, 3], np.uint64), NAME)
    assert np.union1d(unsigned, [-1]).tolist() == [-1, 3, big]


@pytest.mark.parametrize("y", [[1, 2**63], [2**70, 1], [2**63, -1], np.array([2**63], np.uint64), (2**64,)])
def test_row_46_integers_beyond_64_bits_are_refused_with_the_cure(y):
    with pytest.raises(ValueError, match=r"does not fit 64 bits \(signed\); cast the labels to strings"):
        check_labels(y, NAME)


@pytest.mark.parametrize("y", [[{1}, {2}], [Fraction(1, 2)], [object(), object()], np.array([1j, 2])])
def test_what_names_no_class_is_refused(y):
    with pytest.raises(ValueError, match="Unknown label type|Complex data not supported"):
        check_labels(y, NAME)


def test_a_missing_y_is_named():
    with pytest.raises(ValueError, match="SomeClassifier estimator requires y to be passed"):
        check_labels(None, NAME)


def test_the_least_integer_is_too_large_as_the_largest_is():
    for value in (-(2**63), 2**63 - 1):
        with pytest.raises(ValueError, match="overflow when squared"):
            check_values(np.array([[value, 0]]), "keys", "the array of keys")


@pytest.mark.parametrize("x", [np.array([[True, False]]), np.array([[-3, 2]], np.int8), np.zeros((0, 3))])
def test_small_values_pass_as_they_are(x):
    assert check_values(x, "keys", "the array of keys") is x


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.float16, np.int64, np.uint8, bool])
def test_plain_arrays_are_checked_without_touching_the_warning_filters_of_the_process(monkeypatch, kind):
    X = (np.arange(12).reshape(6, 2) % 5).astype(kind)
    model, expected = PrototypicalClassifier(), PrototypicalClassifier().fit(X.tolist(), [0, 1] * 3).predict(X.tolist())
    monkeypatch.setattr(warnings, "catch_warnings", None)
    found = model.fit(X, [0, 1] * 3).predict(X)
    np.testing.assert_array_equal(found, expected)
    with pytest.raises(ValueError, match="has 1 features"):
        model.predict(X[:, :1])


def test_threads_that_check_anything_else_leave_the_filters_as_they_were():
    frame, filters = pd.DataFrame({"a": [0.0, 1.0], "b": [2.0, 3.0]}), list(warnings.filters)
    model = PrototypicalClassifier().fit(frame, ["x", "y"], sample_weight=[1, 2])

    def ask():
        for _ in range(30):
            model.predict(frame)
            PrototypicalClassifier().fit(frame, ["x", "y"], sample_weight=[1, 2])

    together(*[ask] * 3)
    assert warnings.filters == filters
