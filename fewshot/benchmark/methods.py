"""The learners of a benchmark: how a row of the grid becomes a learner, and which code defines it."""

from __future__ import annotations

import hashlib
import inspect
import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

from fewshot.benchmark.grid_file import GIVEN, OWN, PIXELS, Backbone, LearnerSpec
from fewshot.benchmark.references import LinearProbe, ScikitLearn
from fewshot.embedding.backbones import is_path
from fewshot.embedding.checkpoint import describe_learner, load_learner
from fewshot.errors import UnknownNameError
from fewshot.learners.base import Learner
from fewshot.learners.discriminant import DiscriminantLearner
from fewshot.learners.registry import learner_class, ready_learner
from fewshot.persistence.files import digest
from fewshot.utils.own_code import own_files

#: Learners outside the registry.
REFERENCES: dict[str, type[Learner]] = {kind.name: kind for kind in (LinearProbe, ScikitLearn)}


def script_class(method: LearnerSpec) -> type[Learner] | None:
    """Return the class of a learner that the running script or notebook defines, which no other process can import."""
    kind = None if method.learner == OWN else method_class(method)
    return kind if kind is not None and kind.__module__ == "__main__" else None


def method_class(method: LearnerSpec) -> type[Learner]:
    """Return the class of a learner, unless it is the one in a checkpoint."""
    return REFERENCES.get(method.learner) or learner_class(method.learner)


def make_learner(
    method: LearnerSpec, backbone: Backbone, center: tuple[float, ...] | None, kind: type[Learner] | None = None
) -> Learner:
    """Build the learner of a row.

    Raises
    ------
    ValueError
        If the learner does not take these parameters, or must be trained first.
    """
    if method.learner == OWN:
        return load_learner(backbone.backbone)
    kind = kind or method_class(method)
    if kind.learned:
        raise ValueError(
            f"learner {method.name!r} has learned parameters and must be trained first; take {OWN!r} with a backbone "
            f"that is a checkpoint of it, or that is trained with it: train_on = ..., learner = {method.learner!r}"
        )
    params: dict[str, Any] = {**method.params, "center": center} if method.needs_base else dict(method.params)
    if backbone.backbone == GIVEN and kind is DiscriminantLearner:
        params.setdefault("power", 1.0)  # they may be negative
    known = inspect.signature(kind).parameters
    unknown = [] if any(one.kind is one.VAR_KEYWORD for one in known.values()) else params.keys() - known.keys()
    for name in sorted(unknown):
        raise UnknownNameError(f"parameter of the learner {method.learner!r}", name, known)
    try:
        return ready_learner(kind(**params))
    except TypeError as error:
        raise ValueError(f"learner {method.name!r}: {error}".replace(".__init__()", "")) from error


def has_own(backbone: Backbone) -> bool:
    """Whether a backbone carries its own learner, or will once it is trained."""
    return bool(backbone.train_on) or (is_path(backbone.backbone) and Path(backbone.backbone).is_file())


def applies(method: LearnerSpec, backbone: Backbone) -> bool:
    """Whether a grid has a row for this learner on this backbone."""
    return method.learner != OWN or has_own(backbone)


def is_local(method: LearnerSpec, backbone: Backbone) -> bool:
    """Return whether a learner compares the places of images, and so needs their maps.

    Raises
    ------
    ValueError
        If it does, and there are no maps: images are compared pixel by pixel, or the data are embeddings.
    """
    kind = type(load_learner(backbone.backbone)) if method.learner == OWN else method_class(method)
    if kind.local and backbone.backbone in (PIXELS, GIVEN):
        raise ValueError(
            f"learner {method.name!r} compares maps of features, which {backbone.backbone!r} are not; leave one out"
        )
    return kind.local


def identify(method: LearnerSpec, backbone: Backbone) -> dict[str, Any]:
    """Return what distinguishes the answers of a learner: name, parameters, code and, for ``own``, the checkpoint."""
    identity: dict[str, Any] = {"learner": method.learner, "params": dict(method.params)}
    if method.learner != OWN:
        return {**identity, "code": code_of(method_class(method))}
    checkpoint = digest(backbone.backbone)
    return {**identity, "checkpoint": checkpoint, "code": code_of(type(load_learner(backbone.backbone)))}


def code_of(kind: type[Learner]) -> str:
    """Return a digest of the files that define a learner and its base classes, and of what these import.

    Installed packages do not count, except for this one, whose version is part of every key. The digest of a class that
    a notebook defines is new each time.
    """
    files = [_file_digest(one) for one in kind.__mro__ if issubclass(one, Learner)]
    return hashlib.sha256("".join(files).encode()).hexdigest()


def _file_digest(kind: type[Learner]) -> str:
    try:
        path = inspect.getfile(kind)
        if kind.__module__.startswith("fewshot."):
            return digest(path)
        return "".join(map(digest, own_files(path, getattr(sys.modules.get(kind.__module__), "__package__", None))))
    except (OSError, TypeError):  # defined in a notebook: there is no file to compare
        return uuid4().hex


def describe_method(method: LearnerSpec, backbone: Backbone) -> dict[str, Any]:
    """Return a learner with all its parameters, ready for JSON.

    Raises
    ------
    ValueError
        If the learner does not take these parameters, or they cannot be written as JSON.
    """
    if method.learner == OWN:
        return {"name": OWN, "params": {}}
    try:
        learner = make_learner(method, backbone, (0.0,))
        if isinstance(learner, ScikitLearn):
            return {"name": learner.name, "params": learner.arguments()}
        described = describe_learner(learner)
    except TypeError as error:
        raise ValueError(f"learner {method.name!r}: {error}") from error
    params = {**described["params"], **method.params}  # keeps center = "base"
    return {**described, "params": params, "supposes_balance": learner.supposes_balance}
