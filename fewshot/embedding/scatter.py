"""Statistics of labelled embeddings that add, and how well a shrunk covariance tells left-out classes apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewshot.utils.discriminant import unit_length

Array = NDArray[np.float64]
#: Groups of classes that are left out in turn, and the classes of the task for which accuracy is estimated.
FOLDS, N_WAY = 3, 5
#: The most items that are compared; of more, evenly spaced ones.
MOST_COMPARED = 2000


@dataclass(frozen=True, eq=False)
class Scatter:
    """Counts, sums and the second moment of labelled rows. Scatters of parts add up to that of the whole.

    Attributes
    ----------
    labels : ndarray of shape (n_classes,)
        Sorted labels.
    counts : ndarray of shape (n_classes,)
        Rows of each class.
    sums : ndarray of shape (n_classes, d)
        Sum of the rows of each class.
    moment : ndarray of shape (d, d)
        ``sum x x'`` over all rows.

    Examples
    --------
    >>> x, y = np.array([[1.0, 0.0], [3.0, 0.0], [0.0, 5.0]]), np.array(["a", "a", "b"])
    >>> (Scatter.of(x[:1], y[:1]) + Scatter.of(x[1:], y[1:])).covariance().tolist()
    [[2.0, 0.0], [0.0, 0.0]]
    """

    labels: NDArray[Any]
    counts: Array
    sums: Array
    moment: Array

    @classmethod
    def of(cls, x: NDArray[Any], y: NDArray[Any]) -> Scatter:
        """Return the scatter of rows (n, d) with labels (n,), in float64."""
        x = np.asarray(x, np.float64)
        labels, places = np.unique(y, return_inverse=True)
        sums = np.zeros((len(labels), x.shape[1]))
        np.add.at(sums, places.reshape(-1), x)
        return cls(labels, np.bincount(places.reshape(-1), minlength=len(labels)).astype(np.float64), sums, x.T @ x)

    def __add__(self, other: Scatter) -> Scatter:
        labels = np.union1d(self.labels, other.labels)
        counts, sums = np.zeros(len(labels)), np.zeros((len(labels), self.sums.shape[1]))
        for one in (self, other):
            places = np.searchsorted(labels, one.labels)
            counts[places] += one.counts
            sums[places] += one.sums
        return Scatter(labels, counts, sums, self.moment + other.moment)

    def mean(self) -> Array:
        """Return the mean of the class means, (d,)."""
        mean: Array = (self.sums / self.counts[:, None]).mean(0)
        return mean

    def covariance(self) -> Array:
        """Return the covariance within classes, (d, d).

        Raises
        ------
        ValueError
            If no class has two rows that differ.
        """
        spread = self.moment - (self.sums / self.counts[:, None]).T @ self.sums
        free = self.counts.sum() - len(self.counts)
        # Rounding leaves a trace of about 1e-16 of the moment.
        if free < 1 or not np.trace(spread) > 1e-12 * np.trace(self.moment):
            raise ValueError("no class has two different items to adapt to; give at least two of each class")
        covariance: Array = spread / free
        return covariance


def powered(x: Array, power: float) -> Array:
    """Scale rows (n, d) to unit length, raise absolute values to `power`, and scale again; zero rows stay zero."""
    x = unit_length(x)
    return x if power == 1 else unit_length(np.sign(x) * np.abs(x) ** power)


def shrunk(variances: Array, shrinkage: float, typical: float) -> Array:
    """Shrink eigenvalues of a covariance, relative to their mean `typical`, towards 1."""
    values: Array = (1 - shrinkage) * np.maximum(variances, 0) / typical + shrinkage
    return values


def expected_accuracy(rows: Array, y: NDArray[Any], shrinkages: Sequence[float]) -> dict[float, float]:
    """Estimate the accuracy of 5-way 1-shot tasks of classes that were left out, for each shrinkage above 0.

    Each group of classes is left out of mean and covariance. For an item of these classes, the one supporting image of
    its class may be any other item of it, and those of the other four classes any items of other classes, so the share
    of them that are less similar, to the power of four, is the expected accuracy; no task is drawn.

    Parameters
    ----------
    rows : ndarray of shape (n, d)
        Transformed embeddings.
    y : ndarray of shape (n,)
        Labels of at least four classes.
    shrinkages : sequence of float
        What to compare.
    """
    classes, found = np.unique(y), np.zeros(len(shrinkages))
    some = np.arange(0, len(rows), -(-len(rows) // MOST_COMPARED))
    for group in (classes[i::FOLDS] for i in range(FOLDS)):
        left_out = np.isin(y, group)
        rest = Scatter.of(rows[~left_out], y[~left_out])
        variances, vectors = _principal(rows[~left_out], y[~left_out], rest)
        typical = variances.sum() / rows.shape[1]
        x, asked = rows[some] - rest.mean(), np.flatnonzero(left_out[some])
        turned, plain = x @ vectors, x[asked] @ x.T
        for i, one in enumerate(shrinkages):
            # Directions without variance have the weight 1 / shrinkage.
            more = 1 / shrunk(variances, one, typical) - 1 / one
            lengths = np.maximum((x**2).sum(1) / one + turned**2 @ more, np.finfo(np.float64).tiny) ** 0.5
            similarity = (plain / one + (turned[asked] * more) @ turned.T) / lengths
            found[i] += _expected_wins(similarity, y[some], asked)
    return dict(zip(shrinkages, (found / len(some)).tolist(), strict=True))


def _principal(x: Array, y: NDArray[Any], scatter: Scatter) -> tuple[Array, Array]:
    """Return variances (k,) and directions (d, k) of the covariance within classes; k is at most n."""
    if len(x) >= x.shape[1]:
        variances, vectors = np.linalg.eigh(scatter.covariance())
        return variances, vectors
    centred = x - (scatter.sums / scatter.counts[:, None])[np.searchsorted(scatter.labels, y)]
    squares, turned = np.linalg.eigh(centred @ centred.T)
    kept = squares > 1e-10 * squares[-1]
    directions = centred.T @ (turned[:, kept] / np.sqrt(squares[kept]))
    return squares[kept] / max(len(x) - len(scatter.counts), 1), directions


def _expected_wins(similarity: Array, labels: NDArray[Any], queries: NDArray[np.int64]) -> float:
    """Return the sum over queries (q,) of their expected accuracy from similarities (q, n) to items with labels."""
    total = 0.0
    for row, query in zip(similarity, queries.tolist(), strict=True):
        own = labels == labels[query]
        others = np.sort(row[~own])
        own[query] = False
        beaten = np.searchsorted(others, row[own]) / max(len(others), 1)
        total += float((beaten ** (N_WAY - 1)).mean()) if own.any() else 1 / N_WAY
    return total
