"""Characters in the fonts that matplotlib carries: an Omniglot-like data set with no download."""

from __future__ import annotations

import unicodedata
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from fewshot.data.distort import Distortion
from fewshot.data.images import LabeledImages

SPLITS = {"train": 0.7, "val": 0.1, "test": 0.2}
FACES = (
    *("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSans-BoldOblique"),
    *("DejaVuSansMono", "DejaVuSansMono-Bold", "DejaVuSansMono-Oblique", "DejaVuSansMono-BoldOblique"),
    *("DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-Italic", "DejaVuSerif-BoldItalic"),
    *("STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic", "STIXGeneralBolIta"),
)
#: Distinct drawings that a class needs: enough for five shots and five queries.
MIN_DRAWINGS = 10
#: Two drawings coincide if their squared difference is at most this share of their mean squared ink.
COINCIDE = 0.03
#: Side of a drawing, and of the smaller version in which drawings are compared.
_SIDE, _COMPARED = 56, 16
#: What is done to each drawing, once.
_DISTORTION = Distortion(rotate=22, scale=0.22, shear=0.22, translate=0.09, elastic=0.045)


def glyphs(split: str | None = None, *, seed: int = 0, size: int = 28) -> LabeledImages:
    """Return images of characters, one for each distinct drawing, each distorted at random; ink = 255.

    A class is a character. Characters are split, so no class is in two splits, and the data are free of leaks:

    - Characters that share a drawing in any face (Latin A, Greek Alpha, Cyrillic A; s and S once their size is
      normalised) are one class. Drawings coincide if, cropped, scaled to one size and slightly blurred, their
      squared difference is at most 3 % of their mean squared ink.
    - Faces that repeat each other count once: no two images of a class come from drawings that coincide, so a
      query is never a support image again.
    - Characters with a numeric value are left out, and with them every class that shares a drawing with a digit:
      digits stay unseen.

    Parameters
    ----------
    split : {"train", "val", "test"}, optional
        70, 10 or 20 % of the classes; all by default.
    seed : int, default=0
        Of the split and of the distortions.
    size : int, default=28
        Side of the images, 8 to 56.

    Returns
    -------
    LabeledImages
        Images (n, size, size) and labels, each the character as a string.

    Raises
    ------
    ValueError
        If `split` or `size` is none of these.

    Examples
    --------
    >>> from fewshot import glyphs
    >>> train, test = glyphs("train"), glyphs("test")
    >>> len(set(train.classes) & set(test.classes))
    0
    """
    if split is not None and split not in SPLITS:
        raise ValueError(f"split is {split!r}; expected one of {', '.join(SPLITS)}, or None for all")
    if not 8 <= size <= _SIDE:
        raise ValueError(f"size is {size}; expected 8 to {_SIDE}")
    images, labels = _images(seed, size)
    chosen = np.isin(labels, _classes_of(split, np.unique(labels), seed))
    return LabeledImages(images[chosen], labels[chosen])


@lru_cache(maxsize=2)
def _images(seed: int, size: int) -> tuple[NDArray[np.uint8], NDArray[np.str_]]:
    """Distort every drawing: an image is then the same whichever split it is asked for with."""
    drawings, labels = _distinct_drawings()
    rng = np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, 0, 1]))
    x = _DISTORTION(torch.from_numpy(drawings).unsqueeze(1).float() / 255, rng)
    x = F.interpolate(x, size=(size, size), mode="area").clamp(0, 1)
    return (x[:, 0] * 255).round().to(torch.uint8).numpy(), labels


def _classes_of(split: str | None, classes: NDArray[np.str_], seed: int) -> NDArray[np.str_]:
    if split is None:
        return classes
    order = np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, 0, 0])).permutation(len(classes))
    ends = np.round(np.cumsum([0, *SPLITS.values()]) * len(classes)).astype(int)
    place = list(SPLITS).index(split)
    return classes[order[ends[place] : ends[place + 1]]]


@lru_cache(maxsize=1)
def _distinct_drawings() -> tuple[NDArray[np.uint8], NDArray[np.str_]]:
    """Return all drawings (n, side, side) of all classes and the class of each, sorted by class."""
    drawings, characters, _ = _draw_all()
    compared = _for_comparison(drawings)
    groups = _merge(compared, characters)
    names = _representatives(characters, groups)
    own = np.flatnonzero(characters == names[groups])
    keep = own[_distinct_within(compared[own], groups[own])]
    with_digit = np.unique(groups[[_is_numeric(c) for c in characters]])
    big = np.bincount(groups[keep], minlength=len(names)) >= MIN_DRAWINGS
    big[with_digit] = False
    keep = keep[big[groups[keep]]]
    labels = names[groups[keep]]
    order = np.argsort(labels, kind="stable")
    return drawings[keep[order]], labels[order]


