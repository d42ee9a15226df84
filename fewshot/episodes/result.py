"""What was measured on episodes: accuracy with its interval, per episode, per class, paired."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd


def mean_and_ci95(values: NDArray[np.floating]) -> tuple[float, float]:
    """Return the mean of `values` (n,) and the half-width 1.96 sigma / sqrt(n) of its 95 % interval.

    Examples
    --------
    >>> mean_and_ci95(np.array([0.5, 0.5, 0.5]))
    (0.5, 0.0)
    """
    if len(values) < 2:
        return float(np.mean(values)), math.nan
    return float(np.mean(values)), float(1.96 * np.std(values, ddof=1) / math.sqrt(len(values)))


@dataclass(frozen=True, eq=False)
class EvalResult:
    """What `evaluate` measured.

    Attributes
    ----------
    accuracies : ndarray of shape (n_episodes,)
        Share of right answers in each episode, in the order of their numbers.
    classes : ndarray of shape (n_classes,)
        The labels as the user gave them.
    true, answered : ndarray of shape (n_queries,)
        For every query of every episode its class and the answer, as places in `classes`.
    protocol : dict
        Learner, number of episodes, whether the learner is transductive, and what decides the episodes: by default
        n_way, n_shot, n_query and seed.
    """

    accuracies: NDArray[np.float64]
    classes: NDArray[Any]
    true: NDArray[np.int64]
    answered: NDArray[np.int64]
    protocol: dict[str, Any]

    @cached_property
    def _interval(self) -> tuple[float, float]:
        return mean_and_ci95(self.accuracies)

    @property
    def mean(self) -> float:
        """Mean accuracy over episodes, in 0..1."""
        return self._interval[0]

    @property
    def ci95(self) -> float:
        """Half-width of its 95 % interval, 1.96 sigma / sqrt(n_episodes)."""
        return self._interval[1]

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """Queries of each class (row) that were answered with each class (column), (n_classes, n_classes)."""
        n = len(self.classes)
        return np.bincount(self.true * n + self.answered, minlength=n * n).reshape(n, n)

    @property
    def confusion(self) -> pd.DataFrame:
        """Counts of answers (columns) for each true class (rows), with the user's labels."""
        import pandas as pd

        return pd.DataFrame(
            self.counts,
            pd.Index(self.classes, name="class"),
            pd.Index(self.classes, name="answer"),
        )

    def per_class(self) -> pd.Series:
        """Return the share of right answers of each class; NaN for a class that was never asked for."""
        import pandas as pd

        n = len(self.classes)
        right = np.bincount(self.true[self.true == self.answered], minlength=n)
        with np.errstate(invalid="ignore"):
            recall = right / np.bincount(self.true, minlength=n)
        return pd.Series(recall, pd.Index(self.classes, name="class"), name="accuracy")

    def to_frame(self) -> pd.DataFrame:
        """Return one row an episode: its number, its accuracy and the protocol."""
        import pandas as pd

        return pd.DataFrame({"episode": np.arange(len(self.accuracies)), "accuracy": self.accuracies, **self.protocol})

    def difference(self, other: EvalResult) -> tuple[float, float]:
        """Return the mean paired difference to `other` and the half-width of its 95 % interval.

        Raises
        ------
        ValueError
            If the two were not measured on the same episodes.
        """
        for key in (self.protocol.keys() | other.protocol.keys()) - {"learner", "transductive"}:
            mine, theirs = self.protocol.get(key), other.protocol.get(key)
            if mine != theirs:
                raise ValueError(
                    f"the results have {key} {mine} and {theirs}; a paired difference needs the same episodes"
                )
        if not (np.array_equal(self.classes, other.classes) and np.array_equal(self.true, other.true)):
            raise ValueError(
                "the results are on different classes or rows; a paired difference needs the same episodes"
            )
        return mean_and_ci95(self.accuracies - other.accuracies)

    def __repr__(self) -> str:
        p = self.protocol
        note = ", transductive" if p["transductive"] else ""
        sizes = f"{p['n_way']}-way {p['n_shot']}-shot" if "n_way" in p else p["sampler"]
        return (
            f"{100 * self.mean:.2f} +- {100 * self.ci95:.2f} % ({p['learner']}, {sizes}, "
            f"{p['n_episodes']} episodes{note})"
        )
