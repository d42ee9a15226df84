"""Find embeddings of the same image: they differ only by rounding, which depends on the batch."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from fewshot.errors import brief
from fewshot.utils.blocks import Blocks
from fewshot.utils.keyed import KeyedRows
from fewshot.utils.text import counted
from fewshot.utils.warning import warn

#: Largest distance between embeddings of one image, relative to their length.
SAME_IMAGE = 1e-4
#: Projections are compared within this many times that distance, since products round.
ROUNDING = 1.5
#: Images that a warning names.
SHOWN = 5


def earlier_twins(x: NDArray[np.floating], start: int = 0) -> NDArray[np.int64]:
    """Return for each row from `start` on the number of an earlier row of the same image; -1 for none.

    A row of zeros, such as of a text without a known word, says nothing of its item, and so is no twin.

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
    return Projected.of(x[:start]).twins(x[start:])


@dataclass(frozen=True, eq=False)
class Projected:
    """Embeddings that grow, by their projections on two random directions, so that copies are found among many.

    Attributes
    ----------
    x : Blocks of n rows
        Embeddings (d,), all finite.
    along : KeyedRows
        Their numbers by the projection on one direction.
    across : Blocks of n rows
        The projection on the other.
    """

    x: Blocks
    along: KeyedRows
    across: Blocks

    @classmethod
    def of(cls, x: NDArray[np.floating] | Blocks) -> Self:
        """Return the projections of embeddings (n, d)."""
        blocks = x if isinstance(x, Blocks) else Blocks.of(x)
        along, across = map(np.concatenate, zip(*map(_projections, blocks.blocks), strict=True))
        return cls(blocks, KeyedRows.of(along), Blocks.of(across))

    def extended(self, x: NDArray[np.floating]) -> Self:
        """Return these and more embeddings (k, d)."""
        along, across = _projections(x)
        numbers = len(self.x) + np.arange(len(x))
        return type(self)(self.x.extended(x), self.along.extended(along, numbers), self.across.extended(across))

    def twins(self, x: NDArray[np.floating], gone: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
        """Return for each new embedding (k, d) the number of the first one before it of the same image; -1 for none.

        New ones have the numbers after the known ones; sorted numbers that are `gone` are no twins, nor rows of zeros.
        """
        start, twins = len(self.x), np.full(len(x), -1)
        if not x.size or start + len(x) < 2:
            return twins
        first = _first_equal(x)  # a thousand copies of one image would make half a million pairs
        new = np.flatnonzero(first == np.arange(len(x)))
        along, across = _projections(x)
        joined, along = self.along.extended(along[new], start + new), along[new]
        reach = SAME_IMAGE * np.linalg.norm(x[new], axis=1)
        wide = ROUNDING * reach
        for queries, rows in joined.between(along - wide, along + wide):
            earlier = rows < start + new[queries]
            if gone is not None and len(gone):
                earlier &= ~is_among(gone, rows)
            queries, rows = queries[earlier], rows[earlier]
            there = np.empty(len(rows), across.dtype)
            known = rows < start
            there[known], there[~known] = self.across.rows(rows[known]), across[rows[~known] - start]
            near = np.flatnonzero(np.abs(across[new][queries] - there) <= wide[queries])
            for place in near[np.argsort(rows[near], kind="stable")].tolist():
                query, row = queries[place], rows[place]
                if 0 <= twins[new[query]] <= row:
                    continue
                other = self.x.rows(rows[place : place + 1])[0] if row < start else x[row - start]
                if np.linalg.norm(x[new[query]] - other) <= reach[query]:
                    twins[new[query]] = row
        copies = first < np.arange(len(x))
        twins[copies] = start + first[copies]
        twins[~x.any(1)] = -1
        return twins


def is_among(some: NDArray[np.int64], numbers: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which numbers (...) are among `some`, which are sorted and at least one."""
    return some[np.minimum(np.searchsorted(some, numbers), len(some) - 1)] == numbers


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


def warn_of_twins(twins: NDArray[np.int64], start: int, names: Sequence[str], labels: NDArray[Any]) -> None:
    """Warn of images that are learned twice, given the `names` and `labels` of all rows; see `earlier_twins`.

    Copies in two classes come first: one of their labels is wrong.
    """
    found = np.flatnonzero(twins >= 0)
    if not len(found):
        return
    differ = labels[start + found] != labels[twins[found]]

    def told(place: int) -> str:
        pair = (start + found[place], twins[found[place]])
        both = [names[row] + (f" (class {brief(str(labels[row]))})" if differ[place] else "") for row in pair]
        return " is the same as ".join(both)

    pairs = [told(place) for place in np.argsort(~differ, kind="stable")[:SHOWN].tolist()]
    more = f", and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    clash = f"; {differ.sum()} of them in two classes, so remove the wrong one" if differ.any() else ""
    warn(
        f"learned already or twice, {len(found)} of {counted(len(twins), 'image')}: {'; '.join(pairs)}{more}; "
        f"each copy counts again, so remove those given by mistake{clash}"
    )


def _projections(x: NDArray[np.floating]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the projections (n,) of embeddings (n, d) on two random directions."""
    directions = np.random.default_rng(0).standard_normal((x.shape[1], 2))
    along, across = (x @ (directions / np.linalg.norm(directions, axis=0)).astype(x.dtype)).T
    return np.ascontiguousarray(along), np.ascontiguousarray(across)


def _first_equal(x: NDArray[Any]) -> NDArray[np.int64]:
    """Return for each row the number of the first row that equals it."""
    seen: dict[bytes, int] = {}
    digests = (hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in x)
    return np.array([seen.setdefault(digest, i) for i, digest in enumerate(digests)], np.int64)
