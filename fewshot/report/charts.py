"""Figures as part of a page: drawn in its fonts and its colours, which are others in the dark."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING

from fewshot.report.escaping import text_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Colours of matplotlib and of our figures, and what a page makes of them.
_COLOURS = {
    "#000000": "currentColor", "black": "currentColor", "#ffffff": "var(--paper)", "white": "var(--paper)",
    "#b0b0b0": "var(--line)", "#0072b2": "var(--blue)",
}  # fmt: skip
_COLOUR = re.compile(r"(?<=[ :])(#000000|#ffffff|#b0b0b0|#0072b2|black|white)(?=[;\"])")
_FONT = re.compile(r"font-family: [^;\"]*;? ?|(?<=font: )([^'\";]*?px)[^;\"]*")
_ID = re.compile(r'(?<= id=")|(?<=url\(#)|(?<=xlink:href="#)')
_HEAD = re.compile(r"\A.*?<svg [^>]*?viewBox=\"([\d. -]+)\"[^>]*>", re.S)
#: What a page has no use for; rules of style would hold for all of it.
_HIDDEN = re.compile(r"<metadata>.*?</metadata>|<!--.*?-->|<style.*?</style>", re.S)


def svg_of(figure: Figure, alt: str, number: int) -> str:
    """Return a figure as an element of a page.

    Parameters
    ----------
    figure : Figure
        A figure of matplotlib.
    alt : str
        What it shows, for those who do not see it.
    number : int
        Its place among the figures of the page, which keeps their parts apart.
    """
    from matplotlib import rc_context

    buffer = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "fewshot"}):
        figure.savefig(buffer, format="svg", bbox_inches="tight", transparent=True, metadata={"Date": None})
    drawn = _HIDDEN.sub("", buffer.getvalue())
    head = _HEAD.match(drawn)
    if head is None:
        raise ValueError("the figure was not drawn as SVG; expected a viewBox")
    body = drawn[head.end() :]
    body = _FONT.sub(lambda found: found[1] or "", body)
    body = _COLOUR.sub(lambda found: _COLOURS[found[1]], body)
    width = float(head[1].split()[2])
    return (
        f'<svg role="img" aria-label="{text_of(alt)}" viewBox="{head[1]}" style="--width:{width:.0f}">'
        f"{_ID.sub(f'f{number}-', body).rstrip()}"
    )
