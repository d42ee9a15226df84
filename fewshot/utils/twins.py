"""Find embeddings of the same image: they differ only by rounding, which depends on the batch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewshot.utils.text import counted
from fewshot.utils.warning import warn

#: Largest distance between embeddings of one image, relative to their length.
SAME_IMAGE = 1e-4
#: Pairs of rows compared at a time.
PAIRS = 2**20
#: Images that a warning names.
SHOWN = 5


def earlier_twins(x: NDArray[np.floating], start: int = 0) -> NDArray[np.int64]:
    """Return for each row from `start` on the number of an earlier row of the same image; -1 for none.

    Rows of the same image have nearly the same projection on any direction, so only rows that are neighbours on one
    random direction are compared, instead of all pairs.

    Parameters
    ----------
    x : ndarray of shape (n, d)
        Embeddings, all finite.
    start : int, default=0
        Earlier rows are known already, and are not compared with each other.

    Returns
    -------
    ndarray of shape (n - start,)
        Row numbers.

    Examples
    --------
    >>> earlier_twins(np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])).tolist()
    [-1, -1, 0]
    """
    n, d = x.shape
    twins = np.full(n - start, -1)
    if n < 2 or start >= n or not d:
        return twins
    first = _first_equal(x, start)  # a thousand copies of one image would make half a million pairs
    copies = first < np.arange(start, n)
    twins[copies] = first[copies]
    lengths = np.zeros(n, x.dtype)  # those of known rows are not needed
    lengths[start:] = np.linalg.norm(x[start:], axis=1)
    directions = np.random.default_rng(0).standard_normal((d, 2))
    along, across = (x @ (directions / np.linalg.norm(directions, axis=0)).astype(x.dtype)).T
    new = np.arange(start, n)[~copies]
    rows = np.concatenate([np.arange(start), new])
    rows = rows[np.argsort(along[rows], kind="stable")]
    reach = SAME_IMAGE * lengths[new]
    low = np.searchsorted(along[rows], along[new] - reach, "left")
    high = np.searchsorted(along[rows], along[new] + reach, "right")
    for part in _parts(high - low):
        counts = (high - low)[part]
        mine = new[part].repeat(counts)
        other = rows[np.arange(len(mine)) + (low[part] - counts.cumsum() + counts).repeat(counts)]
        near = (other < mine) & (np.abs(across[mine] - across[other]) <= SAME_IMAGE * lengths[mine])
        for i, j in zip(mine[near].tolist(), other[near].tolist(), strict=True):
            if twins[i - start] < 0 and np.linalg.norm(x[i] - x[j]) <= SAME_IMAGE * lengths[i]:
                twins[i - start] = j
    return twins


def distinct_rows(x: NDArray[np.floating], labels: NDArray[Any]) -> NDArray[np.int64]:
    """Return the numbers of the rows that are no copy of an earlier row with the same label.

    A row that is left out is still learned if a copy of it is; without copies it is not.

    Parameters
    ----------
    x : ndarray of shape (n, d)
        Embeddings, all finite.
    labels : ndarray of shape (n,)
        Their classes; a copy in another class stays.

    Examples
    --------
    >>> distinct_rows(np.ones((3, 2)), np.array([0, 1, 0])).tolist()
    [0, 1]
    """
    distinct = np.ones(len(x), bool)
    for label in np.unique(labels[earlier_twins(x) >= 0]):
        own = np.flatnonzero(labels == label)
        distinct[own] = earlier_twins(x[own]) < 0
    return np.flatnonzero(distinct)


def warn_of_twins(twins: NDArray[np.int64], start: int, names: Sequence[str]) -> None:
    """Warn of images that are learned twice, given the `names` of all rows; see `earlier_twins`."""
    found = np.flatnonzero(twins >= 0)
    if not len(found):
        return
    pairs = [f"{names[start + i]} is the same as {names[twins[i]]}" for i in found[:SHOWN].tolist()]
    more = f", and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    warn(
        f"learned already or twice, {len(found)} of {counted(len(twins), 'image')}: {'; '.join(pairs)}{more}; "
        "each copy counts again, so remove those given by mistake"
    )


def _first_equal(x: NDArray[Any], start: int) -> NDArray[np.int64]:
    """Return for each row from `start` on the number of the first row from there on that equals it."""
    seen: dict[bytes, int] = {}
    digests = (hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in x[start:])
    return np.array([seen.setdefault(digest, start + i) for i, digest in enumerate(digests)])


def _parts(counts: NDArray[np.int64]) -> Iterator[slice]:
    """Yield slices of few pairs each, or of one row."""
    start, pairs = 0, 0
    for i, count in enumerate(counts.tolist()):
        if pairs and pairs + count > PAIRS:
            yield slice(start, i)
            start, pairs = i, 0
        pairs += count
    if pairs:
        yield slice(start, len(counts))
