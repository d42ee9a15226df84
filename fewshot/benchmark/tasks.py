"""The work of a benchmark: embedding a part of the images, and answering the episodes of one cell.

Each is a function of what it is given and of nothing else, so that it can be done anywhere, and again.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import marshal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fewshot._version import __version__
from fewshot.benchmark.grid import LINEAR_PROBE, OWN, PIXELS, Backbone, Method
from fewshot.benchmark.reference import LinearProbe
from fewshot.benchmark.sources import as_pixels
from fewshot.classifier import ready_learner
from fewshot.embedding.embedder import Embedder
from fewshot.episodes.balanced import EpisodeSampler
from fewshot.episodes.episode import Sampler
from fewshot.episodes.varied import VariedEpisodeSampler
from fewshot.evaluation.evaluate import evaluate
from fewshot.files import digest
from fewshot.learners.base import Learner
from fewshot.manifest import versions
from fewshot.registry import learner_class
from fewshot.weights import describe_learner, load_learner

#: Raised when the same unit would be answered otherwise.
FORMAT = 2
#: Packages whose versions may decide it, too.
PACKAGES = ("torch", "timm", "numpy", "scikit-learn", "Pillow")
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
        Which is loaded once in each process.
    images : array
        Pixels or paths.
    cache : str or None
        See `Embedder`.
    """

    key: str
    start: int
    backbone: Backbone
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
    method : Method
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
    method: Method
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
        method["code"] = code_of(self.script or kind_of(self.method, self.backbone))
        if self.method.learner == OWN:
            method["checkpoint"] = digest(self.backbone.backbone)
        sizes = [self.way, self.shot, self.seed, self.query, self.episodes]
        return key_of("unit", self.embedded, method, sizes, self.center)

    def make_learner(self) -> Learner:
        """Return the learner.

        Raises
        ------
        ValueError
            If its parameters are not those of such a learner.
        """
        return make_learner(self.method, self.backbone, self.center, self.script)


def kind_of(method: Method, backbone: Backbone) -> type[Learner]:
    """Return the class of the learner of a row; see `Method`."""
    if method.learner == OWN:
        return type(load_learner(backbone.backbone))
    return LinearProbe if method.learner == LINEAR_PROBE else learner_class(method.learner)


def script_of(method: Method) -> type[Learner] | None:
    """Return the class of a learner that is written in the script or the notebook that runs here."""
    if method.learner in (OWN, LINEAR_PROBE):
        return None
    kind = learner_class(method.learner)
    return kind if kind.__module__ == "__main__" else None


def make_learner(
    method: Method, backbone: Backbone, center: tuple[float, ...] | None, kind: type[Learner] | None = None
) -> Learner:
    """Return the learner of a row; see `Method`."""
    params: dict[str, Any] = dict(method.params)
    if method.needs_base:
        params["center"] = center
    if method.learner == OWN:
        if params:
            raise ValueError(f"the learner of a checkpoint has its parameters; leave {', '.join(params)} out")
        return load_learner(backbone.backbone)
    kind = kind or kind_of(method, backbone)
    if kind.learned:
        raise ValueError(
            f"learner {method.name!r} has weights of its own, which must be trained first; take {OWN!r}, and a "
            f"backbone that is a checkpoint of it, or is trained with it: train_on = ..., learner = {method.learner!r}"
        )
    try:
        return ready_learner(kind(**params))
    except TypeError as error:
        raise ValueError(f"learner {method.name!r}: {error}".replace("__init__() ", "")) from error


def has_own(backbone: Backbone) -> bool:
    """Whether a backbone carries a learner of its own, or will when it is trained."""
    return bool(backbone.train_on) or (backbone.backbone != PIXELS and Path(backbone.backbone).is_file())


def make_sampler(way: int, shot: int, query: int) -> Any:
    """Return what makes the sampler of a cell."""
    if not way:
        return VariedEpisodeSampler
    return partial(EpisodeSampler, n_way=way, n_shot=shot, n_query=query)


def sampler_of(unit: Unit, labels: NDArray[Any]) -> Sampler:
    """Return the episodes of a unit."""
    return make_sampler(unit.way, unit.shot, unit.query)(labels, seed=unit.seed)


def make_embedder(backbone: Backbone, cache: str | None = None) -> Embedder:
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
        return make_embedder(part.backbone, part.cache).transform(part.images)


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


def key_of(*what: Any) -> str:
    """Return a digest of values that JSON can hold, and of the versions that may decide what comes of them."""
    text = json.dumps([FORMAT, __version__, versions(PACKAGES), *what], sort_keys=True, default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def backbone_key(backbone: Backbone) -> str:
    """Return what tells the embeddings of one backbone from those of another."""
    return PIXELS if backbone.backbone == PIXELS else make_embedder(backbone).identity


def describe(backbone: Backbone) -> dict[str, Any]:
    """Return a backbone as JSON can hold it."""
    return {key: value for key, value in asdict(backbone).items() if value}


def code_of(kind: type[Learner]) -> str:
    """Return a digest of the files in which a learner and what it inherits from are written, so that a change counts.

    What these import is not seen, but for this package, whose version counts.
    """
    return hashlib.sha256(
        "".join(_file_of(one) for one in kind.__mro__ if issubclass(one, Learner)).encode()
    ).hexdigest()


def _file_of(kind: type[Learner]) -> str:
    try:
        return digest(inspect.getfile(kind))
    except (OSError, TypeError):  # written in a notebook
        return repr([marshal.dumps(part.__code__) for part in vars(kind).values() if inspect.isfunction(part)])


def _plain(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else str(value)


def describe_method(method: Method, backbone: Backbone) -> dict[str, Any]:
    """Return a learner with all its parameters, as JSON can hold it.

    Raises
    ------
    ValueError
        If there is none with these parameters, or they cannot be written down.
    """
    if method.learner == LINEAR_PROBE:
        make_learner(method, backbone, None)
    if method.learner in (LINEAR_PROBE, OWN):
        return {"name": method.learner, "params": dict(method.params)}
    try:
        described = describe_learner(make_learner(method, backbone, (0.0,)))
    except TypeError as error:
        raise ValueError(f"learner {method.name!r}: {error}") from error
    return {**described, "params": {**described["params"], **method.params}}  # "base" stays what it is
