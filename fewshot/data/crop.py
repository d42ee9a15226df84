"""How much of an image that is not square the network sees: names of the crops, and their geometry."""

from __future__ import annotations

import math
from typing import Literal, get_args

#: The user's names, and those of `Preprocessing`, in which timm's "squash" is another one.
CROPS = {"center": "center", "pad": "pad", "squash": "stretch", "tiles": "overlap", "adaptive": "adaptive"}
#: Modes with tiles.
TILED = ("overlap", "adaptive")
#: Those that networks can be trained with.
TrainingCrop = Literal["center", "pad", "squash"]
TRAINING: tuple[TrainingCrop, ...] = get_args(TrainingCrop)
#: The crop of a network that is published for the middle of images; `benchmarks/crops.py` compares them.
DEFAULT = "adaptive"
#: `DEFAULT`, unless the network was trained here, or published for another crop than the middle.
AUTO: Literal["auto"] = "auto"
Crop = Literal["auto", "adaptive", "center", "pad", "squash", "tiles"]
CROP_NAMES: tuple[Crop, ...] = get_args(Crop)
#: Distance of neighbouring tiles in sides; steps that the last tile may be short of; the largest number of tiles.
STEP, SLACK, MOST_TILES = 0.75, 0.15, 5
#: From this ratio of its sides on, an image has tiles if the crop is adaptive.
LONG = 2.0
Size = tuple[int, int]


def crop_of(mode: str) -> str | None:
    """Return the user's name of a mode of `Preprocessing`; None if it is one of timm's."""
    return next((name for name, own in CROPS.items() if own == mode), None)


def whole_size(size: Size, scaled: Size, kept: Size, stretch: bool) -> Size:
    """Return the width and height of an image that is scaled so that its longer side is seen whole.

    A square becomes `scaled`, of which `kept` is seen. The longer the image, the more of its longer side is seen, and
    from ``scaled / kept`` on all of it, so that the result never jumps.

    Examples
    --------
    >>> whole_size((500, 500), (256, 256), (224, 224), False), whole_size((640, 240), (256, 256), (224, 224), False)
    ((256, 256), (224, 84))
    """
    ratios = [n / s for n, s in zip(size, scaled, strict=True)]
    axis = int(ratios[1] > ratios[0])
    long = max(min(scaled[axis], kept[axis]), round(scaled[axis] * ratios[1 - axis] / ratios[axis]))
    short = scaled[1 - axis] if stretch else max(round(size[1 - axis] * long / size[axis]), 1)
    return (short, long) if axis else (long, short)


def tile_boxes(size: Size, scaled: Size, least: float = 1.0) -> list[tuple[int, int, int, int]]:
    """Return the boxes of overlapping tiles along the longer side of an image; none if it is a square.

    Tiles are squares if `MOST_TILES` suffice, and longer otherwise. An image has none if the ratio of its sides is at
    most `least`.

    Examples
    --------
    >>> tile_boxes((640, 240), (256, 256))
    [(0, 0, 240, 240), (133, 0, 373, 240), (267, 0, 507, 240), (400, 0, 640, 240)]
    """
    ratios = [n / s for n, s in zip(size, scaled, strict=True)]
    axis = int(ratios[1] > ratios[0])
    ratio = ratios[axis] / ratios[1 - axis]
    n = min(1 + math.ceil((ratio - 1) / STEP - SLACK), MOST_TILES)
    if n == 1 or ratio <= least:
        return []
    square = round(ratios[1 - axis] * scaled[axis])
    side = min(max(square, math.ceil(size[axis] / (1 + (n - 1) * STEP))), size[axis])
    starts = [round(i * (size[axis] - side) / (n - 1)) for i in range(n)]
    return [(0, at, size[0], at + side) if axis else (at, 0, at + side, size[1]) for at in starts]


def seen_share(size: Size, scaled: Size) -> float:
    """Return the share of an image that its middle crop shows; 1 for a square."""
    low, high = sorted(n / s for n, s in zip(size, scaled, strict=True))
    return low / high
