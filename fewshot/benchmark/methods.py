"""The learners of a benchmark: what a row of a grid stands for, and the code that it hangs on."""

from __future__ import annotations

import hashlib
import inspect
from pathlib import Path
from typing import Any
from uuid import uuid4

from fewshot.benchmark.grid import LINEAR_PROBE, OWN, Backbone, LearnerSpec
from fewshot.benchmark.reference import LinearProbe
from fewshot.embedding.backbones.published import is_path
from fewshot.embedding.checkpoint import describe_learner, load_learner
from fewshot.learners.base import Learner
from fewshot.learners.registry import learner_class, ready_learner
from fewshot.persistence.files import digest


def learner_kind(method: LearnerSpec, backbone: Backbone) -> type[Learner]:
    """Return the class of the learner of a row; see `LearnerSpec`."""
    if method.learner == OWN:
        return type(load_learner(backbone.backbone))
    return LinearProbe if method.learner == LINEAR_PROBE else learner_class(method.learner)


def script_of(method: LearnerSpec) -> type[Learner] | None:
    """Return the class of a learner that is written in the script or the notebook that runs here."""
    if method.learner in (OWN, LINEAR_PROBE):
        return None
    kind = learner_class(method.learner)
    return kind if kind.__module__ == "__main__" else None


def make_learner(
    method: LearnerSpec, backbone: Backbone, center: tuple[float, ...] | None, kind: type[Learner] | None = None
) -> Learner:
    """Return the learner of a row; see `LearnerSpec`."""
    params: dict[str, Any] = dict(method.params)
    if method.needs_base:
        params["center"] = center
    if method.learner == OWN:
        return load_learner(backbone.backbone)
    kind = kind or learner_kind(method, backbone)
    if kind.learned:
        raise ValueError(
            f"learner {method.name!r} has weights of its own, which must be trained first; take {OWN!r}, and a "
            f"backbone that is a checkpoint of it, or is trained with it: train_on = ..., learner = {method.learner!r}"
        )
    try:
        return ready_learner(kind(**params))
    except TypeError as error:
        raise ValueError(f"learner {method.name!r}: {error}".replace(".__init__()", "")) from error


def has_own(backbone: Backbone) -> bool:
    """Whether a backbone carries a learner of its own, or will when it is trained."""
    return bool(backbone.train_on) or (is_path(backbone.backbone) and Path(backbone.backbone).is_file())


def code_of(kind: type[Learner]) -> str:
    """Return a digest of the files in which a learner and what it inherits from are written, so that a change counts.

    What these import is not seen, but for this package, whose version counts. Of a notebook it is never the same.
    """
    files = [_file_of(one) for one in kind.__mro__ if issubclass(one, Learner)]
    return hashlib.sha256("".join(files).encode()).hexdigest()


def _file_of(kind: type[Learner]) -> str:
    try:
        return digest(inspect.getfile(kind))
    except (OSError, TypeError):  # of a notebook: nobody can say whether it is what it was
        return uuid4().hex


def describe_method(method: LearnerSpec, backbone: Backbone) -> dict[str, Any]:
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
