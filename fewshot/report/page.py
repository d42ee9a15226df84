"""A self-contained HTML page of text, tables, figures and pictures of learning tasks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from fewshot.persistence.files import is_special, write_text
from fewshot.report.charts import svg_of
from fewshot.report.elsewhere import Entry, entry_of, script_of
from fewshot.report.escaping import Pixels, label_of, text_of
from fewshot.report.listing import Listing, NamedFile
from fewshot.report.pictures import Pictures
from fewshot.report.query import Picture, QueryAnswer, card_of, picture_of
from fewshot.report.related import PLACE, About, link
from fewshot.utils.text import counted

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

#: Most bytes of what a file shows, so that it has less than 5 MB: boxes and cards beyond go to the next one.
MOST_BYTES = 4_900_000
#: Most columns of a table that fits on a phone; the rows of a wider one become boxes there.
_MOST_COLUMNS = 2


@dataclass
class _Run:
    """Boxes or cards beside each other, which may go on in another file under the same number."""

    kind: str
    pieces: list[str]
    number: int = 0

    def __str__(self) -> str:
        return f'<div class="{self.kind}" data-run="{self.number}">{"".join(self.pieces)}</div>'


class Page:
    """A page, built part by part; all text is escaped.

    Parameters
    ----------
    title : str
        Title and heading.
    lead : str, default=""
        A paragraph below the heading.
    about : About, optional
        The classifier that the page is about: pages about it in the same folder have links to each other.

    Examples
    --------
    >>> from fewshot.report.page import Page
    >>> page = Page("Accuracy of <my> model")
    >>> page.section("Results", "As measured.")
    >>> "&lt;my&gt;" in page.to_html()
    True
    """

    def __init__(self, title: str, lead: str = "", about: About | None = None) -> None:
        self.title, self._about = title, about
        self._pictures, self._n_figures = Pictures(), 0
        of = f'<p class="of">fewshot{f" · <bdi>{text_of(about.name)}</bdi>" if about else ""}</p>'
        lead = f'<p class="lead">{text_of(lead)}</p>' if lead else ""
        self._head = f"<header>{of}<h1>{text_of(title)}</h1>{lead}</header>"
        self._parts: list[str | _Run] = []

    def section(self, title: str, text: str = "") -> None:
        """Begin a section with a heading and paragraphs, which blank lines separate."""
        self._parts.append(f"<h2>{text_of(title)}</h2>")
        self._parts += [f"<p>{text_of(' '.join(part.splitlines()))}</p>" for part in text.split("\n\n") if part]

    def cards(self, items: Sequence[tuple[str, str]]) -> None:
        """Add headline numbers, each (number, description)."""
        shown = (
            f'<div class="card"><b>{text_of(value)}</b><span>{text_of(what)}</span></div>' for value, what in items
        )
        self._parts.append(f'<div class="cards">{"".join(shown)}</div>')

    def table(self, frame: pd.DataFrame, caption: str = "") -> None:
        """Add a table, with its index as row headings; on a narrow screen, rows of many columns become boxes."""
        columns = [text_of(column) for column in frame.columns]
        head = "".join(f'<th scope="col">{name}</th>' for name in (text_of(frame.index.name or ""), *columns))
        rows = "".join(
            f'<tr><th scope="row">{text_of(name)}</th>'
            + "".join(f'<td data-of="{of}">{_shown(cell)}</td>' for of, cell in zip(columns, cells, strict=True))
            + "</tr>"
            for name, cells in zip(frame.index, frame.to_numpy(dtype=object), strict=True)
        )
        title = f"<caption>{text_of(caption)}</caption>" if caption else ""
        kind = "wide" if len(columns) > _MOST_COLUMNS else "narrow"
        self._parts.append(
            f'<div class="scroll" tabindex="0"><table class="{kind}">{title}<thead><tr>{head}</tr></thead>'
            f"<tbody>{rows}</tbody></table></div>"
        )

    def listing(self, listing: Listing) -> None:
        """Add a section with a table that readers search and narrow, together with the others of the page."""
        self._parts.append(str(listing))

    def file(self, file: NamedFile) -> None:
        """Add a box about a file to which cells of a listing lead."""
        self._parts.append(str(file))

    def figure(self, figure: Figure, alt: str, caption: str = "") -> None:
        """Add a matplotlib figure with an alternative text, drawn in the fonts and colours of the page."""
        self._n_figures += 1
        title = f"<figcaption>{text_of(caption)}</figcaption>" if caption else ""
        drawn = svg_of(figure, alt, self._n_figures)
        self._parts.append(f'<figure class="chart"><div class="scroll" tabindex="0">{drawn}</div>{title}</figure>')

    def code(self, text: str) -> None:
        """Add a command or a listing."""
        lines = "\n".join(text_of(line) for line in text.split("\n"))
        self._parts.append(f'<pre tabindex="0">{lines}</pre>')

    def task(self, support: Mapping[Any, Sequence[Pixels]], queries: Sequence[QueryAnswer], caption: str = "") -> None:
        """Add a learning task: a box of support images for each class, then queries and their answers."""
        if caption:
            self._parts.append(f'<p class="lead">{text_of(caption)}</p>')
        if support:
            boxes = [self._box(label, images) for label, images in support.items()]
            self._parts.append(_Run("classes", boxes))
        if queries:
            self._parts.append(_Run("queries", [card_of(query, self._pictures) for query in queries]))

    def _box(self, label: Any, images: Sequence[Pixels]) -> str:
        tiles = "".join(self._pictures.own(image, label) for image in images)
        return f'<div class="class">{label_of(label)}<div>{tiles}</div></div>'

    def pictures(self, items: Sequence[Picture | tuple[Pixels, str, str]]) -> None:
        """Add pictures with text: (image, text, name), and the pictures that say why, as neighbours of a query."""
        self._parts.append(_Run("queries", [picture_of(item, self._pictures) for item in items]))

    def rerun(self, command: str, facts: Mapping[str, Any], heading: str) -> None:
        """Add how to repeat a run: its command, and a table of the facts that its results depend on."""
        import pandas as pd

        self.section(
            "Run it again", "The same seed, versions and thread count give the same results, apart from times."
        )
        self.code(command)
        values = {name: str(value) for name, value in facts.items()}
        self.table(pd.DataFrame.from_dict(values, orient="index", columns=["value"]).rename_axis(heading))

    def to_html(self, footer: str = "") -> str:
        """Return the page, as one file."""
        return self._file(_joined(self._parts), footer)

    def write(self, path: str | Path, footer: str = "") -> None:
        """Write the page to a file, atomically.

        What would make it larger than `MOST_BYTES` goes to files next to it, ``page-2.html`` and so on, with links.
        """
        path = Path(path)
        parts = [self._parts] if is_special(path) else self._files()
        bodies, cards = [_joined(part) for part in parts], _cards(parts) if len(parts) > 1 else []
        names = [path.name, *(f"{path.stem}-{n}{path.suffix}" for n in range(2, len(bodies) + 1))]
        for i in range(len(bodies))[::-1]:  # the first one leads to the others, so it comes last
            others = script_of([card for card in cards if card[0] != i])
            links = _links_of_parts(names, i)
            write_text(path.with_name(names[i]), self._file(bodies[i], footer, links, i == 0, others))
        if self._about is not None and not is_special(path):
            link(path)

    def _files(self) -> list[list[str | _Run]]:
        """Return what each file shows: as many boxes and cards as fit, beside what it knows of the other files."""
        most = MOST_BYTES - len(script_of(_cards([self._parts])).encode())
        most = max(most, MOST_BYTES // 2)  # of 2e4 cards or more, whose files are larger
        found: list[list[str | _Run]] = [[]]
        known: set[str] = set()
        taken = 0
        for number, part in enumerate(self._parts):
            if isinstance(part, str):
                taken += self._pictures.size(part, known)
                found[-1].append(part)
                continue
            run = _Run(part.kind, [], number)
            found[-1].append(run)
            for piece in part.pieces:
                taken += self._pictures.size(piece, known)
                if taken > most:
                    run, known = _Run(part.kind, [], number), set()
                    found.append([run])
                    taken = self._pictures.size(piece, known)
                run.pieces.append(piece)
        return found

    def _file(self, body: str, footer: str, parts: str = "", is_first: bool = True, others: str = "") -> str:
        place = files("fewshot.report")
        css, script = ((place / name).read_text(encoding="utf-8") for name in ("style.css", "page.js"))
        again = parts.replace('aria-label="Parts"', 'aria-label="Parts, at the end"')  # so that the two differ in name
        mark = self._about.mark if self._about and is_first else ""
        return (
            f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">{mark}'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>{text_of(self.title)}</title><style>\n{css}{self._pictures.style(body)}</style></head>\n"
            f"<body><main>\n{PLACE}\n{self._head}\n{parts}\n{body}\n{again}\n"
            f"<footer>{text_of(footer)}</footer></main>\n{others}<script>\n{script}</script></body></html>\n"
        )


def count_card(n: int, noun: str) -> tuple[str, str]:
    """Return a headline number that counts something; see `Page.cards`.

    Examples
    --------
    >>> count_card(1, "class"), count_card(2, "class")
    (('1', 'class'), ('2', 'classes'))
    """
    number, _, what = counted(n, noun).partition(" ")
    return number, what


def _shown(cell: Any) -> str:
    """Return a cell of a table; a number that there is not is left blank."""
    return "" if isinstance(cell, float) and math.isnan(cell) else text_of(cell)


def _joined(parts: Sequence[str | _Run]) -> str:
    return "\n".join(map(str, parts))


def _cards(files: Sequence[Sequence[str | _Run]]) -> list[Entry]:
    """Return what can be searched in the other files."""
    return [
        entry_of(card, i, run.number)
        for i, parts in enumerate(files)
        for run in parts
        if isinstance(run, _Run) and run.kind == "queries"
        for card in run.pieces
    ]


def _links_of_parts(names: Sequence[str], now: int) -> str:
    if len(names) == 1:
        return ""
    shown = (
        f'<a href="{text_of(quote(name))}"{" aria-current=page" if i == now else ""}>{i + 1}</a>'
        for i, name in enumerate(names)
    )
    return f'<nav class="parts" aria-label="Parts"><span>Part</span> {" ".join(shown)}</nav>'
