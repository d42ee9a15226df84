"""Sums over the means of many classes, from which their centre and their spread follow, kept up to date."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from fewshot.search.similarity import PART
from fewshot.utils.means import FRACTIONS

#: A spread that is a smaller share of the mean square has lost its digits.
LEAST_SHARE = 1e-6


@dataclass(frozen=True, eq=False)
class Moments:
    """Sums over class means, relative to a point among them so that they keep their digits.

    Attributes
    ----------
    origin : ndarray of shape (d,)
        That point.
    n : int
        Number of classes with support.
    total : ndarray of shape (d,)
        Sum of their means minus the origin.
    squares : float
        Sum of the squared lengths of these.

    Examples
    --------
    >>> some = Moments.of(np.array([[0.0], [8.0]]))
    >>> more = some.changed(gone=np.array([[0.0]]), come=np.array([[2.0], [11.0]]))
    >>> some.middle.tolist(), more.middle.tolist(), some.temperature("sqeuclidean"), more.temperature("sqeuclidean")
    ([4.0], [7.0], 8.0, 5.25)
    """

    origin: NDArray[np.float64]
    n: int
    total: NDArray[np.float64]
    squares: float

    @classmethod
    def of(cls, means: NDArray[np.float64]) -> Self:
        """Return the sums over class means (n, d)."""
        origin = means.sum(0) / max(len(means), 1)
        found = cls(origin, 0, np.zeros_like(origin), 0.0)
        for start in range(0, len(means), PART):  # without a copy of all
            found = found.changed(means[:0], means[start : start + PART])
        return found

    def changed(self, gone: NDArray[np.float64], come: NDArray[np.float64]) -> Self:
        """Return the sums without the means `gone` (k, d), and with the means `come` (k, d)."""
        found = self
        for means, sign in ((gone, -1), (come, 1)):
            apart = means - self.origin
            total = found.total + sign * apart.sum(0)
            squares = found.squares + sign * float(np.vecdot(apart, apart).sum())
            found = replace(found, n=found.n + sign * len(means), total=total, squares=squares)
        return found

    @property
    def middle(self) -> NDArray[np.float64]:
        """The mean of the means, (d,); 0 if there is only one. See `fewshot.utils.means.middle`."""
        return self.origin + self.total / self.n if self.n > 1 else np.zeros_like(self.origin)

    @property
    def spread(self) -> float | None:
        """The sum of squared distances from the mean, over n - 1; None if rounding has taken its digits."""
        if self.n < 2:
            return None
        spread = (self.squares - float(np.vecdot(self.total, self.total)) / self.n) / (self.n - 1)
        return spread if spread > LEAST_SHARE * self.squares / self.n else None

    def temperature(self, metric: str) -> float | None:
        """Return the temperature that suits these means; None if it must be computed from all of them.

        For the cosine, the means must have been scaled to unit length. See `fewshot.utils.means.suitable_temperature`.
        """
        return None if (spread := self.spread) is None else FRACTIONS[metric] * spread

    def is_near(self, point: NDArray[Any], share: float) -> bool:
        """Whether the middle is at most this share of the spread away from a point (d,)."""
        apart = self.middle - point
        return float(np.vecdot(apart, apart)) <= share**2 * (self.spread or 0.0)
