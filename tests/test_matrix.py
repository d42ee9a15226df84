"""The matrix of faults and bad input: every row has a test that carries its number in its name.

Tests live beside what they test; this module lists the rows, finds their tests and fails where one has none.
"""

import re
from pathlib import Path

import pytest

ROWS = {
    1: "NaN in a query", 2: "infinity in a query", 3: "NaN in the support", 4: "scores that are all NaN",
    5: "no support", 6: "no queries", 7: "one class only", 8: "a class registered without support",
    9: "weights that are all zero", 10: "negative weights", 11: "queries of another length",
    12: "a zero vector under the cosine", 13: "values whose squares overflow", 14: "half precision",
    15: "a large common offset", 16: "ties", 17: "softmax over large distances", 18: "scores all minus infinity",
    19: "float64 input", 20: "integers and booleans", 21: "complex numbers and text", 22: "arrays of any layout",
    23: "read-only and mapped arrays", 24: "sparse matrices", 25: "data frames", 26: "tensors with gradients",
    27: "tensors on an accelerator", 28: "other than two dimensions", 29: "unequal lengths", 30: "very large input",
    31: "duplicated support", 32: "duplicate keys", 33: "labels of mixed types", 34: "None among labels",
    35: "NaN among labels", 36: "float labels", 37: "bytes as labels", 38: "boolean labels", 39: "labels of any text",
    40: "labels with NUL, line ends, markup", 41: "categories without members", 42: "labels of two dimensions",
    43: "labels longer than those known", 44: "new classes in partial_fit", 45: "the last example of a class removed",
    46: "integers above 2**53 as labels", 47: "images of mixed sizes", 48: "transparency", 49: "modes of colour",
    50: "16 bits", 51: "floats", 52: "EXIF orientation", 53: "animations", 54: "truncation", 55: "flipped bits (JPEG)",
    56: "flipped bits (PNG)", 57: "files that are no image", 58: "decompression bombs", 59: "extreme aspect",
    60: "no pixels, one pixel", 61: "missing files", 62: "links that lead round, pipes", 63: "paths out of the root",
    64: "hidden files, folders of nearly one name", 65: "channels first or last, floats, blue first",
    66: "classes too small for an episode", 67: "fewer classes than n_way", 68: "one image in support and query",
    69: "files of another length", 70: "flipped bits in an artifact", 71: "another format or embedder",
    72: "pickles", 73: "a process killed while saving", 74: "a full disk", 75: "two savers, a reader",
    76: "losses that are not finite", 77: "kills, signals, no memory in training", 78: "learning while answering",
    79: "processes started after a search",
}  # fmt: skip
NAME = re.compile(r"^ *def (test_\w+)\(", re.MULTILINE)
NUMBERS = re.compile(r"(?:^|_)rows?_((?:\d+_)+)")


def rows_with_tests():
    found = {}
    for path in Path(__file__).parent.glob("test_*.py"):
        for name in NAME.findall(path.read_text(encoding="utf-8")):
            for numbers in NUMBERS.findall(name):
                for number in numbers.strip("_").split("_"):
                    found.setdefault(int(number), []).append(f"{path.name}::{name}")
    return found


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"row_{row}_{ROWS[row].replace(' ', '_')}")
def test_every_row_has_a_test(row):
    assert rows_with_tests().get(row), f"row {row} ({ROWS[row]}) has no test"


def test_no_test_carries_the_number_of_no_row():
    assert set(rows_with_tests()) <= set(ROWS)
    assert list(ROWS) == list(range(1, 80))
