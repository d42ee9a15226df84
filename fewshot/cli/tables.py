"""Output of rows: a table on the terminal, CSV or JSON on request."""

from __future__ import annotations

import argparse
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import Any

from fewshot.cli.terminal import put, terminal_width
from fewshot.persistence.files import descriptor_of, write_text
from fewshot.utils.spreadsheet import CsvForm
from fewshot.utils.text import as_unicode, printable

STANDARD_OUTPUT = "-"
#: Least width to which a column of text is narrowed.
_LEAST = 12


def give(
    rows: Sequence[Mapping[str, Any]],
    options: argparse.Namespace,
    whole: Any = None,
    shown: Sequence[Mapping[str, Any]] | None = None,
) -> None:
    """Write rows as requested to CSV and JSON, and print a table unless one of them went to standard output.

    Parameters
    ----------
    rows : sequence of mapping
        Rows with the same columns.
    options : Namespace
        With ``csv``, ``json``, ``spreadsheet`` and ``decimal_comma``.
    whole : object, optional
        Written as JSON instead of the rows.
    shown : sequence of mapping, optional
        Printed as a table instead of the rows.
    """
    taken = False
    kinds = (
        (options.csv, lambda rows: as_csv(rows, csv_form(options))),
        (options.json, lambda rows: as_json(rows if whole is None else whole)),
    )
    for target, text in kinds:
        if _is_standard_output(target):
            put(text(rows))
            taken = True
        elif target:
            Path(target).parent.mkdir(parents=True, exist_ok=True)
            write_text(target, text(rows))
    if not taken:
        put(as_table(rows if shown is None else shown, terminal_width()))


def without_same(rows: Sequence[Mapping[str, Any]], column: str, other: str) -> Sequence[Mapping[str, Any]]:
    """Return rows for a terminal: without a column that says in all of them what another one says."""
    if any(row[column] != row[other] for row in rows):
        return rows
    return [{name: value for name, value in row.items() if name != column} for row in rows]


def is_piped(options: argparse.Namespace) -> bool:
    """Whether standard output carries CSV or JSON for a program, so that nothing else may go there."""
    return any(map(_is_standard_output, (options.csv, options.json)))


def csv_form(options: argparse.Namespace) -> CsvForm:
    """Return how CSV is written by the options."""
    return CsvForm(options.spreadsheet or options.decimal_comma, options.decimal_comma)


def as_csv(rows: Sequence[Mapping[str, Any]], form: CsvForm | None = None) -> str:
    """Return rows with the same columns as CSV with a header; text with line breaks or quotes is quoted."""
    buffer, names = io.StringIO(newline=""), list(rows[0]) if rows else []
    (form or CsvForm()).write(buffer, names, ([row[name] for name in names] for row in rows))
    return buffer.getvalue()


def as_json(value: Any) -> str:
    """Return a value as indented JSON."""
    return json.dumps(_in_unicode(value), indent=1, ensure_ascii=False) + "\n"


def as_table(rows: Sequence[Mapping[str, Any]], most: int | None = None) -> str:
    """Return rows as a table: text left-aligned, numbers right-aligned, control characters escaped.

    None is an empty cell. Empty columns are left out. With `most`, the longest text is cut until lines have that many
    characters, if columns of 12 suffice for it.

    Examples
    --------
    >>> print(as_table([{"class": "ant", "images": 5}, {"class": "bee", "images": 12}]), end="")
    class  images
    ant         5
    bee        12
    """
    if not rows:
        return ""
    columns = [column for column in rows[0] if any(row[column] not in ("", None) for row in rows)]
    cells = [columns, *([_cell(row[column]) for column in columns] for row in rows)]
    numeric = [all(isinstance(row[column], (int, float, NoneType)) for row in rows) for column in columns]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    if most is not None:
        widths = _fitting(widths, numeric, most - 2 * (len(columns) - 1))
    lines = (
        "  ".join(
            cell.rjust(width) if number else _cut(cell, width).ljust(width)
            for cell, width, number in zip(line, widths, numeric, strict=True)
        ).rstrip()
        for line in cells
    )
    return "\n".join(lines) + "\n"


def _fitting(widths: list[int], numeric: list[bool], most: int) -> list[int]:
    """Narrow the widest columns of text until all have `most` characters together."""
    widths = list(widths)
    while sum(widths) > most:
        widest = max((i for i, number in enumerate(numeric) if not number), key=lambda i: widths[i], default=None)
        if widest is None or widths[widest] <= _LEAST:
            break
        widths[widest] -= 1
    return widths


def _cut(cell: str, width: int) -> str:
    """Return a cell without its middle if it is too long: names of files differ at their ends."""
    if len(cell) <= width:
        return cell
    end = (width - 1) // 2
    return f"{cell[: width - 3 - end]}...{cell[len(cell) - end :]}"


def _is_standard_output(target: str | None) -> bool:
    return target is not None and (target == STANDARD_OUTPUT or descriptor_of(target) == 1)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    if value is None:
        return ""
    return printable(_joined(value) or "(none)" if isinstance(value, list) else value)


def _joined(values: list[Any]) -> str:
    return ", ".join(map(str, values))


def _in_unicode(value: Any) -> Any:
    """Escape bytes that are not UTF-8, and replace NaN and infinities by null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {as_unicode(name): _in_unicode(one) for name, one in value.items()}
    return [_in_unicode(one) for one in value] if isinstance(value, (list, tuple)) else as_unicode(value)
