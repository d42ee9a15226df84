"""The paths of a table: text that knows its row, so that messages can name it."""

from __future__ import annotations

import ntpath
import os
from collections.abc import Callable, Hashable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

#: From more than this share of missing files on, the paths of a table are taken to begin elsewhere.
MOST = 0.5


class TablePath(str):
    """A path that a table names, with what messages say of it. Pickled, it is plain text.

    Parameters
    ----------
    path : str
        Where the file should be.
    place : str
        The table and the row, as a spreadsheet counts it.
    looked : str
        The folders where the path may begin; empty for an absolute path.
    n_absent : callable
        Returns how many files of the table are missing.
    n_paths : int
        How many files the table names.

    Examples
    --------
    >>> path = TablePath("no/such.png", "birds.csv, row 2", "birds", lambda: 3, 4)
    >>> path, path.place, path.is_misplaced
    ('no/such.png', 'birds.csv, row 2', True)
    >>> path.absence.partition(";")[0]
    ' (looked in birds, which lacks 3 of 4 files of the table)'
    """

    __slots__ = ("_looked", "_n_absent", "_n_paths", "place")

    place: str
    _looked: str
    _n_absent: Callable[[], int]
    _n_paths: int

    def __new__(cls, path: str, place: str, looked: str, n_absent: Callable[[], int], n_paths: int) -> TablePath:
        """Return the path as text."""
        self = super().__new__(cls, path)
        self.place, self._looked, self._n_absent, self._n_paths = place, looked, n_absent, n_paths
        return self

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return str, (str(self),)

    @property
    def is_misplaced(self) -> bool:
        """Whether most files of the table are missing, so that its paths seem to begin elsewhere."""
        return self._n_absent() > MOST * self._n_paths

    @property
    def absence(self) -> str:
        """Where a missing file was looked for, and the cure if most are missing, as the end of a sentence."""
        if not self.is_misplaced:
            return f" (looked in {self._looked})" if self._looked else ""
        missing = f"{self._n_absent()} of {self._n_paths} files of the table"
        if not self._looked:
            return f" (so for {missing}); restore the files, or correct the paths"
        return (
            f" (looked in {self._looked}, which lacks {missing}); give the folder where its paths begin as root=FOLDER "
            "of LabeledImages.from_table, or put the table there"
        )

    def called(self, name: str) -> TablePath:
        """Return another name, such as that of a part of the picture, in the same row."""
        return TablePath(name, self.place, self._looked, self._n_absent, self._n_paths)


def table_paths(
    paths: Sequence[str], named: Sequence[str], table: str, rows: Sequence[Hashable], folders: Sequence[Path]
) -> list[TablePath]:
    """Return the paths of a table.

    Parameters
    ----------
    paths : sequence of n str
        Where the files should be.
    named : sequence of n str
        What stands in the table.
    table : str
        What messages call it.
    rows : sequence of n values
        The number of each row.
    folders : sequence of Path
        Where relative paths may begin.

    Examples
    --------
    >>> table_paths(["birds/1.png"], ["1.png"], "birds.csv", [2], [Path("birds")])[0].place
    'birds.csv, row 2'
    """
    looked = " or ".join(dict.fromkeys("the working directory" if at == Path() else str(at) for at in folders))

    @cache
    def n_absent() -> int:
        return sum(not os.path.exists(path) for path in paths)

    return [
        TablePath(path, f"{table}, row {row}", "" if _is_absolute(text) else looked, n_absent, len(paths))
        for path, text, row in zip(paths, named, rows, strict=True)
    ]


def _is_absolute(path: str) -> bool:
    return os.path.isabs(path) or ntpath.isabs(path)  # also of a list that was made on Windows
