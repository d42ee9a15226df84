"""A data set of printed characters from the fonts of matplotlib: like Omniglot, but already on every machine."""

from __future__ import annotations

import math
import unicodedata
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fewshot.data.images import LabeledImages
from fewshot.utils.streams import DISTORT, SPLIT, episode_rng

if TYPE_CHECKING:
    from PIL import Image

#: The four styles of four text faces, in the order in which drawings are preferred.
FACES = (
    *("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSans-BoldOblique"),
    *("DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-Italic", "DejaVuSerif-BoldItalic"),
    *("STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic", "STIXGeneralBolIta"),
    *("DejaVuSansMono", "DejaVuSansMono-Bold", "DejaVuSansMono-Oblique", "DejaVuSansMono-BoldOblique"),
)
#: Drawings with at least this cosine similarity are the same drawing, and near to one another.
SAME, NEAR = 0.98, 0.95
#: Fewest and most drawings of a class.
MIN_DRAWINGS, MAX_DRAWINGS = 8, 20
#: Parts of the classes in each split.
SPLITS = {"train": 0.7, "val": 0.1, "test": 0.2}

_DIGITS = "0123456789"
_POINTS = 64  # font size of the renderings, in pixels
_SHAPE = 32  # side of the renderings that are compared
_CANVAS = 56  # side of the drawings that are distorted


def glyphs(split: str | None = None, *, seed: int = 0, size: int = 28) -> LabeledImages:
    """Return letters in up to 16 typefaces, one randomly distorted image a drawing; nothing is downloaded.

    A class is a letter (Latin, Greek, Cyrillic, Armenian, Georgian, ...; Unicode categories Lu, Ll, Lt, Lo); its label
    is the character. Every drawing is compared with every other after cropping to its ink and scaling it, proportions
    kept, into 32 x 32 pixels, by the cosine of the pixels:

    - at 0.98 or more it is the *same* drawing: the two letters are one class (A, Alpha, Cyrillic A; also c and C),
      labelled by the lowest code point, and only one of the drawings is kept, so a query never shows a support image;
    - classes *near* each other, joined by a chain of pairs at 0.95 or more, go to the same split, so drawings of
      different splits are less alike than that;
    - classes the same as or near (in that sense) a digit 0-9 are dropped, as is every character with a numeric value:
      an embedding trained here has seen no digit.

    An accented letter is a class of its own where the accent shows, and may be in another split than the plain one.
    Letters drawn in fewer than 8 faces and classes with fewer than 8 drawings are dropped; 20 drawings are the most.

    Parameters
    ----------
    split : {"train", "val", "test"}, optional
        About 70, 10 and 20 % of the classes; default all.
    seed : int, default=0
        At least 0; of the split and the distortions.
    size : int, default=28
        Side of the images in pixels, at least 8.

    Returns
    -------
    LabeledImages
        Images of shape (n, size, size), ink 255 on 0; labels of type str. An image is the same in its split and in
        the whole.

    Raises
    ------
    ValueError
        If `split` is unknown, or `seed` or `size` out of range.

    Notes
    -----
    The fonts are drawn once a process (seconds). Another version of matplotlib or FreeType may draw slightly
    differently and so give a few classes more or less.

    References
    ----------
    B. Lake, R. Salakhutdinov, J. Tenenbaum (2015). Human-level concept learning through probabilistic program
    induction. Science 350.

    Examples
    --------
    >>> from fewshot import glyphs
    >>> train, test = glyphs("train"), glyphs("test")
    >>> set(train.classes) & set(test.classes)
    set()
    """
    if split is not None and split not in SPLITS:
        raise ValueError(f"split is {split!r}; expected 'train', 'val', 'test', or None for all")
    if seed < 0:
        raise ValueError(f"seed is {seed}; expected at least 0")
    if size < 8:
        raise ValueError(f"size is {size}; expected at least 8 pixels")
    drawings = _drawings()
    rows = np.arange(len(drawings.labels))
    if split is not None:
        rows = rows[_splits(drawings, seed) == split]
    return LabeledImages(_distorted(seed, size), drawings.labels).select(rows)


