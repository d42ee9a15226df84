"""Measuring a learner on episodes: accuracy with its interval, per episode, per class, paired."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import nn

from fewshot.checks import check_same_length, refuse_bad_rows, to_numpy
from fewshot.classifier import ready_learner
from fewshot.embedding.network import embed, evaluating
from fewshot.episodes.balanced import EpisodeSampler
from fewshot.episodes.episode import Episode, Sampler
from fewshot.heap import keeping_memory
from fewshot.learners.base import IGNORE, Learner
from fewshot.snapshot import to_tensor

if TYPE_CHECKING:
    import pandas as pd

#: Numbers that the embeddings of one batch of episodes may hold.
BATCH_ELEMENTS = 4_000_000
#: Numbers that are transformed at a time: few enough to stay near the processor meanwhile.
TRANSFORM_ELEMENTS = 200_000


def mean_and_ci95(values: NDArray[np.floating]) -> tuple[float, float]:
    """Return the mean of `values` (n,) and the half-width 1.96 sigma / sqrt(n) of its 95 % interval.

    Examples
    --------
    >>> mean_and_ci95(np.array([0.5, 0.5, 0.5]))
    (0.5, 0.0)
    """
    if len(values) < 2:
        return float(np.mean(values)), math.nan
    return float(np.mean(values)), float(1.96 * np.std(values, ddof=1) / math.sqrt(len(values)))


@dataclass(frozen=True, eq=False)
class EvalResult:
    """What `evaluate` measured.

    Attributes
    ----------
    accuracies : ndarray of shape (n_episodes,)
        Share of right answers in each episode, in the order of their numbers.
    classes : ndarray of shape (n_classes,)
        The labels as the user gave them.
    true, answered : ndarray of shape (n_queries,)
        For every query of every episode its class and the answer, as places in `classes`.
    protocol : dict
        Learner, number of episodes, whether the learner is transductive, and what decides the episodes: by default
        n_way, n_shot, n_query and seed.
    """

    accuracies: NDArray[np.float64]
    classes: NDArray[Any]
    true: NDArray[np.int64]
    answered: NDArray[np.int64]
    protocol: dict[str, Any]

    @cached_property
    def _interval(self) -> tuple[float, float]:
        return mean_and_ci95(self.accuracies)

    @property
    def mean(self) -> float:
        """Mean accuracy over episodes, in 0..1."""
        return self._interval[0]

    @property
    def ci95(self) -> float:
        """Half-width of its 95 % interval, 1.96 sigma / sqrt(n_episodes)."""
        return self._interval[1]

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """Queries of each class (row) that were answered with each class (column), (n_classes, n_classes)."""
        n = len(self.classes)
        return np.bincount(self.true * n + self.answered, minlength=n * n).reshape(n, n)

    @property
    def confusion(self) -> pd.DataFrame:
        """Counts of answers (columns) for each true class (rows), with the user's labels."""
        import pandas as pd

        return pd.DataFrame(
            self.counts,
            pd.Index(self.classes, name="class"),
            pd.Index(self.classes, name="answer"),
        )

    def per_class(self) -> pd.Series:
        """Return the share of right answers of each class; NaN for a class that was never asked for."""
        import pandas as pd

        n = len(self.classes)
        right = np.bincount(self.true[self.true == self.answered], minlength=n)
        with np.errstate(invalid="ignore"):
            recall = right / np.bincount(self.true, minlength=n)
        return pd.Series(recall, pd.Index(self.classes, name="class"), name="accuracy")

    def to_frame(self) -> pd.DataFrame:
        """Return one row an episode: its number, its accuracy and the protocol."""
        import pandas as pd

        return pd.DataFrame({"episode": np.arange(len(self.accuracies)), "accuracy": self.accuracies, **self.protocol})

    def difference(self, other: EvalResult) -> tuple[float, float]:
        """Return the mean paired difference to `other` and the half-width of its 95 % interval.

        Raises
        ------
        ValueError
            If the two were not measured on the same episodes.
        """
        for key in (self.protocol.keys() | other.protocol.keys()) - {"learner", "transductive"}:
            mine, theirs = self.protocol.get(key), other.protocol.get(key)
            if mine != theirs:
                raise ValueError(
                    f"the results have {key} {mine} and {theirs}; a paired difference needs the same episodes"
                )
        if not (np.array_equal(self.classes, other.classes) and np.array_equal(self.true, other.true)):
            raise ValueError(
                "the results are on different classes or rows; a paired difference needs the same episodes"
            )
        return mean_and_ci95(self.accuracies - other.accuracies)

    def __repr__(self) -> str:
        p = self.protocol
        note = ", transductive" if p["transductive"] else ""
        sizes = p["sampler"] if "sampler" in p else f"{p['n_way']}-way {p['n_shot']}-shot"
        return (
            f"{100 * self.mean:.2f} +- {100 * self.ci95:.2f} % ({p['learner']}, {sizes}, "
            f"{p['n_episodes']} episodes{note})"
        )


