"""Few-shot classification that learns new classes from one to five examples, with no gradient step.

All public names are here and load on first use: ``import fewshot`` alone loads no heavy package.
"""

from __future__ import annotations

import importlib
import logging
from typing import TYPE_CHECKING, Any

from fewshot._version import __version__

if TYPE_CHECKING:  # `X as X` tells type checkers that a name is public
    from fewshot.benchmark.grid_file import Grid as Grid
    from fewshot.benchmark.run_grid import run_benchmark as run_benchmark
    from fewshot.classifiers.any_learner import FewShotClassifier as FewShotClassifier
    from fewshot.classifiers.any_learner import TransductiveClassifier as TransductiveClassifier
    from fewshot.classifiers.methods import DiscriminantClassifier as DiscriminantClassifier
    from fewshot.classifiers.methods import KeyValueCacheClassifier as KeyValueCacheClassifier
    from fewshot.classifiers.methods import KNearestClassifier as KNearestClassifier
    from fewshot.classifiers.methods import LifelongClassifier as LifelongClassifier
    from fewshot.classifiers.methods import MahalanobisClassifier as MahalanobisClassifier
    from fewshot.classifiers.methods import MatchingClassifier as MatchingClassifier
    from fewshot.classifiers.methods import MultiPrototypicalClassifier as MultiPrototypicalClassifier
    from fewshot.classifiers.methods import PrototypicalClassifier as PrototypicalClassifier
    from fewshot.classifiers.methods import RidgeFewShotClassifier as RidgeFewShotClassifier
    from fewshot.classifiers.methods import SimpleShotClassifier as SimpleShotClassifier
    from fewshot.classifiers.rejection import Rejection as Rejection
    from fewshot.data.augment import Chain as Chain
    from fewshot.data.augment import Distortion as Distortion
    from fewshot.data.augment import Light as Light
    from fewshot.data.augment import Mirror as Mirror
    from fewshot.data.digits import digits as digits
    from fewshot.data.glyphs import glyphs as glyphs
    from fewshot.data.images import LabeledImages as LabeledImages
    from fewshot.data.mixture import mix as mix
    from fewshot.data.tiles import tiles as tiles
    from fewshot.displays.confusion import ConfusionDisplay as ConfusionDisplay
    from fewshot.displays.embedding_map import EmbeddingDisplay as EmbeddingDisplay
    from fewshot.displays.neighbours import NeighboursDisplay as NeighboursDisplay
    from fewshot.displays.reliability import ReliabilityDisplay as ReliabilityDisplay
    from fewshot.displays.shots_curve import ShotsCurveDisplay as ShotsCurveDisplay
    from fewshot.displays.unknowns import UnknownDisplay as UnknownDisplay
    from fewshot.embedding.backbones import create_backbone as create_backbone
    from fewshot.embedding.backbones.registered import register_backbone as register_backbone
    from fewshot.embedding.checkpoint import load_learner as load_learner
    from fewshot.embedding.checkpoint import load_weights as load_weights
    from fewshot.embedding.domain import Domain as Domain
    from fewshot.embedding.embedder import Embedder as Embedder
    from fewshot.embedding.network import embed as embed
    from fewshot.embedding.own import OwnEmbedder as OwnEmbedder
    from fewshot.episodes.balanced_sampler import EpisodeSampler as EpisodeSampler
    from fewshot.episodes.episode import Episode as Episode
    from fewshot.episodes.evaluate import EvalResult as EvalResult
    from fewshot.episodes.evaluate import evaluate as evaluate
    from fewshot.episodes.grouped_sampler import GroupedEpisodeSampler as GroupedEpisodeSampler
    from fewshot.episodes.varied_sampler import VariedEpisodeSampler as VariedEpisodeSampler
    from fewshot.images.adapt import adapt as adapt
    from fewshot.images.checked import CheckResult as CheckResult
    from fewshot.images.estimator_checks import check_image_estimator as check_image_estimator
    from fewshot.images.exporting.folder import export as export
    from fewshot.images.history import SavedVersion as SavedVersion
    from fewshot.images.image_classifier import FewShotImageClassifier as FewShotImageClassifier
    from fewshot.images.model import FewShotModel as FewShotModel
    from fewshot.images.suggesting.suggest import Suggestion as Suggestion
    from fewshot.images.tested import TestResult as TestResult
    from fewshot.learners.alpha_tim import AlphaTIMLearner as AlphaTIMLearner
    from fewshot.learners.base import Learner as Learner
    from fewshot.learners.bd_cspn import BDCSPNLearner as BDCSPNLearner
    from fewshot.learners.bpa import BPALearner as BPALearner
    from fewshot.learners.cosine_prototypical import CosinePrototypicalLearner as CosinePrototypicalLearner
    from fewshot.learners.discriminant import DiscriminantLearner as DiscriminantLearner
    from fewshot.learners.dn4 import DN4Learner as DN4Learner
    from fewshot.learners.feat import FEATLearner as FEATLearner
    from fewshot.learners.full_context import FullContextLearner as FullContextLearner
    from fewshot.learners.k_nearest import KNearestLearner as KNearestLearner
    from fewshot.learners.key_value_cache import KeyValueCacheLearner as KeyValueCacheLearner
    from fewshot.learners.laplacian_shot import LaplacianShotLearner as LaplacianShotLearner
    from fewshot.learners.lifelong import LifelongLearner as LifelongLearner
    from fewshot.learners.mahalanobis import MahalanobisLearner as MahalanobisLearner
    from fewshot.learners.matching import MatchingLearner as MatchingLearner
    from fewshot.learners.memory import Memory as Memory
    from fewshot.learners.memory import Statistics as Statistics
    from fewshot.learners.memory import sum_by_class as sum_by_class
    from fewshot.learners.multi_prototypical import MultiPrototypicalLearner as MultiPrototypicalLearner
    from fewshot.learners.mutual_nearest import MutualNearestLearner as MutualNearestLearner
    from fewshot.learners.oslo import OSLOLearner as OSLOLearner
    from fewshot.learners.paddle import PADDLELearner as PADDLELearner
    from fewshot.learners.prototypical import PrototypicalLearner as PrototypicalLearner
    from fewshot.learners.pt_map import PTMAPLearner as PTMAPLearner
    from fewshot.learners.registry import list_learners as list_learners
    from fewshot.learners.registry import register_learner as register_learner
    from fewshot.learners.relation import RelationLearner as RelationLearner
    from fewshot.learners.ridge import RidgeLearner as RidgeLearner
    from fewshot.learners.simpleshot import SimpleShotLearner as SimpleShotLearner
    from fewshot.learners.soft_k_means import SoftKMeansLearner as SoftKMeansLearner
    from fewshot.retrieval.annotate import annotate as annotate
    from fewshot.retrieval.reclassify import reclassify as reclassify
    from fewshot.retrieval.remote import RemoteModel as RemoteModel
    from fewshot.retrieval.retrieve import retrieve as retrieve
    from fewshot.retrieval.stores.base import Store as Store
    from fewshot.retrieval.stores.faiss import FaissStore as FaissStore
    from fewshot.retrieval.stores.memory import StoredMemory as StoredMemory
    from fewshot.retrieval.stores.pgvector import PgVectorStore as PgVectorStore
    from fewshot.retrieval.stores.qdrant import QdrantStore as QdrantStore
    from fewshot.retrieval.stores.records import Record as Record
    from fewshot.retrieval.table import export_store as export_store
    from fewshot.retrieval.table import import_records as import_records
    from fewshot.search.index import PrototypeIndex as PrototypeIndex
    from fewshot.search.similarity import pairwise_similarity as pairwise_similarity
    from fewshot.training.config import TrainConfig as TrainConfig
    from fewshot.training.trainer import MetaTrainer as MetaTrainer