@dataclass(frozen=True, eq=False)
class _Drawings:
    """The kept drawings, undistorted.

    `canvases` (n, 56, 56) hold them at their size, `shapes` (n, 32, 32) as they are compared; `groups` (n,) numbers
    the sets of classes that stay together.
    """

    canvases: NDArray[np.uint8]
    shapes: NDArray[np.uint8]
    labels: NDArray[np.str_]
    groups: NDArray[np.int64]


@lru_cache(maxsize=1)
def _drawings() -> _Drawings:
    """Draw all letters and digits, merge what coincides, and keep distinct drawings of classes that are not digits."""
    crops, characters = _render()
    shapes = np.stack([_place(crop, _SHAPE, _SHAPE) for crop in crops])
    first, second, cosine = _near_pairs(shapes.reshape(len(shapes), -1))
    names, codes = np.unique(characters, return_inverse=True)
    same = cosine >= SAME
    classes = _components(len(names), codes[first[same]], codes[second[same]])[codes]
    groups = _components(len(names), codes[first], codes[second])[codes]
    kept = _distinct(len(shapes), first[same], second[same])
    kept &= ~np.isin(groups, groups[np.isin(characters, list(_DIGITS))])
    rows = _limited(classes, np.flatnonzero(kept))
    canvases = np.stack([_place(crops[i], _CANVAS, _extent(crops[i])) for i in rows])
    return _Drawings(canvases, shapes[rows], names[classes[rows]], groups[rows])


def _render() -> tuple[list[Image.Image], NDArray[np.str_]]:
    """Return the ink of every drawing, cropped, and its character; character after character, in the order of FACES."""
    from PIL import Image, ImageDraw, ImageFont

    drawn = []
    for order, (path, characters) in enumerate(_characters().items()):
        # Raqm, which may or may not be installed, would shape the text; one letter needs none.
        font = ImageFont.truetype(path, _POINTS, layout_engine=ImageFont.Layout.BASIC)
        for character in characters:
            page = Image.new("L", (3 * _POINTS, 3 * _POINTS))
            ImageDraw.Draw(page).text((_POINTS, _POINTS), character, fill=255, font=font)
            if (box := page.getbbox()) is not None:  # some fonts map a character to nothing
                drawn.append((character, order, page.crop(box)))
    drawn.sort(key=lambda item: item[:2])
    return [ink for _, _, ink in drawn], np.array([character for character, _, _ in drawn])


def _characters() -> dict[str, set[str]]:
    """Return, for the file of each face, its digits and letters, without those that few faces have."""
    import matplotlib
    from matplotlib.ft2font import FT2Font

    folder = Path(matplotlib.get_data_path(), "fonts", "ttf")
    paths = [str(folder / f"{face}.ttf") for face in FACES]
    # The font's own table says what it has; asking for anything else would draw its box for missing glyphs.
    known = {path: set(filter(_wanted, map(chr, FT2Font(path).get_charmap()))) for path in paths}
    faces = Counter(character for characters in known.values() for character in characters)
    return {path: {c for c in characters if faces[c] >= MIN_DRAWINGS} for path, characters in known.items()}


def _wanted(character: str) -> bool:
    if character in _DIGITS:  # drawn to be compared with, never kept
        return True
    return unicodedata.category(character) in ("Lu", "Ll", "Lt", "Lo") and not _is_number(character)


def _is_number(character: str) -> bool:
    return unicodedata.numeric(character, None) is not None


def _place(ink: Image.Image, side: int, extent: float) -> NDArray[np.uint8]:
    """Return a (side, side) array with `ink` in its middle, scaled so that its longer side is `extent`."""
    from PIL import Image

    factor = extent / max(ink.size)
    width, height = (max(1, round(length * factor)) for length in ink.size)
    scaled = np.asarray(ink.resize((width, height), Image.Resampling.BILINEAR))
    top, left = (side - height) // 2, (side - width) // 2
    placed = np.zeros((side, side), np.uint8)
    placed[top : top + height, left : left + width] = scaled
    return placed


def _extent(ink: Image.Image) -> float:
    """Return the extent of a drawing on its canvas, about 20/28 of it: the root keeps half of the differences."""
    usual = 0.9 * _POINTS
    return _CANVAS * min(max(20 / 28 * math.sqrt(max(ink.size) / usual), 0.5), 0.8)


