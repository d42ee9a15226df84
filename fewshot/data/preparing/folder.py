"""Split your own folder of class folders by class, and write only a table path,label,split.

Classes are split, not images: few-shot learning is measured on classes that training has not seen.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from fewshot.data.images import LabeledImages
from fewshot.data.preparing.common import describe_duplicates, find_duplicates
from fewshot.persistence.files import digest, replacing
from fewshot.persistence.suffixes import check_suffix
from fewshot.utils.progress import progress_bar
from fewshot.utils.streams import SPLIT, episode_rng
from fewshot.utils.text import as_unicode, counted


def prepare(
    folder: str | Path,
    out: str | Path,
    *,
    val: float = 0.2,
    test: float = 0.2,
    seed: int = 0,
    min_images: int = 1,
    progress: bool = True,
    say: Callable[[str], object] = lambda line: None,
) -> None:
    """Draw the classes of each split, drop images that occur in two splits, and write the table."""
    check_suffix(out, "CSV")
    above = os.path.realpath(Path(out).absolute().parent)
    if Path(folder).is_dir() and os.path.commonpath([above, os.path.realpath(folder)]) != above:
        raise ValueError(
            f"{out} is neither in {folder} nor in a folder above it, so no path can be relative; move it there"
        )
    data = LabeledImages.from_folder(folder)
    classes = data.classes[data.counts >= min_images]
    if (sizes := _sizes(len(classes), val, test)) is None:
        raise ValueError(
            f"{folder} has {counted(len(classes), 'class')} of at least {counted(min_images, 'image')}, too few for "
            "every split; add classes, or leave out a split (--val 0)"
        )
    order = episode_rng(seed, 0, SPLIT).permutation(len(classes))
    split_of = dict(zip(classes[order], np.repeat(list(sizes), list(sizes.values())), strict=True))
    rows = [i for i, label in enumerate(data.labels) if label in split_of]
    for name in (*data.images[rows], *classes):
        if name != as_unicode(name):
            raise ValueError(f"the name {as_unicode(name)} is not UTF-8 and cannot be written to a table; rename it")
    table = pd.DataFrame({"path": data.images[rows], "label": data.labels[rows]})
    table["split"] = table["label"].map(split_of)
    with replacing(out) as partial:  # opened first, so that an invalid place is an error before all files are read
        bar = progress_bar(len(table), "image", show=progress, iterable=table["path"])
        keep, listing = find_duplicates(table, [digest(path) for path in bar])
        for name in listing[listing["action"] == "dropped"]["path"]:
            say(f"dropped {name}: a later split has the same image")
        say(describe_duplicates(listing))
        kept = table[keep].copy()
        kept["path"] = [os.path.relpath(path, Path(out).parent) for path in kept["path"]]
        kept.to_csv(partial, index=False, lineterminator="\n")
    for split, group in kept.groupby("split", sort=False):
        say(f"{split:8s}{group['label'].nunique():6d} classes {len(group):8d} images")
    say(f"written to {out}")


def _sizes(n: int, val: float, test: float) -> dict[str, int] | None:
    """Return how many of `n` classes each split gets; None if they are too few for all."""
    # Rounded, because 1 - 0.7 - 0.3 is not 0 in floating point.
    share = {"train": round(1 - val - test, 9), "val": val, "test": test}
    if min(share.values()) < 0:
        raise ValueError(
            f"--val {val} and --test {test} are not valid shares; expected numbers from 0 whose sum is at most 1"
        )
    sizes = {split: max(round(part * n), 1) if part else 0 for split, part in share.items()}
    if not share["train"]:
        sizes["test"] = n - sizes["val"]
    sizes["train"] = n - sizes["val"] - sizes["test"]
    return None if sizes["train"] < (share["train"] > 0) else sizes
