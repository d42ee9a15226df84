import warnings
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
import torch

from fewshot import PrototypicalClassifier
from fewshot.utils.labels import as_labels, check_unknown, mark_unknown, unknown_mark, warn_if_look_alike

ROWS = np.array([False, True])


@pytest.mark.parametrize(
    ("classes", "label", "expected"),
    [
        (np.array(["ant", "bee"]), None, ["ant", "unknown"]),
        (np.array([3, 7]), None, [3, -1]),
        (np.array([True, False]), "?", [True, "?"]),
        (np.array(["ant", "bee"], dtype=object), "none", ["ant", "none"]),
    ],
)
def test_only_the_unknown_rows_are_marked(classes, label, expected):
    marked = mark_unknown(classes, ROWS, label, classes)
    assert marked.tolist() == expected
    assert mark_unknown(classes, ~ROWS & ROWS, label, classes) is classes


def test_the_type_is_kept_where_it_can_be():
    assert mark_unknown(np.array([3, 7]), ROWS, None, np.array([3, 7])).dtype.kind == "i"
    assert mark_unknown(np.array(["a", "b"]), ROWS, None, np.array(["a", "b"])).dtype == "<U7"


def test_a_mark_that_cannot_be_told_from_a_class_is_refused():
    with pytest.raises(ValueError, match="unknown_label=-1 is a class; choose another"):
        unknown_mark(None, np.array([-1, 1]))
    with pytest.raises(ValueError, match="no default unknown_label for labels of type bool; set one"):
        unknown_mark(None, np.array([True, False]))


@pytest.mark.parametrize(
    ("classes", "label", "marked"),
    [
        (np.array(["ant", "unknown"]), None, ["ant", None]),
        (np.array([-1, 3]), None, [-1, None]),
        (np.array([False, True]), None, [False, None]),
        (np.array([1.0, 2.0]), None, [1.0, None]),
        (np.array(["ant", "unknown"], dtype=object), None, ["ant", None]),
    ],
)
def test_where_the_default_is_a_class_what_can_be_answered_is(classes, label, marked):
    with pytest.warns(UserWarning, match="unknown queries are answered with None: .*unknown_label"):
        assert mark_unknown(classes, ROWS, label, classes).tolist() == marked


def test_a_nul_at_the_end_tells_a_mark_from_a_class():
    classes = np.array(["ant", "x"])
    assert mark_unknown(classes, ROWS, "x\0", classes).tolist() == ["ant", "x\0"]
    with pytest.raises(ValueError, match="is a class"):
        unknown_mark("x\0", np.array(["ant", "x\0"], dtype=object))


def test_only_a_change_that_makes_an_answer_ambiguous_is_refused():
    ant, both = np.array(["ant"]), np.array(["ant", "unknown"])
    with pytest.raises(ValueError, match="unknown_label='unknown' is a class"):
        check_unknown(None, both, ant)
    check_unknown(None, np.array(["ant", "bee", "unknown"]), both)
    check_unknown("?", both, ant)
    with pytest.raises(ValueError, match="'ant' is a class"):
        check_unknown("ant", both, ant)
    check_unknown("ant", np.array(["bee"]), ant)


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
        as_labels(y)


def test_row_33_a_second_call_may_not_bring_another_type():
    said = r"labels mix the types integer and string \(the known ones, such as 1, are integer\); numpy"
    with pytest.raises(TypeError, match=said):
        as_labels(["a"], known=np.array([1, 2]))
    with pytest.raises(TypeError, match=r"\(the known ones, such as 'owl', are string\); numpy"):
        as_labels([1, 2], known=np.array(["owl"]))
    with pytest.raises(TypeError, match="labels mix the types boolean and integer"):
        as_labels([True], known=np.array([1, 2]))


@pytest.mark.parametrize("missing", [None, pd.NA, pd.NaT, np.nan, float("nan")])
def test_rows_34_and_35_a_missing_label_is_named_with_its_index(missing):
    with pytest.raises(ValueError, match="Input y contains .* at index 2; give every row a label"):
        as_labels(["a", "b", missing])


