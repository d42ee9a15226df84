import numpy as np
import pytest

from fewshot.unknown import mark_unknown, unknown_mark

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
