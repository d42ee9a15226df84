"""CSV files for programs, and for spreadsheets, which need more."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import IO, Any

from fewshot.utils.text import as_unicode

#: Without this mark, Excel takes UTF-8 for the characters of one country.
MARK = "\ufeff"
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def unguarded(cell: str) -> str:
    """Return text without the apostrophe that `CsvForm` writes before what begins like a formula.

    Examples
    --------
    >>> unguarded("'=1"), unguarded("'tis")
    ('=1', "'tis")
    """
    return cell[1:] if cell[:1] == "'" and cell[1:2] in _FORMULA else cell


@dataclass(frozen=True)
class CsvForm:
    """How a CSV file is written.

    Attributes
    ----------
    spreadsheet : bool
        Whether Excel and others show every letter and run no text as a formula: with a byte order mark, and an
        apostrophe before text that begins like a formula.
    decimal_comma : bool
        Whether numbers have a comma and fields a semicolon between them, as Excel expects in most of Europe.
    """

    spreadsheet: bool = False
    decimal_comma: bool = False

    def write(self, file: IO[str], names: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        r"""Write a header and rows to a file that is open with ``newline=""``; None is an empty field.

        Examples
        --------
        >>> import io
        >>> file = io.StringIO()
        >>> CsvForm(decimal_comma=True).write(file, ["label", "probability"], [["=1", 0.5], [None, 1]])
        >>> file.getvalue()
        'label;probability\n=1;0,5\n;1\n'
        """
        if self.spreadsheet:
            file.write(MARK)
        settings: Any = {"lineterminator": "\n", "delimiter": ";" if self.decimal_comma else ","}
        # Python before 3.13 does not quote carriage returns.
        usual, quoted = csv.writer(file, **settings), csv.writer(file, **settings, quoting=csv.QUOTE_NONNUMERIC)
        usual.writerow(names)
        for row in rows:
            cells = list(map(self._cell, row))
            (quoted if any(isinstance(cell, str) and "\r" in cell for cell in cells) else usual).writerow(cells)

    def _cell(self, value: Any) -> Any:
        if isinstance(value, list):
            value = ", ".join(map(str, value))
        if isinstance(value, float) and self.decimal_comma:
            return str(value).replace(".", ",")
        value = as_unicode(value)
        return f"'{value}" if self.spreadsheet and isinstance(value, str) and value.startswith(_FORMULA) else value
