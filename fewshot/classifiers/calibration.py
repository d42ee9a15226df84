"""Calibration: episodes over held-out classes score queries, to which temperature and threshold are fitted."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.special import log_softmax
from torch import Tensor

from fewshot.episodes.balanced_sampler import EpisodeSampler
from fewshot.episodes.episode import Episode, check_whole, rows_by_class
from fewshot.learners.base import Learner
from fewshot.learners.memory import Memory
from fewshot.persistence.content import is_number, is_whole
from fewshot.search.similarity import prepare_keys
from fewshot.utils.isolation import isolated
from fewshot.utils.labels import as_labels
from fewshot.utils.streams import RESAMPLE, episode_rng
from fewshot.utils.warning import lock_of_filters

#: Bootstrap resamples.
N_RESAMPLES = 2000
#: Bins of the reliability diagram, and points of the trade-off curve.
N_BINS, N_POINTS = 15, 101
#: Range of the temperature search.
RANGE = (1e-3, 1e3)


@dataclass(frozen=True, eq=False)
class ScoredQueries:
    """Answered queries of many episodes, some of known classes and some of classes that were not learned.

    Attributes
    ----------
    log_proba : list of ndarray (q, n_way)
        Log-probabilities of the known queries of each episode.
    true : list of ndarray (q,)
        Their true classes, as column numbers.
    known, unknown : ndarray
        Scores of the queries of known and of unknown classes; see `Learner.closeness`.
    unknown_class, taken_for : ndarray
        Class of each unknown query, and the known class nearest to it, as numbers.
    protocol : dict
        Sizes and seed of the episodes.
    """

    log_proba: list[NDArray[np.float64]]
    true: list[NDArray[np.int64]]
    known: NDArray[np.float64]
    unknown: NDArray[np.float64]
    unknown_class: NDArray[np.int64]
    taken_for: NDArray[np.int64]
    protocol: dict[str, Any]

    def confidence(self, temperature: float = 1.0) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Return the probability of each answer at `temperature`, and whether the answer is correct."""
        found = self._tempered(temperature)
        right = [rows.argmax(1) == true for rows, true in zip(found, self.true, strict=True)]
        return np.exp(np.concatenate([rows.max(1) for rows in found])), np.concatenate(right)

    def negative_log_likelihood(self, temperature: float = 1.0) -> float:
        """Return the mean negative log-likelihood of all known queries at `temperature`."""
        rows = (p[np.arange(len(t)), t] for p, t in zip(self._tempered(temperature), self.true, strict=True))
        return -float(np.concatenate(list(rows)).mean())

    def _tempered(self, temperature: float) -> list[NDArray[np.float64]]:
        """Return the log-probabilities of each episode at `temperature`."""
        return [log_softmax(rows / temperature, 1) for rows in self.log_proba]

    def false_accepts(self, threshold: float) -> tuple[float, float, float]:
        """Return the fraction of unknown queries that a threshold accepts, and its 95 % interval (low, high).

        The interval comes from a bootstrap over classes, because queries of one class, or nearest to one class, are
        correlated. A query counts as often as its class was drawn times as often as its nearest class was drawn.
        """
        accepted = self.unknown >= threshold
        rng = episode_rng(self.protocol["seed"], 0, RESAMPLE)
        rates = np.full(N_RESAMPLES, np.nan)
        resample = self._resampler(slice(None))
        for i in range(N_RESAMPLES):
            weight = resample(rng)
            if total := weight.sum():
                rates[i] = weight[accepted].sum() / total
        low, high = np.nanquantile(rates, [0.025, 0.975])
        return float(accepted.mean()), float(low), float(high)

    def _resampler(self, order: NDArray[np.int64] | slice) -> Callable[[np.random.Generator], NDArray[np.int64]]:
        """Return a function that resamples classes and returns how often each unknown query, in `order`, counts."""
        own, other = self.unknown_class[order], self.taken_for[order]
        present = np.union1d(own, other)

        def resample(rng: np.random.Generator) -> NDArray[np.int64]:
            times = np.bincount(rng.choice(present, len(present)), minlength=int(present[-1]) + 1)
            return times[own] * times[other]

        return resample

    def expected_false_accepts(self, false_accept_rate: float) -> tuple[float, float]:
        """Return an interval (low, high), about 95 %, for the fraction of unknown queries accepted on other classes.

        The threshold depends on the few classes it was chosen on, and its effect on the classes it meets. So each
        resample chooses a threshold on classes drawn with replacement, and measures it on as many other draws; queries
        count as in `false_accepts`. With fewer than ten classes the interval is too narrow.
        """
        order = np.argsort(-self.unknown, kind="stable")
        falling, resample = self.unknown[order], self._resampler(order)
        first_equal = np.searchsorted(-falling, -falling)
        rng, rates = episode_rng(self.protocol["seed"], 1, RESAMPLE), np.full(N_RESAMPLES, np.nan)
        for i in range(N_RESAMPLES):
            choosing, asked = (resample(rng).cumsum() for _ in range(2))
            if choosing[-1] and asked[-1]:
                one_too_many = np.searchsorted(choosing, int(false_accept_rate * choosing[-1]), side="right")
                n_accepted = first_equal[one_too_many]
                rates[i] = asked[n_accepted - 1] / asked[-1] if n_accepted else 0.0
        low, high = np.nanquantile(rates, [0.025, 0.975])
        return float(low), float(high)


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


