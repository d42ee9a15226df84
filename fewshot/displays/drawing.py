"""Axes and thumbnails that displays share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fewshot.data.shown import opened
from fewshot.errors import FewshotError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: The palette of Okabe and Ito, safe for colour-blind readers, and marks for more classes than colours.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#7A5195", "#999999", "#000000", "#F0E442")
MARKS = "osD^vP*X"
#: Of whose kind a line on axes is, which several displays may share.
_CURVE, _REFERENCE = "fewshot curve", "fewshot reference"


def new_axes(ax: Axes | None, width: float, height: float) -> Axes:
    """Return the given axes, or those of a new figure of pyplot, with its size in inches."""
    if ax is None:
        from matplotlib import pyplot

        _, ax = pyplot.subplots(figsize=(width, height), layout="constrained")
    return ax


def without_frame(ax: Axes, *sides: str) -> Axes:
    """Hide some sides of the frame; by default those above and to the right."""
    ax.spines[list(sides or ("top", "right"))].set_visible(False)
    return ax


def add_curve(ax: Axes, x: Any, y: Any, label: str, **how: Any) -> str:
    """Draw a curve in the first colour that no curve on the axes has, and return that colour."""
    color = COLOURS[sum(line.get_gid() == _CURVE for line in ax.lines) % len(COLOURS)]
    ax.plot(x, y, color=color, label=label, gid=_CURVE, **how)
    return color


def add_reference(ax: Axes, x: Any, y: Any, label: str) -> None:
    """Draw the line that curves are compared with, unless it is there."""
    if not any(line.get_gid() == _REFERENCE for line in ax.lines):
        ax.plot(x, y, color="#999999", linestyle=":", label=label, gid=_REFERENCE)


def pinned(
    ax: Axes, data: bytes | None, place: tuple[float, float], side: float, offset: tuple[float, float] = (0, 0),
    *, coords: Any = "data", edge: str | None = None,
) -> None:  # fmt: skip
    """Draw a thumbnail at a place, `side` points large and moved by some points; nothing if it cannot be read."""
    from matplotlib.offsetbox import AnnotationBbox, OffsetImage

    try:
        image = None if not data else opened(data)
    except (FewshotError, OSError, ValueError):
        image = None
    if image is None:
        return
    shown = OffsetImage(np.asarray(image), zoom=side / max(image.size), dpi_cor=True)
    box = AnnotationBbox(
        shown, place, xybox=offset, xycoords=coords, boxcoords="offset points", pad=0.1, frameon=edge is not None,
        bboxprops={"edgecolor": edge or "none", "linewidth": 1.5}, annotation_clip=False,
    )  # fmt: skip
    ax.add_artist(box)


def first_thumbnails(labels: Sequence[Any], pictures: Sequence[bytes]) -> dict[Any, bytes]:
    """Return the first thumbnail of each label."""
    found: dict[Any, bytes] = {}
    for label, picture in zip(labels, pictures, strict=True):
        if picture:
            found.setdefault(label, picture)
    return found
