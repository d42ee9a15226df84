import argparse
import csv
import io
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fewshot.cli.tables import as_csv, as_json, as_table, give
from fewshot.cli.terminal import is_piped
from fewshot.utils.text import printable

ROWS = st.lists(
    st.fixed_dictionaries({"label": st.text(), "count": st.integers(), "share": st.floats(0, 1)}), min_size=1
)


@given(ROWS)
def test_csv_and_json_give_back_every_label(rows):
    labels = [row["label"] for row in rows]
    read = csv.DictReader(io.StringIO(as_csv(rows), newline=""))
    assert [row["label"] for row in read] == labels
    assert json.loads(as_json(rows)) == rows


def test_json_has_null_where_a_number_is_not_finite():
    rows = [{"accuracy": 1.0, "ci95": float("nan")}, {"accuracy": float("inf"), "ci95": np.float64("nan")}]
    expected = [{"accuracy": 1.0, "ci95": None}, {"accuracy": None, "ci95": None}]
    assert json.loads(as_json(rows), parse_constant=pytest.fail) == expected


@given(ROWS)
def test_a_table_has_a_line_a_row_whatever_the_labels(rows):
    assert len(as_table(rows).split("\n")) == len(rows) + 2
    assert all(printable(line) == line for line in as_table(rows).split("\n"))


def test_no_number_is_a_negative_zero():
    assert as_table([{"change": -0.0001}, {"change": -0.1}]).split() == ["change", "0.000", "-0.100"]


def test_numbers_stand_to_the_right_and_nothing_is_nothing():
    assert as_table([{"n": 5, "of": "x"}, {"n": 12, "of": "yy"}]) == " n  of\n 5  x\n12  yy\n"
    rows = [{"n": 0.5, "of": None}, {"n": None, "of": None}]
    assert (as_table(rows), as_csv(rows)) == ("    n\n0.500\n\n", "n,of\n0.5,\n,\n")
    assert as_table([]) == ""


def test_standard_output_by_another_name_is_standard_output(capfd):
    options = argparse.Namespace(csv="/dev/stdout", json=None, spreadsheet=False, decimal_comma=False)
    assert is_piped(options)
    give([{"label": "a", "n": 1}], options)
    assert capfd.readouterr().out == "label,n\na,1\n"


def test_a_table_fits_the_terminal_and_keeps_both_ends_of_names():
    rows = [{"image": f"archive/of/many/names/{i}/photograph-{i}.jpg", "label": "heron", "p": 0.5} for i in range(3)]
    lines = as_table(rows, 40).splitlines()
    assert max(map(len, lines)) <= 40
    assert all(line.startswith("archive/") and f"-{i}.jpg" in line for i, line in enumerate(lines[1:]))
    assert as_table(rows, 500) == as_table(rows)
    assert max(map(len, as_table(rows, 5).splitlines())) < 40  # no narrower than can be read


def test_csv_without_a_row_has_its_header(capsys):
    give([], argparse.Namespace(csv="-", json=None, spreadsheet=False, decimal_comma=False), columns=("image", "class"))
    assert capsys.readouterr().out == "image,class\n"