def _representatives(characters: NDArray[np.str_], groups: NDArray[np.int64]) -> NDArray[np.str_]:
    """Return the character that stands for each class: the one most faces have, the first among equals."""
    names, first, count = np.unique(characters, return_index=True, return_counts=True)
    best: dict[int, tuple[int, str]] = {}
    for name, group, n in zip(names.tolist(), groups[first].tolist(), count.tolist(), strict=True):
        if n > best.get(group, (0, ""))[0]:
            best[group] = (n, name)
    return np.array([best[g][1] for g in range(len(best))])


def _is_numeric(character: str) -> bool:
    return unicodedata.numeric(character, None) is not None


def _draw_all() -> tuple[NDArray[np.uint8], NDArray[np.str_], NDArray[np.int64]]:
    """Draw every letter and every decimal digit that enough faces have -> drawings, characters, faces."""
    from collections import Counter

    import matplotlib
    from matplotlib.ft2font import FT2Font

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    files = [str(folder / f"{face}.ttf") for face in FACES]
    maps = [set(FT2Font(file).get_charmap()) for file in files]
    count = Counter(code for codes in maps for code in codes)
    wanted = [
        code
        for code, n in sorted(count.items())
        if n >= MIN_DRAWINGS and (unicodedata.category(chr(code)) in ("Lu", "Ll", "Lt", "Lo", "Nd"))
    ]
    drawings, characters, faces = [], [], []
    for i, (file, codes) in enumerate(zip(files, maps, strict=True)):
        for code, drawing in _draw_face(file, [c for c in wanted if c in codes]):
            drawings.append(drawing)
            characters.append(chr(code))
            faces.append(i)
    return np.stack(drawings), np.array(characters), np.array(faces)


def _draw_face(file: str, codes: list[int]) -> list[tuple[int, NDArray[np.uint8]]]:
    """Draw characters of one font: cropped to the ink, the longer side scaled to 4/5 of the frame, centred."""
    from PIL import Image, ImageFont

    font = ImageFont.truetype(file, 64)
    drawn = []
    for code in codes:
        mask = font.getmask(chr(code), mode="L")
        ink = Image.frombytes("L", mask.size, bytes(mask)) if all(mask.size) else None
        box = ink.getbbox() if ink is not None else None
        if ink is None or box is None:
            continue  # the face maps the character to a blank
        ink = ink.crop(box)
        factor = 0.8 * _SIDE / max(ink.size)
        ink = ink.resize([max(1, round(s * factor)) for s in ink.size], Image.Resampling.BILINEAR)
        frame = Image.new("L", (_SIDE, _SIDE))
        frame.paste(ink, ((_SIDE - ink.width) // 2, (_SIDE - ink.height) // 2))
        drawn.append((code, np.asarray(frame)))
    return drawn


def _for_comparison(drawings: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Shrink and thereby blur drawings -> unit rows (n, k), so that coinciding means a cosine near 1."""
    x = F.interpolate(torch.from_numpy(drawings).unsqueeze(1).float(), size=(_COMPARED, _COMPARED), mode="area")
    return F.normalize(x.flatten(1)).numpy()


def _pairs(rows: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return all pairs i < j of rows that coincide: |a - b|^2 <= COINCIDE for unit rows."""
    first, second = [], []
    for start in range(0, len(rows), 1024):
        cosine = rows[start : start + 1024] @ rows[start:].T
        i, j = np.nonzero(cosine >= 1 - COINCIDE / 2)
        first.append(i[i < j] + start)
        second.append(j[i < j] + start)
    return np.concatenate(first), np.concatenate(second)


def _merge(compared: NDArray[np.float32], characters: NDArray[np.str_]) -> NDArray[np.int64]:
    """Return a class number for each drawing: characters with coinciding drawings are one, also in a chain."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    names, codes = np.unique(characters, return_inverse=True)
    first, second = (codes[side] for side in _pairs(compared))
    links = coo_array((np.ones(len(first)), (first, second)), shape=(len(names), len(names)))
    return connected_components(links, directed=False)[1].astype(np.int64)[codes]


def _distinct_within(compared: NDArray[np.float32], groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the rows that are kept: within each class, the first of every set of coinciding drawings."""
    keep = []
    order = np.argsort(groups, kind="stable")
    for members in np.split(order, np.cumsum(np.bincount(groups))[:-1]):
        kept: list[int] = []
        for row in members:
            if not kept or (compared[kept] @ compared[row]).max() < 1 - COINCIDE / 2:
                kept.append(int(row))
        keep += kept
    return np.array(keep)
