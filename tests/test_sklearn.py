"""scikit-learn's own checks, all of them, over every estimator and every inductive learner."""

import numpy as np
import pytest
import sklearn
from sklearn import config_context
from sklearn.calibration import CalibratedClassifierCV
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import VotingClassifier
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_val_predict, cross_val_score, cross_validate
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import estimator_checks
from sklearn.utils.estimator_checks import check_estimator

from fewshot import (
    FewShotClassifier,
    FewShotImageClassifier,
    MatchingClassifier,
    PrototypicalClassifier,
    TransductiveClassifier,
    list_learners,
)
from fewshot.classifiers import methods
from fewshot.learners.registry import learner_class
from tests.photographs import LABELS, photos, quick_embedder


@pytest.fixture(autouse=True)
def _global_generators_are_left_alone():
    """Not here: scikit-learn's checks draw from numpy's global generator themselves."""


def all_estimators():
    """One of each classifier class, one for each inductive learner, and the variants that compute differently."""
    list_learners()
    classes = [kind for kind in vars(methods).values() if isinstance(kind, type) and "method" in vars(kind)]
    found = {name: learner_class(name) for name in list_learners()}
    inductive = [name for name, kind in found.items() if not kind.transductive and not kind.learned]
    variants = [
        PrototypicalClassifier("cosine", 0.1),
        PrototypicalClassifier("dot"),
        PrototypicalClassifier(index="faiss"),
        MatchingClassifier("sqeuclidean", index="faiss"),
        PrototypicalClassifier(on_error="unknown"),
    ]
    transductive = [TransductiveClassifier(name) for name, kind in found.items() if kind.transductive]
    return [c() for c in classes] + [FewShotClassifier(name) for name in inductive] + variants + transductive


def deviations(estimator):
    """The checks that cannot hold, with the reason."""
    if isinstance(estimator, TransductiveClassifier):
        return {
            "check_methods_subset_invariance": "answers depend on what else is asked: that is what transductive means"
        }
    if estimator._learner_type().ordered:
        return {
            "check_sample_weight_equivalence_on_dense_data": "what is remembered depends on the order of the support"
        }
    return {}


# Where queries with NaN get an answer on purpose, scikit-learn's demand for an error cannot hold.
STRICT = [e for e in all_estimators() if e.on_error == "raise"]


@pytest.mark.parametrize("estimator", STRICT, ids=repr)
def test_every_check_passes(estimator):
    """The traceback of the first that does not names it."""
    found = check_estimator(estimator, expected_failed_checks=deviations(estimator), on_skip=None)
    assert [one["status"] for one in found].count("passed") > 40


@pytest.mark.parametrize("estimator", STRICT, ids=repr)
@pytest.mark.parametrize("name", ["check_dataframe_column_names_consistency", "check_inplace_ensure_writeable"])
def test_the_checks_that_check_estimator_does_not_run(estimator, name):
    """Those of `set_output` and feature names out are for transformers, which these are not."""
    getattr(estimator_checks, name)(type(estimator).__name__, estimator)


def test_every_estimator_class_is_checked():
    checked = {type(e) for e in STRICT}
    assert {PrototypicalClassifier, MatchingClassifier, FewShotClassifier} <= checked


def test_it_works_in_a_pipeline_and_a_grid_search():
    from sklearn.datasets import load_digits

    X, y = load_digits(return_X_y=True)
    pipeline = make_pipeline(StandardScaler(), PrototypicalClassifier())
    search = GridSearchCV(pipeline, {"prototypicalclassifier__metric": ["cosine", "sqeuclidean"]}, cv=3)
    assert search.fit(X, y).best_score_ > 0.8


def test_a_grid_reaches_the_parameters_of_a_learner_that_is_given_by_name():
    X = np.random.default_rng(0).normal(size=(24, 4))
    names, temperatures = ["prototypical", "discriminant"], [0.1, 2.0]
    grid = {"learner": names, "learner__temperature": temperatures}
    search = GridSearchCV(FewShotClassifier(), grid, cv=2, scoring="neg_log_loss", error_score="raise")
    scores = search.fit(X, np.arange(24) % 3).cv_results_["mean_test_score"]
    assert len(set(scores.tolist())) == 4
    model = TransductiveClassifier("soft-k-means").set_params(learner__temperature=0.5)
    assert (model.learner.name, model.learner.temperature) == ("soft-k-means", 0.5)
    images = FewShotImageClassifier(quick_embedder(), "matching")
    assert images.set_params(learner__temperature=0.5).fit(*photos(2)).learner_.temperature == 0.5
    with pytest.raises(ValueError, match="learner is None, so learner__temperature cannot be set; give a learner"):
        FewShotImageClassifier().set_params(learner__temperature=0.5)


