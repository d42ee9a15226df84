"""Learning tasks: episodes drawn as a pure function of a seed and their number."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

#: What a stream of random numbers is for; each purpose has numbers of its own.
DRAW, AUGMENT, MODEL, SPLIT, DISTORT = range(5)


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


@dataclass(frozen=True, eq=False)
class Episode:
    """A learning task over a data set: which rows are support, which are queries.

    Attributes
    ----------
    classes : ndarray of shape (n_way,)
        The user's labels of the classes 0..n_way-1.
    support, query : ndarray of shape (n_way * n_shot,), (n_way * n_query,)
        Row numbers, class after class; no row is in both.
    support_labels, query_labels : ndarray
        Classes of these rows, integers in 0..n_way-1.
    """

    classes: NDArray[Any]
    support: NDArray[np.int64]
    support_labels: NDArray[np.int64]
    query: NDArray[np.int64]
    query_labels: NDArray[np.int64]

    @property
    def n_way(self) -> int:
        """Number of classes."""
        return len(self.classes)


class EpisodeSampler:
    """Draw episodes from labels; episode ``i`` depends on `seed` and ``i`` alone.

    Parameters
    ----------
    labels : array-like of shape (n,)
        The label of each row of a data set.
    n_way : int, default=5
        Classes an episode.
    n_shot : int, default=1
        Support rows a class.
    n_query : int, default=15
        Query rows a class.
    seed : int, default=0
        At least 0.
    small_classes : {"raise", "drop"}, default="raise"
        What happens to classes with fewer than n_shot + n_query rows.

    Raises
    ------
    ValueError
        If a class is too small (naming it), or there are fewer classes than `n_way`.

    Examples
    --------
    >>> from fewshot import EpisodeSampler
    >>> sampler = EpisodeSampler(["a", "a", "b", "b", "c", "c"], n_way=2, n_shot=1, n_query=1, seed=3)
    >>> episode = sampler[10]
    >>> episode.n_way, len(episode.support), len(episode.query)
    (2, 2, 2)
    """

    def __init__(
        self,
        labels: ArrayLike,
        n_way: int = 5,
        n_shot: int = 1,
        n_query: int = 15,
        *,
        seed: int = 0,
        small_classes: str = "raise",
    ) -> None:
        for name, value in {"n_way": n_way, "n_shot": n_shot, "n_query": n_query}.items():
            if value < 1:
                raise ValueError(f"{name} is {value}; expected at least 1")
        if seed < 0:
            raise ValueError(f"seed is {seed}; expected at least 0")
        if small_classes not in ("raise", "drop"):
            raise ValueError(f"small_classes is {small_classes!r}; expected 'raise' or 'drop'")
        self.n_way, self.n_shot, self.n_query, self.seed = n_way, n_shot, n_query, seed
        self._rows = _rows_by_class(np.asarray(labels), n_shot + n_query, small_classes)
        self.classes = np.array(list(self._rows))
        if len(self.classes) < n_way:
            raise ValueError(
                f"{len(self.classes)} classes have the {n_shot + n_query} rows that {n_shot} shots and {n_query} "
                f"queries take, fewer than n_way={n_way}; lower n_way, n_shot or n_query"
            )
        self._groups = list(self._rows.values())

    def __repr__(self) -> str:
        return (
            f"EpisodeSampler({len(self.classes)} classes, n_way={self.n_way}, n_shot={self.n_shot}, "
            f"n_query={self.n_query}, seed={self.seed})"
        )

    def __getitem__(self, index: int) -> Episode:
        if index < 0:
            raise IndexError(f"there is no episode {index}; numbers start at 0")
        rng = episode_rng(self.seed, index)
        chosen = rng.choice(len(self._groups), self.n_way, replace=False)
        size = self.n_shot + self.n_query
        rows = np.stack([rng.choice(self._groups[c], size, replace=False) for c in chosen])
        order = np.arange(self.n_way)
        return Episode(
            self.classes[chosen],
            rows[:, : self.n_shot].ravel(),
            order.repeat(self.n_shot),
            rows[:, self.n_shot :].ravel(),
            order.repeat(self.n_query),
        )

    def __iter__(self) -> Iterator[Episode]:
        """Yield episode 0, 1, 2, ... without end."""
        index = 0
        while True:
            yield self[index]
            index += 1


def _rows_by_class(labels: NDArray[Any], needed: int, small_classes: str) -> dict[Any, NDArray[np.int64]]:
    if labels.ndim != 1:
        raise ValueError(f"labels have shape {labels.shape}; expected one label a row, (n,)")
    classes, codes = np.unique(labels, return_inverse=True)
    rows = np.split(np.argsort(codes, kind="stable"), np.cumsum(np.bincount(codes))[:-1])
    groups = dict(zip(classes, rows, strict=True)) if len(labels) else {}
    small = {label: len(members) for label, members in groups.items() if len(members) < needed}
    if small and small_classes == "raise":
        listed = ", ".join(f"{label} ({count})" for label, count in list(small.items())[:10])
        raise ValueError(
            f"{len(small)} classes have fewer than the {needed} rows that an episode takes: {listed}"
            f"{', ...' if len(small) > 10 else ''}; lower n_shot or n_query, or pass small_classes='drop'"
        )
    return {label: members for label, members in groups.items() if label not in small}