def evaluate(
    learner: str | Learner,
    X: ArrayLike,
    y: ArrayLike,
    *,
    backbone: nn.Module | None = None,
    n_way: int = 5,
    n_shot: int = 1,
    n_query: int = 15,
    n_episodes: int = 600,
    seed: int = 0,
    small_classes: str = "raise",
    sampler: Callable[..., Sampler] | None = None,
) -> EvalResult:
    """Measure a learner on episodes over classes that it should not have been trained on.

    Everything is embedded once; episodes are then answered many at a time. The same labels, sizes and seed give
    the same episodes whatever the learner or the backbone, so results can be compared pair by pair.

    Parameters
    ----------
    learner : str or Learner
        A registered name or a learner; it is not changed.
    X : array-like of shape (n, d), or uint8 images where `backbone` is given
        Embeddings.
    y : array-like of shape (n,)
        Labels.
    backbone : nn.Module, optional
        Embeds the images first, in evaluation mode.
    n_way, n_shot, n_query : int
        Classes an episode; support and queries *per class*.
    n_episodes : int, default=600
        Episodes.
    seed : int, default=0
        Episode ``i`` is a pure function of this and ``i``.
    small_classes : {"raise", "drop", "use"}, default="raise"
        What happens to classes with fewer than n_shot + n_query rows; see `EpisodeSampler`.
    sampler : callable, optional
        ``sampler(y, seed=seed)`` draws episodes of another kind, such as `VariedEpisodeSampler`; the sizes above are
        not used then.

    Returns
    -------
    EvalResult
        Mean, interval, values per episode, confusion.

    Raises
    ------
    ValueError
        If sizes do not fit the labels, an embedding is not finite, or the learner has yet to be trained.

    Examples
    --------
    >>> from fewshot import digits, evaluate
    >>> data = digits()
    >>> pixels = data.images.reshape(len(data), -1) / 255
    >>> result = evaluate("prototypical", pixels, data.labels, n_shot=5, n_episodes=50)
    >>> 0.5 < result.mean < 1.0
    True
    """
    if n_episodes < 1:
        raise ValueError(f"n_episodes is {n_episodes}; expected at least 1")
    learner = ready_learner(learner)
    labels = np.asarray(to_numpy(y))
    if sampler is None:
        sampler = partial(EpisodeSampler, n_way=n_way, n_shot=n_shot, n_query=n_query, small_classes=small_classes)
    episodes = sampler(labels, seed=seed)
    embeddings = np.asarray(to_numpy(X)) if backbone is None else embed(backbone, np.asarray(X))
    _check(embeddings, labels)
    accuracies, true, answered = _answer_episodes(learner, embeddings, episodes, n_episodes)
    protocol = {
        "learner": learner.name or type(learner).__name__,
        **episodes.protocol,
        "n_episodes": n_episodes,
        "transductive": learner.transductive,
    }
    return EvalResult(accuracies, episodes.classes, true, answered, protocol)


