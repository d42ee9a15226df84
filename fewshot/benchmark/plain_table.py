"""Tables of results that are no accuracies on episodes, such as rates of "unknown" or times: as they were printed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from fewshot.benchmark.frozen import MOST_BYTES
from fewshot.benchmark.result import Source
from fewshot.persistence.files import read_regular


@dataclass(frozen=True, eq=False)
class PlainTable:
    """A table as it was printed.

    Attributes
    ----------
    title : str
        What it shows; empty if the file says it all.
    frame : DataFrame
        Its cells as text, the first column as the index.
    source : Source
        The file of the same results in JSON.
    """

    title: str
    frame: pd.DataFrame
    source: Source


def tables_beside(path: Path, source: Source) -> list[PlainTable]:
    """Return the tables of NAME.md beside NAME.json, which the scripts of ``benchmarks`` write together.

    Parameters
    ----------
    path : Path
        The JSON file.
    source : Source
        What it is on the page.

    Raises
    ------
    ValueError
        If a row has more or fewer cells than the headings.
    """
    beside = path.with_suffix(".md")
    if not beside.is_file():
        return []
    text = read_regular(beside, MOST_BYTES, follow=True).decode()
    made: list[PlainTable] = []
    for title, lines in _parts(text):
        columns, _, *rows = [[cell.strip().replace("`", "") for cell in line.strip("|").split("|")] for line in lines]
        if uneven := [i for i, row in enumerate(rows) if len(row) != len(columns)]:
            raise ValueError(
                f"whose table in {beside.name} has {len(columns)} headings, and row {uneven[0]} has "
                f"{len(rows[uneven[0]])} cells; run its command again"
            )
        index = pd.Index([row[0] for row in rows], name=columns[0])
        made.append(
            PlainTable(title, pd.DataFrame([row[1:] for row in rows], index, columns[1:], dtype=object), source)
        )
    return made


def _parts(text: str) -> list[tuple[str, list[str]]]:
    """Return the lines of each table in Markdown, with the paragraph before it as its title."""
    parts: list[tuple[str, list[str]]] = []
    title = ""
    for block in text.split("\n\n"):
        lines = [line for line in block.splitlines() if line.strip()]
        rows = [line for line in lines if line.startswith("|")]
        said = " ".join(line for line in lines if not line.startswith("|"))
        if len(rows) > 1 and set(rows[1]) <= set("|-: "):
            parts.append((said or title, rows))
        title = "" if rows else said
    return parts
