"""Episodes of fixed way, shots and number of queries."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fewshot.episodes.episode import Episode, Sampler, check_index, check_whole, rows_by_class
from fewshot.episodes.query_draws import (
    BALANCED,
    SINGLE,
    QueryClasses,
    check_query_classes,
    draw_queries,
    most_queries,
    smaller_sizes,
)
from fewshot.errors import TooSmallError
from fewshot.utils.labels import as_labels
from fewshot.utils.streams import QUERIES, episode_numbers, episode_rng
from fewshot.utils.text import counted

SmallClasses = Literal["raise", "drop", "use"]
SMALL_CLASSES: tuple[SmallClasses, ...] = get_args(SmallClasses)
#: Bump when the same seed draws different episodes; part of the protocol.
VERSION = 2
#: Random numbers drawn at once.
CHUNK = 30_000


class EpisodeSampler(Sampler):
    """Draw episodes from labels; episode ``i`` depends on `seed` and ``i`` alone.

    Parameters
    ----------
    labels : array-like of shape (n,)
        The label of each row of a data set.
    n_way : int, default=5
        Classes per episode.
    n_shot : int, default=1
        Support rows per class.
    n_query : int, default=15
        Query rows per class; the mean over classes if `query_classes` is not "balanced".
    seed : int, default=0
        At least 0.
    small_classes : {"raise", "drop", "use"}, default="raise"
        What to do with classes of fewer than n_shot + n_query rows: raise an error, leave them out, or use the rows
        they have. Support is then filled first, except for one row, which stays a query. No row is ever both.
    class_weight : mapping, optional
        Relative frequency of each class; 1 for classes not named.
    query_classes : {"balanced", "dirichlet", "single"} or int, default="balanced"
        How the n_way * n_query queries are spread over the classes: evenly; in shares from a Dirichlet distribution
        with concentration 2, so that most episodes are uneven; one query in all; or over that many of the classes,
        drawn at random, while the others have none. Classes and support are those of balanced episodes with the same
        seed. See `fewshot.episodes.query_draws` for the papers.

    Raises
    ------
    ValueError
        If a class is too small (the message names it), there are fewer classes than `n_way`, a weight is negative, or
        `query_classes` is combined with ``small_classes="use"``.

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
        small_classes: SmallClasses = "raise",
        class_weight: Mapping[Any, float] | None = None,
        query_classes: QueryClasses | int = BALANCED,
    ) -> None:
        check_whole(n_way=n_way, n_shot=n_shot, n_query=n_query)
        check_whole(0, seed=seed)
        if small_classes not in SMALL_CLASSES:
            raise ValueError(f"small_classes is {small_classes!r}; expected {', '.join(map(repr, SMALL_CLASSES))}")
        self.n_way, self.n_shot, self.n_query, self.seed = n_way, n_shot, n_query, seed
        self.small_classes, self.class_weight = small_classes, class_weight
        self.query_classes = check_query_classes(query_classes, n_way)
        if small_classes == "use" and query_classes != BALANCED:
            raise ValueError(
                f"small_classes='use' needs query_classes={BALANCED!r}, because small classes cannot have any share of "
                "the queries; pass small_classes='drop'"
            )
        needed = n_shot + most_queries(query_classes, n_way, n_query)
        why = f" with query_classes={query_classes!r}" * (query_classes not in (BALANCED, SINGLE))
        groups = rows_by_class(labels)
        least = min(map(len, groups.values()), default=0)
        cures = smaller_sizes(least, n_way, n_shot, n_query, query_classes)
        rows = _large_enough(groups, needed, small_classes, n_way, (why, cures))
        self.classes = as_labels(list(rows), any_type=True)
        few = {"n_shot": n_shot, "n_query": n_query}
        if len(self.classes) < n_way:
            raise TooSmallError(
                f"found {counted(len(self.classes), 'class')} with the {needed} rows that n_shot={n_shot} "
                f"and n_query={n_query} need, fewer than n_way={n_way}; "
                + _fewer(n_way=len(self.classes), **(few if len(rows) < len(groups) else {}))
            )
        self._sizes = np.array([len(group) for group in rows.values()])
        self._starts, self._rows = self._sizes.cumsum() - self._sizes, np.concatenate(list(rows.values()))
        n_single = np.count_nonzero(self._sizes == 1)
        if n_single >= n_way:
            raise TooSmallError(
                f"{n_single} classes have one row, so an episode of n_way={n_way} may have no query; raise n_way above "
                "that, or pass small_classes='drop'"
            )
        self._weights = _weights(self.classes, class_weight, n_way)
        self._n_first = 2 * n_way if self._weights is None else len(self.classes)

    @property
    def protocol(self) -> dict[str, Any]:
        """Sizes, seed, the version of the sampler, and the treatment of small and weighted classes."""
        described: dict[str, Any] = {name: getattr(self, name) for name in ("n_way", "n_shot", "n_query", "seed")}
        described["sampler"] = VERSION
        if self.small_classes != "raise":
            described["small_classes"] = self.small_classes
        if self.class_weight is not None:
            described["class_weight"] = {str(label): weight for label, weight in self.class_weight.items()}
        if self.query_classes != BALANCED:
            described["query_classes"] = self.query_classes
        return described

    def draw(self, index: int) -> Episode:
        """Return episode `index`, at least 0."""
        return next(self._draw(index, index + 1))

    def between(self, start: int, stop: int) -> Iterator[Episode]:
        """Yield the episodes `start`, ..., ``stop - 1``, several times faster than one by one."""
        check_index(start)
        step = 1 + CHUNK // (self._n_first + 2 * self.n_way * (self.n_shot + self.n_query))
        for first in range(start, stop, step):
            yield from self._draw(first, min(first + step, stop))

    def _draw(self, start: int, stop: int) -> Iterator[Episode]:
        n_way, n_taken, n_first = self.n_way, self.n_shot + self.n_query, self._n_first
        numbers = episode_numbers(self.seed, start, stop, n_first + 2 * n_way * n_taken)
        if self._weights is None:
            chosen = choose_uniformly(numbers[:, :n_first], np.full(len(numbers), len(self.classes)), n_way)
        else:
            chosen = choose_weighted(numbers[:, :n_first], self._weights, n_way)
        # Small classes are padded to `n_taken` places; padding is dropped after drawing.
        sizes, numbers = self._sizes[chosen], numbers[:, n_first:].reshape(*chosen.shape, 2 * n_taken)
        places = choose_uniformly(numbers, sizes.clip(min=n_taken), n_taken)
        real, n_shot = places < sizes[..., None], (sizes - 1).clip(1, self.n_shot)
        is_support = real & (real.cumsum(-1) <= n_shot[..., None])
        places += self._starts[chosen][..., None]
        labels = np.broadcast_to(np.arange(n_way)[:, None], places.shape)
        parts = []
        for mask in (is_support, real & ~is_support):
            ends = mask.sum((1, 2)).cumsum().tolist()
            spans = [slice(*span) for span in pairwise([0, *ends])]
            parts += [map(values.__getitem__, spans) for values in (self._rows[places[mask]], labels[mask])]
        drawn = map(Episode, self.classes[chosen], *parts)
        if self.query_classes == BALANCED:
            yield from drawn
        else:
            yield from (self._with_other_queries(*each) for each in zip(range(start, stop), drawn, chosen, strict=True))

    def _with_other_queries(self, index: int, episode: Episode, chosen: NDArray[np.int64]) -> Episode:
        """Return a balanced episode of the classes `chosen` (n_way,) with queries spread as `query_classes` says."""
        rows = [self._rows[self._starts[c] : self._starts[c] + self._sizes[c]] for c in chosen]
        left = [np.setdiff1d(own, episode.support, assume_unique=True) for own in rows]
        rng = episode_rng(self.seed, index, QUERIES)
        query, labels = draw_queries(rng, left, self.n_way * self.n_query, self.query_classes)
        return replace(episode, query=query, query_labels=labels)


