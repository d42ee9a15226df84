"""Episodes of one size: as many classes, shots and queries in each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fewshot.episodes.choices import can_choose, choose, numbers_taken
from fewshot.episodes.episode import Episode, Sampler, check_whole, rows_by_class
from fewshot.errors import TooSmallError
from fewshot.utils.labels import as_labels
from fewshot.utils.streams import episode_numbers, episode_rng

SMALL_CLASSES = ("raise", "drop", "use")
#: Episodes that are drawn at a time.
TOGETHER = 128


class EpisodeSampler(Sampler):
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
    small_classes : {"raise", "drop", "use"}, default="raise"
        What happens to classes with fewer than n_shot + n_query rows: an error, left out, or taken with what they
        have, support first, but for one row that is a query. No row is ever both.
    class_weight : mapping, optional
        How often a class is drawn, relative to the others; 1 for those not named.

    Raises
    ------
    ValueError
        If a class is too small (naming it), there are fewer classes than `n_way`, or a weight is negative.

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
        class_weight: Mapping[Any, float] | None = None,
    ) -> None:
        check_whole(n_way=n_way, n_shot=n_shot, n_query=n_query)
        check_whole(0, seed=seed)
        if small_classes not in SMALL_CLASSES:
            raise ValueError(f"small_classes is {small_classes!r}; expected {', '.join(map(repr, SMALL_CLASSES))}")
        self.n_way, self.n_shot, self.n_query, self.seed = n_way, n_shot, n_query, seed
        self.small_classes, self.class_weight = small_classes, class_weight
        rows = _large_enough(rows_by_class(labels), n_shot + n_query, small_classes)
        self.classes, self._groups = as_labels(list(rows), any_type=True), list(rows.values())
        if len(self.classes) < n_way:
            raise TooSmallError(
                f"{len(self.classes)} classes have the {n_shot + n_query} rows that {n_shot} shots and {n_query} "
                f"queries take, fewer than n_way={n_way}; lower n_way, n_shot or n_query"
            )
        n_single = sum(len(group) == 1 for group in self._groups)
        if n_single >= n_way:
            raise TooSmallError(
                f"{n_single} classes have one row, so an episode of n_way={n_way} may have nothing to ask for; raise "
                "n_way above that, or pass small_classes='drop'"
            )
        self._chances = _chances(self.classes, class_weight, n_way)
        self._rows, self._sizes = np.concatenate(self._groups), np.array([len(group) for group in self._groups])

    @property
    def protocol(self) -> dict[str, Any]:
        """Sizes and seed, and what is done with small and weighted classes."""
        described: dict[str, Any] = {name: getattr(self, name) for name in ("n_way", "n_shot", "n_query", "seed")}
        if self.small_classes != "raise":
            described["small_classes"] = self.small_classes
        if self.class_weight is not None:
            described["class_weight"] = {str(label): weight for label, weight in self.class_weight.items()}
        return described

    def draw(self, index: int) -> Episode:
        """Return episode `index`, at least 0."""
        rng = episode_rng(self.seed, index)
        chosen = rng.choice(len(self._groups), self.n_way, replace=False, p=self._chances)
        wanted = self.n_shot + self.n_query
        groups = [self._groups[c] for c in chosen]
        rows = [group[rng.choice(len(group), min(wanted, len(group)), replace=False)] for group in groups]
        shots = [min(self.n_shot, max(len(own) - 1, 1)) for own in rows]
        parts = list(zip(rows, shots, strict=True))
        return Episode.of(self.classes[chosen], [own[:n] for own, n in parts], [own[n:] for own, n in parts])

    def between(self, start: int, stop: int) -> Iterator[Episode]:
        """Yield the episodes `start`, ..., ``stop - 1``: the same as one by one, about eight times as quickly."""
        wanted = self.n_shot + self.n_query
        alike = self._chances is None and can_choose(len(self._groups), self.n_way)
        if start < 0 or not (alike and all(can_choose(len(group), wanted) for group in self._groups)):
            yield from super().between(start, stop)
            return
        for first in range(start, stop, TOGETHER):
            yield from self._draw_together(first, min(first + TOGETHER, stop))

    def _draw_together(self, start: int, stop: int) -> Iterator[Episode]:
        n_way, n_shot, wanted = self.n_way, self.n_shot, self.n_shot + self.n_query
        numbers = episode_numbers(self.seed, start, stop, 2 * n_way - 1 + n_way * (2 * wanted - 1))
        n_classes = np.full((stop - start, 1), len(self._groups))
        chosen, sure = choose(numbers, np.zeros_like(n_classes), n_classes, n_way)
        chosen = chosen[:, 0]
        sizes = self._sizes[chosen]
        taken = numbers_taken(sizes, wanted)
        picked, certain = choose(numbers, numbers_taken(n_classes, n_way) + taken.cumsum(1) - taken, sizes, wanted)
        rows = self._rows[(self._sizes.cumsum() - self._sizes)[chosen][..., None] + picked]
        support, query = (part.reshape(stop - start, -1) for part in (rows[..., :n_shot], rows[..., n_shot:]))
        labels = [np.tile(np.arange(n_way).repeat(n), (stop - start, 1)) for n in (n_shot, self.n_query)]
        parts = zip(self.classes[chosen], support, labels[0], query, labels[1], strict=True)
        for index, own, part in zip(range(start, stop), sure & certain, parts, strict=True):
            yield Episode(*part) if own else self.draw(index)


def _large_enough(
    groups: dict[Any, NDArray[np.int64]], needed: int, small_classes: str
) -> dict[Any, NDArray[np.int64]]:
    small = {label: len(rows) for label, rows in groups.items() if len(rows) < needed}
    if not small or small_classes == "use":
        return groups
    if small_classes == "raise":
        listed = ", ".join(f"{label} ({count})" for label, count in list(small.items())[:10])
        raise TooSmallError(
            f"{len(small)} classes have fewer than the {needed} rows that an episode takes: {listed}"
            f"{', ...' if len(small) > 10 else ''}; lower n_shot or n_query, or pass small_classes='drop'"
        )
    return {label: rows for label, rows in groups.items() if label not in small}


def _chances(classes: NDArray[Any], class_weight: Mapping[Any, float] | None, n_way: int) -> NDArray[np.float64] | None:
    if class_weight is None:
        return None
    known = set(classes.tolist())
    if strange := [label for label in class_weight if label not in known]:
        raise ValueError(f"class_weight names {strange[0]!r}, which is no class with enough rows")
    weights = np.array([class_weight.get(label, 1.0) for label in classes.tolist()], np.float64)
    if not (np.isfinite(weights).all() and (weights >= 0).all() and np.count_nonzero(weights) >= n_way):
        raise ValueError(f"class_weight must be finite, at least 0, and above 0 for at least n_way={n_way} classes")
    return weights / weights.sum()
