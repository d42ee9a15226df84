"""Small pictures of images from any source, for notebooks and figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fewshot.data.decode import decode
from fewshot.data.opening import describe, is_file, open_content, read_content
from fewshot.data.preprocess import THUMBNAIL, make_thumbnail
from fewshot.errors import FewshotError
from fewshot.utils.drawing import drawable
from fewshot.utils.warning import ignored_warnings

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Larger images are not decoded only to be looked at.
MOST_PIXELS = 50_000_000


def thumbnail_of(source: Any) -> bytes | None:
    r"""Return a small PNG or JPEG of an image from any source of `decode`; None if it cannot be read, or is huge.

    Examples
    --------
    >>> thumbnail_of(np.zeros((200, 100, 3), np.uint8))[:2]
    b'\xff\xd8'
    >>> thumbnail_of("there is no such file.png")
    """
    try:
        with ignored_warnings():
            if (
                isinstance(source, (str, bytes, bytearray, memoryview))
                or hasattr(source, "__fspath__")
                or is_file(source)
            ):
                name = describe(source)
                source = open_content(read_content(source, name), name)
                source.draft("RGB", (2 * THUMBNAIL, 2 * THUMBNAIL))  # a JPEG is decoded at an eighth of its size
            return make_thumbnail(np.asarray(decode(source, max_pixels=MOST_PIXELS)))
    except (FewshotError, OSError, ValueError, TypeError, MemoryError):  # the cell shows that there is no picture
        return None


def first_rows(codes: NDArray[np.int64], n_classes: int, most: int) -> list[NDArray[np.int64]]:
    """Return the first rows, at most `most`, of each of the first classes."""
    return [np.flatnonzero(codes == code)[:most] for code in range(n_classes)]


def grid_of(groups: Mapping[Any, Sequence[bytes | None]], side: int = THUMBNAIL) -> NDArray[np.uint8]:
    """Return one picture (h, w, 4), a row of thumbnails for each class; what is not there is transparent."""
    from PIL import Image

    rows, columns = len(groups), max(map(len, groups.values()), default=1)
    sheet = Image.new("RGBA", (max(columns, 1) * (side + 4), max(rows, 1) * (side + 4)))
    for i, pictures in enumerate(groups.values()):
        for j, data in enumerate(pictures):
            one = Image.new("RGBA", (side, side), (128, 128, 128, 60)) if data is None else opened(data)
            one = one.resize(_fitted(one.size, side))
            place = ((side - one.width) // 2 + j * (side + 4) + 2, (side - one.height) // 2 + i * (side + 4) + 2)
            sheet.paste(one, place)
    return np.asarray(sheet)


def draw_grid(groups: Mapping[Any, Sequence[bytes | None]], counts: Mapping[Any, int], ax: Axes | None) -> Axes:
    """Draw a row of thumbnails for each class, with its label and number of images; on a new figure if `ax` is None."""
    n, columns = max(1, len(groups)), max(map(len, groups.values()), default=1)
    if ax is None:
        from matplotlib import pyplot

        _, ax = pyplot.subplots(figsize=(1.6 + 0.75 * max(columns, 3), 0.4 + 0.75 * n), layout="constrained")
    ax.imshow(grid_of(groups), extent=(0, max(columns, 1), n, 0))
    ax.set_yticks([i + 0.5 for i in range(len(groups))], [drawable(label, 24) for label in groups])
    ax.set_xticks([])
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.set_title(f"{sum(counts.values())} images, {len(counts)} classes", fontsize=10, loc="left")
    return ax


def opened(data: bytes) -> Any:
    """Return a thumbnail as a PIL image with transparency."""
    return open_content(data, "thumbnail").convert("RGBA")


def _fitted(size: tuple[int, int], side: int) -> tuple[int, int]:
    longest = max(size)
    return max(1, size[0] * side // longest), max(1, size[1] * side // longest)
