"""Similarities between queries and keys in numpy: `fewshot.search.similarity` in float64."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
METRICS = ("sqeuclidean", "cosine", "dot")
#: Larger numbers overflow when their squares are summed.
MOST_MAGNITUDE = 1e18


@dataclass(frozen=True, eq=False)
class Keys:
    """Keys prepared for one metric, so that many queries share the work.

    Attributes
    ----------
    metric : {"sqeuclidean", "cosine", "dot"}
        ``sqeuclidean`` is *minus* the squared Euclidean distance.
    keys : ndarray of shape (m, d)
        For ``sqeuclidean`` the keys minus `offset`, for ``cosine`` unit vectors, for ``dot`` the keys.
    offset : ndarray of shape (d,)
        Subtracted from both sides for ``sqeuclidean``, whose expansion loses digits far from the origin.
    """

    metric: str
    keys: Array
    offset: Array

    @classmethod
    def of(cls, keys: Array, metric: str) -> Keys:
        """Prepare keys (m, d).

        Examples
        --------
        >>> Keys.of(np.array([[0.0, 0.0], [3.0, 4.0]]), "sqeuclidean").similarity(np.zeros((1, 2)))
        array([[  0., -25.]])
        """
        offset = keys.mean(0) if metric == "sqeuclidean" else np.zeros(keys.shape[1])
        return cls(metric, unit_length(keys) if metric == "cosine" else keys - offset, offset)

    def similarity(self, queries: Array) -> Array:
        """Return the similarities (q, m) of queries (q, d); higher is closer."""
        x = unit_length(queries) if self.metric == "cosine" else queries - self.offset
        product = x @ self.keys.T
        if self.metric != "sqeuclidean":
            return product
        squares = _squares(x)[:, None] + _squares(self.keys)
        return np.minimum(2 * product - squares, 0)  # rounding can give equal rows a tiny positive value


def unit_length(x: Array) -> Array:
    """Scale rows (n, d) to unit length; a zero row stays zero."""
    largest = np.abs(x).max(-1, keepdims=True, initial=0)
    scaled = x / np.where(largest > 0, largest, 1)  # avoids overflow and underflow of squares
    norm = np.sqrt(_squares(scaled))[:, None]
    return scaled / np.where(norm > 0, norm, 1)


def _squares(x: Array) -> Array:
    return np.einsum("ij,ij->i", x, x)
