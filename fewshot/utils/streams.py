"""Random numbers of episodes: for each seed, number and purpose a stream of its own."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

#: What a stream of random numbers is for; each purpose has numbers of its own.
DRAW, AUGMENT, MODEL, SPLIT, DISTORT, GROUP, RESAMPLE, GROUP_SEED = range(8)


def episode_rng(seed: int, index: int, purpose: int = DRAW) -> np.random.Generator:
    """Return the generator of episode `index` under `seed`, independent of every other one.

    It is counter-based, so nothing needs to be drawn before it: episode 1000 does not depend on how many workers
    there are or which episodes came earlier.

    Parameters
    ----------
    seed : int
        At least 0.
    index : int
        Number of the episode, at least 0.
    purpose : int, default=0
        Numbers for drawing, augmenting and the model's own noise never overlap.

    Examples
    --------
    >>> episode_rng(0, 7).integers(100) == episode_rng(0, 7).integers(100)
    np.True_
    """
    return np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, purpose, index]))


def episode_numbers(seed: int, start: int, stop: int, n: int, purpose: int = DRAW) -> NDArray[np.uint32]:
    """Return the first `n` 32-bit numbers that the generators of some episodes are given, (stop - start, n).

    Setting one generator from episode to episode takes a tenth of making one for each.

    Parameters
    ----------
    seed, purpose : int
        As for `episode_rng`.
    start, stop : int
        The episodes.
    n : int
        Numbers an episode.

    Examples
    --------
    >>> bool(episode_numbers(0, 7, 9, 1)[0, 0] == episode_rng(0, 7).integers(2**32, dtype=np.uint32))
    True
    """
    bits = np.random.Philox(key=seed)
    fresh, words = bits.state, -(-n // 2)
    numbers = np.empty((stop - start, words), "<u8")  # the lower half of each comes first
    for row, index in enumerate(range(start, stop)):
        fresh["state"]["counter"][:] = 0, 0, purpose, index
        bits.state = fresh
        numbers[row] = bits.random_raw(words)
    return numbers.view("<u4")[:, :n]