# ---- episodes -------------------------------------------------------------------------------------------------------


@isolated(gradients=False)
def score_episodes(
    learner: Learner,
    X: NDArray[np.floating],
    y: ArrayLike,
    *,
    n_way: int,
    n_shot: int,
    n_query: int = 15,
    n_episodes: int = 200,
    seed: int = 0,
) -> ScoredQueries:
    """Answer the queries of episodes in which half of the classes are learned.

    Parameters
    ----------
    learner : Learner
        An inductive learner, in the precision of `X` or better.
    X : ndarray of shape (n, d)
        Embeddings of held-out classes.
    y : array-like of shape (n,)
        Their labels.
    n_way, n_shot : int
        Number of classes learned, at most half of all, and their shots. Smaller classes give the rows they have.
    n_query, n_episodes, seed : int
        Queries per class, number of episodes, and their seed.

    Raises
    ------
    ValueError
        If fewer than two classes have two rows, or a number is below 1.
    """
    check_whole(n_way=n_way, n_shot=n_shot, n_query=n_query, n_episodes=n_episodes)
    rows = {label: places for label, places in rows_by_class(y).items() if len(places) > 1}
    n_way = min(n_way, len(rows) // 2)
    if not n_way:
        enough = "only one class has" if rows else "no class has"
        raise ValueError(f"{enough} two rows or more; calibration needs at least two such classes")
    places = np.sort(np.concatenate(list(rows.values())))
    labels = as_labels(y)[places]
    sampler = EpisodeSampler(labels, 2 * n_way, n_shot, n_query, seed=seed, small_classes="use")
    x = torch.from_numpy(np.ascontiguousarray(X[places])).double()
    parts = [_score(learner, x, episode, n_way) for episode in sampler.between(0, n_episodes)]
    log_proba, true, known, unknown, classes, nearest = zip(*parts, strict=True)
    codes, taken_for = (np.searchsorted(sampler.classes, np.concatenate(labels)) for labels in (classes, nearest))
    protocol = {"n_way": n_way, "n_shot": n_shot, "n_query": n_query, "n_episodes": n_episodes, "seed": seed}
    scores = np.concatenate(known), np.concatenate(unknown)
    return ScoredQueries(list(log_proba), list(true), *scores, codes, taken_for, protocol)


def _score(learner: Learner, x: Tensor, episode: Episode, n_way: int) -> tuple[Any, ...]:
    """Return the fields of `ScoredQueries` for one episode, whose first `n_way` classes are learned."""
    support, query = episode.support_labels < n_way, episode.query_labels < n_way
    labels = torch.from_numpy(episode.support_labels[support])
    memory = learner.memorize(learner.learn(x[episode.support[support]], labels, n_way))
    logits, score = scored_answer(learner, memory, learner.transform(x[episode.query]))
    true = episode.query_labels
    return (
        logits[torch.from_numpy(query)].log_softmax(-1).numpy(),
        true[query],
        score.numpy()[query],
        score.numpy()[~query],
        episode.classes[true[~query]],
        episode.classes[logits[torch.from_numpy(~query)].argmax(-1).numpy()],
    )


def scored_answer(learner: Learner, memory: Memory, queries: Tensor) -> tuple[Tensor, Tensor]:
    """Return the logits (q, n_way) of transformed queries, and the score (q,) of each; see `ScoredQueries`."""
    if not learner.indexable:
        logits = learner.score(memory, queries)
        return logits, learner.closeness(logits, None)
    similarity = prepare_keys(memory.keys, learner.metric).similarity(memory.centred(queries))
    present = similarity.masked_fill(~torch.isfinite(memory.log_weight), -torch.inf)
    logits = learner.read(similarity, memory)
    return logits, learner.closeness(logits, present)
