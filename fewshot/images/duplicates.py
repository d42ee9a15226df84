"""Images of a support that are nearly the same: recompressed, resized, cropped or shifted a little."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from fewshot.images.support import Support

#: Side of the small pictures that are compared, and images compared with all others in one go.
SIDE, PART = 12, 256
#: Two images are nearly the same if the correlation of their pictures and the cosine of their embeddings are above one
#: of these pairs: the first is met by recompressed and resized images, the second by shifted and cropped ones.
NEAR = ((0.92, 0.6), (0.7, 0.95))
#: Items without pictures are nearly the same if the cosine of their embeddings is above this.
NEAR_ITEMS = 0.98
#: And if they are apart no more than these shares of what is usual between an image and its third nearest: for the
#: correlation of pictures, and for the cosine. Where all images look alike, copies must be more alike.
OF_USUAL, NEIGHBOUR = (0.2, 0.33), 3
#: Directions in which items without pictures are compared first.
DIRECTIONS = 64


def near_duplicates(support: Support) -> NDArray[np.int64]:
    """Return, for each item, the row of the most similar earlier one that is nearly the same, or -1.

    Pictures are compared by the correlation of their colours at 12 x 12, and by the cosine of their embeddings. Either
    alone would not do: embeddings of different pictures of the sea are as near as two of the same, and so are small
    pictures of different strokes; a network sees recompression more than people do. Where all images look alike, such
    as digits, copies must be more alike.

    Parameters
    ----------
    support : Support
        Items; without thumbnails, only embeddings are compared.

    Examples
    --------
    >>> x = np.array([[9.0, 1.0], [1.0, 9.0], [9.0, 1.1]], np.float32)
    >>> near_duplicates(Support(("a", "b", "c"), np.array([0, 1, 0]), x, (b"",) * 3)).tolist()
    [-1, -1, 0]
    """
    found = np.full(len(support), -1)
    if len(support) < 2:
        return found
    x = _unit(support.embeddings)
    pictures = _small_pictures(support.thumbnails)
    far = 1 - _usual(x, OF_USUAL[1])
    rough, least = (_projected(x), max(NEAR_ITEMS, far)) if pictures is None else (pictures, NEAR[-1][0])
    alike = max(NEAR[0][0], 1 - _usual(rough, OF_USUAL[0]))
    for rows, likeness in _earlier(rough, plain=pictures is not None):
        places = np.flatnonzero((likeness >= least).any(1))
        cosine, likeness = x[rows][places] @ x.T, likeness[places]
        if pictures is None:
            near = cosine >= least
        else:
            near = (likeness >= alike) & (cosine >= NEAR[0][1])
            near |= (likeness >= NEAR[1][0]) & (cosine >= max(NEAR[1][1], far))
        near &= np.arange(len(x)) < (rows.start + places)[:, None]
        best = np.where(near, cosine, -np.inf).argmax(1)
        found[rows][places] = np.where(near.any(1), best, -1)
    return found


def _usual(x: NDArray[np.float32], share: float) -> float:
    """Return a share of how far unit vectors usually are from their third nearest, as 1 - cosine; 2 if they are few."""
    if len(x) <= NEIGHBOUR + 1:
        return 2.0
    some = x[:: max(1, len(x) // PART)]
    nearest = np.partition(some @ x.T, -1 - NEIGHBOUR, 1)[:, -1 - NEIGHBOUR]
    return share * float(np.median(1 - nearest)) + 1e-6  # rounding


def _earlier(rough: NDArray[np.float32], plain: bool) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """Yield parts of the rows, and an upper bound of their likeness (part, n) to all rows; minus 1 for later rows."""
    square = np.einsum("ij,ij->i", rough, rough)
    for start in range(0, len(rough), PART):
        rows = slice(start, min(start + PART, len(rough)))
        likeness = rough[rows] @ rough.T
        if not plain:  # the rest of two unit vectors is nearest if it has one direction
            apart = square[rows, None] + square - 2 * likeness
            likeness = 1 - apart / 2 + 1e-5
        likeness[np.arange(len(rough)) >= np.arange(rows.start, rows.stop)[:, None]] = -1
        yield rows, likeness


def _projected(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return unit vectors in a few directions in which they differ; distances never grow."""
    some = x[:: max(1, len(x) // DIRECTIONS)] - x.mean(0)
    directions: NDArray[np.float32] = np.linalg.qr(some.T)[0]
    return (x - x.mean(0)) @ directions


def _small_pictures(thumbnails: Sequence[bytes]) -> NDArray[np.float32] | None:
    """Return the colours of pictures at a few points, about their mean, to unit length; None if one is missing."""
    from PIL import Image

    if not all(thumbnails):
        return None
    small = np.empty((len(thumbnails), SIDE * SIDE, 3), np.float32)
    for i, thumbnail in enumerate(thumbnails):
        with Image.open(io.BytesIO(thumbnail)) as image:
            small[i] = np.asarray(image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX)).reshape(-1, 3)
    return _unit((small - small.mean(1, keepdims=True)).reshape(len(small), -1))


def _unit(x: NDArray[np.float32]) -> NDArray[np.float32]:
    from fewshot.utils.discriminant import unit_length

    return unit_length(x.astype(np.float64)).astype(np.float32)
