"""The threshold below which a query is unknown, from scores of unknown and known queries, and what it costs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from fewshot.utils import notebook
from fewshot.utils.intervals import DEPENDENCE, share_interval
from fewshot.utils.plain import plain_dict
from fewshot.utils.streams import RESAMPLE, episode_rng
from fewshot.utils.text import counted

#: Bootstrap resamples, and the most scores drawn for all of them.
N_RESAMPLES, MOST_DRAWN = 1000, 2**22
#: Points of the trade-off curve.
N_POINTS = 101


@dataclass(frozen=True, eq=False)
class Rejection:
    """A threshold below which queries are unknown, and what it costs.

    Attributes
    ----------
    threshold : float
        A query whose score is below it is unknown. It is no similarity: give the rule, such as "5%", as ``reject``, not
        this number.
    false_accept_rate : float
        Fraction of unknown queries that are accepted.
    false_accept_interval : (low, high)
        The 95 % interval of that fraction on other unknown classes.
    false_reject_rate : float
        Fraction of queries of known classes that are answered unknown; NaN if no class has two rows and no held-out
        class was given.
    n_unknown_classes : int
        Number of classes that the threshold was chosen on.
    false_reject_interval : (low, high)
        The 95 % interval of `false_reject_rate` on other items that come from each class as often as the learned ones
        (Wilson 1927); NaN if no class has two rows.
    """

    threshold: float
    false_accept_rate: float
    false_accept_interval: tuple[float, float]
    false_reject_rate: float
    n_unknown_classes: int
    false_reject_interval: tuple[float, float] = (math.nan, math.nan)

    def to_dict(self) -> dict[str, Any]:
        """Return the attributes as plain values, which JSON can hold: intervals as lists, None for NaN.

        Examples
        --------
        >>> found = Rejection(0.25, 0.05, (0.01, 0.12), math.nan, 3).to_dict()
        >>> found["false_accept_interval"], found["false_reject_rate"]
        ([0.01, 0.12], None)
        """
        return plain_dict(**asdict(self))

    def __str__(self) -> str:
        low, high = (100 * share for share in self.false_accept_interval)
        lost = 100 * self.false_reject_rate
        cost = "how many known ones are lost cannot be told from one image a class"
        if lost == lost:  # not NaN
            few, many = (100 * share for share in self.false_reject_interval)
            interval = f" ({few:.0f} to {many:.0f})" if few == few else ""
            cost = f"of 100 known ones, {lost:.0f} would be answered unknown{interval}"
        return (
            f"{100 * self.false_accept_rate:.0f} % of unknown images would be taken for a class ({low:.0f} to "
            f"{high:.0f} % of other classes; measured on {counted(self.n_unknown_classes, 'class')}); {cost}"
        )

    def _repr_html_(self) -> str:
        lost = self.false_reject_rate
        known = "not known" if math.isnan(lost) else f"{100 * lost:.0f} %"
        facts = [
            (f"{100 * self.false_accept_rate:.0f} %", "of unknown items are taken for a class"),
            (known, "of known ones are answered unknown"),
        ]
        return notebook.fragment("Unknown or not", f"{str(self)[:1].upper()}{str(self)[1:]}.", notebook.numbers(facts))


@dataclass(frozen=True, eq=False)
class UnknownScores:
    """Scores of queries of unknown and of known classes.

    Attributes
    ----------
    unknown : ndarray of shape (m,)
        Scores of queries of unknown classes.
    classes : ndarray of shape (m,)
        Their classes, as numbers.
    known : ndarray of shape (k,)
        Scores of queries of known classes.
    left_out : bool
        Whether `known` are scores of the support, each row as if it had not been learned, so that they tell of other
        items of these very classes.
    """

    unknown: NDArray[np.float64]
    classes: NDArray[np.int64]
    known: NDArray[np.float64]
    left_out: bool = False

    @classmethod
    def of(cls, unknown: Sequence[NDArray[np.float64]], known: NDArray[np.float64], *, left_out: bool = False) -> Self:
        """Build from the scores of each unknown class, and those of known queries."""
        codes = np.repeat(np.arange(len(unknown)), list(map(len, unknown)))
        return cls(np.concatenate(unknown), codes, known, left_out)

    def rejection(self, asked: float | str) -> Rejection:
        """Return the threshold for a rate of false accepts, or for "balanced", with what it costs."""
        threshold = self.threshold(asked)
        lost, accepted = self.costs(threshold)
        accepts, rejects = self.expected_false_accepts(asked), self.expected_false_rejects(threshold)
        return Rejection(threshold, accepted, accepts, lost, len(np.unique(self.classes)), rejects)

    def costs(self, threshold: float) -> tuple[float, float]:
        """Return the shares of the known that a threshold refuses (NaN without any), and of the unknown it accepts."""
        lost = float((self.known < threshold).mean()) if len(self.known) else float("nan")
        return lost, float(np.average(self.unknown >= threshold, weights=self._weights))

    def threshold(self, asked: float | str) -> float:
        """Return the lowest threshold that accepts at most a fraction of the unknown queries, each class counting once.

        "balanced" is the threshold at which as large a part of the unknown is accepted as of the known rejected.
        """
        if asked != "balanced":
            return _threshold(self.unknown, self._weights, float(asked))
        if not len(self.known):
            raise ValueError(
                "reject='balanced' needs queries of known classes; give some class a second image, or call calibrate"
            )
        order = np.argsort(self.unknown, kind="stable")
        limits, first = np.unique(self.unknown[order], return_index=True)
        accepted = 1 - np.concatenate([[0.0], self._weights[order].cumsum()])[first]
        rejected = np.searchsorted(np.sort(self.known), limits) / len(self.known)
        return float(limits[np.argmin(np.abs(accepted - rejected))])

    @property
    def _weights(self) -> NDArray[np.float64]:
        numbers, place, count = np.unique(self.classes, return_inverse=True, return_counts=True)
        weights: NDArray[np.float64] = 1 / (len(numbers) * count[place])
        return weights

    def expected_false_accepts(self, asked: float | str) -> tuple[float, float]:
        """Return the 95 % interval of the fraction of queries of other unknown classes that are accepted.

        The threshold depends on the few classes and images it was chosen on, and its effect on those it meets. So each
        resample chooses a threshold on one draw of classes, and of images within them, and measures it on another.
        """
        if asked == "balanced":
            asked = float(self._weights[self.unknown >= self.threshold(asked)].sum())
        place, count = np.unique(self.classes, return_inverse=True, return_counts=True)[1:]
        scores, start = self.unknown[np.argsort(place, kind="stable")], count.cumsum() - count
        n, most, rng, rates = len(count), int(count.max()), episode_rng(0, 0, RESAMPLE), []

        def resample() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
            drawn = rng.integers(0, n, n)[:, None]
            rows = start[drawn] + (rng.random((n, most)) * count[drawn]).astype(np.int64)
            there = np.arange(most) < count[drawn]
            return scores[rows[there]], (there / (n * count[drawn]))[there]

        for _ in range(min(N_RESAMPLES, max(100, MOST_DRAWN // (n * most)))):
            limit = _threshold(*resample(), float(asked))
            asked_about, share = resample()
            rates.append(float(share[asked_about >= limit].sum()))
        low, high = np.quantile(rates, [0.025, 0.975])
        return float(low), float(min(1.0, high))

    def expected_false_rejects(self, threshold: float) -> tuple[float, float]:
        """Return the 95 % interval of the fraction of other queries of known classes that a threshold refuses.

        NaN unless the known are left-out rows: queries of many episodes are of the same few items.
        """
        if not self.left_out:
            return math.nan, math.nan
        return share_interval(float((self.known < threshold).mean()), len(self.known) / DEPENDENCE)

    @property
    def auroc(self) -> float:
        """The probability that a known query scores above an unknown one."""
        return area_under_roc(self.known, self.unknown)

    def curve(self) -> dict[str, list[float]]:
        """Return ``threshold``, ``false_accept`` and ``false_reject`` at 101 points of the trade-off."""
        points = np.quantile(np.concatenate([self.known, self.unknown]), np.linspace(0, 1, N_POINTS))
        return {
            "threshold": points.tolist(),
            "false_accept": [min(1.0, float(self._weights[self.unknown >= t].sum())) for t in points],
            "false_reject": [float((self.known < t).mean()) for t in points],
        }


def _threshold(scores: NDArray[np.float64], weights: NDArray[np.float64], rate: float) -> float:
    """Return the lowest threshold that accepts scores of at most a share `rate` of the weights."""
    order = np.argsort(-scores, kind="stable")
    accepted = weights[order].cumsum()
    one_too_many = min(int(np.searchsorted(accepted, rate * accepted[-1] * (1 + 1e-9), side="right")), len(order) - 1)
    # Just above the first score that is one too many, because equal scores are accepted together; in single precision,
    # to which scores are rounded.
    return float(np.nextafter(np.float32(scores[order[one_too_many]]), np.float32(np.inf)))


def check_rate(false_accept_rate: float) -> None:
    """Raise unless a rate of false accepts can be reached."""
    if not 0 <= false_accept_rate < 1:
        raise ValueError(f"false_accept_rate is {false_accept_rate!r}; expected at least 0, below 1")


def area_under_roc(known: NDArray[np.floating], unknown: NDArray[np.floating]) -> float:
    """Return the probability that a known query scores above an unknown one; ties count half."""
    from scipy.stats import rankdata  # slow to import

    n, m = len(known), len(unknown)
    ranks = rankdata(np.concatenate([known, unknown]))[:n]
    return float((ranks.sum() - n * (n + 1) / 2) / (n * m))