@pytest.mark.parametrize("missing", [["a", None], [1.0, np.nan], pd.to_datetime(["2020-01-01", None]), [1, np.inf]])
def test_a_missing_label_is_named_with_its_row_and_the_index_of_pandas(missing):
    with pytest.raises(
        ValueError, match=r"Input y contains .* at row 1 \(index 7\); give every row a label, or leave out"
    ):
        as_labels(pd.Series(missing, index=[1, 7]))
    with pytest.raises(ValueError, match=r"at row 1 \(index a7\)"):
        as_labels(pd.Series(missing, index=["a1", "a7"]))


@pytest.mark.parametrize("dtype", ["Int64", "boolean", "Float64", "string", "category"])
def test_row_34_a_missing_label_in_a_pandas_type_is_named_with_its_index(dtype):
    present = {"string": "a", "category": "a", "boolean": True}.get(dtype, 1)
    with pytest.raises(ValueError, match="Input y contains .* at index 1; give every row a label"):
        as_labels(pd.Series([present, None], dtype=dtype))
    assert as_labels(pd.Series([present, present], dtype=dtype)).tolist() == [present] * 2


def test_row_35_nan_among_numbers():
    with pytest.raises(ValueError, match="NaN or infinity at index 1"):
        as_labels(np.array([1.0, np.nan]))


def test_row_36_continuous_labels_are_refused_with_the_cure():
    with pytest.raises(ValueError, match=r"Unknown label type: continuous.*y\.astype\(int\)"):
        as_labels([0.5, 1.5])
    assert as_labels([1.0, 2.0]).tolist() == [1.0, 2.0]


@pytest.mark.parametrize("y", [[b"a", b"b"], np.array([b"a"])])
def test_row_37_bytes_are_refused(y):
    with pytest.raises(TypeError, match="labels are bytes; decode them"):
        as_labels(y)


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
    assert as_labels(y).dtype == bool


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
    assert as_labels(container(["a\0", "a", "\0"])).tolist() == ["a\0", "a", "\0"]


def test_row_41_unused_categories_are_no_labels():
    y = pd.Series(pd.Categorical(["b", "a"], categories=["a", "b", "ghost"]))
    assert set(as_labels(y)) == {"a", "b"}


def test_row_42_a_column_is_taken_with_a_warning_and_a_table_refused():
    with pytest.warns(UserWarning, match="column-vector"):
        assert as_labels(np.array([["a"], ["b"]])).tolist() == ["a", "b"]
    with pytest.raises(ValueError, match="1d array"):
        as_labels(np.array([[0, 1], [1, 0]]))


def test_row_46_huge_integers_keep_their_digits():
    big = 2**62 + 1
    assert as_labels([big, 3]).tolist() == [big, 3]
    assert as_labels(np.array([big, 3], dtype=object)).tolist() == [big, 3]


def test_row_46_unsigned_integers_join_signed_ones_without_turning_into_floats():
    big = 2**62 + 1
    unsigned = as_labels(np.array([big, 3], np.uint64))
    assert np.union1d(unsigned, [-1]).tolist() == [-1, 3, big]


@pytest.mark.parametrize("y", [[1, 2**63], [2**70, 1], [2**63, -1], np.array([2**63], np.uint64), (2**64,)])
def test_row_46_integers_beyond_64_bits_are_refused_with_the_cure(y):
    with pytest.raises(ValueError, match=r"does not fit 64 bits \(signed\); cast the labels to strings"):
        as_labels(y)


@pytest.mark.parametrize("y", [[{1}, {2}], [Fraction(1, 2)], [object(), object()], np.array([1j, 2])])
def test_what_names_no_class_is_refused(y):
    with pytest.raises(ValueError, match="Unknown label type|Complex data not supported"):
        as_labels(y)


def test_a_missing_y_is_named():
    with pytest.raises(ValueError, match="PrototypicalClassifier estimator requires y to be passed"):
        PrototypicalClassifier().fit([[0.0]], None)
