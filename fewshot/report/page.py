"""A self-contained HTML page of text, tables, figures and pictures of learning tasks."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fewshot.persistence.files import write_text
from fewshot.utils.text import printable

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


#: Neighbours: label, similarity and image of each.
Near = Sequence[tuple[Any, float, "NDArray[np.uint8] | bytes"]]
#: An image, text, name, the neighbours that say why, and their heading.
Picture = tuple["NDArray[np.uint8] | bytes", str, str, Near, str]


@dataclass(frozen=True, eq=False)
class QueryAnswer:
    """A query image and its answer.

    Attributes
    ----------
    image : uint8 array of shape (h, w) or (h, w, 3), or bytes
        The query; bytes are the content of a PNG or JPEG file.
    label : object
        Its true class, or None if unknown.
    answers : sequence of (label, probability, similarity)
        The likeliest classes, best first; the similarity may be None.
    name : str, default=""
        Name of the query.
    neighbours : sequence of (label, similarity, image)
        The nearest support images.
    verdict : object, optional
        The answer, if it is not the likeliest class but the label for unknown images.
    note : str, default=""
        A sentence about the answer.
    """

    image: NDArray[np.uint8] | bytes
    label: Any
    answers: Sequence[tuple[Any, float, float | None]]
    name: str = ""
    neighbours: Near = ()
    verdict: Any = None
    note: str = ""

    def __post_init__(self) -> None:
        if not self.answers:
            raise ValueError(f"the query of {self.label!r} has no answers; expected at least one")


class Page:
    """A page, built part by part; all text is escaped.

    Parameters
    ----------
    title : str
        Title and heading.
    lead : str, default=""
        A paragraph below the heading.

    Examples
    --------
    >>> from fewshot.report.page import Page
    >>> page = Page("Accuracy of <my> model")
    >>> page.section("Results", "As measured.")
    >>> "&lt;my&gt;" in page.to_html()
    True
    """

    def __init__(self, title: str, lead: str = "") -> None:
        self.title = title
        self._parts = [f"<header><h1>{_text(title)}</h1>"]
        self._parts.append(f'<p class="lead">{_text(lead)}</p></header>' if lead else "</header>")

    def section(self, title: str, text: str = "") -> None:
        """Begin a section with a heading and paragraphs, which blank lines separate."""
        self._parts.append(f"<h2>{_text(title)}</h2>")
        self._parts += [f"<p>{_text(' '.join(part.splitlines()))}</p>" for part in text.split("\n\n") if part]

    def cards(self, items: Sequence[tuple[str, str]]) -> None:
        """Add headline numbers, each (number, description)."""
        cards = (f'<div class="card"><b>{_text(value)}</b><span>{_text(what)}</span></div>' for value, what in items)
        self._parts.append(f'<div class="cards">{"".join(cards)}</div>')

    def table(self, frame: pd.DataFrame, caption: str = "") -> None:
        """Add a table, with its index as row headings; on a narrow screen it scrolls in its own box."""
        head = "".join(f'<th scope="col">{_text(c)}</th>' for c in (frame.index.name or "", *frame.columns))
        rows = "".join(
            f'<tr><th scope="row">{_text(name)}</th>' + "".join(f"<td>{_text(cell)}</td>" for cell in cells) + "</tr>"
            for name, cells in zip(frame.index, frame.to_numpy(dtype=object), strict=True)
        )
        title = f"<caption>{_text(caption)}</caption>" if caption else ""
        self._parts.append(
            f'<div class="scroll" tabindex="0"><table>{title}<thead><tr>{head}</tr></thead>'
            f"<tbody>{rows}</tbody></table></div>"
        )

    def figure(self, figure: Figure, alt: str, caption: str = "", small: bool = False) -> None:
        """Add a matplotlib figure with an alternative text."""
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=160, bbox_inches="tight", facecolor="white")
        title = f"<figcaption>{_text(caption)}</figcaption>" if caption else ""
        self._parts.append(
            f'<figure{" class=small" if small else ""} tabindex="0"><img src="{_data_uri(buffer.getvalue())}" '
            f'alt="{_text(alt)}">{title}</figure>'
        )

    def code(self, text: str) -> None:
        """Add a command or a listing."""
        lines = "\n".join(_text(line) for line in text.split("\n"))
        self._parts.append(f'<pre tabindex="0">{lines}</pre>')

    def task(
        self,
        support: Mapping[Any, Sequence[NDArray[np.uint8] | bytes]],
        queries: Sequence[QueryAnswer],
        caption: str = "",
    ) -> None:
        """Add a learning task: the support images of each class, then queries and their answers."""
        classes = "".join(
            f'<div class="class"><div>{"".join(_tile(image, label) for image in images)}</div>{_label(label)}</div>'
            for label, images in support.items()
        )
        title = f'<p class="lead">{_text(caption)}</p>' if caption else ""
        answers = "".join(_query(query) for query in queries)
        self._parts.append(f'<div class="task">{title}<div>{classes}</div><div class="queries">{answers}</div></div>')

    def pictures(self, items: Sequence[Picture | tuple[NDArray[np.uint8] | bytes, str, str]]) -> None:
        """Add pictures with text: (image, text, name), and the pictures that say why, as neighbours of a query."""
        shown = "".join(_picture(*item) for item in items)
        self._parts.append(f'<div class="task"><div class="queries">{shown}</div></div>')

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
        """Return the page."""
        css = (files("fewshot.report") / "style.css").read_text(encoding="utf-8")
        body = "\n".join(self._parts)
        return (
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>{_text(self.title)}</title><style>\n{css}</style></head>\n"
            f"<body><main>\n{body}\n<footer>{_text(footer)}</footer></main></body></html>\n"
        )

    def write(self, path: str | Path, footer: str = "") -> None:
        """Write the page to a file, atomically."""
        write_text(path, self.to_html(footer))


def _text(value: Any) -> str:
    """Escape for text and for quoted attributes; control and direction characters become visible."""
    return escape(printable(value), quote=True)


def _label(label: Any) -> str:
    # bdi keeps a right-to-left label from reversing its neighbours.
    return f'<span class="label" title="{_text(label)}"><bdi>{_text(label)}</bdi></span>'


def _data_uri(data: bytes) -> str:
    kind = "jpeg" if data.startswith(b"\xff\xd8") else "png"
    return f"data:image/{kind};base64," + base64.b64encode(data).decode("ascii")


def _tile(image: NDArray[np.uint8] | bytes, label: Any) -> str:
    from PIL import Image

    if isinstance(image, bytes):
        data, photo = image, image.startswith(b"\xff\xd8")
    elif image.dtype != np.uint8:
        raise TypeError(f"the image of {label!r} has dtype {image.dtype}; expected uint8")
    else:
        buffer = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(image)).save(buffer, "PNG", optimize=True)
        data, photo = buffer.getvalue(), False
    kind = "tile photo" if photo else "tile"
    return f'<img class="{kind}" src="{_data_uri(data)}" alt="image of {_text(label)}">'


def _query(query: QueryAnswer) -> str:
    answer = query.answers[0][0] if query.verdict is None else query.verdict
    if query.label is None:
        kind, verdict = "told", f"<bdi>{_text(answer)}</bdi>"
    elif answer == query.label:
        kind, verdict = "right", "✓ right"
    else:
        kind, verdict = "wrong", f"✗ wrong, it is <bdi>{_text(query.label)}</bdi>"
    name = f'<div class="name" title="{_text(query.name)}"><bdi>{_text(query.name)}</bdi></div>' if query.name else ""
    name += f'<div class="note"><bdi>{_text(query.note)}</bdi></div>' if query.note else ""
    neighbours = _neighbours(query.neighbours, "nearest support images")
    return (
        f'<div class="query {kind}">{_tile(query.image, query.label if query.name == "" else query.name)}'
        f'<div class="answers"><div class="verdict">{verdict}</div>{name}'
        f"{''.join(_answer(*answer) for answer in query.answers)}{neighbours}</div></div>"
    )


def _picture(image: NDArray[np.uint8] | bytes, text: str, name: str, near: Near = (), why: str = "") -> str:
    return (
        f'<div class="query told">{_tile(image, name)}<div class="answers"><div class="verdict">{_text(text)}</div>'
        f'<div class="name" title="{_text(name)}"><bdi>{_text(name)}</bdi></div>{_neighbours(near, why)}</div></div>'
    )


def _neighbours(near: Near, title: str) -> str:
    shown = "".join(
        f'<figure class="near">{_tile(image, label)}<figcaption>{_label(label)} {similarity:.2f}</figcaption></figure>'
        for label, similarity, image in near
    )
    return f'<div class="neighbours"><span>{_text(title)}</span><div>{shown}</div></div>' if shown else ""


def _answer(label: Any, share: float, similarity: float | None) -> str:
    closeness = "" if similarity is None else f"<span>{similarity:.1f}</span>"
    return (
        f'<div class="answer">{_label(label)}<span class="bar"><i style="width:{100 * share:.0f}%"></i></span>'
        f"<span>{100 * share:.0f}%</span>{closeness}</div>"
    )
