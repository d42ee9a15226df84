"""Omniglot, by the split of Vinyals et al. (2016) or another: from the official archives to one array and one table.

Each drawing is rotated by 0, 90, 180 and 270 degrees, and each rotation is a separate class. Drawings are scaled to
28 x 28 and inverted, so that ink is bright, as in the Matching and Prototypical Networks papers.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageOps

from fewshot.data.decode import decode
from fewshot.data.preparing.common import check_total, finish
from fewshot.data.preparing.splits import ROTATIONS
from fewshot.errors import ImageDecodeError
from fewshot.persistence.files import digest
from fewshot.utils.progress import progress_bar
from fewshot.utils.text import counted

BASE = "https://github.com/brendenlake/omniglot/raw/master/python/"
ARCHIVES = {
    "background": ("images_background.zip", "ad41ab679c8b5d90b271ef46be6987cc81211774a695c29dcc5367b2b26ee640"),
    "evaluation": ("images_evaluation.zip", "1f61a8f3366785b057fc117d9228e78a16e3d976c8953b2a10fcc74cf0609cee"),
}
#: Published numbers of characters and drawings.
EXPECTED = {"characters": 1623, "drawings": 32460}


def prepare(
    archives: list[Path],
    splits: dict[str, list[str]],
    out: str | Path,
    *,
    size: int = 28,
    expected: dict[str, int] = EXPECTED,
    progress: bool = True,
    say: Callable[[str], object] = lambda line: None,
) -> None:
    """Read the drawings, check that none is missing, rotate them, and write them by split."""
    drawings = dict(_drawings(archives))
    characters = {name.rpartition("/")[0] for name in drawings}
    check_total("characters", len(characters), expected["characters"])
    check_total("drawings", len(drawings), expected["drawings"])
    say(f"{len(characters)} classes and {len(drawings)} images in the archives")
    if unknown := {c for classes in splits.values() for c in classes if c.rpartition("/")[0] not in characters}:
        raise ValueError(f"the splits name {min(unknown)!r}, which is not in the archives; give the splits of Omniglot")
    split_of = {name: split for split, classes in splits.items() for name in classes}
    rows, images = [], []
    bar = progress_bar(len(drawings), "image", show=progress, iterable=drawings.items())
    for name, data in bar:
        drawing = _decode(name, data)
        for angle in ROTATIONS:
            label = f"{name.rpartition('/')[0]}/rot{angle:03d}"
            if label in split_of:
                rows.append((f"{name}#rot{angle:03d}", label, split_of[label]))
                small = drawing.rotate(angle).resize((size, size), Image.Resampling.BILINEAR)
                images.append(np.asarray(ImageOps.invert(small)))
    table = pd.DataFrame(rows, columns=["path", "label", "split"])
    say("split " + ", ".join(f"{split}: {counted(len(classes), 'class')}" for split, classes in splits.items()))
    finish(out, np.stack(images), table, {path.name: digest(path) for path in archives}, say)


def _drawings(archives: list[Path]) -> Iterator[tuple[str, bytes]]:
    """Yield ``Alphabet/character/file`` and the bytes of each drawing."""
    for path in archives:
        try:
            with zipfile.ZipFile(path) as archive:
                for name in sorted(archive.namelist()):
                    parts = name.split("/")
                    if name.endswith(".png") and len(parts) >= 3 and not parts[-1].startswith("."):
                        yield "/".join(parts[-3:]), archive.read(name)
        except (zipfile.BadZipFile, EOFError, zlib.error) as error:
            raise ValueError(f"{path} is not a complete zip archive ({error}); download it again") from None


def _decode(name: str, data: bytes) -> Image.Image:
    try:
        return decode(data).convert("L")
    except ImageDecodeError as error:
        raise ImageDecodeError(name, error.reason) from None
