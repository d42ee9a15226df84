"""Episodes of varied way and imbalanced shots, as in Meta-Dataset."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fewshot.episodes.episode import Episode, Sampler, check_whole, rows_by_class
from fewshot.errors import TooSmallError
from fewshot.utils.labels import as_labels
from fewshot.utils.streams import episode_rng
from fewshot.utils.text import counted


class VariedEpisodeSampler(Sampler):
    """Draw episodes of varied way and shots, like real image collections.

    The number of classes is uniform between `min_way` and `max_way`. Every class has the same number of queries, at
    most half of the smallest class. The size of the support is a random fraction of the remaining rows. Classes share
    it in proportion to their size times a random factor from 1/2 to 2, with at least one row each. Defaults are the
    paper's.

    Parameters
    ----------
    labels : array-like of shape (n,)
        The label of each row of a data set. Classes of one row are left out, because they have no row for a query.
    min_way, max_way : int, default=5, 50
        Fewest and most classes per episode; at most all classes are used.
    max_query : int, default=10
        Most queries per class.
    max_support : int, default=500
        Most support rows per episode.
    max_shot : int, default=100
        Most rows that a class contributes when the size of the support is drawn.
    seed : int, default=0
        At least 0.

    Raises
    ------
    ValueError
        If a number is out of range, or fewer than `min_way` classes have two rows.

    References
    ----------
    E. Triantafillou et al. (2020). Meta-Dataset: A Dataset of Datasets for Learning to Learn from Few Examples.
    arXiv:1903.03096, section 3.2 and appendix. For its class hierarchies use `GroupedEpisodeSampler`.

    Examples
    --------
    >>> import numpy as np
    >>> from fewshot import VariedEpisodeSampler
    >>> sampler = VariedEpisodeSampler(np.repeat(np.arange(30), 20), seed=1)
    >>> 5 <= sampler[0].n_way <= 30
    True
    """

    def __init__(
        self,
        labels: ArrayLike,
        min_way: int = 5,
        max_way: int = 50,
        max_query: int = 10,
        max_support: int = 500,
        max_shot: int = 100,
        *,
        seed: int = 0,
    ) -> None:
        check_whole(min_way=min_way, max_query=max_query, max_shot=max_shot)
        check_whole(0, seed=seed)
        if max_way < min_way or max_support < max_way:
            raise ValueError(
                f"min_way is {min_way}, max_way {max_way} and max_support {max_support}; expected them in this order"
            )
        self.min_way, self.max_way, self.max_query = min_way, max_way, max_query
        self.max_support, self.max_shot, self.seed = max_support, max_shot, seed
        groups = {label: rows for label, rows in rows_by_class(labels).items() if len(rows) > 1}
        if len(groups) < min_way:
            raise TooSmallError(
                f"found {counted(len(groups), 'class')} of two rows or more, fewer than min_way={min_way}; lower it"
            )
        self.classes, self._groups = as_labels(list(groups), any_type=True), list(groups.values())

    @property
    def protocol(self) -> dict[str, Any]:
        """Limits and seed."""
        names = ("min_way", "max_way", "max_query", "max_support", "max_shot", "seed")
        return {"sampler": "varied", **{name: getattr(self, name) for name in names}}

    def draw(self, index: int) -> Episode:
        """Return episode `index`, at least 0."""
        rng = episode_rng(self.seed, index)
        n_way = int(rng.integers(self.min_way, min(self.max_way, len(self._groups)) + 1))
        chosen = rng.choice(len(self._groups), n_way, replace=False)
        sizes = np.array([len(self._groups[c]) for c in chosen])
        n_query = min(self.max_query, int(sizes.min()) // 2)
        left = sizes - n_query
        part = 1.0 - rng.random()  # in (0, 1]
        n_support = min(self.max_support, sum(math.ceil(part * min(self.max_shot, n)) for n in left))
        share = np.exp(rng.uniform(math.log(0.5), math.log(2.0), n_way)) * sizes
        share = share / share.sum()
        shots = np.minimum(np.floor(share * (n_support - n_way)).astype(int) + 1, left)
        rows = [rng.choice(self._groups[c], n + n_query, replace=False) for c, n in zip(chosen, shots, strict=True)]
        support, query = (np.concatenate([r[part] for r in rows]) for part in (slice(n_query, None), slice(n_query)))
        order = np.arange(n_way)
        return Episode(self.classes[chosen], support, order.repeat(shots), query, order.repeat(n_query))
