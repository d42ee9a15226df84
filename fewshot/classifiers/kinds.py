"""Which kind of fitted model suits a learner and what it knows, and which form of embeddings."""

from __future__ import annotations

from typing import Any

from fewshot.classifiers.fitted import FittedModel
from fewshot.classifiers.live import LiveModel
from fewshot.classifiers.live_support import LiveSupport
from fewshot.learners.base import Learner
from fewshot.learners.discriminant import DiscriminantLearner
from fewshot.learners.local import of_maps
from fewshot.utils.discriminant import MOST_CLASSES

#: From this many classes on, or rows that are kept, copying all at each change takes longer than finding what changed.
LIVE_FROM = 500


def model_type(learner: Learner, n_classes: int, n_rows: int) -> type[FittedModel]:
    """Return the kind of model that suits a learner, a number of classes and one of support rows."""
    if learner.keys_by_class:
        return LiveSupport if n_rows >= LIVE_FROM else FittedModel
    taught = type(learner).memorize is DiscriminantLearner.memorize and n_classes > MOST_CLASSES
    return LiveModel if taught or (learner.means_are_keys and n_classes >= LIVE_FROM) else FittedModel


def lively(model: FittedModel) -> FittedModel:
    """Return a model as one of the kind that suits it."""
    kind = model_type(model.learner, model.n_classes, model.n_rows) if type(model) is FittedModel else FittedModel
    return model if kind is FittedModel else kind.of(model.learner, model.classes, model.n_support, model.statistics)


def rows_for(classifier: Any, X: Any) -> Any:
    """Return maps of features as rows if what a classifier has learned takes them; other embeddings as they are."""
    return of_maps(classifier.model_.learner, X)[1] if hasattr(classifier, "model_") else X
