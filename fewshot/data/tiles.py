"""Tiles of a large picture, each an image of its own."""

from __future__ import annotations

import math
import os
from itertools import product

from fewshot.data.boxes import BoxedImage
from fewshot.data.picture import Picture
from fewshot.utils.values import check_count, check_number

#: By which share of their side neighbouring tiles overlap, so that what is small is whole in one of them.
OVERLAP = 0.25
#: The largest such share.
CLOSEST = 0.9


def tiles(path: str | os.PathLike[str], side: int, *, overlap: float = OVERLAP) -> list[BoxedImage]:
    """Cut a picture into overlapping squares, which are answered like images: a search for what is small in it.

    The first tile begins at the upper left corner, the last one ends at the lower right, and those between are evenly
    spaced, at least as close as asked for.

    Parameters
    ----------
    path : path
        The picture. Only its head is read now.
    side : int
        Width and height of a tile in pixels of the upright picture. If a side of the picture is shorter, tiles are as
        short.
    overlap : float, default=0.25
        By which share of their side neighbouring tiles overlap at least, from 0 to 0.9.

    Returns
    -------
    list of images
        Row by row. The `name` of each is the path with its box, such as ``field.jpg#0,192,256,256``: x, y, width and
        height, which is also its id in answers.

    Raises
    ------
    ImageDecodeError
        If the picture cannot be read.
    ValueError
        If `side` or `overlap` is out of range.

    Examples
    --------
    >>> import tempfile
    >>> from PIL import Image
    >>> path = tempfile.mkdtemp() + "/field.png"
    >>> Image.new("RGB", (600, 250)).save(path)
    >>> [tile.box for tile in tiles(path, 300)]
    [(0.0, 0.0, 300.0, 250.0), (150.0, 0.0, 300.0, 250.0), (300.0, 0.0, 300.0, 250.0)]
    """
    check_count("side", side)
    if check_number("overlap", overlap) > CLOSEST:
        raise ValueError(f"overlap is {overlap!r}; expected a number from 0 to {CLOSEST}")
    picture = Picture(path)
    (width, lefts), (height, tops) = (_places(length, side, overlap) for length in picture.size)
    return [BoxedImage(picture, (left, top, width, height)) for top, left in product(tops, lefts)]


def _places(length: int, side: int, overlap: float) -> tuple[int, list[int]]:
    """Return the side of tiles along a side of the picture, and where they begin."""
    side = min(side, length)
    n = 1 + math.ceil((length - side) / max(side * (1 - overlap), 1))
    return side, [round(i * (length - side) / max(n - 1, 1)) for i in range(n)]
