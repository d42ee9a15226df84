"""Calibration on held-out classes: temperature of probabilities, and threshold below which a query is unknown."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.special import log_softmax
from torch import Tensor

from fewshot.classifiers.open_set import scores_in_episode
from fewshot.classifiers.rejection import UnknownScores
from fewshot.episodes.balanced_sampler import EpisodeSampler
from fewshot.episodes.episode import Episode, check_whole, rows_by_class
from fewshot.learners.base import Learner
from fewshot.learners.memory import Memory, Statistics
from fewshot.persistence.content import is_number, is_whole
from fewshot.search.similarity import prepare_keys
from fewshot.utils import notebook
from fewshot.utils.isolation import isolated
from fewshot.utils.labels import as_labels
from fewshot.utils.streams import SPLIT, episode_rng
from fewshot.utils.threads import one_thread

#: Fraction of unknown queries that the threshold accepts by default.
FALSE_ACCEPTS = 0.05
#: What thresholds are compared with; earlier versions know only the first.
SCORES = ("closeness", "familiarity")
#: Bins of the reliability diagram.
N_BINS = 15
#: Range of the temperature search.
RANGE = (1 / 50, 50)
#: Standard deviation of the prior of its logarithm, and how many independent queries those of one class count as.
PRIOR, QUERIES_OF_A_CLASS = 1.0, 1
#: Fewer classes say too little of other classes.
FEWEST_CLASSES = 16
#: The most classes of an episode to which own classes are added.
MOST_WAYS = 20
#: Parts in which the classes take turns.
N_FOLDS = 5


@dataclass(frozen=True, eq=False)
class ScoredQueries:
    """Answered queries of many episodes.

    Attributes
    ----------
    log_proba : ndarray of shape (m, n_way)
        Log-probabilities of the queries.
    true : ndarray of shape (m,)
        Their true classes, as column numbers.
    classes : ndarray of shape (m,)
        Their true classes, as numbers that are the same in all episodes.
    scores : ndarray of shape (m,)
        Their scores, which thresholds are compared with; see `fewshot.classifiers.open_set`.
    episodes : ndarray of shape (m,)
        Their episodes, as numbers.
    protocol : dict
        Sizes and seed of the episodes.
    """

    log_proba: NDArray[np.float64]
    true: NDArray[np.int64]
    classes: NDArray[np.int64]
    scores: NDArray[np.float64]
    episodes: NDArray[np.int64]
    protocol: dict[str, Any]

    def confidence(self, temperature: float = 1.0) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Return the probability of each answer at `temperature`, and whether the answer is correct."""
        found = log_softmax(self.log_proba / temperature, 1)
        return np.exp(found.max(1)), found.argmax(1) == self.true

    def negative_log_likelihood(self, temperature: float = 1.0) -> float:
        """Return the mean negative log-likelihood of all queries at `temperature`."""
        found = log_softmax(self.log_proba / temperature, 1)
        return -float(found[np.arange(len(self.true)), self.true].mean())

    def calibration_error(self, temperature: float = 1.0) -> float:
        """Return the expected calibration error at `temperature`."""
        return expected_calibration_error(reliability_bins(*self.confidence(temperature)))

    def of_classes(self, chosen: NDArray[np.int64]) -> Self:
        """Return the queries of some classes."""
        kept = np.isin(self.classes, chosen)
        columns = ("log_proba", "true", "classes", "scores", "episodes")
        return replace(self, **{name: getattr(self, name)[kept] for name in columns})


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
    score : {"closeness", "familiarity"}
        What the threshold is compared with: the similarity to the nearest key, or the familiarity of the query.

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
    score: str = "closeness"

    @classmethod
    def of(
        cls,
        scored: ScoredQueries,
        found: UnknownScores,
        false_accept_rate: float = FALSE_ACCEPTS,
        score: str = "closeness",
    ) -> Self:
        """Choose the temperature on scored queries, and a threshold on scores of unknown ones."""
        temperature, rejection = helpful_temperature(scored), found.rejection(false_accept_rate)
        before, after = (reliability_bins(*scored.confidence(t)) for t in (1.0, temperature))
        return cls(
            temperature,
            rejection.threshold,
            false_accept_rate,
            list(rejection.false_accept_interval),
            rejection.false_reject_rate,
            expected_calibration_error(before),
            expected_calibration_error(after),
            scored.negative_log_likelihood(),
            scored.negative_log_likelihood(temperature),
            found.auroc,
            float((found.unknown >= np.quantile(found.known, 0.05)).mean()),
            {"upper": [(i + 1) / N_BINS for i in range(N_BINS)], "before": before, "after": after},
            found.curve(),
            scored.protocol,
            score,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the calibration as a JSON value."""
        said = asdict(self)
        return {name: value for name, value in said.items() if (name, value) != ("score", "closeness")}

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
            found.score in SCORES,
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

    def _repr_html_(self) -> str:
        facts = [
            (f"{self.ece_after:.3f}", f"calibration error; {self.ece_before:.3f} before"),
            (f"{self.temperature:.3g}", "temperature"),
            (f"{self.auroc:.3f}", "AUROC of known against unknown"),
        ]
        low, high, lost = (100 * share for share in (*self.false_accept_interval, self.false_reject_rate))
        lead = (
            f'With reject="auto", {100 * self.false_accept_rate:g} % of unknown queries are accepted ({low:.1f} to '
            f"{high:.1f} % of other classes), and {lost:.1f} % of known ones are rejected."
        )
        points = list(zip(*(self.reliability["after"][name] for name in ("n", "confidence", "accuracy")), strict=True))
        rows = [(f"{100 * sure:.0f}", f"{100 * right:.0f}", n) for n, sure, right in points if n]
        table = notebook.table(("probability, %", "right, %", "answers"), rows, most=15)
        return notebook.fragment("Calibration", lead, notebook.numbers(facts), table)


def is_score(value: Any) -> bool:
    """Whether a JSON value is a similarity: infinite, or in the range of float32."""
    return (isinstance(value, float) and abs(value) == math.inf) or is_number(value, -3e38, 3e38)


def _is_rate(value: Any) -> bool:
    return is_number(value, 0, 1 + 1e-9)


def helpful_temperature(scored: ScoredQueries) -> float:
    """Return the chosen temperature if it helps on classes that it was not chosen on, or else 1, as for few classes.

    The classes take turns: a temperature is chosen on some and tried on the others. It helps if the likelihood rises on
    the mean over the classes by more than chance allows (Student's t, one side, 5 %), and the calibration error falls:
    of all answers, and on the mean over the episodes, since a classifier has one support, as an episode has.
    """
    from scipy.stats import t as student

    classes = np.unique(scored.classes)
    if len(classes) < FEWEST_CLASSES or not math.isfinite(scored.negative_log_likelihood()):
        return 1.0
    confidence, right = scored.confidence()
    tried, gains = confidence.copy(), []
    for fold in range(N_FOLDS):
        asked = classes[fold::N_FOLDS]
        temperature = choose_temperature(scored.of_classes(np.setdiff1d(classes, asked)))
        tried[np.isin(scored.classes, asked)] = scored.of_classes(asked).confidence(temperature)[0]
        for one in asked:
            own = scored.of_classes(one[None])
            gains.append(own.negative_log_likelihood() - own.negative_log_likelihood(temperature))
    by_chance = student.ppf(0.95, len(gains) - 1) * np.std(gains, ddof=1) / len(gains) ** 0.5
    falls = []
    for some in (slice(None), *(scored.episodes == episode for episode in np.unique(scored.episodes))):
        before, after = (
            expected_calibration_error(reliability_bins(c[some], right[some])) for c in (confidence, tried)
        )
        falls.append(before - after)
    helps = np.mean(gains) > by_chance and falls[0] > 0 and np.mean(falls[1:]) > 0
    return choose_temperature(scored) if helps else 1.0


def choose_temperature(scored: ScoredQueries) -> float:
    """Return the likeliest temperature, with a prior around 1 that counts the more the fewer classes there are."""
    from scipy.optimize import minimize_scalar

    low, high = np.log(RANGE)
    n_effective = QUERIES_OF_A_CLASS * len(np.unique(scored.classes))

    def loss(log_t: float) -> float:
        return scored.negative_log_likelihood(float(np.exp(log_t))) + log_t**2 / (2 * PRIOR**2 * n_effective)

    return float(np.exp(minimize_scalar(loss, bounds=(low, high), method="bounded").x))


def reliability_bins(confidence: NDArray[np.floating], right: NDArray[np.bool_]) -> dict[str, list[Any]]:
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


# ---- episodes -------------------------------------------------------------------------------------------------------


@isolated(gradients=False)
@one_thread()
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
    beside: Statistics | None = None,
) -> ScoredQueries:
    """Learn and answer held-out classes in many episodes.

    Parameters
    ----------
    learner : Learner
        A learner, in the precision of `X` or better.
    X : ndarray of shape (n, d)
        Embeddings of held-out classes.
    y : array-like of shape (n,)
        Their labels.
    n_way, n_shot : int
        Number of classes of an episode, at least two, and their shots. Smaller classes give the rows they have.
    n_query, n_episodes, seed : int
        Queries per class, number of episodes, and their seed.
    beside : Statistics, optional
        What a classifier has learned. If there are fewer held-out classes than `n_way`, some of its classes, of 20 in
        all at most, are possible answers too.

    Raises
    ------
    ValueError
        If fewer than two classes have two rows, or a number is below 1.
    """
    check_whole(n_way=n_way, n_shot=n_shot, n_query=n_query, n_episodes=n_episodes)
    rows = {label: places for label, places in rows_by_class(y).items() if len(places) > 1}
    if len(rows) < 2:
        enough = "only one class has" if rows else "no class has"
        raise ValueError(
            f"{enough} two rows or more; calibration needs at least two such classes; "
            "give items of one unknown kind as reject_examples"
        )
    can_join = beside is not None and not beside.totals and not learner.ordered
    n_own = max(0, min(n_way, MOST_WAYS) - len(rows)) if can_join else 0
    n_way = min(max(n_way, 2), len(rows))
    places = np.sort(np.concatenate(list(rows.values())))
    labels = as_labels(y)[places]
    sampler = EpisodeSampler(labels, n_way, n_shot, n_query, seed=seed, small_classes="use")
    x = torch.from_numpy(np.ascontiguousarray(X[places])).double()
    parts = []
    for i, episode in enumerate(sampler.between(0, n_episodes)):
        own = None
        if beside is not None and n_own:
            present = torch.nonzero(beside.count > 0).flatten().numpy()
            drawn = episode_rng(seed, i, SPLIT).permutation(present)[:n_own]
            own = beside.keep(torch.from_numpy(np.sort(drawn)))
        parts.append(_score(learner, x, episode, n_way, own))
    log_proba, true, classes, scores = (np.concatenate(part) for part in zip(*parts, strict=True))
    episodes = np.repeat(np.arange(n_episodes), [len(part[1]) for part in parts])
    protocol = {"n_way": n_way, "n_shot": n_shot, "n_query": n_query, "n_episodes": n_episodes, "seed": seed}
    return ScoredQueries(log_proba, true, np.searchsorted(sampler.classes, classes), scores, episodes, protocol)


def _score(
    learner: Learner, x: Tensor, episode: Episode, n_way: int, own: Statistics | None
) -> tuple[NDArray[Any], ...]:
    """Return log-probabilities, true columns, classes and scores of the queries of one episode."""
    statistics = learner.learn(x[episode.support], torch.from_numpy(episode.support_labels), n_way)
    if own is not None:
        ways = n_way + len(own.count)
        statistics = statistics.joined(
            torch.arange(n_way, device="cpu"), own, torch.arange(n_way, ways, device="cpu"), ways
        )
    queries = learner.transform(x[episode.query])
    logits, closeness = scored_answer(learner, learner.memorize(statistics), queries)
    scores, true = scores_in_episode(learner, statistics, queries, closeness), episode.query_labels
    return logits.log_softmax(-1).numpy(), true, episode.classes[true], scores.numpy()


def scored_answer(learner: Learner, memory: Memory, queries: Tensor) -> tuple[Tensor, Tensor]:
    """Return the logits (q, n_way) of transformed queries, and the closeness (q,) of each to its nearest key."""
    if not learner.indexable:
        logits = learner.without_nan(learner.answer(memory, queries, transformed=True))
        return logits, learner.closeness(logits, None)
    similarity = prepare_keys(memory.keys, learner.metric).similarity(memory.centred(queries))
    present = similarity.masked_fill(~torch.isfinite(memory.log_weight), -torch.inf)
    logits = learner.read(similarity, memory)
    return logits, learner.closeness(logits, present)
