"""Evaluation of a learner on episodes: accuracy with its interval, per episode, per class, and paired differences."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import nn

from fewshot.embedding.maps import network_for
from fewshot.embedding.network import embed, evaluating, map_width
from fewshot.episodes.alone import refuse_hidden_transduction
from fewshot.episodes.balanced_sampler import EpisodeSampler, SmallClasses
from fewshot.episodes.episode import Episode, Sampler, check_whole
from fewshot.episodes.query_draws import BALANCED, QueryClasses, of_queries
from fewshot.errors import brief
from fewshot.learners.base import IGNORE, Learner
from fewshot.learners.columns import warn_of_dominant_column
from fewshot.learners.local import LocalLearner, of_maps
from fewshot.learners.registry import ready_learner
from fewshot.search.similarity import argmax, to_tensor
from fewshot.utils import notebook
from fewshot.utils.isolation import isolated
from fewshot.utils.labels import as_labels
from fewshot.utils.malloc import keeping_memory
from fewshot.utils.plain import confusion_rows, plain_dict
from fewshot.utils.values import as_values, check_same_length, check_values
from fewshot.utils.warning import warn

if TYPE_CHECKING:
    import pandas as pd

#: Most numbers in the embeddings of one batch of episodes.
BATCH_ELEMENTS = 2_000_000
#: The most classes that a notebook shows.
SHOWN = 10
#: Numbers transformed at once, few enough to stay in the processor's cache.
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
    """The result of `evaluate`.

    Attributes
    ----------
    accuracies : ndarray of shape (n_episodes,)
        Accuracy of each episode, in the order of their numbers.
    classes : ndarray of shape (n_classes,)
        The labels as the user gave them.
    true, answered : ndarray of shape (n_queries,)
        True and predicted class of every query of every episode, as indices into `classes`.
    protocol : dict
        Learner, number of episodes, whether the learner is transductive, and the protocol of the sampler.
    order : str
        SHA-256 of the labels of all rows in their order: episodes name rows by number. Empty if nobody knows.
    """

    accuracies: NDArray[np.float64]
    classes: NDArray[Any]
    true: NDArray[np.int64]
    answered: NDArray[np.int64]
    protocol: dict[str, Any]
    order: str = ""

    @property
    def mean(self) -> float:
        """Mean accuracy over episodes, in 0..1."""
        return mean_and_ci95(self.accuracies)[0]

    @property
    def ci95(self) -> float:
        """Half-width of the 95 % interval of the mean, 1.96 sigma / sqrt(n_episodes); NaN for one episode."""
        return mean_and_ci95(self.accuracies)[1]

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """Confusion counts (n_classes, n_classes): true classes in rows, answers in columns."""
        n = len(self.classes)
        return np.bincount(self.true * n + self.answered, minlength=n * n).reshape(n, n)

    @property
    def confusion(self) -> pd.DataFrame:
        """Confusion counts with the user's labels: true classes in rows, answers in columns."""
        import pandas as pd

        return pd.DataFrame(
            self.counts,
            pd.Index(self.classes, name="class"),
            pd.Index(self.classes, name="answer"),
        )

    def per_class(self) -> pd.Series:
        """Return the accuracy of each class; NaN for classes without a query."""
        import pandas as pd

        n = len(self.classes)
        right = np.bincount(self.true[self.true == self.answered], minlength=n)
        with np.errstate(invalid="ignore"):
            recall = right / np.bincount(self.true, minlength=n)
        return pd.Series(recall, pd.Index(self.classes, name="class"), name="accuracy")

    def to_frame(self) -> pd.DataFrame:
        """Return one row per episode: number, accuracy and protocol."""
        import pandas as pd

        return pd.DataFrame({"episode": np.arange(len(self.accuracies)), "accuracy": self.accuracies, **self.protocol})

    def to_dict(self) -> dict[str, Any]:
        """Return the result as plain values, which JSON can hold.

        ``accuracy``, the `mean`; ``ci95``; ``protocol``; ``accuracies``, one per episode; ``classes``, a row of each
        class that had a query; and ``confusion``, how many queries of a class got an answer, without what did not
        occur. What cannot be told is None.

        Examples
        --------
        >>> result = evaluate("prototypical", np.eye(4)[[0, 0, 1, 1]], ["a", "a", "b", "b"], n_way=2, n_query=1)
        >>> found = result.to_dict()
        >>> found["accuracy"], found["protocol"]["n_shot"], found["classes"][0]
        (1.0, 1, {'class': 'a', 'queries': 600, 'accuracy': 1.0})
        """
        labels, counts = self.classes.tolist(), self.counts
        shares = zip(labels, counts.sum(1).tolist(), self.per_class().tolist(), strict=True)
        return plain_dict(
            accuracy=self.mean,
            ci95=self.ci95,
            protocol=self.protocol,
            accuracies=self.accuracies,
            classes=[{"class": label, "queries": n, "accuracy": share} for label, n, share in shares if n],
            confusion=confusion_rows(labels, counts, "queries"),
        )

    def difference(self, other: EvalResult) -> tuple[float, float]:
        """Return the mean paired difference from `other` and the half-width of its 95 % interval.

        Raises
        ------
        TypeError
            If `other` is no result of `evaluate`.
        ValueError
            If the results are not from the same episodes, as far as the labels and their order tell.
        """
        if not isinstance(other, EvalResult):
            raise TypeError(f"other is a {type(other).__name__}; expected another result of evaluate")
        for key in (self.protocol.keys() | other.protocol.keys()) - {"learner", "transductive"}:
            mine, theirs = self.protocol.get(key), other.protocol.get(key)
            if mine != theirs:
                raise ValueError(
                    f"the results have {key} {mine} and {theirs}; a paired difference needs the same episodes"
                )
        if not (np.array_equal(self.classes, other.classes) and np.array_equal(self.true, other.true)):
            raise ValueError(
                "the results are from different classes or rows; a paired difference needs the same episodes"
            )
        if self.order and other.order and self.order != other.order:  # older results do not know it
            raise ValueError(
                "the results are from rows in another order; a paired difference needs the same episodes, so give "
                "evaluate the same rows in the same order"
            )
        return mean_and_ci95(self.accuracies - other.accuracies)

    def __repr__(self) -> str:
        p = self.protocol
        note = ", transductive" if p["transductive"] else ""
        sizes = f"{p['n_way']}-way {p['n_shot']}-shot" if "n_way" in p else p["sampler"]
        sizes += of_queries(p.get("query_classes", BALANCED))
        interval = "" if math.isnan(self.ci95) else f" +- {100 * self.ci95:.2f}"
        episodes = "one episode, so no interval" if p["n_episodes"] == 1 else f"{p['n_episodes']} episodes"
        return f"{100 * self.mean:.2f}{interval} % ({p['learner']}, {sizes}, {episodes}{note})"

    def _repr_html_(self) -> str:
        n = np.bincount(self.true, minlength=len(self.classes))
        shares = [(label, share) for label, share in self.per_class().items() if share == share]
        rows = sorted(shares, key=lambda row: row[1])
        p = self.protocol
        interval = "" if math.isnan(self.ci95) else f", ± {100 * self.ci95:.1f}"
        facts = [(f"{100 * self.mean:.1f} %", f"accuracy{interval}"), (str(p["n_episodes"]), "episodes")]
        rest = f"the hardest {SHOWN} of {len(rows)} classes" if len(rows) > SHOWN else f"{np.count_nonzero(n)} classes"
        told = f'<div style="opacity:.75">{notebook.text(rest)}</div>{notebook.bars(rows[:SHOWN])}'
        return notebook.fragment("EvalResult", repr(self), notebook.numbers(facts), told)


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
    small_classes: SmallClasses = "raise",
    sampler: Callable[..., Sampler] | None = None,
    query_classes: QueryClasses | int = BALANCED,
) -> EvalResult:
    """Evaluate a learner on episodes over classes that it was not trained on.

    All items are embedded once; episodes are then answered in batches. The same labels, sizes and seed give the same
    episodes for every learner and backbone, so results can be compared in pairs.

    Parameters
    ----------
    learner : str or Learner
        A registered name or a learner; it is not changed.
    X : array-like of shape (n, d), or uint8 images if `backbone` is given
        Embeddings; for learners of local descriptors also maps (n, L, d), see ``Embedder(pool=None)``.
    y : array-like of shape (n,)
        Labels.
    backbone : nn.Module, optional
        Network that embeds the images first, in evaluation mode. If its ``pretrained_cfg`` names no mean, it sees
        pixels from 0 to 1, with a warning unless `MetaTrainer` has trained it.
    n_way, n_shot, n_query : int
        Classes per episode; support and queries *per class*.
    n_episodes : int, default=600
        Number of episodes.
    seed : int, default=0
        Episode ``i`` is a pure function of `seed` and ``i``.
    small_classes : {"raise", "drop", "use"}, default="raise"
        What to do with classes of fewer than n_shot + n_query rows; see `EpisodeSampler`.
    sampler : callable, optional
        ``sampler(y, seed=seed)`` builds another sampler, such as `VariedEpisodeSampler`; the sizes above are then
        unused.
    query_classes : {"balanced", "dirichlet", "single"} or int, default="balanced"
        How the queries are spread over the classes; see `EpisodeSampler`. A transductive learner may owe its accuracy
        to queries that are balanced.

    Returns
    -------
    EvalResult
        Mean accuracy, its interval, accuracy per episode, confusion.

    Raises
    ------
    ValueError
        If the sizes do not fit the labels, an embedding is not finite, the learner is untrained, or it is transductive
        and does not say so.

    Examples
    --------
    >>> from fewshot import digits, evaluate
    >>> data = digits()
    >>> pixels = data.images.reshape(len(data), -1) / 255
    >>> result = evaluate("prototypical", pixels, data.labels, n_shot=5, n_episodes=50)
    >>> 0.5 < result.mean < 1.0
    True
    """
    check_whole(n_episodes=n_episodes)
    if backbone is not None and not isinstance(backbone, nn.Module):
        raise TypeError(
            f"backbone is {brief(repr(backbone))}; expected a torch network; or pass embeddings as X, such as those of "
            "Embedder(...).transform(images)"
        )
    learner = ready_learner(learner)
    labels = as_labels(y, any_type=True)
    if sampler is None:
        sizes: dict[str, Any] = {"n_way": n_way, "n_shot": n_shot, "n_query": n_query}
        sampler = partial(EpisodeSampler, **sizes, small_classes=small_classes, query_classes=query_classes)
    episodes = sampler(labels, seed=seed)
    if backbone is None:
        learner, embeddings = of_maps(learner, as_values(X), warns=True)
    else:
        learner, embeddings = _embedded(learner, backbone, X)
    embeddings = _check(embeddings, labels)
    warn_of_dominant_column(embeddings, learner)
    if episodes[0].n_way == 1:
        warn("episodes have one class each, so every answer is right; give n_way of 2 or more")
    accuracies, true, answered = _answer_episodes(learner, embeddings, episodes, n_episodes)
    protocol = {
        "learner": learner.description,
        **episodes.protocol,
        "n_episodes": n_episodes,
        "transductive": learner.transductive,
    }
    order = hashlib.sha256(np.unique(labels, return_inverse=True)[1].astype("<i8").tobytes()).hexdigest()
    return EvalResult(accuracies, episodes.classes, true, answered, protocol, order)


