"""Images that occur twice: what lies in several splits is dropped from all but the last, so no test image leaks."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd

#: The order in which splits are held to be dear: a copy in a later one stays.
SPLITS = ("train", "val", "test")


def hash_contents(contents: Iterable[bytes]) -> list[str]:
    """Return the SHA-256 of each content."""
    return [hashlib.sha256(content).hexdigest() for content in contents]


def find_duplicates(table: pd.DataFrame, hashes: Sequence[str]) -> tuple[NDArray[np.bool_], pd.DataFrame]:
    """Find images of equal content, and those to drop so that no content is in two splits.

    Parameters
    ----------
    table : DataFrame of n rows
        With the columns ``path``, ``label`` and ``split`` (one of train, val, test).
    hashes : sequence of n str
        Of the content of each image.

    Returns
    -------
    keep : ndarray of shape (n,), bool
        False for a copy whose content is also in a later split; copies within one split are kept.
    listing : DataFrame
        One row for each image that has a copy: ``content`` (the beginning of its hash), path, label, split, and
        ``action``, which is kept or dropped.

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
    """Return a sentence about what `find_duplicates` found."""
    if not len(listing):
        return "no image occurs twice"
    groups = listing.groupby("content")
    crossing = int((groups["split"].nunique() > 1).sum())
    mixed = int((groups["label"].nunique() > 1).sum())
    dropped = int((listing["action"] == "dropped").sum())
    return (
        f"{len(groups)} images occur more than once ({mixed} of them in two classes); {crossing} across splits, "
        f"of which {dropped} copies are dropped"
    )
