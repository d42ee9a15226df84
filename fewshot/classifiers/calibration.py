"""Calibration: the temperature and threshold that fit scored queries, and their quality."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from fewshot.classifiers.scored_queries import ScoredQueries
from fewshot.persistence.content import is_number, is_whole
from fewshot.utils.warning import lock_of_filters

#: Bins of the reliability diagram, and points of the trade-off curve.
N_BINS, N_POINTS = 15, 101
#: Range of the temperature search.
RANGE = (1e-3, 1e3)


@dataclass(frozen=True, eq=False)
class Calibration:
    """The result of `calibrate` on held-out classes.

    Attributes
    ----------
    temperature : float
        Divisor of the logits for probabilities; above 1 if the classifier was overconfident.
    threshold : float
        Under ``reject="auto"``, a query whose score is below it is unknown.
    false_accept_rate : float
        Requested fraction of unknown queries that the threshold accepts.
    false_accept_interval : [low, high]
        About 95 % interval of that fraction on other classes, from a bootstrap over classes.
    false_reject_rate : float
        Fraction of known queries that the threshold rejects.
    ece_before, ece_after : float
        Expected calibration error: the mean of |accuracy - confidence| over 15 bins, weighted by bin size.
    nll_before, nll_after : float
        Negative log-likelihood of the true class.
    auroc : float
        Probability that a known query scores above an unknown one.
    fpr_at_95 : float
        Fraction of unknown queries accepted when 95 % of known queries are.
    reliability : dict
        ``upper`` ends of the bins; ``before`` and ``after``, each with ``n``, ``confidence`` and ``accuracy`` per bin.
    curve : dict
        ``threshold``, ``false_accept`` and ``false_reject`` at 101 points of the trade-off.
    protocol : dict
        Sizes and seed of the episodes.

    References
    ----------
    C. Guo, G. Pleiss, Y. Sun, K. Weinberger (2017). On Calibration of Modern Neural Networks. ICML. arXiv:1706.04599.
    """

    temperature: float
    threshold: float
    false_accept_rate: float
    false_accept_interval: list[float]
    false_reject_rate: float
    ece_before: float
    ece_after: float
    nll_before: float
    nll_after: float
    auroc: float
    fpr_at_95: float
    reliability: dict[str, Any]
    curve: dict[str, list[float]]
    protocol: dict[str, Any]

    @classmethod
    def of(cls, scored: ScoredQueries, false_accept_rate: float = 0.05) -> Self:
        """Choose temperature and threshold on scored queries."""
        temperature = choose_temperature(scored)
        threshold = choose_threshold(scored.unknown, false_accept_rate)
        before, after = (reliability(*scored.confidence(t)) for t in (1.0, temperature))
        points = np.quantile(np.concatenate([scored.known, scored.unknown]), np.linspace(0, 1, N_POINTS))
        return cls(
            temperature,
            threshold,
            false_accept_rate,
            list(scored.expected_false_accepts(false_accept_rate)),
            float((scored.known < threshold).mean()),
            expected_calibration_error(before),
            expected_calibration_error(after),
            scored.negative_log_likelihood(),
            scored.negative_log_likelihood(temperature),
            area_under_roc(scored.known, scored.unknown),
            float((scored.unknown >= np.quantile(scored.known, 0.05)).mean()),
            {"upper": [(i + 1) / N_BINS for i in range(N_BINS)], "before": before, "after": after},
            {
                "threshold": points.tolist(),
                "false_accept": [float((scored.unknown >= t).mean()) for t in points],
                "false_reject": [float((scored.known < t).mean()) for t in points],
            },
            scored.protocol,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the calibration as a JSON value."""
        return asdict(self)

    @classmethod
    def from_dict(cls, said: Any) -> Self:
        """Convert back from `to_dict`, without trusting the values.

        Raises
        ------
        ValueError, TypeError
            If a value is missing, unexpected, not finite, or out of range.
        """
        found = cls(**said)
        bins, curve, n_points = found.reliability, found.curve, len(found.curve["threshold"])
        rates = [found.false_accept_rate, found.false_reject_rate, found.ece_before, found.ece_after, found.auroc]
        rates += [found.fpr_at_95, *bins["upper"], *curve["false_accept"], *curve["false_reject"]]
        of_bins = [bins[when] for when in ("before", "after")]
        checks = [
            is_number(found.temperature, 1e-9, 1e9) and is_number(found.threshold, -3e38, 3e38),
            all(map(_is_rate, rates)),
            # With few classes the interval may be unknown, hence NaN.
            len(found.false_accept_interval) == 2
            and all(_is_rate(v) or (isinstance(v, float) and v != v) for v in found.false_accept_interval),
            all(v == math.inf or is_number(v, 0) for v in (found.nll_before, found.nll_after)),
            all(one.keys() == {"n", "confidence", "accuracy"} for one in of_bins),
            all(len(column) == len(bins["upper"]) for one in of_bins for column in one.values()),
            all(map(is_whole, (v for one in of_bins for v in one["n"]))),
            # An empty bin has None for both.
            all(v is None or _is_rate(v) for one in of_bins for v in (*one["confidence"], *one["accuracy"])),
            curve.keys() == {"threshold", "false_accept", "false_reject"} and all(map(is_score, curve["threshold"])),
            all(len(column) == n_points for column in curve.values()),
            all(map(is_whole, found.protocol.values())),
        ]
        if not all(checks):
            raise ValueError("its calibration has values that are not numbers or out of range")
        return found

    def __repr__(self) -> str:
        low, high = self.false_accept_interval
        return (
            f"Calibration(temperature={self.temperature:.3g}, threshold={self.threshold:.4g}: "
            f"{100 * self.false_accept_rate:g} % false accepts, {100 * low:.1f} to {100 * high:.1f} elsewhere, "
            f"{100 * self.false_reject_rate:.1f} % false rejects; "
            f"calibration error {self.ece_before:.3f} -> {self.ece_after:.3f}, AUROC {self.auroc:.3f})"
        )


