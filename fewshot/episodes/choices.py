"""Choosing without replacement for many episodes at a time, as numpy's generators choose for one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

#: Above so many to choose from, numpy may choose in another way, where that is more than a part of them.
MANY, PART = 10_000, 50


def can_choose(size: int, k: int) -> bool:
    """Whether `choose` can choose `k` of `size`."""
    return k <= size and (size <= MANY or k <= size // PART)


def numbers_taken(sizes: NDArray[np.int64], k: int) -> NDArray[np.int64]:
    """Return how many 32-bit random numbers choosing `k` of each of `sizes` takes: one less where all are chosen."""
    return 2 * k - 1 - (sizes == k)


def choose(
    numbers: NDArray[np.uint32], start: NDArray[np.int64], sizes: NDArray[np.int64], k: int
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return what ``Generator.choice(size, k, replace=False)`` does, for many at a time.

    Each is a sample by Floyd's algorithm, then shuffled. Numbers below a bound are high halves of products.

    Parameters
    ----------
    numbers : ndarray of shape (e, n)
        Each row is what a generator would give next.
    start : ndarray of shape (e, c)
        Where in a row the numbers of each choice begin; `numbers_taken` says how many they are.
    sizes : ndarray of shape (e, c)
        How many there are to choose from: such as `can_choose` accepts.
    k : int
        How many are chosen.

    Returns
    -------
    chosen : ndarray of shape (e, c, k)
        Numbers below the size.
    sure : ndarray of shape (e,)
        False where a generator may have passed over a number, so that the row is to be drawn by one: as good as never.

    References
    ----------
    J. Bentley, B. Floyd (1987). A sample of brilliance. CACM 30(9). D. Lemire (2019). Fast Random Integer Generation in
    an Interval. ACM TOMACS 29(1). arXiv:1805.10941.
    """
    episodes, choices = sizes.shape
    # The first of all has one possible value and takes no number; what stands in its place is multiplied by 1.
    places = (start - (sizes == k))[..., None] + np.arange(2 * k - 1)
    taken = np.take_along_axis(numbers, places.clip(min=0).reshape(episodes, -1), 1).astype(np.uint64)
    last = (sizes - k)[..., None] + np.arange(k)
    bounds = np.concatenate([last + 1, np.broadcast_to(np.arange(k, 1, -1), (episodes, choices, k - 1))], -1)
    products = taken.reshape(bounds.shape) * bounds.astype(np.uint64)
    sure = np.all((products & 0xFFFFFFFF).astype(np.int64) >= bounds, axis=(1, 2))
    # A row a place, a column a choice: what follows goes place by place.
    values = np.ascontiguousarray((products >> np.uint64(32)).astype(np.int64).reshape(-1, 2 * k - 1).T)
    chosen, last = values[:k], np.ascontiguousarray(last.reshape(-1, k).T)
    for i in range(1, k):
        known = (chosen[:i] == chosen[i]).any(0)
        np.copyto(chosen[i], last[i], where=known)
    columns = np.arange(episodes * choices)
    for i, other in zip(range(k - 1, 0, -1), values[k:], strict=True):
        swapped = chosen[other, columns]
        chosen[other, columns] = chosen[i]
        chosen[i] = swapped
    return np.ascontiguousarray(chosen.T).reshape(episodes, choices, k), sure
