"""HTML fragments for the output of a notebook cell.

Styles are inline, since front ends drop style sheets. Colours are inherited, so that fragments fit light and dark
themes. All text is escaped, and what is shown is bounded, whatever the data hold.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from fewshot.utils.text import printable, shortened

#: The most characters of a text, bytes of a picture, classes and pictures of a class that are shown.
LONGEST, LARGEST, MOST_CLASSES, OF_CLASS = 200, 1 << 15, 8, 6
#: The most further classes that are named.
LISTED = 20
#: Blue that is legible on light and on dark ground.
BLUE = "#3b8fd0"

_LINE = "1px solid rgba(128,128,128,.4)"
_KINDS = {b"\xff\xd8\xff": "jpeg", b"\x89PNG\r\n\x1a\n": "png"}


def text(value: Any, longest: int = LONGEST) -> str:
    """Return a value as escaped text of bounded length.

    Examples
    --------
    >>> text("<b>")
    '&lt;b&gt;'
    """
    return escape(printable(shortened(str(value), longest)), quote=True)


def fragment(title: str, lead: str, *parts: str) -> str:
    """Return a whole fragment: a title, a sentence, and parts that the other functions here return."""
    body = "".join(f'<div style="margin-top:8px">{part}</div>' for part in parts if part)
    told = f'<div style="opacity:.8;margin-top:2px">{text(lead)}</div>' if lead else ""
    return (
        f'<div style="font:13px/1.45 system-ui,sans-serif;color:inherit;border:{_LINE};border-radius:8px;'
        f'padding:10px 14px;margin:2px 0;max-width:720px"><div style="font-weight:600">{text(title)}</div>{told}{body}'
        "</div>"
    )


def numbers(items: Sequence[tuple[str, str]]) -> str:
    """Return headline numbers, each (number, description)."""
    boxes = (
        f'<div style="margin:0 24px 4px 0"><div style="font-size:18px;font-weight:600">{text(value)}</div>'
        f'<div style="opacity:.75">{text(what)}</div></div>'
        for value, what in items
    )
    return f'<div style="display:flex;flex-wrap:wrap">{"".join(boxes)}</div>'


def picture(data: bytes | None, alt: str, side: int = 48) -> str:
    """Return a small PNG or JPEG; a box with a question mark if there is none, or it is too large to be shown.

    Items that are no images, such as text, have empty pictures, for which nothing is shown.
    """
    if data == b"":
        return ""
    style = f"width:{side}px;height:{side}px;object-fit:contain;margin:0 3px 3px 0;border-radius:3px"
    kind = next((kind for start, kind in _KINDS.items() if data and data.startswith(start)), None)
    if data is None or kind is None or len(data) > LARGEST:
        return (
            f'<span title="{text(alt)}" style="display:inline-block;box-sizing:border-box;{style};border:{_LINE};'
            f'line-height:{side}px;text-align:center;vertical-align:top;opacity:.6">?</span>'
        )
    source = f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"
    return f'<img src="{source}" alt="{text(alt)}" title="{text(alt)}" style="display:inline-block;{style}">'


def classes(groups: Mapping[Any, Sequence[bytes | None]], counts: Mapping[Any, int], n_classes: int = 0) -> str:
    """Return boxes of classes with their first pictures, and how many images there are of each.

    Parameters
    ----------
    groups : mapping of label to pictures
        None, or bytes that are no PNG or JPEG, are shown as a box. Only the first classes and pictures are shown.
    counts : mapping of label to int
        The images of these classes, and of others, whose labels are listed.
    n_classes : int
        Number of all classes, if `counts` does not hold them all.
    """
    boxes = (
        f'<div style="margin:0 14px 6px 0"><div style="max-width:{54 * OF_CLASS}px">'
        f"{''.join(picture(one, f'an image of {label}') for one in pictures[:OF_CLASS])}</div>{_name(label)} "
        f'<span style="opacity:.7">{counts[label]}</span></div>'
        for label, pictures in list(groups.items())[:MOST_CLASSES]
    )
    pictured = list(groups)[:MOST_CLASSES]
    rest, n_rest = [label for label in counts if label not in pictured], max(n_classes, len(counts)) - len(pictured)
    named = ", ".join(shortened(str(label), 30) for label in rest[:LISTED])
    more = f"and {n_rest} more: {named}{', …' if n_rest > LISTED else ''}" if n_rest > 0 else ""
    told = f'<div style="opacity:.75">{text(more, LISTED * 32)}</div>' if more else ""
    return f'<div style="display:flex;flex-wrap:wrap">{"".join(boxes)}</div>{told}'


def bars(rows: Sequence[tuple[Any, float]]) -> str:
    """Return shares in 0..1 as labelled bars."""
    shown = (
        f'<div style="display:flex;align-items:center;gap:8px"><div style="flex:0 1 110px;overflow:hidden;'
        f'text-overflow:ellipsis;white-space:nowrap">{_name(label)}</div><div style="flex:0 1 160px;height:8px;'
        f'background:rgba(128,128,128,.25);border-radius:4px"><div style="width:{100 * share:.0f}%;height:8px;'
        f'border-radius:4px;background:{BLUE}"></div></div>'
        f'<div style="flex:0 0 3.2em;text-align:right;white-space:nowrap">{100 * share:.0f} %</div></div>'
        for label, share in rows
    )
    return "".join(shown)


def table(head: Sequence[str], rows: Sequence[Sequence[Any]], most: int = 12) -> str:
    """Return a table of at most `most` rows; the first cell of each is its name."""
    cell = f"padding:2px 10px 2px 0;text-align:left;border-bottom:{_LINE}"
    top = "".join(f'<th style="{cell};opacity:.75;font-weight:400">{text(name)}</th>' for name in head)
    cells = ("".join(f'<td style="{cell}">{text(value)}</td>' for value in row) for row in rows[:most])
    body = "".join(f"<tr>{row}</tr>" for row in cells)
    more = f'<div style="opacity:.75">and {len(rows) - most} more</div>' if len(rows) > most else ""
    style = "border-collapse:collapse;margin:0;font-size:13px;color:inherit"
    return f'<table style="{style}"><tr>{top}</tr>{body}</table>{more}'


def answered(data: bytes | None, verdict: str, name: str, *parts: str) -> str:
    """Return a picture with what was answered, and parts that say why."""
    body = "".join(f'<div style="margin-top:3px">{part}</div>' for part in parts if part)
    return (
        f'<div style="display:flex;gap:12px;margin:0 0 10px">{picture(data, name, 80)}<div style="min-width:0">'
        f'<div style="font-weight:600">{text(verdict)}</div>'
        f'<div style="opacity:.7;overflow-wrap:anywhere">{text(name)}</div>{body}</div></div>'
    )


def captioned(items: Sequence[tuple[bytes | None, str]]) -> str:
    """Return pictures side by side, each above its caption."""
    shown = (
        f'<div style="width:64px;margin-right:6px">{picture(data, caption)}<div style="font-size:11px;opacity:.8;'
        f'overflow-wrap:anywhere">{text(caption)}</div></div>'
        for data, caption in items
    )
    return f'<div style="display:flex;flex-wrap:wrap">{"".join(shown)}</div>'


def _name(label: Any) -> str:
    return f'<bdi title="{text(label)}">{text(label)}</bdi>'  # keeps a right-to-left label from turning its neighbours