def _large_enough(
    groups: dict[Any, NDArray[np.int64]], needed: int, small_classes: str, n_way: int, told: tuple[str, list[str]]
) -> dict[Any, NDArray[np.int64]]:
    small = {label: len(rows) for label, rows in groups.items() if len(rows) < needed}
    if not small or small_classes == "use":
        return groups
    if small_classes == "raise":
        listed = ", ".join(f"{label} ({count})" for label, count in list(small.items())[:10])
        why, cures = told
        cures = [*cures, *["pass small_classes='drop'"] * (len(groups) - len(small) >= n_way)]
        raise TooSmallError(
            f"found {counted(len(small), 'class')} with fewer than the {needed} rows that an episode needs{why}: "
            f"{listed}{', ...' if len(small) > 10 else ''}; {' or '.join(cures)}"
        )
    return {label: rows for label, rows in groups.items() if label not in small}


def _fewer(**sizes: int) -> str:
    """Return which sizes to lower: those above 1."""
    *names, last = [name for name, size in sizes.items() if size > 1] or ["n_way"]
    return f"lower {', '.join(names)}{' or ' if names else ''}{last}"


def _weights(classes: NDArray[Any], class_weight: Mapping[Any, float] | None, n_way: int) -> NDArray[np.float64] | None:
    if class_weight is None:
        return None
    known = set(classes.tolist())
    if strange := [label for label in class_weight if label not in known]:
        raise ValueError(f"class_weight names {strange[0]!r}, which is not a class with enough rows")
    weights = np.array([class_weight.get(label, 1.0) for label in classes.tolist()], np.float64)
    if not (np.isfinite(weights).all() and (weights >= 0).all() and np.count_nonzero(weights) >= n_way):
        raise ValueError(f"class_weight must be finite, at least 0, and above 0 for at least n_way={n_way} classes")
    return weights


def choose_uniformly(numbers: NDArray[np.uint32], sizes: NDArray[np.int64], k: int) -> NDArray[np.int64]:
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
