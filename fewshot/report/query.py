"""A query and its answer, as a card of a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from fewshot.report.escaping import Pixels, label_of, text_of
from fewshot.report.pictures import Pictures

#: Neighbours: label, similarity and image of each.
Near = Sequence[tuple[Any, float, Pixels]]
#: An image, text, name, the neighbours that say why, and their heading.
Picture = tuple[Pixels, str, str, Near, str]


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
    doubtful : bool, default=False
        Whether the answer should be looked at.
    match : (label, image, image), optional
        The class that the query matches, and where: the query and a support image with bright places.
    """

    image: Pixels
    label: Any
    answers: Sequence[tuple[Any, float, float | None]]
    name: str = ""
    neighbours: Near = ()
    verdict: Any = None
    note: str = ""
    doubtful: bool = False
    match: tuple[Any, Pixels, Pixels] | None = None

    def __post_init__(self) -> None:
        if not self.answers:
            raise ValueError(f"the query of {self.label!r} has no answers; expected at least one")

    @property
    def kind(self) -> str:
        """``right`` or ``wrong`` if the true class is known; else ``unknown``, ``doubtful`` or ``told``."""
        if self.label is None:
            return "unknown" if self.verdict is not None else "doubtful" if self.doubtful else "told"
        answer = self.answers[0][0] if self.verdict is None else self.verdict
        return "right" if answer == self.label else "wrong"


def card_of(query: QueryAnswer, pictures: Pictures) -> str:
    """Return the card of a query: its picture, the verdict, bars of the likeliest classes, and the neighbours."""
    answer = query.answers[0][0] if query.verdict is None else query.verdict
    missed = "wrong" if query.verdict is None else f"<bdi>{text_of(answer)}</bdi>"
    verdict = {
        "right": "✓ right",
        "wrong": f"✗ {missed}, it is <bdi>{text_of(query.label)}</bdi>",
        "doubtful": f'<bdi>{text_of(answer)}</bdi> <span class="badge">doubtful</span>',
        "unknown": f'<bdi>{text_of(answer)}</bdi> <span class="badge">not accepted</span>',
    }.get(query.kind, f"<bdi>{text_of(answer)}</bdi>")
    note = f'<div class="note"><bdi>{text_of(query.note)}</bdi></div>' if query.note else ""
    with_similarity = any(similarity is not None for _, _, similarity in query.answers)
    captions = ("class", "probability", *(("similarity",) if with_similarity else ()))
    head = "".join(f"<span>{one}</span>" for one in captions)
    columns = " four" if with_similarity else ""
    return (
        f'<article class="query {query.kind}" data-kind="{query.kind}" data-label="{text_of(answer)}" '
        f'data-share="{query.answers[0][1]:.4f}">{pictures.own(query.image, query.name or query.label)}'
        f'<div class="answers"><div class="verdict">{verdict}</div>{_name(query.name)}{note}'
        f'<div class="answer head{columns}">{head}</div>{"".join(_bar(*one) for one in query.answers)}'
        f"{_neighbours(query.neighbours, 'nearest support images, with their similarity', pictures)}"
        f"{_match(query, pictures)}</div></article>"
    )


def _match(query: QueryAnswer, pictures: Pictures) -> str:
    """Return the query and a support image with bright places where they match."""
    if query.match is None:
        return ""
    label, image, near = query.match
    shown = "".join(
        f'<figure class="near match">{pictures.own(one, alt)}<figcaption>{caption}</figcaption></figure>'
        for one, alt, caption in (
            (image, f"{query.name or 'the query'}, bright where it matches {label}", "this image"),
            (near, f"{label} in the support, bright where the query matches it", label_of(label)),
        )
    )
    return f'<div class="neighbours"><span>where they match: the bright places</span><div>{shown}</div></div>'


def picture_of(picture: Picture | tuple[Pixels, str, str], pictures: Pictures) -> str:
    """Return the card of a picture with text, and of the pictures that say why."""
    image, text, name = picture[:3]
    near, why = picture[3:] if len(picture) == 5 else ((), "")
    return (
        f'<article class="query told" data-kind="told" data-label="{text_of(text)}">{pictures.own(image, name)}'
        f'<div class="answers"><div class="verdict">{text_of(text)}</div>{_name(name)}'
        f"{_neighbours(near, _end(why), pictures)}</div></article>"
    )


def _name(name: str) -> str:
    return f'<div class="name" title="{text_of(name)}"><bdi>{text_of(_end(name))}</bdi></div>' if name else ""


def _end(name: str) -> str:
    """Return the end of a path, which tells most."""
    parts = PurePath(name).parts
    return "/".join(("…", *parts[-2:])) if len(parts) > 2 else name


def _neighbours(near: Near, title: str, pictures: Pictures) -> str:
    shown = "".join(
        f'<figure class="near">{pictures.shared(image, label)}<figcaption>{label_of(label)} {similarity:.2f}'
        "</figcaption></figure>"
        for label, similarity, image in near
    )
    return f'<div class="neighbours"><span>{text_of(title)}</span><div>{shown}</div></div>' if shown else ""


def _bar(label: Any, share: float, similarity: float | None) -> str:
    closeness, columns = ("", "") if similarity is None else (f"<span>{similarity:.1f}</span>", " four")
    bar = f'<span class="bar"><i style="width:{100 * share:.0f}%"></i></span>'
    return f'<div class="answer{columns}">{label_of(label)}{bar}<span>{100 * share:.0f}%</span>{closeness}</div>'
