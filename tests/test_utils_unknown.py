import numpy as np
import pytest

from fewshot.utils.unknown import check_unknown, mark_unknown, unknown_mark

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
