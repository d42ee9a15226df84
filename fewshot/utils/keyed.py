"""Numbers of rows by a key, for rows that are added a few at a time while earlier versions stay as they were."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

#: Most rows beside the sorted ones; more are merged into them.
MOST_RECENT = 4096
#: About the pairs that are yielded at a time.
PAIRS = 2**20


class KeyedRows:
    """An immutable table of keys and the numbers of their rows, sorted by key.

    Examples
    --------
    >>> old = KeyedRows.of(np.array([0.5, 0.1, 0.9]))
    >>> new = old.extended(np.array([0.4]), np.array([3]))
    >>> [np.sort(one.at(0.3, 0.6)).tolist() for one in (old, new)]
    [[0], [0, 3]]
    """

    def __init__(self, *parts: tuple[NDArray[Any], NDArray[np.int64]]) -> None:
        self._parts = parts

    @classmethod
    def of(cls, keys: NDArray[Any]) -> Self:
        """Return a table of the rows 0, 1, ... of these keys (n,)."""
        order = np.argsort(keys, kind="stable")
        return cls((keys[order], order), (keys[:0], order[:0]))

    def extended(self, keys: NDArray[Any], rows: NDArray[np.int64]) -> Self:
        """Return a table with more keys (k,) and their rows (k,)."""
        base, recent = self._parts
        recent = _merged(recent, (keys, rows))
        if len(recent[0]) <= MOST_RECENT:
            return type(self)(base, recent)
        return type(self)(_merged(base, recent), (keys[:0], rows[:0]))

    def at(self, low: Any, high: Any) -> NDArray[np.int64]:
        """Return the rows whose keys are between `low` and `high`, both included."""
        bounds = np.array([low]), np.array([high])
        return np.concatenate([rows[:0] for _, rows in self._parts] + [rows for _, rows in self.between(*bounds)])

    def between(self, low: NDArray[Any], high: NDArray[Any]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Yield pairs of a query and a row whose key is between its `low` and `high` (q,), both included."""
        for keys, rows in self._parts:
            begin, end = np.searchsorted(keys, low, "left"), np.searchsorted(keys, high, "right")
            for part in _few_pairs(end - begin):
                counts = (end - begin)[part]
                queries = np.arange(part.start, part.stop).repeat(counts)
                yield queries, rows[np.arange(len(queries)) + (begin[part] - counts.cumsum() + counts).repeat(counts)]


def _merged(
    one: tuple[NDArray[Any], NDArray[np.int64]], other: tuple[NDArray[Any], NDArray[np.int64]]
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    keys, rows = (np.concatenate(columns) for columns in zip(one, other, strict=True))
    order = np.argsort(keys, kind="stable")
    return keys[order], rows[order]


def _few_pairs(counts: NDArray[np.int64]) -> Iterator[slice]:
    """Yield slices of few pairs each, or of one query."""
    start, pairs = 0, 0
    for i, count in enumerate(counts.tolist()):
        if pairs and pairs + count > PAIRS:
            yield slice(start, i)
            start, pairs = i, 0
        pairs += count
    if pairs:
        yield slice(start, len(counts))