def _check(embeddings: NDArray[Any], labels: NDArray[Any]) -> None:
    if embeddings.ndim != 2:
        raise ValueError(
            f"X has shape {embeddings.shape}; expected embeddings (n, d), or pass backbone= to embed images"
        )
    check_same_length(embeddings, labels)
    refuse_bad_rows(embeddings, "X")


@torch.inference_mode()
def _answer_episodes(
    learner: Learner, embeddings: NDArray[Any], sampler: Sampler, n_episodes: int
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Return the accuracy of each episode, and the true and the answered class of every query, among the sampler's."""
    x = to_tensor(embeddings)
    for name, weight in (*learner.named_parameters(), *learner.named_buffers()):
        x = x.to(weight.device) if name == "log_temperature" or not weight.is_floating_point() else x.to(weight)
    with evaluating(learner), keeping_memory():
        learner.sized(x.shape[1], like=x)
        first = sampler[0]
        once = len(x) <= n_episodes * (len(first.support) + len(first.query))
        if once and type(learner).transform is not Learner.transform:  # once for each image, not in every episode
            x = torch.cat([learner.transform(part) for part in x.split(max(1, TRANSFORM_ELEMENTS // x.shape[1]))])
        batches = _batches(sampler, n_episodes, x.shape[1], learner)
        parts = [_answer_batch(learner, x, batch, sampler.classes, once) for batch in batches]
    accuracies, true, answered = (np.concatenate(part) for part in zip(*parts, strict=True))
    return accuracies, true, answered


def _batches(sampler: Sampler, n_episodes: int, d: int, learner: Learner) -> Iterator[list[Episode]]:
    """Yield episodes, as many at a time as memory allows."""
    batch: list[Episode] = []
    rows = way = 0
    for episode in sampler.between(0, n_episodes):
        # The largest of a batch decides: the others are padded to its size.
        rows, way = max(rows, len(episode.support) + len(episode.query)), max(way, episode.n_way)
        # Padded queries are queries for a learner that looks at all of them.
        alone = learner.transductive and batch and len(episode.query) != len(batch[0].query)
        if batch and (alone or (len(batch) + 1) * rows * max(d, way) > BATCH_ELEMENTS):
            yield batch
            batch, rows, way = [], len(episode.support) + len(episode.query), episode.n_way
        batch.append(episode)
    yield batch


def _answer_batch(
    learner: Learner, x: torch.Tensor, episodes: list[Episode], classes: NDArray[Any], transformed: bool
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    labels, support_labels = (_stack(episodes, name, IGNORE) for name in ("query_labels", "support_labels"))
    weight = (support_labels != IGNORE).to(x) if (support_labels == IGNORE).any() else None
    way = max(e.n_way for e in episodes)
    places = (_stack(episodes, name, 0).to(x.device) for name in ("support", "query"))
    # Twice as quick as x[places].
    support, queries = (x.index_select(0, part.flatten()).unflatten(0, part.shape) for part in places)
    logits = learner(support, support_labels.clamp(min=0).to(x.device), queries, way, weight, transformed=transformed)
    answer = logits.contiguous().argmax(-1).cpu()
    asked = labels != IGNORE
    right = (answer == labels).double().sum(-1) / asked.sum(-1)
    table = np.zeros((len(episodes), way), np.int64)
    for row, episode in zip(table, episodes, strict=True):
        row[: episode.n_way] = np.searchsorted(classes, episode.classes)
    true, answered = (
        np.take_along_axis(table, part.clamp(min=0).numpy(), 1)[asked.numpy()] for part in (labels, answer)
    )
    return right.numpy(), true, answered


def _stack(episodes: list[Episode], name: str, padding: int) -> torch.Tensor:
    """Return a part of all episodes as rows, the shorter ones padded at their end."""
    parts = [getattr(episode, name) for episode in episodes]
    if all(len(part) == len(parts[0]) for part in parts):
        return torch.from_numpy(np.stack(parts))
    rows = [torch.from_numpy(part) for part in parts]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=padding)