def _embedded(learner: Learner, backbone: nn.Module, X: ArrayLike) -> tuple[Learner, NDArray[np.float32]]:
    """Embed images as the learner needs them; return it, for the width of the maps if it compares places."""
    images = np.asarray(X)
    if isinstance(learner, LocalLearner):
        learner = learner.of_width(map_width(backbone, images))
    return learner, embed(network_for(learner, backbone), images)


def _check(embeddings: NDArray[Any], labels: NDArray[Any]) -> NDArray[Any]:
    if embeddings.ndim != 2:
        raise ValueError(
            f"X has shape {embeddings.shape}; expected embeddings (n, d), or pass backbone= to embed images, or a "
            "learner of local descriptors, such as 'dn4', for maps (n, L, d)"
        )
    if embeddings.dtype.kind not in "fiub":
        raise TypeError(f"X has dtype {embeddings.dtype}; expected real numbers")
    check_same_length(embeddings, labels)
    return check_values(embeddings, "X", "X")


@isolated(gradients=False)
def _answer_episodes(
    learner: Learner, embeddings: NDArray[Any], sampler: Sampler, n_episodes: int
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Return the accuracy of each episode, and the true and predicted class of every query."""
    x = to_tensor(embeddings)
    for name, weight in (*learner.named_parameters(), *learner.named_buffers()):
        x = x.to(weight.device) if name == "log_temperature" or not weight.is_floating_point() else x.to(weight)
    with evaluating(learner), keeping_memory():
        learner.sized(x.shape[1], like=x)
        first = sampler[0]
        once = len(x) <= n_episodes * (len(first.support) + len(first.query))
        if once and type(learner).transform is not Learner.transform:  # once per row rather than in every episode
            x = torch.cat([learner.transform(part) for part in x.split(max(1, TRANSFORM_ELEMENTS // x.shape[1]))])
        refuse_hidden_transduction(learner, x, first, once)
        batches = list(_batches(sampler, n_episodes, x.shape[1], learner))
        answers = np.concatenate([_answer_batch(learner, x, batch, once) for batch in batches])
    return _compare([episode for batch in batches for episode in batch], answers, sampler.classes)


def _batches(sampler: Sampler, n_episodes: int, d: int, learner: Learner) -> Iterator[list[Episode]]:
    """Yield batches of episodes, as large as memory allows."""
    batch: list[Episode] = []
    rows = way = 0
    for episode in sampler.between(0, n_episodes):
        # Episodes are padded to the largest of their batch.
        rows, way = max(rows, len(episode.support) + len(episode.query)), max(way, episode.n_way)
        # A transductive learner would take padding for queries.
        alone = learner.transductive and batch and len(episode.query) != len(batch[0].query)
        if batch and (alone or (len(batch) + 1) * rows * max(d, way) > BATCH_ELEMENTS):
            yield batch
            batch, rows, way = [], len(episode.support) + len(episode.query), episode.n_way
        batch.append(episode)
    yield batch


def _answer_batch(learner: Learner, x: torch.Tensor, episodes: list[Episode], transformed: bool) -> NDArray[np.int64]:
    """Return the answers to all queries of the episodes, in order."""
    labels = _stack(episodes, "support_labels", IGNORE).to(x.device)
    weight = (labels != IGNORE).to(x) if (labels == IGNORE).any() else None
    places = (_stack(episodes, name, 0).to(x.device) for name in ("support", "query"))
    # Twice as fast as x[places].
    support, queries = (x.index_select(0, part.flatten()).unflatten(0, part.shape) for part in places)
    sizes, ways = (np.array([len(getattr(e, name)) for e in episodes]) for name in ("query", "classes"))
    way = int(ways.max())
    logits = learner(support, labels.clamp(min=0), queries, way, weight, transformed=transformed)
    logits = learner.without_nan(logits.cpu())
    if (ways < way).any():  # an episode may have fewer classes than its batch
        logits = logits.masked_fill(
            torch.arange(way, device="cpu") >= torch.from_numpy(ways)[:, None, None], -torch.inf
        )
    return argmax(logits)[np.arange(logits.shape[-2]) < sizes[:, None]]


def _compare(
    episodes: list[Episode], answers: NDArray[np.int64], classes: NDArray[Any]
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Return the accuracy of each episode, and the true and predicted class of every query, as indices of `classes`."""
    expected = np.concatenate([e.query_labels for e in episodes])
    sizes, ways = (np.array([len(getattr(e, name)) for e in episodes]) for name in ("query", "classes"))
    numbers = np.arange(len(episodes)).repeat(sizes)
    accuracies = np.bincount(numbers[answers == expected], minlength=len(episodes)) / sizes
    table = np.searchsorted(classes, np.concatenate([e.classes for e in episodes]))
    first = (ways.cumsum() - ways)[numbers]
    return accuracies, table[first + expected], table[first + answers]


def _stack(episodes: list[Episode], name: str, padding: int) -> torch.Tensor:
    """Stack one array of each episode, padded at the end."""
    parts = [getattr(episode, name) for episode in episodes]
    if all(len(part) == len(parts[0]) for part in parts):
        return torch.from_numpy(np.stack(parts))
    rows = [torch.from_numpy(part) for part in parts]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=padding)
