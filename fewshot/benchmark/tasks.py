"""The units of a benchmark, and answering the episodes of one.

This depends on nothing but its arguments, so any process can do it, and do it again.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewshot._version import __version__
from fewshot.benchmark.grid_file import Backbone, LearnerSpec
from fewshot.benchmark.methods import make_learner
from fewshot.episodes.balanced_sampler import EpisodeSampler
from fewshot.episodes.evaluate import evaluate
from fewshot.episodes.query_draws import BALANCED, QueryClasses
from fewshot.episodes.varied_sampler import VariedEpisodeSampler
from fewshot.learners.base import Learner
from fewshot.persistence.provenance import versions
from fewshot.utils.threads import one_thread

#: Bump when the same unit would get different answers.
FORMAT = 3
#: Packages whose versions can change the answers, too.
PACKAGES = ("torch", "timm", "numpy", "scikit-learn", "Pillow")
#: Confusion matrices of more classes are not stored.
CONFUSION = 64


@dataclass(frozen=True, eq=False)
class Unit:
    """One cell of a grid: a learner on the embeddings of a data set, with episodes of one kind and seed.

    Attributes
    ----------
    dataset : str
        Name of the data set.
    backbone : Backbone
        The network that embedded it.
    method : LearnerSpec
        The learner.
    embedded : str
        Key of the embeddings.
    n_way, n_shot, seed, n_query, n_episodes : int
        Sizes of the episodes; n_way and n_shot are 0 if they vary.
    identity : mapping
        What distinguishes the learner's answers; see `identify`.
    center : tuple of float or None
        Mean embedding of the base split, if the learner needs it.
    script : type or None
        The class of a learner that a script or notebook defines, which other processes cannot import.
    query_classes : str or int
        How queries are spread over the classes; see `EpisodeSampler`.
    """

    dataset: str
    backbone: Backbone
    method: LearnerSpec
    embedded: str
    n_way: int
    n_shot: int
    seed: int
    n_query: int
    n_episodes: int
    identity: Mapping[str, Any]
    center: tuple[float, ...] | None = None
    script: type[Learner] | None = None
    query_classes: QueryClasses | int = BALANCED

    @cached_property
    def key(self) -> str:
        """A digest of all that determines the answers: embeddings, episodes, the learner and its code."""
        sizes: list[str | int] = [self.n_way, self.n_shot, self.seed, self.n_query, self.n_episodes]
        sizes += [self.query_classes] if self.query_classes != BALANCED else []
        return key_of("unit", self.embedded, self.identity, sizes, self.center)


def make_sampler(n_way: int, n_shot: int, n_query: int, query_classes: QueryClasses | int) -> Any:
    """Return a function ``(labels, seed=...)`` that makes the sampler of a cell."""
    if not n_way:
        return VariedEpisodeSampler
    return partial(EpisodeSampler, n_way=n_way, n_shot=n_shot, n_query=n_query, query_classes=query_classes)


def answer(unit: Unit, embeddings: NDArray[np.float32], labels: NDArray[Any]) -> dict[str, Any]:
    """Answer the episodes of a unit and return the results, ready for JSON."""
    learner = make_learner(unit.method, unit.backbone, unit.center, unit.script)
    sampler = make_sampler(unit.n_way, unit.n_shot, unit.n_query, unit.query_classes)
    start = time.perf_counter()
    with one_thread():
        found = evaluate(learner, embeddings, labels, n_episodes=unit.n_episodes, seed=unit.seed, sampler=sampler)
    seconds = time.perf_counter() - start
    few = len(found.classes) <= CONFUSION
    return {
        "accuracies": found.accuracies.tolist(),
        "confusion": found.counts.tolist() if few else None,
        "classes": found.classes.tolist() if few else None,
        "protocol": found.protocol,
        "transductive": learner.transductive,
        "ms_per_episode": 1000 * seconds / unit.n_episodes,
    }


def key_of(*what: Any) -> str:
    """Return a key for the outcome of work on these values, which also depends on the versions of packages."""
    text = json.dumps([FORMAT, __version__, versions(PACKAGES), *what], sort_keys=True, default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _plain(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else str(value)
