"""Which items of a pool to label next."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewshot.data.opening import describe
from fewshot.embedding.network import Embedded
from fewshot.images.learned import Learned
from fewshot.images.suggesting.herding import herding, uncertainty_herding
from fewshot.images.suggesting.k_center import k_center
from fewshot.images.suggesting.pool import Pool, parts
from fewshot.images.suggesting.probcover import probcover
from fewshot.images.suggesting.typiclust import typiclust
from fewshot.images.suggesting.unsure import at_random, entropy, margin
from fewshot.learners.registry import ready_learner
from fewshot.search.similarity import CHUNK_BYTES, to_tensor
from fewshot.utils.isolation import isolated
from fewshot.utils.plain import plain_dict
from fewshot.utils.text import counted
from fewshot.utils.twins import earlier_twins
from fewshot.utils.values import check_name

#: From a pool and a number to that many rows, best first, with scores.
Strategy = Callable[[Pool, int], tuple[list[int], list[float]]]
StrategyName = Literal[
    "uncertainty-herding", "herding", "typiclust", "probcover", "k-center", "margin", "entropy", "random"
]
STRATEGIES: dict[StrategyName, Strategy] = {
    "uncertainty-herding": uncertainty_herding,
    "herding": herding,
    "typiclust": typiclust,
    "probcover": probcover,
    "k-center": k_center,
    "margin": margin,
    "entropy": entropy,
    "random": at_random,
}
#: A reason names the second class if it is at least this share as likely as the first.
RIVAL = 0.5


@dataclass(frozen=True, eq=False)
class Suggestion:
    """An item to label; see `FewShotModel.suggest`.

    Attributes
    ----------
    row : int
        Its place in the pool.
    id : str
        Its path, or a description.
    label : object
        The present answer; None if nothing was learned.
    likeliest : object
        The likeliest class: the answer, unless that is unknown; None if nothing was learned.
    probability : float
        Probability of the likeliest class; 0 if nothing was learned.
    score : float
        What the strategy goes by; higher is better.
    reason : str
        Which class is nearly as likely as the answer, and how many items of the pool it stands for.
    thumbnail : bytes
        A small picture of what the network saw.
    """

    row: int
    id: str
    label: Any
    likeliest: Any
    probability: float
    score: float
    reason: str
    thumbnail: bytes = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, which JSON can hold: ``row`` and, as ``fewshot suggest --json`` calls them, the others.

        Examples
        --------
        >>> Suggestion(4, "a.png", "ant", "ant", 0.75, 0.5, "stands for 3 images", b"").to_dict()
        {'row': 4, 'image': 'a.png', 'answer': 'ant', 'likeliest': 'ant', 'probability': 0.75, 'score': 0.5,
         'why': 'stands for 3 images'}
        """
        own = {"row": self.row, "image": self.id, "answer": self.label, "likeliest": self.likeliest}
        return plain_dict(**own, probability=self.probability, score=self.score, why=self.reason)


@isolated(gradients=False)
def suggest(now: Learned, X: Any, k: int, strategy: StrategyName, seed: int) -> list[Suggestion]:
    """Choose items to label, and say why; see `FewShotModel.suggest`."""
    check_name("strategy", strategy, STRATEGIES)
    items = now.embedder.as_items(X)
    embedded = now.embed(items) if len(items) else Embedded(np.empty((0, 0), np.float32), [])
    embedded.warn()

    def look(rows: list[int]) -> list[bytes]:
        return now.embed([items[row] for row in rows], thumbnails=True).thumbnails

    return suggest_embedded(now, embedded, list(map(describe, items)), k, strategy, seed, look)


