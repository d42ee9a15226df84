"""Random numbers of episodes: for each seed, number and purpose a stream of its own."""

from __future__ import annotations

import numpy as np

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
