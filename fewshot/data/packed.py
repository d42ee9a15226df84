"""Packed data sets: one array of pixels, one table of labels and splits, and one manifest."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fewshot.data.scan import read_csv, take_split
from fewshot.persistence.files import digest, refuse_irregular, refuse_other_files, replacing, write_text
from fewshot.utils.text import counted

if TYPE_CHECKING:
    import pandas as pd

PIXELS, TABLE, MANIFEST = "images.npy", "table.csv", "manifest.json"


def write_packed(folder: str | Path, images: NDArray[np.uint8], table: pd.DataFrame, facts: Mapping[str, Any]) -> None:
    """Write a packed data set; the manifest is written last.

    Parameters
    ----------
    folder : path
        Created if needed.
    images : uint8 array of shape (n, H, W) or (n, H, W, C)
        Pixels.
    table : DataFrame of n rows
        The columns ``path`` (origin of the image), ``label`` and ``split``.
    facts : mapping
        Further entries of the manifest, such as sources, command and versions; must be valid JSON.

    Raises
    ------
    ValueError
        If the table does not fit the images, or the folder contains other files.
    """
    if len(table) != len(images) or not {"path", "label", "split"} <= set(table.columns):
        raise ValueError(
            f"the table has {counted(len(table), 'row')} and columns {list(table.columns)}; expected path, label "
            f"and split for {counted(len(images), 'image')}"
        )
    folder = Path(folder)
    refuse_other_data(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MANIFEST).unlink(missing_ok=True)  # the data set is incomplete until the manifest is rewritten
    with replacing(folder / PIXELS) as partial, partial.open("wb") as file:
        np.save(file, images, allow_pickle=False)
    write_text(folder / TABLE, table.to_csv(index=False, lineterminator="\n"))
    groups = table.groupby("split", sort=False)["label"]
    manifest = {
        **facts,
        "splits": {str(s): {"classes": int(g.nunique()), "images": len(g)} for s, g in groups},
        "files": {name: {"sha256": digest(folder / name)} for name in (PIXELS, TABLE)},
    }
    write_text(folder / MANIFEST, json.dumps(manifest, indent=1, ensure_ascii=False) + "\n")


def refuse_other_data(folder: str | Path) -> None:
    """Raise `ValueError` if a folder for a data set contains other files; hidden files do not matter."""
    refuse_irregular(folder, (PIXELS, TABLE, MANIFEST))
    if not is_packed(folder):
        refuse_other_files(folder)


def is_packed(folder: str | Path) -> bool:
    """Whether a folder is a packed data set."""
    return all((Path(folder) / name).is_file() for name in (PIXELS, TABLE))


def read_packed(folder: str | Path, split: str | None = None) -> tuple[NDArray[np.uint8], NDArray[Any]]:
    """Return the pixels and labels of a packed data set or of one split.

    Pixels are memory-mapped if their rows are contiguous, else read.

    Parameters
    ----------
    folder : path
        A packed data set.
    split : str, optional
        Return only this split.

    Raises
    ------
    ValueError
        If the folder is incomplete, its table does not fit its pixels, or there is no such split.
    """
    folder = Path(folder)
    if not (folder / MANIFEST).is_file():
        raise ValueError(f"{folder} has no {MANIFEST}: its preparation was interrupted; prepare it again")
    try:
        images = np.load(folder / PIXELS, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{folder / PIXELS} is damaged ({error}); prepare the data again") from None
    table = read_csv(folder / TABLE).reset_index(drop=True)
    if len(images) != len(table):
        raise ValueError(
            f"{folder / TABLE} has {counted(len(table), 'row')} and {PIXELS} {counted(len(images), 'image')}; "
            "prepare the data again"
        )
    rows = take_split(table, split, str(folder / TABLE)).index.to_numpy()
    together = len(rows) and rows[-1] - rows[0] + 1 == len(rows)
    pixels = images[rows[0] : rows[-1] + 1] if together else images[rows]
    return pixels, table["label"].to_numpy(dtype=object)[rows]
