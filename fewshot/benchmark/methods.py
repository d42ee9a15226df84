"""The learners of a benchmark: how a row of the grid becomes a learner, and which code defines it."""

from __future__ import annotations

import hashlib
import inspect
from pathlib import Path
from typing import Any
from uuid import uuid4

from fewshot.benchmark.grid import LINEAR_PROBE, OWN, Backbone, LearnerSpec
from fewshot.benchmark.reference import LinearProbe
from fewshot.embedding.backbones import is_path
from fewshot.embedding.checkpoint import describe_learner, load_learner
from fewshot.learners.base import Learner
from fewshot.learners.registry import learner_class, ready_learner
from fewshot.persistence.files import digest


def script_class(method: LearnerSpec) -> type[Learner] | None:
    """Return the class of a learner that the running script or notebook defines, which no other process can import."""
    if method.learner in (OWN, LINEAR_PROBE):
        return None
    kind = learner_class(method.learner)
    return kind if kind.__module__ == "__main__" else None


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
    kind = kind or (LinearProbe if method.learner == LINEAR_PROBE else learner_class(method.learner))
    if kind.learned:
        raise ValueError(
            f"learner {method.name!r} has learned parameters and must be trained first; take {OWN!r} with a backbone "
            f"that is a checkpoint of it, or that is trained with it: train_on = ..., learner = {method.learner!r}"
        )
    params: dict[str, Any] = {**method.params, "center": center} if method.needs_base else dict(method.params)
    try:
        return ready_learner(kind(**params))
    except TypeError as error:
        raise ValueError(f"learner {method.name!r}: {error}".replace(".__init__()", "")) from error


def has_own(backbone: Backbone) -> bool:
    """Whether a backbone carries its own learner, or will once it is trained."""
    return bool(backbone.train_on) or (is_path(backbone.backbone) and Path(backbone.backbone).is_file())


def identify(method: LearnerSpec, backbone: Backbone) -> dict[str, Any]:
    """Return what distinguishes the answers of a learner: name, parameters, code and, for ``own``, the checkpoint."""
    identity: dict[str, Any] = {"learner": method.learner, "params": dict(method.params)}
    if method.learner == OWN:
        kind = type(load_learner(backbone.backbone))
        identity["checkpoint"] = digest(backbone.backbone)
    else:
        kind = LinearProbe if method.learner == LINEAR_PROBE else learner_class(method.learner)
    return {**identity, "code": code_of(kind)}


def code_of(kind: type[Learner]) -> str:
    """Return a digest of the files that define a learner and its base classes.

    Other imports of these files do not count, except for this package, whose version is part of every key. The digest
    of a class that a notebook defines is new each time.
    """
    files = [_file_digest(one) for one in kind.__mro__ if issubclass(one, Learner)]
    return hashlib.sha256("".join(files).encode()).hexdigest()


def _file_digest(kind: type[Learner]) -> str:
    try:
        return digest(inspect.getfile(kind))
    except (OSError, TypeError):  # defined in a notebook: there is no file to compare
        return uuid4().hex


def describe_method(method: LearnerSpec, backbone: Backbone) -> dict[str, Any]:
    """Return a learner with all its parameters, ready for JSON.

    Raises
    ------
    ValueError
        If the learner does not take these parameters, or they cannot be written as JSON.
    """
    if method.learner == LINEAR_PROBE:
        make_learner(method, backbone, None)
    if method.learner in (LINEAR_PROBE, OWN):
        return {"name": method.learner, "params": dict(method.params)}
    try:
        described = describe_learner(make_learner(method, backbone, (0.0,)))
    except TypeError as error:
        raise ValueError(f"learner {method.name!r}: {error}") from error
    return {**described, "params": {**described["params"], **method.params}}  # keeps center = "base"
