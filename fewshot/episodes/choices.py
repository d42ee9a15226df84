"""Sampling without replacement for many episodes at once, from given random numbers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def choose(numbers: NDArray[np.uint32], sizes: NDArray[np.int64], k: int) -> NDArray[np.int64]:
    """Draw `k` distinct integers below each size, in random order.

    Floyd's algorithm draws the set; sorting by random keys orders it. Time and memory do not depend on the sizes.

    Parameters
    ----------
    numbers : ndarray of shape (..., 2 k)
        Uniform random numbers of 32 bits: `k` for the set, then `k` for its order.
    sizes : ndarray of shape (...)
        Exclusive upper bounds, at least `k`.
    k : int
        Number of draws.

    Returns
    -------
    ndarray of shape (..., k)
        Every ordered sample is equally likely, up to a relative error of size / 2**32.

    References
    ----------
    J. Bentley, B. Floyd (1987). A sample of brilliance. CACM 30(9).
    """
    # Draws come first, so that each step below works on contiguous memory.
    last = np.arange(k).reshape(-1, *[1] * sizes.ndim) + (sizes - k)
    chosen = (np.moveaxis(numbers[..., :k], -1, 0) * (last + 1).astype(np.uint64) >> np.uint64(32)).astype(np.int64)
    for i in range(1, k):
        repeated = (chosen[:i] == chosen[i]).any(0)
        np.copyto(chosen[i], last[i], where=repeated)
    order = numbers[..., k:].argsort(-1, kind="stable")
    return np.take_along_axis(np.moveaxis(chosen, 0, -1), order, -1)


def choose_weighted(numbers: NDArray[np.uint32], weight: NDArray[np.float64], k: int) -> NDArray[np.int64]:
    """Draw `k` distinct positions of `weight`, one after another, each in proportion to the remaining weights.

    Parameters
    ----------
    numbers : ndarray of shape (..., n)
        Uniform random numbers of 32 bits.
    weight : ndarray of shape (n,)
        At least 0, and above 0 in at least `k` positions.
    k : int
        Number of draws.

    Returns
    -------
    ndarray of shape (..., k)
        Positions in the order in which they were drawn.

    References
    ----------
    P. Efraimidis, P. Spirakis (2006). Weighted random sampling with a reservoir. Information Processing Letters 97(5).
    """
    with np.errstate(divide="ignore"):
        keys = -np.log((numbers + 0.5) / 2**32) / weight
    return keys.argsort(-1, kind="stable")[..., :k]
