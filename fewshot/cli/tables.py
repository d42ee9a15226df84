"""Rows for people and for programs: a table on the terminal, CSV or JSON on request."""

from __future__ import annotations

import argparse
import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fewshot.files import descriptor_of, write_text

STANDARD_OUTPUT = "-"


def give(rows: Sequence[Mapping[str, Any]], options: argparse.Namespace, whole: Any = None) -> None:
    """Write rows as CSV and JSON where asked for, and as a table unless one of them went to standard output.

    Parameters
    ----------
    rows : sequence of mapping
        All of the same columns.
    options : Namespace
        With ``csv`` and ``json``.
    whole : object, optional
        What JSON holds instead of the rows.
    """
    taken = False
    for target, text in ((options.csv, as_csv), (options.json, lambda rows: as_json(rows if whole is None else whole))):
        if _is_standard_output(target):
            print(text(rows), end="")
            taken = True
        elif target:
            Path(target).parent.mkdir(parents=True, exist_ok=True)
            write_text(target, text(rows))
    if not taken:
        print(as_table(rows), end="")


def is_piped(options: argparse.Namespace) -> bool:
    """Whether standard output belongs to a program: nothing else may go there."""
    return any(map(_is_standard_output, (options.csv, options.json)))


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows as CSV with a heading; labels with line ends or quotes are quoted."""
    buffer = io.StringIO()
    # Python before 3.13 does not quote a carriage return by itself.
    returns = any("\r" in str(value) for row in rows for value in row.values())
    quoting: Any = csv.QUOTE_NONNUMERIC if returns else csv.QUOTE_MINIMAL
    writer = csv.DictWriter(buffer, list(rows[0]) if rows else [], lineterminator="\n", quoting=quoting)
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def as_json(value: Any) -> str:
    """Return a value as JSON, readable by people too."""
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"


def as_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows as a table: text to the left, numbers to the right, control characters made visible.

    A column without anything in it is left out.

    Examples
    --------
    >>> print(as_table([{"class": "ant", "images": 5}, {"class": "bee", "images": 12}]), end="")
    class  images
    ant         5
    bee        12
    """
    if not rows:
        return ""
    columns = [column for column in rows[0] if any(row[column] != "" for row in rows)]
    cells = [columns, *([_cell(row[column]) for column in columns] for row in rows)]
    numeric = [all(isinstance(row[column], (int, float)) for row in rows) for column in columns]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    lines = (
        "  ".join(
            cell.rjust(width) if number else cell.ljust(width)
            for cell, width, number in zip(line, widths, numeric, strict=True)
        ).rstrip()
        for line in cells
    )
    return "\n".join(lines) + "\n"


def _is_standard_output(target: str | None) -> bool:
    return target is not None and (target == STANDARD_OUTPUT or descriptor_of(target) == 1)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in str(value))
