"""Scores of queries of known and unknown classes, from episodes over held-out classes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from fewshot.episodes.balanced import EpisodeSampler
from fewshot.episodes.episode import Episode, check_whole, rows_by_class
from fewshot.learners.base import Learner
from fewshot.learners.memory import Memory
from fewshot.search.similarity import prepare_keys
from fewshot.utils.isolation import isolated
from fewshot.utils.labels import as_labels
from fewshot.utils.streams import RESAMPLE, episode_rng

#: Bootstrap resamples.
N_RESAMPLES = 2000


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
        found = [_tempered(rows, temperature) for rows in self.log_proba]
        right = [rows.argmax(1) == true for rows, true in zip(found, self.true, strict=True)]
        return np.exp(np.concatenate([rows.max(1) for rows in found])), np.concatenate(right)

    def negative_log_likelihood(self, temperature: float = 1.0) -> float:
        """Return the mean negative log-likelihood of all known queries at `temperature`."""
        rows = (_tempered(p, temperature)[np.arange(len(t)), t] for p, t in zip(self.log_proba, self.true, strict=True))
        return -float(np.concatenate(list(rows)).mean())

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
    similarity = prepare_keys(memory.keys, learner.metric).similarity(queries)
    present = similarity.masked_fill(~torch.isfinite(memory.log_weight), -torch.inf)
    logits = learner.read(similarity, memory)
    return logits, learner.closeness(logits, present)


def _tempered(log_proba: NDArray[np.float64], temperature: float) -> NDArray[np.float64]:
    scaled = log_proba / temperature
    top = scaled.max(1, keepdims=True)
    return scaled - top - np.log(np.exp(scaled - top).sum(1, keepdims=True))
