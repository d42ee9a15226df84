"""What an estimator answers to labelled items, for displays: a model of images or a classifier of embeddings.

A pipeline, or a search over parameters, means what answers in the end: `ending` finds it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fewshot.data.images import LabeledImages
from fewshot.images.model import FewShotModel


class Ending(NamedTuple):
    """What answers in the end, and the items and labels that it is given; None where none are."""

    estimator: Any
    X: Any
    y: Any


class Answered(NamedTuple):
    """Labelled items and the answers to them, all of shape (n,); probabilities are NaN if the estimator has none."""

    true: NDArray[Any]
    predicted: NDArray[Any]
    probability: NDArray[np.floating]


def ending(estimator: Any, X: Any = None, y: Any = None) -> Ending:
    """Return the last step of a fitted pipeline, and X as the steps before make it; other estimators as they are.

    A search over parameters, such as ``GridSearchCV``, means its best estimator.

    Examples
    --------
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import FunctionTransformer
    >>> from fewshot import PrototypicalClassifier
    >>> pipeline = make_pipeline(FunctionTransformer(lambda X: [[2 * x] for x in X]), PrototypicalClassifier())
    >>> found = ending(pipeline.fit([1.0, 2.0], ["a", "b"]), [3.0], ["b"])
    >>> type(found.estimator).__name__, found.X, found.y
    ('PrototypicalClassifier', [[6.0]], ['b'])
    """
    if (best := getattr(estimator, "best_estimator_", None)) is not None:
        return ending(best, X, y)
    if not hasattr(estimator, "steps"):
        return Ending(estimator, X, y)
    X, y = _divided(X, y)
    if X is not None and len(estimator.steps) > 1:
        X = estimator[:-1].transform(X)
    return ending(estimator.steps[-1][1], X, y)


def _divided(X: Any, y: Any) -> tuple[Any, Any]:
    """Return the images and labels of `LabeledImages`; anything else as it is."""
    return (X.images, X.labels if y is None else y) if isinstance(X, LabeledImages) else (X, y)


def answered(estimator: Any, X: Any, y: Any = None) -> Answered:
    """Answer labelled items.

    Parameters
    ----------
    estimator : FewShotModel or classifier
        A fitted model of images or of other items, or any classifier of scikit-learn, also at the end of a pipeline.
    X : collection of n items, or LabeledImages
        Whatever `estimator` takes.
    y : array-like of shape (n,), optional
        Labels; omit if X holds them.

    Raises
    ------
    ValueError
        If `y` is missing.
    """
    last = ending(estimator).estimator
    if isinstance(last, FewShotModel):
        found = last.test(*ending(estimator, X, y)[1:], n_shown=0)
        return Answered(found.truth, found.predicted, found.probability)
    X, y = _divided(X, y)
    truth = needed(y)
    probability = (
        estimator.predict_proba(X).max(1) if hasattr(estimator, "predict_proba") else np.full(len(truth), np.nan)
    )
    return Answered(truth, np.asarray(estimator.predict(X)), np.asarray(probability))


def needed(y: Any) -> NDArray[Any]:
    """Return labels as an array; raise if there are none."""
    if y is None:
        raise ValueError("y is missing; give one label for each row of X")
    return np.asarray(y)


def check_probabilities(estimator: Any) -> None:
    """Raise `TypeError` unless an estimator, or the last step of a pipeline, has probabilities."""
    if not hasattr(estimator, "predict_proba"):
        name = type(ending(estimator).estimator).__name__
        raise TypeError(f"{name} has no predict_proba; expected a classifier with probabilities")


def as_model(estimator: Any, what: str) -> FewShotModel:
    """Return a model of images or other items; raise for any other estimator, which cannot do `what`."""
    estimator = ending(estimator).estimator
    if not isinstance(estimator, FewShotModel):
        raise TypeError(
            f"{type(estimator).__name__} has no {what}; expected a FewShotImageClassifier or another FewShotModel"
        )
    return estimator
