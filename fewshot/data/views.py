"""More than one look at each image, averaged: mirrored, shifted, and at another scale."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from fewshot.errors import UnknownNameError

#: Names of views, which "+" joins, and by how much each multiplies the time of an image without tiles.
VIEWS = {"mirror": 2, "scales": 2, "shifts": 5}
#: Distance of shifts in sides of the image: 8 of 224 pixels.
SHIFT = 1 / 28
#: What is shown of each side of an image whose whole is seen already, at another scale.
MIDDLE = 0.875
Offset = tuple[int, int]


def check_views(views: object) -> str | None:
    """Return names of `VIEWS` in a fixed order; None for none.

    Raises
    ------
    UnknownNameError
        If a name is unknown.
    TypeError
        If it is not text.

    Examples
    --------
    >>> check_views("shifts+mirror")
    'mirror+shifts'
    """
    if views is None:
        return None
    if not isinstance(views, str):
        raise TypeError(f"views is {views!r:.60}; expected names joined by '+', such as 'mirror+scales', or None")
    names = views.split("+")
    for name in names:
        if name not in VIEWS:
            raise UnknownNameError("view", name, VIEWS)
    return _ordered(names)


def _ordered(names: list[str]) -> str:
    return "+".join(name for name in VIEWS if name in names)


def are_views(value: object) -> bool:
    """Whether a value is what `check_views` returns."""
    return value is None or (isinstance(value, str) and bool(value) and value == _ordered(value.split("+")))


def offsets(side: int) -> list[Offset]:
    """Return no shift and the four along the diagonals, for an image of `side` pixels."""
    by = max(round(side * SHIFT), 1)
    return [(0, 0), *((down, right) for down in (-by, by) for right in (-by, by))]


def shown(images: Any, shifts: Iterable[Offset] = ((0, 0),), mirror: bool = False) -> Iterator[Any]:
    """Yield images (n, h, w) or (n, h, w, c), an array or a tensor, shifted, edges repeated, and also mirrored.

    Examples
    --------
    >>> [view.tolist() for view in shown(np.array([[[1, 2, 3]]]), [(0, 0), (0, 1)], mirror=True)]
    [[[[1, 2, 3]]], [[[3, 2, 1]]], [[[2, 3, 3]]], [[[3, 3, 2]]]]
    """
    if images.ndim not in (3, 4):
        raise ValueError(f"images have shape {tuple(images.shape)}; expected (n, h, w) or (n, h, w, c)")
    height, width = images.shape[1:3]
    for down, right in shifts:
        rows, columns = (np.arange(n) + by for n, by in ((height, down), (width, right)))
        moved = images
        if down or right:
            moved = images[:, rows.clip(0, height - 1)][:, :, columns.clip(0, width - 1)]
        yield moved
        if mirror:
            yield moved[:, :, np.arange(width)[::-1].copy()]
