"""Output of rows: a table on the terminal, CSV or JSON on request."""

from __future__ import annotations

import argparse
import io
import json
import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import Any

from fewshot.cli.terminal import is_piped, is_standard_output, put, say, terminal_width
from fewshot.persistence.files import write_text
from fewshot.utils.spreadsheet import CsvForm
from fewshot.utils.text import as_unicode, printable

#: Least width to which a column of text is narrowed.
_LEAST = 12


def give(
    rows: Sequence[Mapping[str, Any]],
    options: argparse.Namespace,
    whole: Any = None,
    shown: Sequence[Mapping[str, Any]] | None = None,
    columns: Sequence[str] = (),
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
    columns : sequence of str, optional
        The columns of CSV if there is no row.
    """
    kinds = (
        (options.csv, lambda rows: as_csv(rows, csv_form(options), columns)),
        (options.json, lambda rows: as_json(rows if whole is None else whole)),
    )
    for target, text in kinds:
        if target:
            write(target, text(rows))
    if not is_piped(options):
        put(as_table(rows if shown is None else shown, terminal_width()))


def filled(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return rows with empty text for None, which columns of labels have."""
    return [{name: "" if value is None else value for name, value in row.items()} for row in rows]


def without_same(rows: Sequence[Mapping[str, Any]], column: str, other: str) -> Sequence[Mapping[str, Any]]:
    """Return rows for a terminal: without a column that says in all of them what another one says."""
    if any(row[column] != row[other] for row in rows):
        return rows
    return [{name: value for name, value in row.items() if name != column} for row in rows]


def finish(options: argparse.Namespace, facts: Mapping[str, Any], *lines: object) -> None:
    """Say what was done, and write the facts of it where ``--json`` asks."""
    say(*lines)
    if options.json is not None:
        write(options.json, as_json(facts))


def write(target: str, text: str) -> None:
    """Write text to a file, or to standard output if that is its name; make the folder of the file."""
    if is_standard_output(target):
        put(text)
        return
    Path(target).parent.mkdir(parents=True, exist_ok=True)
    write_text(target, text)


def csv_form(options: argparse.Namespace) -> CsvForm:
    """Return how CSV is written by the options."""
    return CsvForm(options.spreadsheet or options.decimal_comma, options.decimal_comma)


def as_csv(rows: Sequence[Mapping[str, Any]], form: CsvForm | None = None, columns: Sequence[str] = ()) -> str:
    """Return rows with the same columns as CSV with a header; text with line breaks or quotes is quoted."""
    buffer, names = io.StringIO(newline=""), list(rows[0] if rows else columns)
    (form or CsvForm()).write(buffer, names, ([row[name] for name in names] for row in rows))
    return buffer.getvalue()


def as_json(value: Any) -> str:
    """Return a value as indented JSON."""
    return json.dumps(_in_unicode(value), indent=1, ensure_ascii=False) + "\n"


def as_table(rows: Sequence[Mapping[str, Any]], most: int | None = None) -> str:
    """Return rows as a table: text left-aligned, numbers right-aligned, control characters escaped.

    None is an empty cell. Empty columns are left out. With `most`, the longest text is cut until lines have that many
    characters; if columns of 12 do not suffice for it, each row is a block with a line a column.

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
        room = most - 2 * (len(columns) - 1)
        widths = _fitting(widths, numeric, room)
        if sum(widths) > room:
            return "\n".join(as_facts(dict(zip(columns, line, strict=True)), most) for line in cells[1:])
    lines = (
        "  ".join(
            cell.rjust(width) if number else _cut(cell, width).ljust(width)
            for cell, width, number in zip(line, widths, numeric, strict=True)
        ).rstrip()
        for line in cells
    )
    return "\n".join(lines) + "\n"


def as_facts(facts: Mapping[str, Any], most: int | None = None) -> str:
    """Return facts as lines of a name and a value, which goes on below itself beyond `most` characters.

    Examples
    --------
    >>> print(as_facts({"class": "ant", "why": "like the bees"}, 14), end="")
    class  ant
    why    like
           the
           bees
    """
    names = [printable(name) for name in facts]
    indent = max(map(len, names), default=0) + 2
    room = None if most is None else max(most - indent, _LEAST // 2)
    lines = []
    for name, value in zip(names, facts.values(), strict=True):
        text = _cell(value)
        parts = [text] if room is None else textwrap.wrap(text, room, break_on_hyphens=False) or [""]
        lines += [f"{'' if i else name:{indent}}{part}".rstrip() for i, part in enumerate(parts)]
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


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:z.3f}"
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
