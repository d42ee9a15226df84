"""The result of an evaluation: accuracy with its interval, per episode, per class, and paired differences."""

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
    """The result of `evaluate`.

    Attributes
    ----------
    accuracies : ndarray of shape (n_episodes,)
        Accuracy of each episode, in the order of their numbers.
    classes : ndarray of shape (n_classes,)
        The labels as the user gave them.
    true, answered : ndarray of shape (n_queries,)
        True and predicted class of every query of every episode, as indices into `classes`.
    protocol : dict
        Learner, number of episodes, whether the learner is transductive, and the protocol of the sampler.
    """

    accuracies: NDArray[np.float64]
    classes: NDArray[Any]
    true: NDArray[np.int64]
    answered: NDArray[np.int64]
    protocol: dict[str, Any]

    @property
    def mean(self) -> float:
        """Mean accuracy over episodes, in 0..1."""
        return mean_and_ci95(self.accuracies)[0]

    @property
    def ci95(self) -> float:
        """Half-width of the 95 % interval of the mean, 1.96 sigma / sqrt(n_episodes)."""
        return mean_and_ci95(self.accuracies)[1]

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """Confusion counts (n_classes, n_classes): true classes in rows, answers in columns."""
        n = len(self.classes)
        return np.bincount(self.true * n + self.answered, minlength=n * n).reshape(n, n)

    @property
    def confusion(self) -> pd.DataFrame:
        """Confusion counts with the user's labels: true classes in rows, answers in columns."""
        import pandas as pd

        return pd.DataFrame(
            self.counts,
            pd.Index(self.classes, name="class"),
            pd.Index(self.classes, name="answer"),
        )

    def per_class(self) -> pd.Series:
        """Return the accuracy of each class; NaN for classes without a query."""
        import pandas as pd

        n = len(self.classes)
        right = np.bincount(self.true[self.true == self.answered], minlength=n)
        with np.errstate(invalid="ignore"):
            recall = right / np.bincount(self.true, minlength=n)
        return pd.Series(recall, pd.Index(self.classes, name="class"), name="accuracy")

    def to_frame(self) -> pd.DataFrame:
        """Return one row per episode: number, accuracy and protocol."""
        import pandas as pd

        return pd.DataFrame({"episode": np.arange(len(self.accuracies)), "accuracy": self.accuracies, **self.protocol})

    def difference(self, other: EvalResult) -> tuple[float, float]:
        """Return the mean paired difference from `other` and the half-width of its 95 % interval.

        Raises
        ------
        ValueError
            If the results are not from the same episodes.
        """
        for key in (self.protocol.keys() | other.protocol.keys()) - {"learner", "transductive"}:
            mine, theirs = self.protocol.get(key), other.protocol.get(key)
            if mine != theirs:
                raise ValueError(
                    f"the results have {key} {mine} and {theirs}; a paired difference needs the same episodes"
                )
        if not (np.array_equal(self.classes, other.classes) and np.array_equal(self.true, other.true)):
            raise ValueError(
                "the results are from different classes or rows; a paired difference needs the same episodes"
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
