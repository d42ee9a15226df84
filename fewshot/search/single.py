"""Similarities and the best of them in numpy: for one query, torch's calls take ten times as long as the product."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]
#: Which keys are dead, if any are.
Marks = NDArray[np.bool_] | None
#: A sum of squares within this range has kept its digits.
LEAST_SQUARE, LARGEST_SQUARE = 1e-20, 1e20


class SingleSearch:
    """Keys prepared for exact search for one query at a time.

    Parameters
    ----------
    keys : ndarray of shape (m, d)
        As for `PreparedKeys`.
    is_cosine : bool
        Whether ranks are divided by the length of the query.
    sqnorm, factor : ndarray of shape (m,) or None
        Squared norms, subtracted from twice the products; factors of the products.
    offset : ndarray of shape (d,) or None
        Subtracted from queries.
    """

    def __init__(
        self, keys: Array, is_cosine: bool, sqnorm: Array | None, factor: Array | None, offset: Array | None
    ) -> None:
        self.keys, self.is_cosine, self.sqnorm, self.factor = keys, is_cosine, sqnorm, factor
        self.offsets: tuple[Array, ...] = ()
        if offset is not None:  # float32 queries are shifted in two steps, each rounded once
            high = offset.astype(keys.dtype)
            self.offsets = (high, (offset - high).astype(keys.dtype))

    def search(self, x: Array, k: int, dead: Marks = None) -> tuple[NDArray[np.int64], Array] | None:
        """Return ids and similarities (k,) of the nearest keys to a query (d,) that are not `dead`, nearest first.

        Ties go to the first. None if the squares of the query would lose digits.
        """
        for offset in self.offsets:
            x = x - offset
        square = np.vecdot(x, x)
        if self.is_cosine and not LEAST_SQUARE < square < LARGEST_SQUARE:
            return None
        ranks = np.vecdot(self.keys, x)
        if self.sqnorm is not None:
            ranks *= 2
            ranks -= self.sqnorm
        elif self.factor is not None:
            ranks *= self.factor
        if dead is not None:
            ranks[dead] = -np.inf
        ids = best(ranks, k)
        similarity = ranks[ids]
        if self.sqnorm is not None:
            similarity = np.minimum(similarity - square, 0)
        elif self.is_cosine:
            similarity /= np.sqrt(square)
        return ids, similarity


def best(ranks: Array, k: int) -> NDArray[np.int64]:
    """Return the places (k,) of the largest of `ranks` (m,), largest first; ties go to the first.

    Examples
    --------
    >>> best(np.array([1.0, 3.0, 2.0, 3.0]), 3)
    array([1, 3, 2])
    """
    if k == 1:
        return np.array([ranks.argmax()])
    places = np.arange(len(ranks))
    if k < len(ranks):
        least = np.partition(ranks, len(ranks) - k)[len(ranks) - k]
        places = np.flatnonzero(ranks >= least)
    return places[np.argsort(-ranks[places], kind="stable")[:k]]


def shortlist(x: NDArray[np.float32], rows: NDArray[np.float32], metric: str, n: int) -> NDArray[np.int64]:
    """Return the places (n,) of the nearest `rows` (c, d) to a query `x` (d,) by float32, in rising order."""
    if metric == "cosine":
        squares = np.vecdot(rows, rows)
        if not (squares.min() > LEAST_SQUARE and squares.max() < LARGEST_SQUARE):
            rows = rows.astype(np.float64)
    return np.sort(np.argpartition(similarities(x, rows, metric), len(rows) - n)[len(rows) - n :])


def similarities(x: Array, rows: Array, metric: str) -> Array:
    """Return the similarities (..., c) of queries `x` (..., d) to `rows` (..., c, d) of their own."""
    x = x[..., None, :]
    if metric == "sqeuclidean":
        apart = rows - x
        return -np.vecdot(apart, apart)
    products = np.vecdot(rows, x)
    if metric == "dot":
        return products
    lengths = np.sqrt(np.vecdot(rows, rows)) * np.sqrt(np.vecdot(x, x))
    return np.divide(products, lengths, out=np.zeros_like(products), where=lengths > 0)
