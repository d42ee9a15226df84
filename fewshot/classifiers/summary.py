"""What is known of some classes, summarised from their support a part at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewshot.classifiers.chunks import learning_bar
from fewshot.learners.base import Learner
from fewshot.learners.memory import Statistics
from fewshot.search.similarity import CHUNK_BYTES

#: From this many rows on, learning may take long enough to show how far it is.
LONG = 10_000
#: Largest relative difference between removed and learned rows, by item size. Float32 rows come from a network, which
#: rounds differently in other batches; float64 rows may have been float32 in between.
SAME_ROWS = {4: 1e-4, 8: 1e-6}


@dataclass(frozen=True, eq=False)
class Summary:
    """Labels and statistics of some classes.

    Attributes
    ----------
    classes : ndarray of shape (n_classes,)
        Sorted labels.
    n_support : ndarray of shape (n_classes,)
        Support rows of each class, without those of weight 0.
    statistics : Statistics
        Summary of their support, in float64.
    """

    classes: NDArray[Any]
    n_support: NDArray[np.int64]
    statistics: Statistics

    @classmethod
    def of(
        cls,
        learner: Learner,
        X: NDArray[np.floating],
        y: NDArray[Any],
        weight: NDArray[np.float64],
        classes: NDArray[Any],
    ) -> Self:
        """Return the summary of support `X` (n, d) with labels `y` and `weight` (n,), among the sorted `classes`."""
        codes = np.searchsorted(classes, y)

        def parts() -> Iterator[tuple[Statistics, Tensor]]:
            with learning_bar(len(X)) if len(X) >= LONG else nullcontext() as bar:
                for rows, x in _chunks(X):
                    # The classes of this part on their own: they may be few of a million.
                    own, labels = np.unique(codes[rows], return_inverse=True)
                    yield (
                        learner.learn(x, torch.from_numpy(labels), len(own), _double(weight[rows])),
                        torch.from_numpy(own),
                    )
                    if bar is not None:
                        bar.update(len(x))

        n_way = len(classes)
        return cls(classes, np.bincount(codes[weight > 0], minlength=n_way), Statistics.gathered(parts(), n_way))

    def joined(self, added: Self) -> Self:
        """Return the summary of both, whose classes may overlap; fast if little is added."""
        classes = np.union1d(self.classes, added.classes)
        own, places = (np.searchsorted(classes, one.classes) for one in (self, added))
        n_support = np.zeros(len(classes), np.int64)
        n_support[own] = self.n_support
        n_support[places] += added.n_support
        numbers = (torch.from_numpy(own), added.statistics, torch.from_numpy(places), len(classes))
        return type(self)(classes, n_support, self.statistics.joined(*numbers))

    def less(self, learner: Learner, X: NDArray[np.floating], y: NDArray[Any], weight: NDArray[np.float64]) -> Self:
        """Return the summary without the support `X` (n, d) with `y`, labels among `classes`, and `weight` (n,).

        Raises
        ------
        ValueError
            If a class has less support, or these rows are not what it learned.
        """
        gone = self.of(learner, X, y, weight, self.classes)
        n_support = self.n_support - gone.n_support
        for i in np.flatnonzero(n_support < 0)[:1]:
            raise ValueError(
                f"cannot remove {gone.n_support[i]} support rows of {self.classes.tolist()[i]!r}, which has "
                f"{self.n_support[i]}; give rows that were learned"
            )
        empty = n_support == 0
        left = self.statistics - gone.statistics
        lengths = _lengths(learner, X, np.searchsorted(self.classes, y), weight, len(self.classes))
        self._refuse_residue(left, lengths, empty & (gone.n_support > 0), SAME_ROWS[X.dtype.itemsize])
        left = left.emptied(torch.from_numpy(empty))
        if bad := self.classes[~empty & (left.count.numpy() <= 0)].tolist():
            raise ValueError(f"cannot remove more weight of {bad[0]!r} than was learned; give the learned weights")
        return type(self)(self.classes, n_support, left)

    def _refuse_residue(
        self, left: Statistics, lengths: NDArray[np.float64], emptied: NDArray[np.bool_], same: float
    ) -> None:
        """Raise ValueError unless the removed rows of each emptied class add up to its sum.

        Parameters
        ----------
        left : Statistics
            Statistics after removal.
        lengths : ndarray of shape (n_classes,)
            Sum of the lengths of the removed rows, which bounds the rounding of sums.
        emptied : ndarray of shape (n_classes,)
            Classes of which nothing should remain.
        same : float
            Largest residue, relative to `lengths`.
        """
        count = left.count.abs().numpy() > same * self.statistics.count.numpy()
        rest = left.sums["x"].norm(dim=-1).numpy() > same * lengths if "x" in left.sums else np.zeros_like(count)
        for i in np.flatnonzero(emptied & (count | rest))[:1]:
            raise ValueError(
                f"the rows to remove from {self.classes.tolist()[i]!r} are as many as it learned, but not the same; "
                "give the rows that were learned, with their weights, or remove the class (remove_class)"
            )


def _chunks(X: NDArray[np.floating]) -> Iterator[tuple[slice, Tensor]]:
    """Yield the rows of X (n, d) in float64, a part at a time, because sums need no copy of all support."""
    size = max(1, CHUNK_BYTES // (8 * X.shape[1]))
    for start in range(0, max(len(X), 1), size):  # one empty part if there are no rows
        rows = slice(start, start + size)
        yield rows, _double(X[rows])


def _double(array: NDArray[Any]) -> Tensor:
    """Return a float64 tensor, which shares memory if it can."""
    return torch.from_numpy(np.require(array, np.float64, ["C", "W"]))


def _lengths(
    learner: Learner, X: NDArray[np.floating], codes: NDArray[np.int64], weight: NDArray[np.float64], n_way: int
) -> NDArray[np.float64]:
    """Return the weighted sum of the lengths of the transformed rows of each class, (n_way,)."""
    total = np.zeros(n_way)
    for rows, x in _chunks(X):
        np.add.at(total, codes[rows], learner.transform(x).norm(dim=-1).numpy() * weight[rows])
    return total
