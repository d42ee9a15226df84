"""The checks hold for our classifier, and find what is wrong with others."""

import numpy as np
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.model_selection import GridSearchCV, cross_val_score

from fewshot import FewShotImageClassifier, MatchingLearner, PrototypicalLearner, check_image_estimator
from fewshot.images.estimator_checks import LABELS, containers, image_estimator_checks
from tests.photographs import quick_embedder

CHECKS = dict(image_estimator_checks())


def make(**params):
    return FewShotImageClassifier(quick_embedder(), PrototypicalLearner("cosine", 0.05), **params)


@pytest.mark.parametrize("name", CHECKS)
@pytest.mark.parametrize(
    "model", [make(), make(keep_support=False, on_error="skip", unknown_label=-1)], ids=["default", "lean"]
)
def test_our_classifier_passes(name, model):
    CHECKS[name](model)


class Forgetful(FewShotImageClassifier):
    """Answers each batch by its own standard."""

    def predict_proba(self, X):
        proba = super().predict_proba(X)
        return proba - proba.mean(0) + 0.5


class Careless(FewShotImageClassifier):
    """Takes any number of labels."""

    def fit(self, X, y=None, *, ids=None):
        n = min(len(X), len(y)) if hasattr(X, "__len__") else 1
        return super().fit(X[:n], y[:n])


class Numbering(FewShotImageClassifier):
    """Answers with numbers instead of labels."""

    def predict(self, X):
        return np.searchsorted(self.classes_, super().predict(X))


@pytest.mark.parametrize(
    ("kind", "name"),
    [(Forgetful, "order_does_not_matter"), (Careless, "mistakes_are_errors"), (Numbering, "labels_come_back")],
)
def test_what_is_wrong_is_found(kind, name):
    model = kind(quick_embedder(), PrototypicalLearner("cosine", 0.05))
    with pytest.raises(AssertionError):
        CHECKS[f"check_{name}"](model)
    with pytest.raises(AssertionError, match="^check_.*: "):
        check_image_estimator(model)


@pytest.mark.parametrize("name", ["array of images", "list of images", "series of strings", "array of paths"])
def test_it_works_in_scikit_learns_tools(name, tmp_path):
    X = containers(tmp_path)[name]
    learners = [PrototypicalLearner("cosine"), MatchingLearner()]
    search = GridSearchCV(make(), {"learner": learners}, cv=2, error_score="raise").fit(X, LABELS)
    assert search.best_score_ == 1.0
    assert (cross_val_score(make(), X, LABELS, cv=2) == 1).all()
    if not isinstance(X, list):  # scikit-learn asks for the shape of what it calibrates
        calibrated = CalibratedClassifierCV(make(), cv=2).fit(X, LABELS)
        assert calibrated.predict(X).tolist() == LABELS.tolist()
