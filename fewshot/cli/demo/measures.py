"""What the demonstration measures: accuracy of each method, adding a class, and looking up."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from fewshot.classifiers.methods import PrototypicalClassifier
from fewshot.data.images import LabeledImages
from fewshot.embedding.network import embed
from fewshot.episodes.balanced_sampler import EpisodeSampler
from fewshot.episodes.evaluate import EvalResult, mean_and_ci95
from fewshot.search.index import PrototypeIndex
from fewshot.training.result import TrainResult

#: The methods compared, in display order.
TRAINED, UNTRAINED, PIXELS = "meta-trained", "untrained", "raw pixels"
#: The test data sets.
CHARACTERS, DIGITS = "new characters", "handwritten digits"
#: Repetitions of each measurement; the median is reported.
REPEATS = 20


@dataclass(frozen=True, eq=False)
class Contest:
    """One test: the same episodes answered by every method."""

    data: str
    n_way: int
    n_shot: int
    results: dict[str, EvalResult]

    @property
    def setting(self) -> str:
        """Data, ways and shots, for people."""
        return f"{self.data}, {self.n_way}-way {self.n_shot}-shot"

    def gain(self, other: str = PIXELS) -> tuple[float, float]:
        """Return by how much the meta-trained network is better than another method, paired, and the interval."""
        return self.results[TRAINED].difference(self.results[other])


@dataclass(frozen=True, eq=False)
class DemoResult:
    """Everything that the demonstration measured, for `results.json` and the page."""

    results: dict[str, Any]
    contests: list[Contest]
    training: TrainResult
    test: dict[str, LabeledImages]
    embeddings: dict[str, dict[str, NDArray[np.float32]]]


def accuracies(contests: list[Contest]) -> list[dict[str, Any]]:
    """Return one row per test and method: accuracy, interval, protocol, chance."""
    return [
        {
            "data": contest.data,
            "setting": contest.setting,
            "method": method,
            "accuracy": result.mean,
            "ci95": result.ci95,
            "chance": 1 / contest.n_way,
            **result.protocol,
        }
        for contest in contests
        for method, result in contest.results.items()
    ]


def paired_differences(contests: list[Contest]) -> list[dict[str, Any]]:
    """Return by how much the meta-trained network is better than each other method in each test."""
    rows = []
    for contest in contests:
        for other in (UNTRAINED, PIXELS):
            mean, ci95 = contest.gain(other)
            rows.append({"setting": contest.setting, "minus": other, "difference": mean, "ci95": ci95})
    return rows


def add_a_class(backbone: nn.Module, data: LabeledImages, seed: int, n_shot: int = 5) -> dict[str, Any]:
    """Learn all classes but the last from `n_shot` images each, then add the last one, and time it.

    Returns
    -------
    dict
        Milliseconds to embed and to learn the new class, as medians with quartiles; accuracy with intervals on the
        images outside the support: of the new class, and of the others before and after.
    """
    support = EpisodeSampler(data.labels, len(data.classes), n_shot, 1, seed=seed)[0].support
    new = data.classes[-1]
    known, arriving = (support[mask] for mask in (data.labels[support] != new, data.labels[support] == new))
    classifier = PrototypicalClassifier().fit(embed(backbone, data.images[known]), data.labels[known])
    rest = np.setdiff1d(np.arange(len(data)), support)
    x, y = embed(backbone, data.images[rest]), data.labels[rest]
    before = classifier.predict(x) == y
    images, labels = data.images[arriving], data.labels[arriving]
    z = embed(backbone, images)
    copies = iter([copy.deepcopy(classifier) for _ in range(REPEATS)])
    learn_ms = _milliseconds("learn_ms", lambda: next(copies).partial_fit(z, labels))
    after = classifier.partial_fit(z, labels).predict(x) == y
    return {
        "n_classes_before": len(data.classes) - 1,
        "n_shot": n_shot,
        **_milliseconds("embed_ms", lambda: embed(backbone, images)),
        **learn_ms,
        **_share("accuracy_new_class", after[y == new]),
        **_share("accuracy_other_classes", after[y != new]),
        **_share("accuracy_other_classes_before", before[y != new]),
    }


def look_up(embeddings: NDArray[np.float32], labels: NDArray[Any], seed: int) -> dict[str, Any]:
    """Index one image of every class and look up all the others, with FAISS and exactly.

    Returns
    -------
    dict
        Recall at 1 and 5 with intervals, agreement of the two, and milliseconds of each for all queries, as medians
        with quartiles.
    """
    n_classes = len(np.unique(labels))
    support = EpisodeSampler(labels, n_classes, 1, 1, seed=seed)[0].support
    queries = np.setdiff1d(np.arange(len(labels)), support)
    answers: dict[str, NDArray[Any]] = {}
    times: dict[str, Any] = {}
    for name in ("faiss", "exact"):
        index = PrototypeIndex(index=name).add(embeddings[support], labels[support])
        answers[name] = index.search(embeddings[queries], k=5)[0]
        times |= _milliseconds(f"{name}_ms", partial(index.search, embeddings[queries], k=5))
    hits = answers["faiss"] == labels[queries, None]
    return {
        "n_keys": n_classes,
        "n_queries": len(queries),
        **_share("recall_at_1", hits[:, 0]),
        **_share("recall_at_5", hits.any(1)),
        "agreement": float(np.mean(answers["faiss"] == answers["exact"])),
        **times,
    }


def _share(name: str, hits: NDArray[np.bool_]) -> dict[str, float]:
    """Return the share of hits under `name`, and its interval."""
    return dict(zip((name, f"{name}_ci95"), mean_and_ci95(hits.astype(float)), strict=True))


def _milliseconds(name: str, function: Callable[[], object]) -> dict[str, Any]:
    """Return the median time of a call under `name`, and its quartiles."""
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    low, median, high = (float(1000 * q) for q in np.quantile(times, [0.25, 0.5, 0.75]))
    return {name: median, f"{name}_quartiles": [low, high]}
