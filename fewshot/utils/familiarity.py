"""How familiar a query looks to a support set: one body for numpy arrays and torch tensors.

The familiarity of a query q is the soft maximum, ``0.05 log(mean over the classes of exp(f / 0.05))``, of how well the
class means m fit it: ``f(q, m) = q' T^-1 m / (|q|^1.5 |m|)`` with ``|v|^2 = r v' T^-1 v``. T is the second moment of
the support plus r, 0.1, times the identity. T damps what all images share, so what is left of a query of a new class is
far from every mean. The exponent 1 instead of 1.5 would make f a cosine; the further half counts against a query what
the support does not account for. Held-out classes add to T how images differ within a class, and the mean of their
class means. Rows that are known to be none of the classes add to T too, and count against a query: a quarter of the
largest f of one of them is subtracted. ``xp`` is the module of the arrays, `numpy` or `torch`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from fewshot.utils.discriminant import LabelledRows
from fewshot.utils.twins import earlier_twins

#: Strength of the regularisation of T, for rows of unit length.
STRENGTH = 0.1
#: The power of its length that a query is divided by, beyond that which makes a cosine.
BEYOND = 0.5
#: Classes that fit a query worse than the best one by this much count, too.
SOFTNESS = 0.05
#: The weight beyond which a row teaches T no more. Nothing would be left of what a huge one damps.
MOST_WEIGHT = 100.0
#: How much the nearest row that is none of the classes counts against a query.
AGAINST = 0.25
#: Keeps a divisor from being zero, where the quotient is not used.
TINY = 1e-300


@dataclass(frozen=True, eq=False)
class Familiarity:
    """Class means in the metric that a support set teaches.

    Attributes
    ----------
    metric : array of shape (r, d) or (d, d)
        V such that ``STRENGTH T^-1 = I - V' V``; or, if there are more rows than numbers, that matrix itself.
    points : array of shape (n_way + n_negatives, d)
        ``STRENGTH T^-1`` times each class mean, then times each row that is none of the classes.
    lengths : array of shape (n_way + n_negatives,)
        Their squared lengths in the metric.
    present : bool array of shape (n_way,)
        Which classes have support.
    """

    metric: Any
    points: Any
    lengths: Any
    present: Any

    @classmethod
    def of(cls, rows: Any, means: Any, count: Any, negatives: Any, xp: Any) -> Self:
        """Build from what was learned.

        Parameters
        ----------
        rows : array of shape (n, d)
            All rows that teach the metric; `teaching` gives those of the support.
        means : array of shape (n_way, d)
            Class means; 0 for absent classes.
        count : array of shape (n_way,)
            Weight of each class; 0 for absent classes.
        negatives : array of shape (n_negatives, d)
            Those of the rows that are none of the classes; there may be none.
        xp : module
            `numpy` or `torch`.
        """
        n, d = rows.shape
        side = STRENGTH * xp.eye(min(n, d), dtype=rows.dtype, device=rows.device)
        if n < d:
            metric = xp.linalg.solve(xp.linalg.cholesky(rows @ rows.mT + side), rows)
        else:
            metric = STRENGTH * xp.linalg.inv(rows.mT @ rows + side)
        points = xp.concat([means, negatives])
        damped = _damped(points, metric)
        return cls(metric, damped, (points * damped).sum(-1), count > 0)

    def scores(self, queries: Any, xp: Any) -> Any:
        """Return the familiarity (q,) of unit vectors (q, d); minus infinity if no class is present."""
        own = (queries * _damped(queries, self.metric)).sum(-1)
        return self._read(queries @ self.points.mT, own, self.lengths, self.present, xp)

    def without(self, removed: Any, signs: Any, own: int | None, queries: Any, xp: Any) -> Any:
        """Return the familiarity (k,) of unit vectors (k, d), as if some rows and their class had never been seen.

        With rows R and their signs D, ``(T - R' D R)^-1 = T^-1 + T^-1 R' (D - R T^-1 R')^-1 R T^-1``.

        Parameters
        ----------
        removed : array of shape (r, d)
            Rows R that T is without.
        signs : array of shape (r,)
            1 for a row that is removed, -1 for one that is added instead.
        own : int or None
            The class of the queries, if it is one of those present.
        queries : array of shape (k, d)
            The queries.
        xp : module
            `numpy` or `torch`.
        """
        damped = _damped(removed, self.metric)
        middle = xp.linalg.inv(STRENGTH * xp.diag(signs) - removed @ damped.mT)
        asked, points = queries @ damped.mT, removed @ self.points.mT
        dot = queries @ self.points.mT + asked @ middle @ points
        length = (queries * _damped(queries, self.metric)).sum(-1) + ((asked @ middle) * asked).sum(-1)
        present = self.present
        if own is not None:
            present = present & (xp.arange(len(present), device=queries.device) != own)
        return self._read(dot, length, self.lengths + ((middle @ points) * points).sum(0), present, xp)

    def of_left_out(self, rows: Any, labels: Any, weight: Any, count: Any, xp: Any) -> Any:
        """Return the familiarity (k,) of rows (k, d) of the support, each as if it alone had never been seen.

        Parameters
        ----------
        rows : array of shape (k, d)
            Rows of unit length, each of a class that has others.
        labels, weight : arrays of shape (k,)
            Their classes and weights.
        count : array of shape (n_way,)
            Weight of each class.
        xp : module
            `numpy` or `torch`.
        """
        dot, taught = rows @ self.points.mT, _taught(weight, xp)
        length = (rows * _damped(rows, self.metric)).sum(-1)
        free = 1 / (1 - taught * length / STRENGTH)
        lengths = self.lengths + dot**2 * (taught * free / STRENGTH)[:, None]
        dot, length = dot * free[:, None], length * free
        own = labels[:, None] == xp.arange(dot.shape[-1], device=rows.device)
        gone = (own * (weight / count[labels])[:, None]) * 1.0  # the mean loses this times the row
        lengths = lengths - 2 * gone * dot + gone**2 * length[:, None]
        return self._read(dot - gone * length[:, None], length, lengths, self.present, xp)

    def _read(self, dot: Any, own: Any, lengths: Any, present: Any, xp: Any) -> Any:
        """Turn products (q, n) with the points, and squared lengths of queries (q,) and points, into familiarity."""
        square = own[:, None] * lengths
        fit = dot * xp.where(square > TINY, square, xp.inf) ** -0.5
        fit = fit * xp.where(own > TINY, own, xp.inf)[:, None] ** (-BEYOND / 2)
        n_way = self.present.shape[-1]
        best = _soft_maximum(xp.where(present, fit[:, :n_way], -xp.inf), xp)
        against = fit[:, n_way:]
        return best - AGAINST * xp.amax(against, -1) if against.shape[-1] else best


@dataclass(frozen=True, eq=False)
class HeldOut:
    """What held-out classes add to T.

    Attributes
    ----------
    within : array of shape (n, d)
        Rows minus the mean of their class.
    place : array of shape (n,)
        The class of each, in 0..k-1.
    means : array of shape (k, d)
        Class means.
    """

    within: Any
    place: Any
    means: Any

    @classmethod
    def of(cls, x: Any, codes: Any, xp: Any) -> Self:
        """Build from unit vectors (n, d) and the numbers of their classes (n,)."""
        numbers, place = xp.unique(codes, return_inverse=True)
        means = xp.stack([x[codes == number].mean(0) for number in numbers]) if len(codes) else x
        return cls(x - means[place], place, means)

    def mean(self, gone: int | None = None) -> Any:
        """Return the mean of the class means, without the class `gone`, times the root of the number of rows: (1, d).

        If no class is left, (0, d).
        """
        k, n, total = len(self.means), len(self.place), self.means.sum(0)
        if gone is not None:
            k, n, total = k - 1, n - int((self.place == gone).sum()), total - self.means[gone]
        return total[None] * (n**0.5 / k) if k else self.means[:0]

    @property
    def rows(self) -> tuple[Any, Any]:
        """All rows that they add."""
        return self.within, self.mean()


def teaching(support: LabelledRows, xp: Any) -> Any:
    """Return the rows (n, d) that a support adds to T: its unit vectors, each times the root of its weight."""
    return support.x * _taught(support.weight, xp)[:, None] ** 0.5


def unlearned(support: NDArray[Any], others: NDArray[Any], codes: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which of other rows are still none of the classes: an image may have been learned since.

    Parameters
    ----------
    support, others : ndarrays of shape (n, d) and (m, d)
        Rows of the support, and rows that were none of the classes.
    codes : ndarray of shape (m,)
        Numbers of the held-out classes of the latter, negative for those without one. A class is learned if one of its
        rows is.
    """
    learned = earlier_twins(np.concatenate([support, others]), len(support))
    twins = (learned >= 0) & (learned < len(support))
    kept: NDArray[np.bool_] = ~twins & ~((codes >= 0) & np.isin(codes, codes[twins]))
    return kept


def _damped(x: Any, metric: Any) -> Any:
    """Return rows (n, d) times STRENGTH T^-1."""
    return x @ metric if metric.shape[0] == metric.shape[1] else x - (x @ metric.mT) @ metric


def _taught(weight: Any, xp: Any) -> Any:
    return xp.where(weight < MOST_WEIGHT, weight, MOST_WEIGHT)


def _soft_maximum(x: Any, xp: Any) -> Any:
    """Return the soft maximum of each row (q, k), of its finite numbers; minus infinity if there are none.

    It is a mean and not a sum, so that evidence from one class less serves as a threshold.
    """
    top, n = xp.amax(x, -1), (x > -xp.inf).sum(-1)
    known = xp.where(top > -xp.inf, top, 0)
    total = xp.exp((x - known[:, None]) / SOFTNESS).sum(-1)
    return top + SOFTNESS * xp.log(xp.where(n > 0, total, 1) / xp.where(n > 0, n, 1))
