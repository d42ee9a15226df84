"""The learners of a benchmark: how a row of the grid becomes a learner, which code defines it, and a reference."""

from __future__ import annotations

import hashlib
import inspect
from typing import Any
from uuid import uuid4

import numpy as np
import torch
from torch import Tensor

from fewshot.benchmark.grid import LINEAR_PROBE, OWN, Backbone, LearnerSpec
from fewshot.embedding.checkpoint import describe_learner, load_learner
from fewshot.learners.base import Learner, SupportLearner
from fewshot.learners.memory import Memory
from fewshot.learners.registry import learner_class, ready_learner
from fewshot.persistence.files import digest
from fewshot.utils.warning import ignored_warnings


def script_class(method: LearnerSpec) -> type[Learner] | None:
    """Return the class of a learner that the running script or notebook defines, which no other process can import."""
    kind = None if method.learner == OWN else method_class(method)
    return kind if kind is not None and kind.__module__ == "__main__" else None


def method_class(method: LearnerSpec) -> type[Learner]:
    """Return the class of a learner, unless it is the one in a checkpoint."""
    return LinearProbe if method.learner == LINEAR_PROBE else learner_class(method.learner)


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
    try:
        return ready_learner(kind(**params))
    except TypeError as error:
        raise ValueError(f"learner {method.name!r}: {error}".replace(".__init__()", "")) from error


def identify(method: LearnerSpec, backbone: Backbone) -> dict[str, Any]:
    """Return what distinguishes the answers of a learner: name, parameters, code and, for ``own``, the checkpoint."""
    identity: dict[str, Any] = {"learner": method.learner, "params": dict(method.params)}
    if method.learner != OWN:
        return {**identity, "code": code_of(method_class(method))}
    checkpoint = digest(backbone.backbone)
    return {**identity, "checkpoint": checkpoint, "code": code_of(type(load_learner(backbone.backbone)))}


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
    if method.learner == OWN:
        return {"name": OWN, "params": {}}
    try:
        described = describe_learner(make_learner(method, backbone, (0.0,)))
    except TypeError as error:
        raise ValueError(f"learner {method.name!r}: {error}") from error
    return {**described, "params": {**described["params"], **method.params}}  # keeps center = "base"


class LinearProbe(SupportLearner):
    """scikit-learn's logistic regression, fitted to each support set by gradient descent.

    This reference shows what the few-shot methods gain. A benchmark measures it like any learner, but it is not
    registered and cannot be meta-trained.

    Parameters
    ----------
    C : float, default=1.0
        Inverse regularisation strength, for embeddings scaled to unit length.
    """

    name, indexable = LINEAR_PROBE, False

    def __init__(self, C: float = 1.0) -> None:
        super().__init__()
        self.C = C

    def score(self, memory: Memory, queries: Tensor) -> Tensor:
        """Return log-probabilities, with one fit per episode."""
        from sklearn.linear_model import LogisticRegression
        from sklearn.preprocessing import normalize

        parts = [
            part.reshape(-1, *part.shape[queries.ndim - 2 :]).double().numpy()
            for part in (memory.keys, memory.labels, memory.log_weight.exp(), queries)
        ]
        logits = np.full((len(parts[0]), queries.shape[-2], memory.n_way), -np.inf)
        for i, (x, labels, weight, asked) in enumerate(zip(*parts, strict=True)):
            real = weight > 0
            classes = labels[real].astype(int)
            if len(set(classes)) == 1:
                logits[i, :, classes[0]] = 0.0
                continue
            model = LogisticRegression(C=self.C, max_iter=1000)
            with ignored_warnings(UserWarning):  # of convergence, and of many classes with one image
                model.fit(normalize(x[real]), classes, sample_weight=weight[real])
            logits[i][:, model.classes_] = model.predict_log_proba(normalize(asked))
        return torch.from_numpy(logits).reshape(*queries.shape[:-1], memory.n_way)