def _near_pairs(pixels: NDArray[np.uint8]) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64]]:
    """Return all pairs i < j of rows whose cosine is at least NEAR, and the cosine."""
    lengths = np.sqrt(np.einsum("ij,ij->i", pixels, pixels, dtype=np.float64))
    unit = pixels / lengths[:, None].astype(np.float32)
    # Distances after a projection on a few orthonormal axes are never longer than before it, so that no pair is lost.
    few = unit[::8] - unit.mean(axis=0)
    axes = np.linalg.eigh(few.T @ few)[1][:, -64:]
    short = unit @ axes
    half = np.einsum("ij,ij->i", short, short) / 2
    found = []
    for start in range(0, len(short), 256):
        # |a - b|^2 / 2 = 1 - cosine for rows of length 1; the small number allows for float32.
        apart = half[start : start + 256, None] + half[start:] - short[start : start + 256] @ short[start:].T
        i, j = np.divmod(np.flatnonzero(apart <= 1 - NEAR + 1e-5), apart.shape[1])
        found.append(np.stack([i, j])[:, i < j] + start)
    first, second = np.concatenate(found, axis=1)
    # In whole numbers, so that a pair on the threshold falls on the same side on every machine.
    dots = [pixels[i].astype(np.int32) @ pixels[j].astype(np.int32) for i, j in zip(first, second, strict=True)]
    cosine = np.array(dots) / (lengths[first] * lengths[second])
    near = cosine >= NEAR
    return first[near], second[near], cosine[near]


def _components(n: int, first: NDArray[np.intp], second: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return, for each of `n` nodes, the lowest node that the given edges connect it to."""
    parent = list(range(n))

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = node = parent[parent[node]]
        return node

    for a, b in set(zip(first.tolist(), second.tolist(), strict=True)):
        low, high = sorted((root(a), root(b)))
        parent[high] = low
    return np.array([root(node) for node in range(n)])


def _distinct(n: int, first: NDArray[np.intp], second: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Return which of `n` rows to keep so that no pair is kept whole: the first wins."""
    kept = np.ones(n, dtype=bool)
    # By the later row of each pair: whether the earlier one stays has been settled by then.
    for k in np.argsort(second, kind="stable"):
        if kept[first[k]]:
            kept[second[k]] = False
    return kept


def _limited(classes: NDArray[np.intp], rows: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return the first MAX_DRAWINGS of `rows` of each class, without classes that have too few."""
    members = [rows[classes[rows] == c] for c in np.unique(classes[rows])]
    return np.concatenate([m[:MAX_DRAWINGS] for m in members if len(m) >= MIN_DRAWINGS])


def _splits(drawings: _Drawings, seed: int) -> NDArray[np.str_]:
    """Return the split of each drawing; groups of classes are dealt out in random order."""
    _, one_of_each = np.unique(drawings.labels, return_index=True)
    groups, n_classes = np.unique(drawings.groups[one_of_each], return_counts=True)
    order = episode_rng(seed, 0, SPLIT).permutation(len(groups))
    middle = np.cumsum(n_classes[order]) - n_classes[order] / 2
    ends = np.cumsum(list(SPLITS.values()))[:-1] * n_classes.sum()
    split = np.empty(len(groups), dtype="<U5")
    split[order] = np.array(list(SPLITS))[np.searchsorted(ends, middle, side="right")]
    return split[np.searchsorted(groups, drawings.groups)]


@lru_cache(maxsize=4)
def _distorted(seed: int, size: int) -> NDArray[np.uint8]:
    """Return all images (n, size, size); the numbers of a row depend on the row alone, not on the split asked for."""
    import torch
    import torch.nn.functional as F

    from fewshot.data.augment import Distortion

    distortion = Distortion(rotate=18, scale=0.18, shear=0.22, translate=0.08, elastic=0.045)
    rng = episode_rng(seed, 0, DISTORT)
    parts = []
    for part in np.array_split(_drawings().canvases, 32):  # a bounded part of them as floats at a time
        large = distortion(torch.from_numpy(part[:, None].astype(np.float32)), rng)
        small = F.interpolate(large, size=(size, size), mode="bilinear", antialias=True)
        parts.append(small[:, 0].round().clamp(0, 255).to(torch.uint8).numpy())
    return np.concatenate(parts)