@isolated(gradients=False)
def suggest_embedded(
    now: Learned,
    embedded: Embedded,
    names: Sequence[str],
    k: int,
    strategy: str,
    seed: int,
    look: Callable[[list[int]], list[bytes]],
) -> list[Suggestion]:
    """Choose among items that are embedded already; `look` returns the thumbnails of some rows."""
    choose = STRATEGIES[check_name("strategy", cast(StrategyName, strategy), STRATEGIES)]
    unreadable = {error.index for error in embedded.errors}
    rows = np.array([i for i in range(len(names)) if i not in unreadable], np.int64)
    if not len(rows):
        return []
    rows = rows[_is_new(now, embedded.embeddings[rows])]
    if not len(rows):
        return []
    x = embedded.embeddings[rows]
    pool = _pool(now, x, seed)
    chosen, scores = choose(pool, min(k, len(rows)))
    return _explained(now, names, rows, x, pool, chosen, scores, look)


def _is_new(now: Learned, x: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return which items (n,) are neither learned already nor copies of earlier ones; zeros would teach nothing."""
    return x.any(1) & ((earlier_twins(x) if now.support is None else now.support.twins(x)) < 0)


def _pool(now: Learned, x: NDArray[np.float32], seed: int) -> Pool:
    """Return the pool of items with embeddings `x` (n, d), as the learner compares them."""
    classifier, model = now.classifier, getattr(now.classifier, "model_", None)
    learner = copy.deepcopy(ready_learner(classifier.learner)).double().eval() if model is None else model.learner

    def compared(some: NDArray[np.float32]) -> Tensor:
        return torch.cat([learner.transform(to_tensor(some[rows]).double()).float() for rows in parts(len(some), 8192)])

    x_pool = compared(x)
    labelled, codes = x_pool[:0], np.empty(0, np.int64)
    if model is not None and now.support is not None:
        labelled, codes = compared(now.support.embeddings), np.searchsorted(classifier.classes_, now.support.labels)
    elif model is not None:
        labelled = model.statistics.means[model.statistics.count > 0].float()
        codes = np.arange(len(labelled))

    def probabilities(rows: slice) -> NDArray[np.floating]:
        return np.zeros((rows.stop - rows.start, 0)) if model is None else classifier.predict_proba(x[rows])

    return Pool.of(x_pool, labelled, torch.from_numpy(codes), probabilities, seed)


def _explained(
    now: Learned,
    names: Sequence[str],
    rows: NDArray[np.int64],
    x: NDArray[np.float32],
    pool: Pool,
    chosen: list[int],
    scores: list[float],
    look: Callable[[list[int]], list[bytes]],
) -> list[Suggestion]:
    classifier, places = now.classifier, rows[chosen].tolist()
    thumbnails = look(places)
    stands_for, found = _stands_for(pool, chosen), []
    fitted = hasattr(classifier, "model_")
    answers = classifier.predict(x[chosen]).tolist() if fitted else [None] * len(chosen)
    shares = classifier.predict_proba(x[chosen]) if fitted else np.zeros((len(chosen), 1))
    for i, place in enumerate(places):
        n, best = stands_for[i], np.argsort(-shares[i], kind="stable")[:2]
        reason = f"stands for {counted(n, 'image')}" if n > 1 else "stands for itself"
        first, second = (*shares[i, best].tolist(), 0.0)[:2]
        if second >= RIVAL * first > 0:
            reason = f"or {classifier.classes_[best[1:]].tolist()[0]}, {100 * second:.0f} %; {reason}"
        thumbnail, likeliest = thumbnails[i] if thumbnails else b"", None
        if fitted:
            (likeliest,) = classifier.classes_[best[:1]].tolist()
        found.append(Suggestion(place, names[place], answers[i], likeliest, first, scores[i], reason, thumbnail))
    return found


def _stands_for(pool: Pool, chosen: list[int]) -> list[int]:
    """Return how many items of the pool are nearer to each chosen one than to any other chosen or labelled one."""
    counts, keys = pool.codes.new_zeros(len(chosen)), pool.x[chosen]
    for rows in parts(len(pool), max(1, CHUNK_BYTES // (4 * max(1, len(chosen))))):
        near = (pool.x[rows] @ keys.T).max(-1)
        there = near.values >= pool.nearest_labelled[rows]
        counts += torch.bincount(near.indices[there], minlength=len(chosen))
    return counts.tolist()
