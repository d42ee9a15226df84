"""Values that JSON can hold."""

import datetime
import enum
import json
import math

import numpy as np
import pytest

from fewshot.utils.plain import confusion_rows, plain, plain_dict


def is_plain(value):
    """Whether a value consists of plain Python types alone, which JSON can hold; types exactly, not derived ones."""
    json.dumps(value, allow_nan=False)
    if type(value) is dict:
        return all(type(name) is str and is_plain(one) for name, one in value.items())
    if type(value) is list:
        return all(map(is_plain, value))
    return value is None or type(value) in (str, int, float, bool)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.float64(0.5), 0.5),
        (np.float32("nan"), None),
        (-math.inf, None),
        (np.bool_(True), True),
        (np.int8(3), 3),
        (np.str_("ant"), "ant"),
        (enum.StrEnum("Kind", {"ANT": "a"}).ANT, "a"),
        (datetime.date(2024, 5, 1), "2024-05-01"),
        ((1, (2, None)), [1, [2, None]]),
        (np.array([[1.0, np.nan]]), [[1.0, None]]),
        ({3: np.arange(2)}, {"3": [0, 1]}),
    ],
)
def test_values_become_plain(value, expected):
    found = plain(value)
    assert is_plain(found)
    assert (found, type(found)) == (expected, type(expected))
    assert plain_dict(one=value) == {"one": expected}


def test_a_confusion_has_what_occurred():
    rows = confusion_rows([1, "x"], np.array([[0, 2], [0, 5]]), "queries")
    assert rows == [{"class": 1, "answer": "x", "queries": 2}, {"class": "x", "answer": "x", "queries": 5}]
    assert all(map(is_plain, rows))
