import warnings

import numpy as np
import pandas as pd
import pytest

from fewshot import PrototypicalClassifier
from fewshot.errors import UnknownNameError
from fewshot.utils.values import check_count, check_name, check_number, check_values
from tests.together import together


def test_numbers_are_taken_for_what_they_are():
    assert check_number("rate", np.float32(0.5)) == 0.5
    assert check_count("size", np.int64(3)) == 3
    assert check_number("rate", 0) == 0.0


@pytest.mark.parametrize("value", ["1", None, float("nan"), float("inf"), -0.1, [1.0]])
def test_what_is_no_number_is_named(value):
    with pytest.raises(ValueError, match="rate is .*; expected a number of at least 0"):
        check_number("rate", value)


@pytest.mark.parametrize("value", ["1", None, 1.0, True, 0])
def test_what_is_no_count_is_named(value):
    with pytest.raises(ValueError, match="size is .*; expected a whole number of at least 1"):
        check_count("size", value)


def test_what_must_be_above_is_not_equal():
    with pytest.raises(ValueError, match="rate is 0; expected a number above 0"):
        check_number("rate", 0, above=True)


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


def test_a_name_that_is_none_of_the_known_is_refused_with_similar_ones():
    assert check_name("prior", "uniform", ("uniform", "support")) == "uniform"
    with pytest.raises(UnknownNameError, match="no prior is called 'unifrom'; did you mean 'uniform'"):
        check_name("prior", "unifrom", ("uniform", "support"))


@pytest.mark.parametrize(
    ("X", "found", "kind"),
    [
        (["text", "more"], r"'text' at row 0 \(could not convert string to float: 'text'\)", ValueError),
        ([["1", "2"], ["3", "x"]], "'x' at row 1, column 1 ", ValueError),
        ([[b"x"], [b"1"]], "b'x' at row 0, column 0 ", ValueError),
        ([[1, 2j], [0, 0]], r"\(1\+0j\) at row 0, column 0 \(Complex data not supported\)", ValueError),
        ([[None, {}], [0.0, 1.0]], "{} at row 0, column 1 .*not 'dict'", TypeError),
        (pd.DataFrame({"a": [0.0, 1.0], "b": [2.0, "high"]}), "'high' at row 1, column 1 ", ValueError),
        (pd.DataFrame({"a": [0, 1], "b": [2, "x"]}, index=[5, 3]), r"'x' at row 1 \(index 3\), column 1 ", ValueError),
    ],
)
def test_what_is_no_real_number_is_named_with_its_place(X, found, kind):
    model = PrototypicalClassifier().fit([[0.0, 1.0], [1.0, 0.0]], ["x", "y"])
    for call in (lambda: PrototypicalClassifier().fit(X, ["x", "y"]), lambda: model.predict(X)):
        with pytest.raises(kind, match=f"X holds {found}.*; expected embeddings, which are real numbers: embed"):
            call()


@pytest.mark.parametrize(
    ("X", "cure"),
    [
        (["[0.0, 1.0]", "[1.0, 0.0]"], r"a vector as text, as to_csv writes it; parse it \(json.loads\)"),
        (pd.DataFrame({"embedding": [[0.0, 1.0], [1.0, 0.0]], "label": ["a", "b"]}), "the column of vectors alone"),
    ],
)
def test_embeddings_in_the_wrong_form_are_told_how_to_get_the_right_one(X, cure):
    with pytest.raises(ValueError, match=cure):
        PrototypicalClassifier().fit(X, ["x", "y"])


def test_a_row_that_is_not_finite_is_named_with_the_index_of_pandas():
    frame = pd.DataFrame({"a": [0.0, np.nan], "b": [1.0, 2.0]}, index=[5, 3])
    for X in (frame, pd.Series(list(frame.to_numpy()), frame.index)):
        with pytest.raises(ValueError, match=r"NaN at row 1 \(index 3\), column 0; drop or repair that row"):
            PrototypicalClassifier().fit(X, ["x", "y"])
