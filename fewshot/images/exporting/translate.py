"""Translate a fitted model to the torch-free runtime."""

from __future__ import annotations

import numpy as np

from fewshot.classifiers.fitted import FittedModel
from fewshot.learners.base import Learner
from fewshot.learners.cosine_prototypical import CosinePrototypicalLearner
from fewshot.learners.k_nearest import KNearestLearner
from fewshot.learners.matching import MatchingLearner
from fewshot.learners.prototypical import PrototypicalLearner
from fewshot.learners.simpleshot import SimpleShotLearner
from fewshot.runtime.learner import KEPT, SUMMED, DeviceLearner
from fewshot.runtime.memory import DeviceMemory


def translate_learner(learner: Learner) -> DeviceLearner:
    """Translate a learner.

    Raises
    ------
    TypeError
        If it needs torch to predict or to learn, or forgets support.

    Examples
    --------
    >>> translate_learner(PrototypicalLearner("cosine", temperature=0.05)).to_dict()["temperature"]
    0.05
    """
    # Not isinstance: a subclass may predict differently.
    kind, basic = type(learner), (learner.name, learner.metric, learner.temperature.item())
    if kind in (PrototypicalLearner, CosinePrototypicalLearner):
        return DeviceLearner(*basic)
    if isinstance(learner, SimpleShotLearner) and kind is SimpleShotLearner:
        center = None if learner.center is None else tuple(learner.center.tolist())
        return DeviceLearner(*basic, learner.normalization, center)
    if isinstance(learner, KNearestLearner) and kind is KNearestLearner:
        return DeviceLearner(*basic, n_neighbors=learner.n_neighbors)
    if isinstance(learner, MatchingLearner) and kind is MatchingLearner:
        if learner.max_support is not None:
            raise TypeError(
                f"the learner keeps max_support={learner.max_support} images per class, and a device cannot choose "
                "which; fit one that keeps all, max_support=None"
            )
        return DeviceLearner(*basic)
    raise TypeError(
        f"{kind.__name__} cannot be exported; expected one that needs only a metric: {', '.join(SUMMED + KEPT)}"
    )


def translate_memory(fitted: FittedModel) -> DeviceMemory:
    """Convert what a fitted model has learned to numpy."""
    statistics = fitted.statistics
    if statistics.sums:
        x, labels, weights = statistics.sums["x"].numpy(), np.arange(len(fitted.classes)), statistics.count.numpy()
    else:
        x, labels, weights = (statistics.support[name].numpy() for name in ("x", "labels", "weight"))
    return DeviceMemory(fitted.classes, fitted.n_support, bool(statistics.sums), x, labels, weights)
