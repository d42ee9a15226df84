"""Measuring a learner on episodes: accuracy with its interval, per episode, per class, paired."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import nn

from fewshot.checks import refuse_bad_rows, to_numpy
from fewshot.embedding.network import embed, evaluating
from fewshot.episodes import Episode, EpisodeSampler
from fewshot.learners.base import Learner, as_learner
from fewshot.snapshot import to_tensor

if TYPE_CHECKING:
    import pandas as pd

#: Numbers that the embeddings of one batch of episodes may hold.
BATCH_ELEMENTS = 4_000_000


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
        Learner, n_way, n_shot, n_query, n_episodes, seed, and whether the learner is transductive.
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
        same = ("n_way", "n_shot", "n_query", "n_episodes", "seed")
        for key in same:
            if self.protocol[key] != other.protocol[key]:
                raise ValueError(
                    f"the results have {key} {self.protocol[key]} and {other.protocol[key]}; "
                    "a paired difference needs the same episodes"
                )
        if not (np.array_equal(self.classes, other.classes) and np.array_equal(self.true, other.true)):
            raise ValueError(
                "the results are on different classes or rows; a paired difference needs the same episodes"
            )
        return mean_and_ci95(self.accuracies - other.accuracies)

    def __repr__(self) -> str:
        p = self.protocol
        note = ", transductive" if p["transductive"] else ""
        return (
            f"{100 * self.mean:.2f} +- {100 * self.ci95:.2f} % ({p['learner']}, {p['n_way']}-way "
            f"{p['n_shot']}-shot, {p['n_episodes']} episodes{note})"
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
    small_classes : {"raise", "drop"}, default="raise"
        What happens to classes with fewer than n_shot + n_query rows.

    Returns
    -------
    EvalResult
        Mean, interval, values per episode, confusion.

    Raises
    ------
    ValueError
        If sizes do not fit the labels, or an embedding is not finite.

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
    learner = as_learner(learner)
    labels = np.asarray(to_numpy(y))
    sampler = EpisodeSampler(labels, n_way, n_shot, n_query, seed=seed, small_classes=small_classes)
    embeddings = np.asarray(to_numpy(X)) if backbone is None else embed(backbone, np.asarray(X))
    _check(embeddings, labels)
    accuracies, answers = _answer_episodes(learner, embeddings, sampler, n_episodes)
    protocol = {
        "learner": learner.name or type(learner).__name__,
        "n_way": n_way,
        "n_shot": n_shot,
        "n_query": n_query,
        "n_episodes": n_episodes,
        "seed": seed,
        "transductive": learner.transductive,
    }
    true, answered = (np.searchsorted(sampler.classes, part) for part in answers)
    return EvalResult(accuracies, sampler.classes, true, answered, protocol)


def _check(embeddings: NDArray[Any], labels: NDArray[Any]) -> None:
    if embeddings.ndim != 2:
        raise ValueError(
            f"X has shape {embeddings.shape}; expected embeddings (n, d), or pass backbone= to embed images"
        )
    if len(embeddings) != len(labels):
        raise ValueError(f"X has {len(embeddings)} rows and y {len(labels)} labels; give one label for each row")
    refuse_bad_rows(embeddings, "X")


@torch.inference_mode()
def _answer_episodes(
    learner: Learner, embeddings: NDArray[Any], sampler: EpisodeSampler, n_episodes: int
) -> tuple[NDArray[np.float64], tuple[NDArray[Any], NDArray[Any]]]:
    """Return the accuracy of each episode, and the true and the answered label of every query."""
    x = to_tensor(embeddings)
    for name, weight in (*learner.named_parameters(), *learner.named_buffers()):
        x = x.to(weight.device) if name == "log_temperature" or not weight.is_floating_point() else x.to(weight)
    rows = sampler.n_way * (sampler.n_shot + sampler.n_query)
    size = max(1, min(n_episodes, BATCH_ELEMENTS // (rows * max(x.shape[1], sampler.n_way))))
    with evaluating(learner):
        parts = [
            _answer_batch(learner, x, [sampler[i] for i in range(start, min(start + size, n_episodes))])
            for start in range(0, n_episodes, size)
        ]
    accuracies, true, answered = (np.concatenate(part) for part in zip(*parts, strict=True))
    return accuracies, (true, answered)


def _answer_batch(
    learner: Learner, x: torch.Tensor, episodes: list[Episode]
) -> tuple[NDArray[np.float64], NDArray[Any], NDArray[Any]]:
    def stack(name: str) -> torch.Tensor:
        return torch.from_numpy(np.stack([getattr(e, name) for e in episodes]))

    labels = stack("query_labels")
    logits = learner(x[stack("support")], stack("support_labels").to(x.device), x[stack("query")], episodes[0].n_way)
    answer = logits.argmax(-1).cpu()
    classes = np.stack([e.classes for e in episodes])
    true, answered = (np.take_along_axis(classes, codes.numpy(), 1).ravel() for codes in (labels, answer))
    return (answer == labels).double().mean(-1).numpy(), true, answered