def is_score(value: Any) -> bool:
    """Whether a JSON value is a similarity: infinite, or in the range of float32."""
    return (isinstance(value, float) and abs(value) == math.inf) or is_number(value, -3e38, 3e38)


def _is_rate(value: Any) -> bool:
    return is_number(value, 0, 1 + 1e-9)


def choose_temperature(scored: ScoredQueries) -> float:
    """Return the temperature of least negative log-likelihood."""
    from scipy.optimize import minimize_scalar

    low, high = np.log(RANGE)
    found = minimize_scalar(
        lambda log_t: scored.negative_log_likelihood(float(np.exp(log_t))), bounds=(low, high), method="bounded"
    )
    return float(np.exp(found.x))


def choose_threshold(unknown: NDArray[np.floating], false_accept_rate: float) -> float:
    """Return the lowest threshold that accepts at most `false_accept_rate` of the scores `unknown`.

    Examples
    --------
    >>> choose_threshold(np.arange(100.0), 0.05) <= 95.0
    True
    """
    if not 0 <= false_accept_rate < 1:
        raise ValueError(f"false_accept_rate is {false_accept_rate!r}; expected at least 0, below 1")
    falling = -np.sort(-unknown)
    # Just above the first score that is one too many, because equal scores are accepted together.
    return float(np.nextafter(falling[int(false_accept_rate * len(falling))], np.inf))


def reliability(confidence: NDArray[np.floating], right: NDArray[np.bool_]) -> dict[str, list[Any]]:
    """Return count, mean confidence and accuracy of the answers in 15 bins of confidence; None for empty bins."""
    place = np.clip(np.ceil(confidence * N_BINS).astype(int) - 1, 0, N_BINS - 1)
    n = np.bincount(place, minlength=N_BINS)
    sums = (np.bincount(place, values, N_BINS) for values in (confidence, right))
    means = ([s / k if k else None for s, k in zip(total.tolist(), n.tolist(), strict=True)] for total in sums)
    return {"n": n.tolist(), "confidence": next(means), "accuracy": next(means)}


def expected_calibration_error(bins: dict[str, list[Any]]) -> float:
    """Return the mean of |accuracy - confidence| over bins, weighted by bin size."""
    columns = zip(bins["n"], bins["confidence"], bins["accuracy"], strict=True)
    return sum(n * abs(a - c) for n, c, a in columns if n) / sum(bins["n"])


def area_under_roc(known: NDArray[np.floating], unknown: NDArray[np.floating]) -> float:
    """Return the probability that a known query scores above an unknown one; ties count half."""
    from sklearn.metrics import roc_auc_score

    truth = np.repeat([1, 0], [len(known), len(unknown)])
    with lock_of_filters():
        return float(roc_auc_score(truth, np.concatenate([known, unknown])))
