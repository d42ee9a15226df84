"""Regularised discriminant analysis in closed form: one body for numpy arrays and torch tensors.

`DiscriminantLearner` describes the method and its names. The rows x of the support are transformed already; ``xp`` is
the module of the arrays, `numpy` or `torch`. Only tensors may have leading batch dimensions (...).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import log10, prod
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from fewshot.utils.means import middle

#: Logits are similarity / temperature; similarities are scaled so that this one gives honest probabilities.
TEMPERATURE = 0.05
#: The strengths that leave-one-out compares, and the one it prefers where the support says little.
STRENGTHS, USUAL_STRENGTH = (0.1, 0.3, 1.0, 3.0, 10.0), 0.3
#: The temperature that it prefers for ten classes at one shot, at the usual strength and spread of the classes.
USUAL_TEMPERATURE, USUAL_SPREAD = 0.068, 0.2
#: The temperatures that leave-one-out compares, and the ratio of neighbours.
RATIO = 1.4
TEMPERATURES = tuple(0.008 * RATIO**i for i in range(13))
#: What it costs, in log-likelihood, to choose a strength ten times, and a temperature e times, the preferred one.
COST_OF_STRENGTH, COST_OF_TEMPERATURE = 4.0, 16.0
#: The most rows that teach the metric, unless twice the length of an embedding is more; and the most classes.
MOST_ROWS, MOST_CLASSES = 4096, 1024
#: How the likeliest temperature falls with the number of classes.
BY_CLASSES = -0.09
#: About the most rows that are left out, and the most similarities looked at; of more rows, evenly spaced ones in the
#: order of their leverage.
MOST_LEFT_OUT, MOST_LOOKED_AT = 1000, 2**22
#: The factor that the cosine with the class means approaches, and the number of pairs of classes that the usual spread
#: counts as.
MOST_COSINE, CERTAIN = 1.0, 3.0
#: Left-out rows are scored in parts of at most this many numbers.
PART = 2**22
#: Where the power function becomes a line, so that its slope at 0 is finite; relative to the length of an embedding.
NEAR_ZERO = 1e-6
#: Spreads integers evenly over 0..1.
GOLDEN_RATIO = (5**0.5 - 1) / 2
#: Keeps a divisor from being zero, where the quotient is not used.
TINY = 1e-300


def unit_length(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scale rows (n, d) of an array to unit length; a zero row stays zero."""
    largest = np.abs(x).max(-1, keepdims=True, initial=0)
    scaled = x / np.where(largest > 0, largest, 1)  # avoids overflow and underflow of squares
    norm = np.sqrt(np.einsum("ij,ij->i", scaled, scaled))[:, None]
    unit: NDArray[np.float64] = scaled / np.where(norm > 0, norm, 1)
    return unit


def signed_power(x: Any, power: float, xp: Any) -> Any:
    """Return rows (..., d) of unit length with each absolute value raised to `power`."""
    size = xp.abs(x)
    return x * xp.where(size > NEAR_ZERO, size, NEAR_ZERO) ** (power - 1)


@dataclass(frozen=True, eq=False)
class Chosen:
    """What leave-one-out chooses; numbers or arrays (...).

    Attributes
    ----------
    strength : array
        The strength r.
    scale : array
        The factor of the similarities in the metric, so that logits at `TEMPERATURE` are honest.
    cosine : array
        The factor of the cosine with the class means.
    """

    strength: Any
    scale: Any
    cosine: Any

    def map(self, function: Callable[[Any], Any]) -> Self:
        """Apply `function`, such as a cast, to all three."""
        return replace(self, **{name: function(value) for name, value in vars(self).items()})


def class_keys(support: LabelledRows, chosen: Chosen, xp: Any) -> Any:
    """Return the key of each class, (..., n_way, d), whose products with queries are their similarities.

    Parameters
    ----------
    support : LabelledRows
        The support; gradients flow through it.
    chosen : Chosen
        Strength and factors, as `choose` returns them.
    xp : module
        `numpy` or `torch`.
    """
    rows, centred = support.weighted_rows(xp), support.centred(xp)
    n, d = rows.shape[-2:]
    ridge = chosen.strength[..., None, None]
    side = ridge * xp.eye(min(n, d), dtype=rows.dtype, device=rows.device)
    if n >= d:
        keys = xp.linalg.solve(rows.mT @ rows + side, centred.mT).mT
    else:  # Woodbury's identity: a matrix of the size of the support
        keys = (centred - xp.linalg.solve(rows @ rows.mT + side, rows @ centred.mT).mT @ rows) / ridge
    return _keys(keys, centred, support.means, chosen, xp)


