"""Two things that a running classifier is asked for: one more class, and the nearest prototypes."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from fewshot.classifiers.methods import PrototypicalClassifier
from fewshot.data.images import LabeledImages
from fewshot.embedding.network import embed
from fewshot.episodes.balanced import EpisodeSampler
from fewshot.episodes.result import mean_and_ci95
from fewshot.search.index import PrototypeIndex

#: Times are medians over this many repetitions.
REPEATS = 20


def add_a_class(backbone: nn.Module, data: LabeledImages, seed: int, n_shot: int = 5) -> dict[str, Any]:
    """Learn all classes but the last from `n_shot` images each, then add the last, and time it.

    Returns
    -------
    dict
        Milliseconds to embed and to learn the new class, medians with quartiles; accuracy, with intervals, on the
        images that are not support: of the new class, and of the others before and after.
    """
    episode = EpisodeSampler(data.labels, len(data.classes), n_shot, 1, seed=seed)[0]
    support, new = episode.support, data.classes[-1]
    is_new = data.labels[support] == new
    known, arriving = support[~is_new], support[is_new]
    classifier = PrototypicalClassifier().fit(embed(backbone, data.images[known]), data.labels[known])
    rest = np.setdiff1d(np.arange(len(data)), support)
    x, y = embed(backbone, data.images[rest]), data.labels[rest]
    before = (classifier.predict(x) == y)[y != new]
    images, labels = data.images[arriving], data.labels[arriving]
    z = embed(backbone, images)
    copies = iter([copy.deepcopy(classifier) for _ in range(REPEATS)])
    learn_ms = _milliseconds("learn_ms", lambda: next(copies).partial_fit(z, labels))
    after = classifier.partial_fit(z, labels).predict(x) == y
    (right, right_ci), (kept, kept_ci), (were, were_ci) = (
        mean_and_ci95(hits.astype(float)) for hits in (after[y == new], after[y != new], before)
    )
    return {
        "n_classes_before": len(data.classes) - 1,
        "n_shot": n_shot,
        **_milliseconds("embed_ms", lambda: embed(backbone, images)),
        **learn_ms,
        "accuracy_new_class": right,
        "accuracy_new_class_ci95": right_ci,
        "accuracy_other_classes": kept,
        "accuracy_other_classes_ci95": kept_ci,
        "accuracy_other_classes_before": were,
        "accuracy_other_classes_before_ci95": were_ci,
    }


def look_up(embeddings: NDArray[np.float32], labels: NDArray[Any], seed: int) -> dict[str, Any]:
    """Put one image of every class into an index and look all the others up, through FAISS and exactly.

    Returns
    -------
    dict
        Recall at 1 and 5, with intervals, agreement of the two, and milliseconds for all queries of each, medians
        with quartiles.
    """
    classes = np.unique(labels)
    episode = EpisodeSampler(labels, len(classes), 1, 1, seed=seed)[0]
    queries = np.setdiff1d(np.arange(len(labels)), episode.support)
    answers: dict[str, NDArray[Any]] = {}
    times: dict[str, Any] = {}
    for name in ("faiss", "exact"):
        index = PrototypeIndex(index=name).add(embeddings[episode.support], labels[episode.support])
        answers[name] = index.search(embeddings[queries], k=5)[0]
        times |= _milliseconds(f"{name}_ms", partial(index.search, embeddings[queries], k=5))
    hits = answers["faiss"] == labels[queries, None]
    (first, first_ci), (five, five_ci) = (mean_and_ci95(h.astype(float)) for h in (hits[:, 0], hits.any(1)))
    return {
        "n_keys": len(classes),
        "n_queries": len(queries),
        "recall_at_1": first,
        "recall_at_1_ci95": first_ci,
        "recall_at_5": five,
        "recall_at_5_ci95": five_ci,
        "agreement": float(np.mean(answers["faiss"] == answers["exact"])),
        **times,
    }


def _milliseconds(name: str, function: Callable[[], object]) -> dict[str, Any]:
    """Time a call -> its median under `name`, and the quartiles beside it."""
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    low, median, high = (float(1000 * q) for q in np.quantile(times, [0.25, 0.5, 0.75]))
    return {name: median, f"{name}_quartiles": [low, high]}
