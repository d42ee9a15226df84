"""What the data sets share: dropping copies across splits, writing, and checking counts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fewshot.data.digest import hash_contents
from fewshot.data.packed import write_packed
from fewshot.data.preparing.splits import SPLITS
from fewshot.persistence.files import write_text
from fewshot.persistence.provenance import command_line, manifest
from fewshot.utils.text import counted

if TYPE_CHECKING:
    import pandas as pd

Say = Callable[[str], object]


def finish(
    out: str | Path, images: NDArray[np.uint8], table: pd.DataFrame, sources: Mapping[str, str], say: Say
) -> None:
    """Drop images that are in two splits, write the packed data set and ``duplicates.csv``, and report counts.

    Parameters
    ----------
    out : path
        The output folder.
    images : uint8 array of n images
        Pixels.
    table : DataFrame of n rows
        The columns path, label and split.
    sources : mapping of str to str
        SHA-256 of each source file by name.
    say : callable
        Called with each line of the report.
    """
    keep, listing = find_duplicates(table, hash_contents(image.tobytes() for image in images))
    say(describe_duplicates(listing) + (f"; see {out}/duplicates.csv" if len(listing) else ""))
    order = table[keep].assign(rank=table["split"].map(SPLITS.index)).sort_values(["rank", "label", "path"]).index
    kept = table.loc[order].drop(columns="rank", errors="ignore").reset_index(drop=True)
    facts = {"manifest": manifest(command_line(), 0), "sources": dict(sources)}
    write_packed(out, images[order.to_numpy()], kept, facts)
    write_text(Path(out) / "duplicates.csv", listing.to_csv(index=False, lineterminator="\n"))
    say(f"{'split':8s}{'classes':>8s}{'images':>8s}{'a class':>12s}")
    for split, group in kept.groupby("split", sort=False):
        sizes = group.groupby("label").size()
        spread = f"{sizes.min()}" if sizes.min() == sizes.max() else f"{sizes.min()}-{sizes.max()}"
        say(f"{split:8s}{len(sizes):8d}{len(group):8d}{spread:>12s}")
    say(f"written to {out}: images.npy, table.csv, manifest.json, duplicates.csv")


def find_duplicates(table: pd.DataFrame, hashes: Sequence[str]) -> tuple[NDArray[np.bool_], pd.DataFrame]:
    """Find images with equal content, and decide which to drop so that no content is in two splits.

    Parameters
    ----------
    table : DataFrame of n rows
        The columns ``path``, ``label`` and ``split`` (train, val or test).
    hashes : sequence of n str
        Hash of each image.

    Returns
    -------
    keep : ndarray of shape (n,), bool
        False for images that are also in a later split; copies within a split are kept.
    listing : DataFrame
        One row per image with a copy: ``content`` (start of the hash), path, label, split, and ``action`` (kept or
        dropped).

    Examples
    --------
    >>> import pandas as pd
    >>> table = pd.DataFrame({"path": list("abc"), "label": list("xyz"), "split": ["train", "test", "test"]})
    >>> find_duplicates(table, ["1", "1", "2"])[0].tolist()
    [False, True, True]
    """
    ranks = table["split"].map({split: rank for rank, split in enumerate(SPLITS)}).to_numpy()
    _, codes, counts = np.unique(np.asarray(hashes), return_inverse=True, return_counts=True)
    last = np.full(len(counts), -1)
    np.maximum.at(last, codes, ranks)
    keep = ranks == last[codes]
    again = np.flatnonzero(counts[codes] > 1)
    listing = table.iloc[again][["path", "label", "split"]].copy()
    listing.insert(0, "content", [hashes[i][:16] for i in again.tolist()])
    listing["action"] = np.where(keep[again], "kept", "dropped")
    return keep, listing.sort_values(["content", "path"], kind="stable")


def describe_duplicates(listing: pd.DataFrame) -> str:
    """Return a summary of the listing of `find_duplicates`."""
    if not len(listing):
        return "no image occurs twice"
    groups = listing.groupby("content")
    crossing = int((groups["split"].nunique() > 1).sum())
    mixed = int((groups["label"].nunique() > 1).sum())
    dropped = int((listing["action"] == "dropped").sum())
    return (
        f"{counted(len(groups), 'image')} found more than once ({mixed} of them in two classes); {crossing} across "
        f"splits, of which {counted(dropped, 'copy', 'copies')} dropped"
    )


def check_total(what: str, found: int, expected: int) -> None:
    """Raise `ValueError` unless the numbers agree."""
    if found != expected:
        raise ValueError(f"found {found} {what}, expected {expected}; the archive is not the published one")
