"""Embeddings that hardly compare: rows of zeros, and columns in several units, as of features made by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewshot.learners.base import Learner
from fewshot.utils.text import counted
from fewshot.utils.warning import warn

#: A column decides nearly alone if it makes up more than this share. Of what networks compute, none made up an eighth.
DOMINANT = 0.9
#: Fewer columns than this are a plane to look at, and about this many rows are enough to tell.
FEWEST_COLUMNS, ENOUGH_ROWS = 3, 1000

#: Smaller differences, relative to the largest value, are those of rounding.
_ROUNDING = 1e-12


def warn_of_rows(X: NDArray[np.floating], learner: Learner, first: bool = False) -> None:
    """Warn of zeros among embeddings (n, d) that are compared by direction; of the `first`, also of a dominant column.

    Examples
    --------
    >>> from fewshot.learners.registry import as_learner
    >>> warn_of_rows(np.eye(3), as_learner("discriminant"), first=True)
    """
    if learner.item_metric == "cosine" and (zero := np.flatnonzero(~X.any(1))).size:
        warn(
            f"row {zero[0]} of X is all zeros ({counted(zero.size, 'such row')}): nothing in it is known, so all "
            "classes are equally like it"
        )
    if first:
        warn_of_dominant_column(X, learner)


def warn_of_dominant_column(X: NDArray[np.floating], learner: Learner) -> None:
    """Warn if one column decides nearly alone which embeddings (n, d) are alike, as the learner compares them.

    For the cosine that is its mean share of the squared length, for distances its share of the squared distances.
    Columns of zeros do not count. Learners that were trained or that scale columns are left alone.

    Examples
    --------
    >>> from fewshot.learners.registry import as_learner
    >>> rows = np.array([[0.1, 0.2, 900.0], [0.3, 0.1, 800.0], [0.2, 0.4, 850.0]])
    >>> warn_of_dominant_column(rows, as_learner("mahalanobis"))
    """
    if learner.scales_columns or learner.learned or learner.local or (X.any(0)).sum() < FEWEST_COLUMNS:
        return
    rows = X[:: max(1, len(X) // ENOUGH_ROWS)].astype(np.float64)
    by_distance = learner.item_metric == "sqeuclidean"
    if by_distance:
        rows = rows - rows.mean(0)
        rows[:, np.abs(rows).max(0) < _ROUNDING * np.abs(X).max()] = 0
    shares = _shares(rows, each_row=not by_distance)
    if shares.max() > DOMINANT:
        what = "distances between the embeddings" if by_distance else "length of the embeddings"
        warn(  # in the same words for every fold, so that Python tells it once
            f"column {shares.argmax()} makes up over {100 * DOMINANT:.0f} % of the squared {what}, so it decides "
            "nearly alone; scale the columns first, for example with StandardScaler"
        )


def _shares(rows: NDArray[np.float64], each_row: bool) -> NDArray[Any]:
    """Return the share of each column (d,) in the squares of all rows, or the mean of its shares in each row."""
    squares = rows**2
    if each_row:
        squares /= np.maximum(squares.sum(1, keepdims=True), np.finfo(float).tiny)
    shares: NDArray[Any] = squares.sum(0) / max(squares.sum(), np.finfo(float).tiny)
    return shares
