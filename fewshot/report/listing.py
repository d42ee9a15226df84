"""Tables that readers search and narrow, whose cells have notes and links, and boxes about the files behind them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from fewshot.report.escaping import text_of


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of a `Listing`; one with `filters` can be narrowed to a value, under that label."""

    name: str
    filters: str = ""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A cell of a `Listing`.

    Attributes
    ----------
    text : str
        What it says.
    note : str
        A second line, in small.
    badge : str
        A mark behind the text.
    href : str
        Where the text leads.
    kind, note_kind : str
        Classes of the style sheet.
    sort : float or None
        What to sort by instead of the text.
    value : str
        What to narrow by instead of the text.
    """

    text: str
    note: str = ""
    badge: str = ""
    href: str = ""
    kind: str = ""
    note_kind: str = ""
    sort: float | None = None
    value: str = ""

    def html(self, tag: str, of: str) -> str:
        """Return it as an element of a row."""
        text = text_of(self.text)
        text = f'<a href="{text_of(self.href)}">{text}</a>' if self.href else text
        badge = f' <span class="badge">{text_of(self.badge)}</span>' if self.badge else ""
        note = f"<small{_attribute('class', self.note_kind)}>{text_of(self.note)}</small>" if self.note else ""
        sort = "" if self.sort is None else f"{self.sort:.10g}"
        facts = _attribute("class", self.kind) + _attribute("data-sort", sort) + _attribute("data-value", self.value)
        place = ' scope="row"' if tag == "th" else f' data-of="{text_of(of)}"'
        shown = f"{text}{badge}{note}"
        return f"<{tag}{place}{facts}>{f'<span>{shown}</span>' if shown else ''}</{tag}>"


@dataclass(frozen=True)
class Listing:
    """A section with a table.

    Attributes
    ----------
    title : str
        Its heading.
    columns : sequence of Column
        The first is that of row headings.
    rows : sequence of (str, sequence of Cell)
        The class of each row in the style sheet, or "", and its cells.
    caption : str
        What the table shows.
    """

    title: str
    columns: Sequence[Column]
    rows: Sequence[tuple[str, Sequence[Cell]]]
    caption: str = ""

    def __str__(self) -> str:
        heads = "".join(
            f'<th scope="col"{_attribute("data-filter", column.filters)}>{text_of(column.name)}</th>'
            for column in self.columns
        )
        rows = "".join(f"<tr{_attribute('class', kind)}>{self._cells(cells)}</tr>" for kind, cells in self.rows)
        caption = f"<caption>{text_of(self.caption)}</caption>" if self.caption else ""
        return (
            f"<section><h2>{text_of(self.title)}</h2>"
            f'<div class="scroll" tabindex="0"><table class="wide listing">{caption}<thead><tr>{heads}</tr></thead>'
            f"<tbody>{rows}</tbody></table></div></section>"
        )

    def _cells(self, cells: Sequence[Cell]) -> str:
        return "".join(
            cell.html("td" if i else "th", column.name)
            for i, (column, cell) in enumerate(zip(self.columns, cells, strict=True))
        )


@dataclass(frozen=True, kw_only=True)
class NamedFile:
    """A box about a file.

    Attributes
    ----------
    anchor, title, text : str
        Its place in links, its heading, and a sentence.
    path : str
        The file, relative to the page.
    command : str
        What wrote it; empty if unknown.
    facts : mapping
        What the run depended on, behind a button.
    """

    anchor: str
    title: str
    text: str
    path: str
    command: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        command = f'<pre tabindex="0">{text_of(self.command)}</pre>' if self.command else ""
        facts = "".join(f"<dt>{text_of(name)}</dt><dd>{text_of(value)}</dd>" for name, value in self.facts.items())
        facts = f"<details><summary>Versions, seed and machine</summary><dl>{facts}</dl></details>" if facts else ""
        link = f'<a href="{text_of(quote(self.path))}">{text_of(self.path)}</a>'
        return (
            f'<div class="file" id="{text_of(self.anchor)}"><h3>{text_of(self.title)}</h3>'
            f"<p>{text_of(self.text)} {link}</p>{command}{facts}</div>"
        )


def _attribute(name: str, value: str) -> str:
    return f' {name}="{text_of(value)}"' if value else ""
