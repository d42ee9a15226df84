"""The work of a benchmark: embedding a part of the images, and answering the episodes of one cell.

Each is a function of what it is given and of nothing else, so that it can be done anywhere, and again.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fewshot._version import __version__
from fewshot.benchmark.grid import OWN, PIXELS, Backbone, LearnerSpec
from fewshot.benchmark.methods import code_of, learner_kind, make_learner
from fewshot.benchmark.sources import as_pixels
from fewshot.embedding.embedder import Embedder
from fewshot.episodes.balanced import EpisodeSampler
from fewshot.episodes.episode import Sampler
from fewshot.episodes.evaluate import evaluate
from fewshot.episodes.varied import VariedEpisodeSampler
from fewshot.learners.base import Learner
from fewshot.persistence.files import digest
from fewshot.persistence.provenance import versions

#: Raised when the same unit would be answered otherwise.
FORMAT = 2
#: Packages whose versions may decide it, too.
PACKAGES = ("torch", "timm", "numpy", "scikit-learn", "Pillow")
#: The embedder that this process has used last.
_loaded: dict[tuple[str, str | None], Embedder] = {}
#: A confusion of more classes than this is not kept.
CONFUSION = 64


@dataclass(frozen=True, eq=False)
class Part:
    """Some images to embed.

    Attributes
    ----------
    key : str
        What is embedded, by content.
    start : int
        The number of the first.
    backbone : Backbone
        What embeds them.
    network : str
        Its `backbone_key`; a process loads a network once, however many parts it is given.
    images : array
        Pixels or paths.
    cache : str or None
        See `Embedder`.
    """

    key: str
    start: int
    backbone: Backbone
    network: str
    images: NDArray[Any]
    cache: str | None = None


@dataclass(frozen=True, eq=False)
class Unit:
    """One cell of a grid: a learner on the embeddings of a data set by a backbone, in episodes of one kind and seed.

    Attributes
    ----------
    dataset : str
        Its name.
    backbone : Backbone
        What embedded.
    method : LearnerSpec
        The learner.
    embedded : str
        Key of the embeddings.
    way, shot, seed, query, episodes : int
        Of the episodes; way and shot are 0 where they vary.
    center : tuple of float or None
        Mean embedding of the base split, where the learner needs it.
    script : type or None
        The class of a learner of a script or a notebook, which other processes cannot import.
    """

    dataset: str
    backbone: Backbone
    method: LearnerSpec
    embedded: str
    way: int
    shot: int
    seed: int
    query: int
    episodes: int
    center: tuple[float, ...] | None = None
    script: type[Learner] | None = None

    @cached_property
    def key(self) -> str:
        """A digest of what decides the answers: embeddings, episodes, the learner and the files that define it."""
        method: dict[str, Any] = {"learner": self.method.learner, "params": dict(self.method.params)}
        method["code"] = code_of(self.script or learner_kind(self.method, self.backbone))
        if self.method.learner == OWN:
            method["checkpoint"] = digest(self.backbone.backbone)
        sizes = [self.way, self.shot, self.seed, self.query, self.episodes]
        return digest_of("unit", self.embedded, method, sizes, self.center)

    def make_learner(self) -> Learner:
        """Return the learner.

        Raises
        ------
        ValueError
            If its parameters are not those of such a learner.
        """
        return make_learner(self.method, self.backbone, self.center, self.script)


def make_sampler(way: int, shot: int, query: int) -> Any:
    """Return what makes the sampler of a cell."""
    if not way:
        return VariedEpisodeSampler
    return partial(EpisodeSampler, n_way=way, n_shot=shot, n_query=query)


def sampler_of(unit: Unit, labels: NDArray[Any]) -> Sampler:
    """Return the episodes of a unit."""
    return make_sampler(unit.way, unit.shot, unit.query)(labels, seed=unit.seed)


def backbone_embedder(backbone: Backbone, cache: str | None = None) -> Embedder:
    """Return the embedder of a backbone that is no `PIXELS`."""
    return Embedder(
        backbone.backbone,
        weights=backbone.weights,
        pretrained=backbone.pretrained,
        img_size=backbone.img_size,
        cache=cache,
        progress=False,
    )


def embed_part(part: Part) -> NDArray[np.float32]:
    """Return the embeddings of some images."""
    with one_thread():
        if part.backbone.backbone == PIXELS:
            return as_pixels(part.images)
        return _embedder_of(part).embed(part.images).embeddings


def _embedder_of(part: Part) -> Embedder:
    key = part.network, part.cache
    if key not in _loaded:
        _loaded.clear()
        _loaded[key] = backbone_embedder(part.backbone, part.cache)
    return _loaded[key]


def answer(unit: Unit, embeddings: NDArray[np.float32], labels: NDArray[Any]) -> dict[str, Any]:
    """Answer the episodes of a unit; return what was found, as JSON can hold it."""
    learner = unit.make_learner()
    began = time.perf_counter()
    with one_thread():
        found = evaluate(
            learner,
            embeddings,
            labels,
            n_episodes=unit.episodes,
            seed=unit.seed,
            sampler=make_sampler(unit.way, unit.shot, unit.query),
        )
    seconds = time.perf_counter() - began
    few = len(found.classes) <= CONFUSION
    return {
        "accuracies": found.accuracies.tolist(),
        "confusion": found.counts.tolist() if few else None,
        "classes": found.classes.tolist() if few else None,
        "protocol": found.protocol,
        "transductive": learner.transductive,
        "ms_per_episode": 1000 * seconds / unit.episodes,
    }


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread: sums come in one order, whoever does it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def digest_of(*what: Any) -> str:
    """Return a digest of values that JSON can hold, and of the versions that may decide what comes of them."""
    text = json.dumps([FORMAT, __version__, versions(PACKAGES), *what], sort_keys=True, default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def backbone_key(backbone: Backbone) -> str:
    """Return what tells the embeddings of one backbone from those of another."""
    return PIXELS if backbone.backbone == PIXELS else backbone_embedder(backbone).identity


def describe_backbone(backbone: Backbone) -> dict[str, Any]:
    """Return a backbone as JSON can hold it."""
    return {key: value for key, value in asdict(backbone).items() if value}


def _plain(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else str(value)