def test_metadata_reaches_the_step_that_asks_for_it():
    """Wrong labels of weight 0 do no harm, through a pipeline from images and a cross-validation."""
    images, labels = photos(8)
    wrong = [1, 5, 9, 13]
    mixed = [LABELS[1 - LABELS.index(label)] if i in wrong else label for i, label in enumerate(labels)]
    weight = np.array([0.0 if i in wrong else 1.0 for i in range(16)])
    with config_context(enable_metadata_routing=True):
        asks = PrototypicalClassifier().set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
        pipeline = make_pipeline(quick_embedder().set_output(transform="pandas"), asks)
        weighted = pipeline.fit(images, mixed, sample_weight=weight)
        clean = make_pipeline(quick_embedder().set_output(transform="pandas"), PrototypicalClassifier())
        kept = weight > 0
        clean.fit([image for image, keep in zip(images, kept, strict=True) if keep], np.array(labels)[kept])
        queries, _ = photos(3, seed=1)
        np.testing.assert_allclose(weighted.predict_proba(queries), clean.predict_proba(queries), rtol=1e-9)
        if tuple(map(int, sklearn.__version__.split(".")[:2])) < (1, 8):
            return  # before, cross_validate does not see what the steps of a pipeline ask for
        asked = {"params": {"sample_weight": weight}, "error_score": "raise", "return_estimator": True}
        found = cross_validate(pipeline, images, mixed, cv=2, **asked)
        learned = [fold[-1].model_.statistics.count.sum() for fold in found["estimator"]]
        assert sum(map(float, learned)) == weight.sum()


def test_groups_reach_the_splitter_beside_a_classifier_of_images():
    images, labels = photos(6)
    groups = np.tile([0, 1, 2], 4)
    model = FewShotImageClassifier(quick_embedder())
    with config_context(enable_metadata_routing=True):
        scores = cross_val_score(model, images, labels, cv=GroupKFold(3), params={"groups": groups})
    np.testing.assert_array_equal(scores, cross_val_score(model, images, labels, cv=GroupKFold(3), groups=groups))
    assert len(scores) == 3


INDUCTIVE = [
    (name, "auto") for name in list_learners() if not (learner_class(name).learned or learner_class(name).transductive)
]


@pytest.mark.parametrize(("name", "index"), [*INDUCTIVE, ("prototypical", "faiss"), ("k-nearest", "faiss")])
def test_what_stands_on_margins_gets_no_nan(name, index):
    """300 classes are more than FAISS proposes; one class in four has no support in some fold."""
    rng = np.random.default_rng(0)
    y = np.arange(600) % 300 if index == "faiss" else np.arange(60) % 4
    x = rng.normal(size=(len(y), 5)) + y[:, None] % 3
    model = FewShotClassifier(name, index=index)
    for method in ("sigmoid", "isotonic"):
        assert np.isfinite(CalibratedClassifierCV(model, method=method, cv=2).fit(x, y).predict_proba(x)).all()
    assert np.isfinite(cross_val_predict(model, x, y, cv=2, method="decision_function")).all()
    assert np.isfinite(cross_val_score(model, x, y % 2, cv=2, scoring="roc_auc", error_score="raise")).all()
    voting = VotingClassifier([("one", model), ("other", DummyClassifier())], voting="soft")
    assert np.isfinite(voting.fit(x, y).predict_proba(x)).all()
    assert np.isfinite(OneVsRestClassifier(model).fit(x, y % 3).decision_function(x)).all()


@pytest.mark.parametrize("name", [name for name, _ in INDUCTIVE])
@pytest.mark.parametrize("scale", [1.0, 1e6])
def test_a_class_without_support_and_an_invalid_row_have_finite_margins(name, scale):
    rng = np.random.default_rng(0)
    x, y = scale * rng.normal(size=(20, 5)), np.arange(20) % 2
    model = FewShotClassifier(name, on_error="unknown").partial_fit(x, y, classes=[0, 1, 2])
    margins = model.decision_function(np.vstack([x, np.full((1, 5), np.nan)]))
    assert np.isfinite(margins).all()
    assert (margins[:-1, 2] < margins[:-1, :2].max(1)).all()
    assert (margins[:-1, 2] <= margins[:-1, :2].min(1)).all()
    assert (margins[-1] == 0).all()
    np.testing.assert_array_equal(model.classes_[margins[:-1].argmax(1)], model.predict(x))
