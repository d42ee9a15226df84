"""Few-shot classification that learns new classes from one to five examples, with no gradient step.

Everything public is here, and is loaded when it is first used: ``import fewshot`` alone loads no heavy package.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from fewshot._version import __version__

if TYPE_CHECKING:
    from fewshot.backbones import create_backbone
    from fewshot.classifier import FewShotClassifier
    from fewshot.data.digits import digits
    from fewshot.data.distort import Distortion
    from fewshot.data.glyphs import glyphs
    from fewshot.data.images import LabeledImages
    from fewshot.data.mixture import mix
    from fewshot.data.photo import Chain, Light, Mirror
    from fewshot.embedding.embedder import Embedder
    from fewshot.embedding.network import embed
    from fewshot.episodes.balanced import EpisodeSampler
    from fewshot.episodes.episode import Episode
    from fewshot.episodes.grouped import GroupedEpisodeSampler
    from fewshot.episodes.varied import VariedEpisodeSampler
    from fewshot.evaluation import EvalResult, evaluate
    from fewshot.index import PrototypeIndex
    from fewshot.learners.base import Learner
    from fewshot.learners.matching import MatchingClassifier, MatchingLearner
    from fewshot.learners.prototypical import PrototypicalClassifier, PrototypicalLearner
    from fewshot.memory import Memory, Statistics
    from fewshot.model.image_classifier import FewShotImageClassifier
    from fewshot.registry import list_learners, register_learner
    from fewshot.similarity import pairwise_similarity
    from fewshot.training.config import TrainConfig
    from fewshot.training.trainer import MetaTrainer
    from fewshot.weights import load_learner, load_weights

_HOME = {
    "Chain": "data.photo",
    "Distortion": "data.distort",
    "Embedder": "embedding.embedder",
    "Episode": "episodes.episode",
    "EpisodeSampler": "episodes.balanced",
    "EvalResult": "evaluation",
    "FewShotClassifier": "classifier",
    "FewShotImageClassifier": "model.image_classifier",
    "GroupedEpisodeSampler": "episodes.grouped",
    "LabeledImages": "data.images",
    "Learner": "learners.base",
    "Light": "data.photo",
    "MatchingClassifier": "learners.matching",
    "MatchingLearner": "learners.matching",
    "Memory": "memory",
    "MetaTrainer": "training.trainer",
    "Mirror": "data.photo",
    "PrototypeIndex": "index",
    "PrototypicalClassifier": "learners.prototypical",
    "PrototypicalLearner": "learners.prototypical",
    "Statistics": "memory",
    "TrainConfig": "training.config",
    "VariedEpisodeSampler": "episodes.varied",
    "create_backbone": "backbones",
    "digits": "data.digits",
    "embed": "embedding.network",
    "evaluate": "evaluation",
    "glyphs": "data.glyphs",
    "list_learners": "registry",
    "load_learner": "weights",
    "load_weights": "weights",
    "mix": "data.mixture",
    "pairwise_similarity": "similarity",
    "register_learner": "registry",
}

__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'fewshot' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"fewshot.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