def _keys(keys: Any, centred: Any, means: Any, chosen: Chosen, xp: Any) -> Any:
    """Return keys (..., n_way, d), given centred means times T^-1, centred means, and means."""
    in_metric = keys * _per_length((keys * centred).sum(-1), xp)
    cosine = means * _per_length((means**2).sum(-1), xp)
    return in_metric * chosen.scale[..., None, None] + cosine * chosen.cosine[..., None, None]


@dataclass(frozen=True, eq=False)
class ClassMetric:
    """What a support teaches, by which the key of any class follows from its mean.

    Attributes
    ----------
    inverse : array of shape (d, d)
        T^-1.
    center : array of shape (d,)
        The mean of the class means.
    chosen : Chosen
        Strength and factors.
    """

    inverse: Any
    center: Any
    chosen: Chosen

    @classmethod
    def of(cls, support: LabelledRows, strength: float | None, xp: Any, n_way: int) -> Self:
        """Return the metric of a support whose classes stand for `n_way`; rows of others have the label -1."""
        rotated = _Rotated.of(support.alone(xp), xp)
        chosen = _choose(rotated, strength, xp, n_way)
        return cls(rotated.inverse(chosen.strength, xp), support.center(xp), chosen)

    def keys(self, means: Any, xp: Any) -> Any:
        """Return the keys (n, d) of classes of these means (n, d)."""
        centred = means - self.center
        return _keys(centred @ self.inverse, centred, means, self.chosen, xp)

    def turn(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return matrices (d, d) by which keys, and queries, are multiplied from the right.

        Keys are means times T^-1; now keys and queries are both multiplied by a root of it. Their products stay what
        they are, but a key lies near the queries of its class, and all are about as long.
        """
        values, axes = np.linalg.eigh(self.inverse)
        root = np.sqrt(values)
        return axes / root, axes * root


def _per_length(squared: Any, xp: Any) -> Any:
    """Return 1 / length (..., n, 1) of vectors with these squared lengths (..., n); 0 for zero."""
    known = squared > xp.finfo(squared.dtype).tiny
    return xp.where(known, xp.where(known, squared, 1) ** -0.5, 0)[..., None]


def about(n_way: int) -> int:
    """Return the power of two that is at most `n_way`, so that one class more seldom changes what all share."""
    return 1 << (n_way.bit_length() - 1) if n_way > MOST_CLASSES else n_way


def scattered(x: Any, xp: Any) -> Any:
    """Return numbers in 0..1 (n,) that depend on the content of rows (n, d) alone, and spread evenly."""
    ramp = xp.arange(x.shape[-1], dtype=x.dtype, device=x.device)
    return xp.floor(x @ xp.cos(ramp) * 2**24) * GOLDEN_RATIO % 1  # coarser than rounding errors


def choose(support: LabelledRows, strength: float | None, xp: Any, n_way: Any = None) -> Chosen:
    """Return the strength and the factors that make left-out rows likeliest.

    Parameters
    ----------
    support : LabelledRows
        The support in float64, detached.
    strength : float or None
        The strength, or None to choose it by leave-one-out.
    xp : module
        `numpy` or `torch`.
    n_way : int, optional
        The classes for which those of the support stand; by default those that are present.
    """
    return _choose(_Rotated.of(support.alone(xp), xp), strength, xp, support.stands_for() if n_way is None else n_way)


def _choose(rotated: _Rotated, strength: float | None, xp: Any, n_way: Any) -> Chosen:
    rows, cosine, usual = rotated.to_leave_out(xp), rotated.cosine_factor(xp), rotated.usual_temperature(xp, n_way)
    cosines = cosine[..., None, None] * rows.left_out_cosine(xp)
    squares, found = rotated.x**2, list[Any]()
    for one in STRENGTHS if strength is None else (strength,):
        length = rotated.length(one, squares, xp)
        loss, temperature = rows.tried(one, length, cosines, usual, xp)
        scale = TEMPERATURE / temperature
        tried = [loss, one + 0 * loss, scale / length, scale * cosine]
        found = [xp.where(loss < found[0], *pair) for pair in zip(tried, found, strict=True)] if found else tried
    return Chosen(*found[1:])


def left_out(support: LabelledRows, strength: float | None, xp: Any, beyond: LabelledRows | None = None) -> Any:
    """Return the similarity (n, n_way) of each row to every class, as if the support had never held it.

    Parameters
    ----------
    support : LabelledRows
        The rows that make up the metric, in float64, detached.
    strength : float or None
        The strength, or None to choose it by leave-one-out.
    xp : module
        `numpy` or `torch`.
    beyond : LabelledRows, optional
        More rows, which are in the class means alone; their similarities follow.
    """
    rotated, parts = _Rotated.of(support, xp), []
    alone = rotated if support.sample is None else _Rotated.of(support.alone(xp), xp)
    chosen = _choose(alone, strength, xp, support.stands_for())
    step, strength = max(1, PART // len(support.count)), float(chosen.strength)
    of_means = rotated.of_means(strength, xp)
    for rows in [rotated] if beyond is None else [rotated, rotated.of_others(beyond)]:
        for start in range(0, len(rows.labels), step):
            part = rows.part(slice(start, start + step))
            in_metric = part.left_out(strength, of_means, xp, taught=rows is rotated) * chosen.scale
            parts.append(in_metric + part.left_out_cosine(xp) * chosen.cosine)
    return xp.concat(parts)


@dataclass(frozen=True, eq=False)
class LabelledRows:
    """A labelled support set and its class means.

    Attributes
    ----------
    x : array of shape (..., n, d)
        Rows that teach the metric; those of weight 0 are zero.
    labels : array of shape (..., n)
        Class of each row, integers.
    weight : array of shape (..., n)
        Sample weight of each row.
    means : array of shape (..., n_way, d)
        Mean of each class; 0 for absent classes.
    count : array of shape (..., n_way)
        Sum of the weights of each class.
    sample : array of shape (k,) or None
        The classes that stand for all in the choices and in the mean of the means; None for all.
    """

    x: Any
    labels: Any
    weight: Any
    means: Any
    count: Any
    sample: Any = None

    def limited(self, xp: Any) -> Self:
        """Return the support with at most `MOST_ROWS` rows, or 2 d; the class means stay those of all rows."""
        if (kept := self.rows_to_keep(xp)) is None:
            return self
        x, labels, weight = self.x[kept], self.labels[kept], self.weight[kept]
        return replace(self, x=x, labels=labels, weight=weight, sample=self.classes_to_keep(xp))

    def rows_to_keep(self, xp: Any) -> Any:
        """Return the places of the rows that `limited` keeps, or None for all.

        Which rows are kept depends on each row and the mean of its class, so that chunks, their order and later support
        matter as little as they can. Batched support keeps all its rows.
        """
        if self.labels.ndim > 1:
            return None
        (n, d), classes = self.x.shape, self.classes_to_keep(xp)
        most = max(MOST_ROWS, 2 * d)
        if classes is None and n <= most:
            return None
        place = scattered(self.x, xp)
        if classes is not None:  # theirs come first
            place = xp.where(xp.isin(self.labels, classes), place, place + 1)
        return xp.argsort(place)[:most]

    def classes_to_keep(self, xp: Any) -> Any:
        """Return the classes that stand for all, (k,), chosen by their means, or None for all."""
        if self.labels.ndim > 1 or self.n_present <= MOST_CLASSES:
            return None
        place = xp.where(self.count > 0, scattered(self.means, xp), 2)
        return xp.argsort(place)[:MOST_CLASSES]

    def stands_for(self) -> Any:
        """Return the number of classes that the choices suit, (...)."""
        n = self.n_present
        return n if self.sample is None else 0 * n + about(int(n))

    def alone(self, xp: Any) -> Self:
        """Return the support as if the sampled classes were all; rows of others have the label -1."""
        if self.sample is None:
            return self
        place = xp.zeros(len(self.count), dtype=self.labels.dtype, device=self.labels.device) - 1
        place[self.sample] = xp.arange(len(self.sample), dtype=self.labels.dtype, device=self.labels.device)
        means, count = self.means[self.sample], self.count[self.sample]
        return replace(self, labels=place[self.labels], means=means, count=count, sample=None)

    def weighted_rows(self, xp: Any) -> Any:
        """Return the rows times the root of their weights, whose second moment is that of the support."""
        return self.x * xp.sqrt(self.weight)[..., None]

    @property
    def n_present(self) -> Any:
        """The number of classes with support, (...)."""
        return (self.count > 0).sum(-1, dtype=self.count.dtype)

    def shots(self, xp: Any) -> Any:
        """Return the mean weight of a class with support, (...); at least 1."""
        n = self.n_present
        mean = self.count.sum(-1) / xp.where(n > 0, n, 1)
        return xp.where(mean > 1, mean, 1)

    def cosine_factor(self, xp: Any) -> Any:
        """Return the factor of the cosine with the class means, compared with that in the metric, (...).

        The more images teach the metric, the more it takes for granted that queries come in their style; the cosine
        does not.
        """
        return MOST_COSINE * (1 - self.shots(xp) ** -0.5)

    def spread(self, xp: Any) -> Any:
        """Return how much the cosines between centred class means vary, (...): high where some classes are alike."""
        centred = self.centred(xp)
        unit = centred * _per_length((centred**2).sum(-1), xp)
        n, d = unit.shape[-2:]
        gram = unit @ unit.mT if n < d else unit.mT @ unit  # equal sums of squares
        n = self.n_present
        pairs = n * (n - 1) / 2
        each = 2 * xp.where(pairs > 0, pairs, 1)
        mean = ((unit.sum(-2) ** 2).sum(-1) - n) / each
        variance = ((gram**2).sum(-1).sum(-1) - n) / each - mean**2
        known = pairs * xp.where(variance > 0, variance, 0)
        return ((known + CERTAIN * USUAL_SPREAD**2) / (pairs + CERTAIN)) ** 0.5

    def centred(self, xp: Any) -> Any:
        """Return the class means minus the mean of the present ones; a single class keeps its own."""
        away = self.means - self.center(xp)[..., None, :]
        return xp.where((self.count > 0)[..., None], away, 0)

    def center(self, xp: Any) -> Any:
        """Return the mean of the means of the present classes, (..., d), or of those that stand for them."""
        if self.sample is None:
            return middle(self.means, self.count, xp)
        return middle(self.means[self.sample], self.count[self.sample], xp)


@dataclass(frozen=True, eq=False)
class _Rotated(LabelledRows):
    """The support in the eigenvectors of its second moment, in which T is diagonal for every strength.

    Attributes
    ----------
    moment : array of shape (..., r)
        Eigenvalues; r is the smaller of n and d.
    vectors : array of shape (..., d, r)
        Eigenvectors.
    """

    moment: Any = None
    vectors: Any = None

    @classmethod
    def of(cls, support: LabelledRows, xp: Any) -> Self:
        """Rotate the rows and means of a support."""
        rows = support.weighted_rows(xp)
        if rows.shape[-2] >= rows.shape[-1]:
            moment, vectors = xp.linalg.eigh(rows.mT @ rows)
        else:
            moment, vectors = xp.linalg.eigh(rows @ rows.mT)
            known = moment > 1e-12 * moment[..., -1:]  # below, only rounding
            vectors = rows.mT @ (vectors * xp.where(known, xp.where(known, moment, 1) ** -0.5, 0)[..., None, :])
        x, means = support.x @ vectors, support.means @ vectors
        moment = xp.where(moment > 0, moment, 0)
        return cls(x, support.labels, support.weight, means, support.count, support.sample, moment, vectors)

    def to_leave_out(self, xp: Any) -> Self:
        """Return the rows that can be left out, at most about 1000; which ones does not depend on their order.

        Batched support keeps all its rows: those that cannot be left out have no share in the loss.
        """
        if self.labels.ndim > 1:
            return self
        lever = (self.x**2 / (self.moment + USUAL_STRENGTH)).sum(-1)
        kept = xp.argsort(lever)
        kept = kept[self._shares(xp)[kept] > 0]
        kept = kept[:: max(1, round(len(kept) / min(MOST_LEFT_OUT, max(1, MOST_LOOKED_AT // len(self.count)))))]
        return replace(self, x=self.x[kept], labels=self.labels[kept], weight=self.weight[kept])

    def of_others(self, rows: LabelledRows) -> Self:
        """Return other rows of the classes; `vectors` must span them, as those of more rows than numbers do."""
        return replace(self, x=rows.x @ self.vectors, labels=rows.labels, weight=rows.weight)

    def part(self, rows: Any) -> Self:
        """Return some of the rows."""
        return replace(self, x=self.x[..., rows, :], labels=self.labels[..., rows], weight=self.weight[..., rows])

    def inverse(self, strength: Any, xp: Any) -> Any:
        """Return T^-1 (d, d) under a strength."""
        d, r = self.vectors.shape
        if r == d:
            return self.vectors / (self.moment + strength) @ self.vectors.mT
        within = 1 / (self.moment + strength) - 1 / strength
        beyond = xp.eye(d, dtype=self.x.dtype, device=self.x.device) / strength
        return self.vectors * within @ self.vectors.mT + beyond

    def length(self, strength: float, squares: Any, xp: Any) -> Any:
        """Return the length of a typical query under a strength, (...), given the squares of the rows' numbers."""
        lever = (squares @ (1 / (self.moment + strength))[..., None])[..., 0]
        total = self.weight.sum(-1)
        square = (self.weight * lever / (1 - self._unit(xp) * lever)).sum(-1) / xp.where(total > 0, total, 1)
        return xp.where(square > 0, square, 1) ** 0.5

    def tried(self, strength: float, length: Any, cosines: Any, usual: Any, xp: Any) -> tuple[Any, Any]:
        """Return the loss of leaving out these rows under a strength, and the best temperature.

        `length` is that of a typical query, `cosines` (..., n, n_way) are added to the similarities in the metric.
        """
        usual = usual * (strength / USUAL_STRENGTH) ** (1 / 3)
        t = xp.asarray(TEMPERATURES, dtype=self.x.dtype, device=self.x.device)
        t = t.reshape(-1, *[1] * (self.x.ndim - 2))
        losses = COST_OF_TEMPERATURE / 2 * xp.log(t / usual) ** 2
        step = max(1, PART // (len(TEMPERATURES) * prod(self.labels.shape[:-1]) * self.count.shape[-1]))
        shares, of_means = self._shares(xp), self.of_means(strength, xp)
        for start in range(0, self.labels.shape[-1], step):
            rows = slice(start, start + step)
            part = self.part(rows)
            similarity = part.left_out(strength, of_means, xp) / length[..., None, None] + cosines[..., rows, :]
            own = (similarity * part._is_own(xp)).sum(-1)
            similarity = xp.where((self.count > 0)[..., None, :], similarity, -xp.inf)
            top = xp.amax(similarity, -1)
            beyond = (similarity - top[..., None]) / t[..., None, None]
            surprise = xp.log(xp.exp(beyond).sum(-1)) + (top - own) / t[..., None]
            losses = losses + (shares[..., rows] * surprise).sum(-1)
        loss, temperature = _lowest(losses, t, xp)
        return loss + COST_OF_STRENGTH * log10(strength / USUAL_STRENGTH) ** 2, temperature

    def usual_temperature(self, xp: Any, n: Any) -> Any:
        """Return the temperature that is preferred among `n` classes before any row is left out, (...)."""
        few = (xp.where(n > 1, n, 1) / 10) ** BY_CLASSES * self.shots(xp) ** -0.3
        return USUAL_TEMPERATURE * (self.spread(xp) / USUAL_SPREAD) ** 0.41 * few

    def _unit(self, xp: Any) -> Any:
        """Return the weight that leaving a row out takes away: of two equal rows, written as one of weight 2, one."""
        return xp.where(self.weight < 1, self.weight, 1)

    def _shares(self, xp: Any) -> Any:
        """Return the weight (..., n) of each row in the loss: each class counts as one; 0 if it has no other row."""
        own = self._of_rows(self.count[..., None], xp)[..., 0]
        usable = (
            (self.weight > 0)
            & (self.labels >= 0)
            & (own - self._unit(xp) > 1e-9 * own)
            & (self.n_present > 1)[..., None]
        )
        share = xp.where(usable, self.weight / xp.where(own > 0, own, 1), 0)
        total = share.sum(-1)[..., None]
        return share * ((self.weight * usable).sum(-1)[..., None] / xp.where(total > 0, total, 1))

    def of_means(self, strength: float, xp: Any) -> Any:
        """Return the products (..., n_way, n_way) of the class means with the centred ones in the metric.

        None if there are as many classes as rows, whose own products then take less time, or too many to hold them.
        """
        n_way = self.count.shape[-1]
        if n_way >= self.labels.shape[-1] or n_way**2 > PART:
            return None
        return self.means / (self.moment + strength)[..., None, :] @ self.centred(xp).mT

    def left_out(self, strength: float, of_means: Any, xp: Any, taught: bool = True) -> Any:
        """Return the similarity (..., k, n_way) of rows to every class, as if it had never held them; 0 if absent.

        Rows that have not `taught` the metric leave T as it is; `of_means` are what the method of this name returns.

        Leaving a row x of weight u out turns T^-1 into ``T^-1 + u T^-1 x x' T^-1 / (1 - u h)`` with ``h = x' T^-1 x``,
        the mean m of its class into ``m - n e`` and every centred mean of another class v into ``v + e``, with n the
        number of classes and ``e = (x - m) u / (n (count - u))``.
        """
        inverse, unit = 1 / (self.moment + strength)[..., None, :], self._unit(xp)
        lever = (self.x**2 * inverse).sum(-1)
        centred, n = self.centred(xp), self.n_present[..., None, None]
        rest = n * (self._of_rows(self.count[..., None], xp) - unit[..., None])
        share = unit[..., None] / xp.where(rest > TINY, rest, xp.inf)
        e = (self.x - self._of_rows(self.means, xp)) * share
        to_x = (inverse * self.x) @ centred.mT
        to_e = inverse * e @ centred.mT if of_means is None else (to_x - self._of_rows(of_means, xp)) * share
        x_e, e_e = ((inverse * e * other).sum(-1)[..., None] for other in (self.x, e))
        # The own class moves by e - n e. Of many classes, most are not among those whose mean is subtracted.
        shift = int(self.sample is None) - n * self._is_own(xp)
        dot = to_x + shift * x_e
        squared = (inverse * centred**2).sum(-1)[..., None, :] + 2 * shift * to_e + shift**2 * e_e
        if taught:
            left = (1 - unit * lever)[..., None]
            squared, dot = squared + unit[..., None] * dot**2 / left, dot / left
        return dot * xp.where(squared > TINY, squared, xp.inf) ** -0.5

    def left_out_cosine(self, xp: Any) -> Any:
        """Return the cosine (..., k, n_way) of rows with the means of every class, as if it had never held them."""
        dot, square = self.x @ self.means.mT, (self.x**2).sum(-1)[..., None]
        mean_square = (self.means**2).sum(-1)[..., None, :]
        share = self._unit(xp)[..., None] / xp.where(self.count > 0, self.count, 1)[..., None, :]
        gone = self._is_own(xp) * share  # the mean becomes (mean - gone x) / (1 - gone)
        squared = mean_square - 2 * gone * dot + gone**2 * square
        return (dot - gone * square) * xp.where(squared > TINY, squared, xp.inf) ** -0.5

    def _is_own(self, xp: Any) -> Any:
        return self.labels[..., None] == xp.arange(self.count.shape[-1], device=self.labels.device)

    def _of_rows(self, table: Any, xp: Any) -> Any:
        """Return the entry of the class of each row, (..., n, k), in a table (..., n_way, k)."""
        return table[self.labels] if self.labels.ndim == 1 else xp.take_along_dim(table, self.labels[..., None], -2)


def _lowest(losses: Any, t: Any, xp: Any) -> tuple[Any, Any]:
    """Return the least loss (...) at temperatures `t` (k, ...), and that at the vertex of the parabola around it."""
    low, mid, high = losses[:-2], losses[1:-1], losses[2:]
    bend = low - 2 * mid + high
    step = xp.where(bend > 0, (low - high) / (2 * xp.where(bend > 0, bend, 1)), 0)
    step = xp.where(step < -1, -1, xp.where(step > 1, 1, step))
    least, first = xp.amin(losses[:-1], 0), t[0] + 0 * losses[0]
    vertex = xp.concat([first[None], t[1:-1] * RATIO**step])
    temperature = xp.amin(xp.where(losses[:-1] == least, vertex, xp.inf), 0)
    return least, xp.where(temperature < xp.inf, temperature, first)
