"""What an estimator answers to labelled items, for displays: a model of images or a classifier of embeddings."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fewshot.images.model import FewShotModel


class Answered(NamedTuple):
    """Labelled items and the answers to them, all of shape (n,)."""

    true: NDArray[Any]
    predicted: NDArray[Any]
    probability: NDArray[np.floating]


def answered(estimator: Any, X: Any, y: Any = None) -> Answered:
    """Answer labelled items.

    Parameters
    ----------
    estimator : FewShotModel or classifier
        A fitted model of images or of other items, or any classifier of scikit-learn with ``predict_proba``.
    X : collection of n items, or LabeledImages
        Whatever `estimator` takes.
    y : array-like of shape (n,), optional
        Labels; omit if X holds them.

    Raises
    ------
    ValueError
        If `y` is missing.
    """
    if isinstance(estimator, FewShotModel):
        found = estimator.test(X, y, n_shown=0)
        return Answered(found.truth, found.predicted, found.probability)
    if y is None:
        raise ValueError("y is missing; give one label for each row of X")
    return Answered(np.asarray(y), np.asarray(estimator.predict(X)), np.asarray(estimator.predict_proba(X)).max(1))


def as_model(estimator: Any, what: str) -> FewShotModel:
    """Return a model of images or other items; raise for any other estimator, which cannot do `what`."""
    if not isinstance(estimator, FewShotModel):
        raise TypeError(
            f"{type(estimator).__name__} has no {what}; expected a FewShotImageClassifier or another FewShotModel"
        )
    return estimator
