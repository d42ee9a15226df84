"""scikit-learn's own checks, all of them, over every estimator and every inductive learner."""

import pytest
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import estimator_checks
from sklearn.utils.estimator_checks import parametrize_with_checks

from fewshot import FewShotClassifier, MatchingClassifier, PrototypicalClassifier, list_learners
from fewshot.estimator import BaseFewShotClassifier
from fewshot.registry import learner_class


@pytest.fixture(autouse=True)
def _global_generators_are_left_alone():
    """Not here: scikit-learn's checks draw from numpy's global generator themselves."""


def all_estimators():
    """One of each classifier class, one for each inductive learner, and the variants that compute differently."""
    list_learners()
    classes = [c for c in BaseFewShotClassifier.__subclasses__() if c is not FewShotClassifier]
    inductive = [name for name in list_learners() if not learner_class(name).transductive]
    variants = [
        PrototypicalClassifier("cosine", 0.1),
        PrototypicalClassifier("dot"),
        PrototypicalClassifier(index="faiss"),
        MatchingClassifier("sqeuclidean", index="faiss"),
        PrototypicalClassifier(on_invalid="unknown"),
    ]
    return [c() for c in classes] + [FewShotClassifier(name) for name in inductive] + variants


# Where queries with NaN get an answer on purpose, scikit-learn's demand for an error cannot hold.
STRICT = [e for e in all_estimators() if e.on_invalid == "raise"]


@parametrize_with_checks(STRICT)
def test_every_check_passes(estimator, check):
    check(estimator)


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
