"""Few-shot classification that learns new classes from one to five examples, with no gradient step.

Everything public is here, and is loaded when it is first used: ``import fewshot`` alone loads no heavy package.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from fewshot._version import __version__

if TYPE_CHECKING:  # twice each name: type checkers then take it as public
    from fewshot.annotation.annotate import annotate as annotate
    from fewshot.annotation.retrieve import retrieve as retrieve
    from fewshot.annotation.table import export_store as export_store
    from fewshot.annotation.table import import_records as import_records
    from fewshot.backbones import create_backbone as create_backbone
    from fewshot.benchmark.grid import Grid as Grid
    from fewshot.benchmark.run import run_benchmark as run_benchmark
    from fewshot.classifier import FewShotClassifier as FewShotClassifier
    from fewshot.classifier import TransductiveClassifier as TransductiveClassifier
    from fewshot.data.digits import digits as digits
    from fewshot.data.distort import Distortion as Distortion
    from fewshot.data.glyphs import glyphs as glyphs
    from fewshot.data.images import LabeledImages as LabeledImages
    from fewshot.data.mixture import mix as mix
    from fewshot.data.photo import Chain as Chain
    from fewshot.data.photo import Light as Light
    from fewshot.data.photo import Mirror as Mirror
    from fewshot.embedding.embedder import Embedder as Embedder
    from fewshot.embedding.network import embed as embed
    from fewshot.embedding.own import OwnEmbedder as OwnEmbedder
    from fewshot.episodes.balanced import EpisodeSampler as EpisodeSampler
    from fewshot.episodes.episode import Episode as Episode
    from fewshot.episodes.grouped import GroupedEpisodeSampler as GroupedEpisodeSampler
    from fewshot.episodes.varied import VariedEpisodeSampler as VariedEpisodeSampler
    from fewshot.estimator_checks import check_image_estimator as check_image_estimator
    from fewshot.evaluation.evaluate import evaluate as evaluate
    from fewshot.evaluation.result import EvalResult as EvalResult
    from fewshot.exporting.folder import export as export
    from fewshot.index import PrototypeIndex as PrototypeIndex
    from fewshot.learners.base import Learner as Learner
    from fewshot.learners.bd_cspn import BDCSPNLearner as BDCSPNLearner
    from fewshot.learners.feat import FEATLearner as FEATLearner
    from fewshot.learners.full_context import FullContextLearner as FullContextLearner
    from fewshot.learners.k_nearest import KNearestClassifier as KNearestClassifier
    from fewshot.learners.k_nearest import KNearestLearner as KNearestLearner
    from fewshot.learners.key_value_cache import KeyValueCacheClassifier as KeyValueCacheClassifier
    from fewshot.learners.key_value_cache import KeyValueCacheLearner as KeyValueCacheLearner
    from fewshot.learners.laplacian_shot import LaplacianShotLearner as LaplacianShotLearner
    from fewshot.learners.lifelong import LifelongClassifier as LifelongClassifier
    from fewshot.learners.lifelong import LifelongLearner as LifelongLearner
    from fewshot.learners.mahalanobis import MahalanobisClassifier as MahalanobisClassifier
    from fewshot.learners.mahalanobis import MahalanobisLearner as MahalanobisLearner
    from fewshot.learners.matching import MatchingClassifier as MatchingClassifier
    from fewshot.learners.matching import MatchingLearner as MatchingLearner
    from fewshot.learners.multi_prototypical import MultiPrototypicalClassifier as MultiPrototypicalClassifier
    from fewshot.learners.multi_prototypical import MultiPrototypicalLearner as MultiPrototypicalLearner
    from fewshot.learners.prototypical import PrototypicalClassifier as PrototypicalClassifier
    from fewshot.learners.prototypical import PrototypicalLearner as PrototypicalLearner
    from fewshot.learners.pt_map import PTMAPLearner as PTMAPLearner
    from fewshot.learners.relation import RelationLearner as RelationLearner
    from fewshot.learners.ridge import RidgeFewShotClassifier as RidgeFewShotClassifier
    from fewshot.learners.ridge import RidgeLearner as RidgeLearner
    from fewshot.learners.simpleshot import SimpleShotClassifier as SimpleShotClassifier
    from fewshot.learners.simpleshot import SimpleShotLearner as SimpleShotLearner
    from fewshot.learners.soft_k_means import SoftKMeansLearner as SoftKMeansLearner
    from fewshot.memory import Memory as Memory
    from fewshot.model.image_classifier import FewShotImageClassifier as FewShotImageClassifier
    from fewshot.registry import list_learners as list_learners
    from fewshot.registry import register_learner as register_learner
    from fewshot.rows import sum_by_class as sum_by_class
    from fewshot.similarity import pairwise_similarity as pairwise_similarity
    from fewshot.statistics import Statistics as Statistics
    from fewshot.stores.base import Store as Store
    from fewshot.stores.faiss import FaissStore as FaissStore
    from fewshot.stores.memory import StoredMemory as StoredMemory
    from fewshot.stores.pgvector import PgVectorStore as PgVectorStore
    from fewshot.stores.qdrant import QdrantStore as QdrantStore
    from fewshot.stores.records import Record as Record
    from fewshot.training.config import TrainConfig as TrainConfig
    from fewshot.training.trainer import MetaTrainer as MetaTrainer
    from fewshot.weights import load_learner as load_learner
    from fewshot.weights import load_weights as load_weights


_HOME = {
    "BDCSPNLearner": "learners.bd_cspn",
    "Chain": "data.photo",
    "Distortion": "data.distort",
    "Embedder": "embedding.embedder",
    "Episode": "episodes.episode",
    "EpisodeSampler": "episodes.balanced",
    "EvalResult": "evaluation.result",
    "FEATLearner": "learners.feat",
    "FaissStore": "stores.faiss",
    "FewShotClassifier": "classifier",
    "FewShotImageClassifier": "model.image_classifier",
    "FullContextLearner": "learners.full_context",
    "Grid": "benchmark.grid",
    "GroupedEpisodeSampler": "episodes.grouped",
    "KNearestClassifier": "learners.k_nearest",
    "KNearestLearner": "learners.k_nearest",
    "KeyValueCacheClassifier": "learners.key_value_cache",
    "KeyValueCacheLearner": "learners.key_value_cache",
    "LabeledImages": "data.images",
    "LaplacianShotLearner": "learners.laplacian_shot",
    "Learner": "learners.base",
    "LifelongClassifier": "learners.lifelong",
    "LifelongLearner": "learners.lifelong",
    "Light": "data.photo",
    "MahalanobisClassifier": "learners.mahalanobis",
    "MahalanobisLearner": "learners.mahalanobis",
    "MatchingClassifier": "learners.matching",
    "MatchingLearner": "learners.matching",
    "Memory": "memory",
    "MetaTrainer": "training.trainer",
    "Mirror": "data.photo",
    "MultiPrototypicalClassifier": "learners.multi_prototypical",
    "MultiPrototypicalLearner": "learners.multi_prototypical",
    "OwnEmbedder": "embedding.own",
    "PTMAPLearner": "learners.pt_map",
    "PgVectorStore": "stores.pgvector",
    "PrototypeIndex": "index",
    "PrototypicalClassifier": "learners.prototypical",
    "PrototypicalLearner": "learners.prototypical",
    "QdrantStore": "stores.qdrant",
    "Record": "stores.records",
    "RelationLearner": "learners.relation",
    "RidgeFewShotClassifier": "learners.ridge",
    "RidgeLearner": "learners.ridge",
    "SimpleShotClassifier": "learners.simpleshot",
    "SimpleShotLearner": "learners.simpleshot",
    "SoftKMeansLearner": "learners.soft_k_means",
    "Statistics": "statistics",
    "Store": "stores.base",
    "StoredMemory": "stores.memory",
    "TrainConfig": "training.config",
    "TransductiveClassifier": "classifier",
    "VariedEpisodeSampler": "episodes.varied",
    "annotate": "annotation.annotate",
    "check_image_estimator": "estimator_checks",
    "create_backbone": "backbones",
    "digits": "data.digits",
    "embed": "embedding.network",
    "evaluate": "evaluation.evaluate",
    "export": "exporting.folder",
    "export_store": "annotation.table",
    "glyphs": "data.glyphs",
    "import_records": "annotation.table",
    "list_learners": "registry",
    "load_learner": "weights",
    "load_weights": "weights",
    "mix": "data.mixture",
    "pairwise_similarity": "similarity",
    "register_learner": "registry",
    "retrieve": "annotation.retrieve",
    "run_benchmark": "benchmark.run",
    "sum_by_class": "rows",
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
