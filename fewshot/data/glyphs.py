"""A data set of printed characters from the fonts of matplotlib: like Omniglot, but without a download."""

from __future__ import annotations

import math
import unicodedata
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from fewshot.data.images import LabeledImages
from fewshot.utils.streams import DISTORT, SPLIT, episode_rng
from fewshot.utils.values import check_count

if TYPE_CHECKING:
    from PIL import Image

#: Four typefaces in four styles, in order of preference.
FACES = (
    *("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSans-BoldOblique"),
    *("DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-Italic", "DejaVuSerif-BoldItalic"),
    *("STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic", "STIXGeneralBolIta"),
    *("DejaVuSansMono", "DejaVuSansMono-Bold", "DejaVuSansMono-Oblique", "DejaVuSansMono-BoldOblique"),
)
#: Cosine similarity from which drawings are considered equal, and near.
SAME, NEAR = 0.98, 0.95
#: Minimum and maximum number of drawings per class.
MIN_DRAWINGS, MAX_DRAWINGS = 8, 20
#: Fraction of the classes in each split.
GlyphSplit = Literal["train", "val", "test"]
SPLITS: dict[GlyphSplit, float] = {"train": 0.7, "val": 0.1, "test": 0.2}

_DIGITS = "0123456789"
_POINTS = 64  # font size of the renderings, in pixels
_SHAPE = 32  # side of the renderings to compare
_CANVAS = 56  # side of the drawings before distortion