_HOME = {
    "BDCSPNLearner": "learners.bd_cspn",
    "Chain": "data.augment",
    "CheckResult": "images.checked",
    "ConfusionDisplay": "displays.confusion",
    "CosinePrototypicalLearner": "learners.cosine_prototypical",
    "Distortion": "data.augment",
    "DiscriminantClassifier": "classifiers.methods",
    "DiscriminantLearner": "learners.discriminant",
    "DN4Learner": "learners.dn4",
    "Domain": "embedding.domain",
    "Embedder": "embedding.embedder",
    "EmbeddingDisplay": "displays.embedding_map",
    "Episode": "episodes.episode",
    "EpisodeSampler": "episodes.balanced_sampler",
    "EvalResult": "episodes.evaluate",
    "FEATLearner": "learners.feat",
    "FaissStore": "retrieval.stores.faiss",
    "FewShotClassifier": "classifiers.any_learner",
    "FewShotImageClassifier": "images.image_classifier",
    "FewShotModel": "images.model",
    "FullContextLearner": "learners.full_context",
    "Grid": "benchmark.grid_file",
    "GroupedEpisodeSampler": "episodes.grouped_sampler",
    "KNearestClassifier": "classifiers.methods",
    "KNearestLearner": "learners.k_nearest",
    "KeyValueCacheClassifier": "classifiers.methods",
    "KeyValueCacheLearner": "learners.key_value_cache",
    "LabeledImages": "data.images",
    "AlphaTIMLearner": "learners.alpha_tim",
    "BPALearner": "learners.bpa",
    "LaplacianShotLearner": "learners.laplacian_shot",
    "Learner": "learners.base",
    "LifelongClassifier": "classifiers.methods",
    "LifelongLearner": "learners.lifelong",
    "Light": "data.augment",
    "MahalanobisClassifier": "classifiers.methods",
    "MahalanobisLearner": "learners.mahalanobis",
    "MatchingClassifier": "classifiers.methods",
    "MatchingLearner": "learners.matching",
    "Memory": "learners.memory",
    "MetaTrainer": "training.trainer",
    "Mirror": "data.augment",
    "MultiPrototypicalClassifier": "classifiers.methods",
    "MultiPrototypicalLearner": "learners.multi_prototypical",
    "MutualNearestLearner": "learners.mutual_nearest",
    "NeighboursDisplay": "displays.neighbours",
    "OSLOLearner": "learners.oslo",
    "PADDLELearner": "learners.paddle",
    "OwnEmbedder": "embedding.own",
    "PTMAPLearner": "learners.pt_map",
    "PgVectorStore": "retrieval.stores.pgvector",
    "PrototypeIndex": "search.index",
    "PrototypicalClassifier": "classifiers.methods",
    "PrototypicalLearner": "learners.prototypical",
    "QdrantStore": "retrieval.stores.qdrant",
    "Record": "retrieval.stores.records",
    "Rejection": "classifiers.rejection",
    "RelationLearner": "learners.relation",
    "ReliabilityDisplay": "displays.reliability",
    "RemoteModel": "retrieval.remote",
    "RidgeFewShotClassifier": "classifiers.methods",
    "RidgeLearner": "learners.ridge",
    "SavedVersion": "images.history",
    "ShotsCurveDisplay": "displays.shots_curve",
    "SimpleShotClassifier": "classifiers.methods",
    "SimpleShotLearner": "learners.simpleshot",
    "SoftKMeansLearner": "learners.soft_k_means",
    "Statistics": "learners.memory",
    "Store": "retrieval.stores.base",
    "StoredMemory": "retrieval.stores.memory",
    "Suggestion": "images.suggesting.suggest",
    "TrainConfig": "training.config",
    "TestResult": "images.tested",
    "TransductiveClassifier": "classifiers.any_learner",
    "UnknownDisplay": "displays.unknowns",
    "VariedEpisodeSampler": "episodes.varied_sampler",
    "adapt": "images.adapt",
    "annotate": "retrieval.annotate",
    "check_image_estimator": "images.estimator_checks",
    "create_backbone": "embedding.backbones",
    "digits": "data.digits",
    "embed": "embedding.network",
    "evaluate": "episodes.evaluate",
    "export": "images.exporting.folder",
    "export_store": "retrieval.table",
    "glyphs": "data.glyphs",
    "import_records": "retrieval.table",
    "list_learners": "learners.registry",
    "load_learner": "embedding.checkpoint",
    "load_weights": "embedding.checkpoint",
    "mix": "data.mixture",
    "pairwise_similarity": "search.similarity",
    "reclassify": "retrieval.reclassify",
    "register_backbone": "embedding.backbones.registered",
    "register_learner": "learners.registry",
    "retrieve": "retrieval.retrieve",
    "run_benchmark": "benchmark.run_grid",
    "sum_by_class": "learners.memory",
    "tiles": "data.tiles",
}

#: Messages about what takes long or may surprise go to the loggers below this one; a program chooses what is shown.
logging.getLogger(__name__).addHandler(logging.NullHandler())

__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'fewshot' has no attribute {name!r}")
    try:
        value = getattr(importlib.import_module(f"fewshot.{_HOME[name]}"), name)
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("fewshot."):
            raise
        from fewshot.errors import DISTRIBUTION, MissingExtraError

        raise MissingExtraError(f"{name} is not in fewshot-runtime; run: pip install {DISTRIBUTION}") from None
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