def glyphs(split: GlyphSplit | None = None, *, seed: int = 0, size: int = 28) -> LabeledImages:
    """Return letters in up to 16 typefaces, one randomly distorted image per drawing, without a download.

    A class is a letter (Latin, Greek, Cyrillic, Armenian, Georgian, ...; Unicode categories Lu, Ll, Lt, Lo); its label
    is the character. All pairs of drawings are cropped to their ink, scaled to 32 x 32 pixels with their proportions
    kept, and compared by the cosine similarity of the pixels:

    - From 0.98 on, two drawings are the *same*. Their letters form one class (A, Alpha, Cyrillic A; also c and C),
      labelled by the lowest code point, and one drawing is kept, so that no query equals a support image.
    - Classes that are *near* each other, connected by a chain of pairs from 0.95 on, are in the same split, so that
      drawings of different splits are less similar.
    - Classes that are the same as or near a digit 0-9 are dropped, as are all characters with a numeric value, so that
      an embedding trained on this data has seen no digit.

    An accented letter is a separate class if the accent is visible, possibly in another split than the plain letter.
    Letters in fewer than 8 faces and classes with fewer than 8 drawings are dropped. A class has at most 20 drawings.

    Parameters
    ----------
    split : {"train", "val", "test"}, optional
        The splits have about 70, 10 and 20 % of the classes; by default all classes are returned.
    seed : int, default=0
        Seed of the split and the distortions, at least 0.
    size : int, default=28
        Side of the images in pixels, at least 8.

    Returns
    -------
    LabeledImages
        Images of shape (n, size, size), ink 255 on 0; labels of type str. A split contains the same images as the
        whole data set.

    Raises
    ------
    ValueError
        If `split` is unknown, or `seed` or `size` is out of range.

    Notes
    -----
    The fonts are drawn once per process, which takes seconds. Other versions of matplotlib or FreeType may draw
    slightly differently and yield a few classes more or less.

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
    seed = check_count("seed", seed, 0)
    if size < 8:
        raise ValueError(f"size is {size}; expected at least 8 pixels")
    drawings = _drawings()
    rows = np.arange(len(drawings.labels))
    if split is not None:
        rows = rows[_splits(drawings, seed) == split]
    return LabeledImages(_distorted(seed, size), drawings.labels).select(rows)


@dataclass(frozen=True, eq=False)
class _Drawings:
    """The drawings before distortion.

    `canvases` (n, 56, 56) have the drawings at their size, `shapes` (n, 32, 32) those to compare; `groups` (n,) are
    the numbers of the sets of classes that stay in one split.
    """

    canvases: NDArray[np.uint8]
    shapes: NDArray[np.uint8]
    labels: NDArray[np.str_]
    groups: NDArray[np.int64]


@lru_cache(maxsize=1)
def _drawings() -> _Drawings:
    """Draw letters and digits, merge equal classes, and keep distinct drawings of classes that are not digits."""
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
    """Return cropped drawings and their characters, sorted by character, then by the order of FACES."""
    from PIL import Image, ImageDraw, ImageFont

    drawn = []
    for order, (path, characters) in enumerate(_characters().items()):
        # Do not use Raqm, which may not be installed: single letters need no text shaping.
        font = ImageFont.truetype(path, _POINTS, layout_engine=ImageFont.Layout.BASIC)
        for character in characters:
            page = Image.new("L", (3 * _POINTS, 3 * _POINTS))
            ImageDraw.Draw(page).text((_POINTS, _POINTS), character, fill=255, font=font)
            if (box := page.getbbox()) is not None:  # some fonts draw nothing for a character
                drawn.append((character, order, page.crop(box)))
    drawn.sort(key=lambda item: item[:2])
    return [ink for _, _, ink in drawn], np.array([character for character, _, _ in drawn])


def _characters() -> dict[str, set[str]]:
    """Return the digits and letters in the file of each face, without those that only a few faces have."""
    import matplotlib
    from matplotlib.ft2font import FT2Font

    folder = Path(matplotlib.get_data_path(), "fonts", "ttf")
    paths = [str(folder / f"{face}.ttf") for face in FACES]
    # Drawing a character that is not in the font's table would draw a box.
    known = {path: set(filter(_wanted, map(chr, FT2Font(path).get_charmap()))) for path in paths}
    faces = Counter(character for characters in known.values() for character in characters)
    return {path: {c for c in characters if faces[c] >= MIN_DRAWINGS} for path, characters in known.items()}


def _wanted(character: str) -> bool:
    if character in _DIGITS:  # only for comparison
        return True
    return unicodedata.category(character) in ("Lu", "Ll", "Lt", "Lo") and unicodedata.numeric(character, None) is None


def _place(ink: Image.Image, side: int, extent: float) -> NDArray[np.uint8]:
    """Return a (side, side) array with `ink` in the centre, scaled so that its longer side is `extent`."""
    from PIL import Image

    factor = extent / max(ink.size)
    width, height = (max(1, round(length * factor)) for length in ink.size)
    scaled = np.asarray(ink.resize((width, height), Image.Resampling.BILINEAR))
    top, left = (side - height) // 2, (side - width) // 2
    placed = np.zeros((side, side), np.uint8)
    placed[top : top + height, left : left + width] = scaled
    return placed


def _extent(ink: Image.Image) -> float:
    """Return the extent of a drawing on its canvas, about 20/28; the root reduces differences in size."""
    usual = 0.9 * _POINTS
    return _CANVAS * min(max(20 / 28 * math.sqrt(max(ink.size) / usual), 0.5), 0.8)


def _near_pairs(pixels: NDArray[np.uint8]) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64]]:
    """Return all pairs i < j of rows with a cosine similarity of at least NEAR, and the similarity."""
    lengths = np.sqrt(np.einsum("ij,ij->i", pixels, pixels, dtype=np.float64))
    unit = pixels / lengths[:, None].astype(np.float32)
    # A projection on orthonormal axes never increases a distance, so no pair is lost.
    few = unit[::8] - unit.mean(axis=0)
    axes = np.linalg.eigh(few.T @ few)[1][:, -64:]
    short = unit @ axes
    half = np.einsum("ij,ij->i", short, short) / 2
    found = []
    for start in range(0, len(short), 256):
        # |a - b|^2 / 2 = 1 - cosine for rows of length 1; the tolerance is for float32.
        apart = half[start : start + 256, None] + half[start:] - short[start : start + 256] @ short[start:].T
        i, j = np.divmod(np.flatnonzero(apart <= 1 - NEAR + 1e-5), apart.shape[1])
        found.append(np.stack([i, j])[:, i < j] + start)
    first, second = np.concatenate(found, axis=1)
    # Integers, so that pairs at the threshold are decided equally on every machine.
    dots = [pixels[i].astype(np.int32) @ pixels[j].astype(np.int32) for i, j in zip(first, second, strict=True)]
    cosine = np.array(dots) / (lengths[first] * lengths[second])
    near = cosine >= NEAR
    return first[near], second[near], cosine[near]


def _components(n: int, first: NDArray[np.intp], second: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return, for each of `n` nodes, the lowest node in its connected component."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    edges = coo_array((np.ones(len(first), bool), (first, second)), shape=(n, n))
    components = connected_components(edges, directed=False)[1]  # numbered from 0
    return np.unique(components, return_index=True)[1][components]


def _distinct(n: int, first: NDArray[np.intp], second: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Return which of `n` rows to keep so that at most one of each pair remains; earlier rows win."""
    kept = np.ones(n, dtype=bool)
    # In order of the later row, so that the earlier row of each pair is already decided.
    for k in np.argsort(second, kind="stable"):
        if kept[first[k]]:
            kept[second[k]] = False
    return kept


def _limited(classes: NDArray[np.intp], rows: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return the first MAX_DRAWINGS rows of each class, without classes that have too few."""
    members = [rows[classes[rows] == c] for c in np.unique(classes[rows])]
    return np.concatenate([m[:MAX_DRAWINGS] for m in members if len(m) >= MIN_DRAWINGS])


def _splits(drawings: _Drawings, seed: int) -> NDArray[np.str_]:
    """Return the split of each drawing; groups of classes are assigned in random order."""
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
    """Return all images (n, size, size), so that an image does not depend on the split."""
    import torch
    import torch.nn.functional as F

    from fewshot.data.augment import Distortion

    distortion = Distortion(rotate=18, scale=0.18, shear=0.22, translate=0.08, elastic=0.045)
    rng = episode_rng(seed, 0, DISTORT)
    parts = []
    for part in np.array_split(_drawings().canvases, 32):  # limits the memory for floats
        large = distortion(torch.from_numpy(part[:, None].astype(np.float32)), rng)
        small = F.interpolate(large, size=(size, size), mode="bilinear", antialias=True)
        parts.append(small[:, 0].round().clamp(0, 255).to(torch.uint8).numpy())
    return np.concatenate(parts)
