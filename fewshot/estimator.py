"""What all few-shot classifiers share: fit, partial_fit, predict, nearest, in scikit-learn's manner."""

from __future__ import annotations

import copy
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from fewshot.calibration.mixin import CalibrationMixin
from fewshot.checks import (
    check_embeddings,
    check_labels,
    check_same_length,
    check_sample_weight,
    warn_if_look_alike,
    warn_of_zero_rows,
)
from fewshot.editing import EditingMixin
from fewshot.errors import UnknownNameError
from fewshot.fitted import FittedModel
from fewshot.isolation import isolated
from fewshot.learners.base import Learner
from fewshot.locks import one_at_a_time
from fewshot.pickling import VersionedPickle
from fewshot.ranking import argmax
from fewshot.snapshot import INDEXES
from fewshot.unknown import check_unknown, mark_unknown

ON_INVALID = ("raise", "unknown")


def _is_indexable(estimator: BaseFewShotClassifier) -> bool:
    if not estimator._learner_type().indexable:
        raise AttributeError(f"{estimator._learner_type().__name__} has no nearest keys: its score is its own")
    return True


class BaseFewShotClassifier(CalibrationMixin, EditingMixin, VersionedPickle, ClassifierMixin, BaseEstimator):
    """What all few-shot classifiers share; a subclass says which learner it stands on.

    Embeddings are compared in their own precision, float32 or float64 (integers count as float64); statistics are
    kept in float64, so support learned in any order or chunking equals one fit up to float64 rounding.

    Answers to float32 queries depend in their last digits on how many are asked at once, because matrix products of
    different sizes are summed up in different orders: similarities by up to 1e-6 of the product of the two lengths, and
    logits by that over the temperature. Of keys or classes that are closer to each other than that, either may be
    first. Float64 queries have eight more digits. `FewShotImageClassifier` sets ``steady``.

    Attributes
    ----------
    steady : bool
        Whether answers to float32 queries are the same to the last bit for whatever batch a query comes in, processor
        and number of threads; the products then take up to twice as long. False unless it is set.
    """

    steady = False
    _is_transductive = False  # whether all queries of a call are answered together

    def __init__(
        self,
        *,
        index: str = "auto",
        closed_set: bool = False,
        on_invalid: str = "raise",
        reject: float | str | None = None,
        unknown_label: object = None,
    ) -> None:
        self.index = index
        self.closed_set = closed_set
        self.on_invalid = on_invalid
        self.reject = reject
        self.unknown_label = unknown_label

    def _make_learner(self) -> Learner:
        raise NotImplementedError(f"{type(self).__name__} does not say which learner it stands on")

    def _learner_type(self) -> type[Learner]:
        return type(self._make_learner())

    # ---- learning ----------------------------------------------------------------------------------------------

    @one_at_a_time
    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Learn classes from labelled support embeddings, forgetting what was learned before.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Support embeddings: arrays, tensors, data frames of numbers, or a column of vectors, of any library.
        y : array-like of shape (n,)
            Labels: strings, integers or booleans, or members of an enumeration of these, in any container with an
            order. A string has at most 10,000 characters.
        sample_weight : array-like of shape (n,), optional
            Weights, at least 0.

        Returns
        -------
        self
            The fitted classifier.

        Raises
        ------
        ValueError
            If X, y or the weights cannot be learned from; the message says where.
        TypeError
            If labels mix types, or X is sparse.
        """
        return self._learn(X, y, None, sample_weight, old=None)

    @one_at_a_time
    def partial_fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        classes: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Learn more support, of known or of new classes, beside what is known.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Support embeddings.
        y : array-like of shape (n,)
            Labels; new ones are welcome unless ``closed_set=True``.
        classes : array-like of shape (n_classes,), optional
            Classes to register, also without support; one without support is never the answer.
        sample_weight : array-like of shape (n,), optional
            Weights, at least 0.

        Raises
        ------
        ValueError
            As for `fit`; also for a new class where ``closed_set=True``. The classifier is then unchanged.
        """
        return self._learn(X, y, classes, sample_weight, getattr(self, "model_", None))

    def adopt(self, model: FittedModel) -> Self:
        """Answer with a model that is there already: one read from a file, or a part of this one."""
        learned = {"model_": model, "classes_": model.classes, "n_support_": model.n_support}
        learned["n_features_in_"] = model.memory.keys.shape[-1]
        self.__dict__ = {**self.__dict__, **learned}  # in one step: `view` copies what belongs together
        return self

    def view(self, **params: Any) -> Self:
        """Return a copy of this moment that answers with other parameters; both share what was learned."""
        view = object.__new__(type(self))
        view.__dict__ = {**self.__dict__, **params}
        return view

    def check_parameters(self) -> None:
        """Raise for parameters with which nothing can be learned: before the work of embedding, not after it."""
        self._check_parameters()
        self._own_learner()

    def _check_parameters(self) -> None:
        if self.index not in INDEXES:
            raise UnknownNameError("index", self.index, INDEXES)
        if self.on_invalid not in ON_INVALID:
            raise UnknownNameError("on_invalid", self.on_invalid, ON_INVALID)

    @isolated()
    def _learn(self, X: Any, y: Any, classes: Any, sample_weight: Any, old: FittedModel | None) -> Self:
        self._check_parameters()
        name, learned = type(self).__name__, copy.copy(self)
        X = check_embeddings(learned, X, reset=old is None)
        y = check_labels(y, name, None if old is None else old.classes)
        check_same_length(X, y)
        weight = check_sample_weight(sample_weight, X)
        learner = self._learner_beside(old)
        if learner.metric == "cosine":
            warn_of_zero_rows(X)
        observed = np.unique(y)
        if classes is not None:
            observed = np.union1d(observed, check_labels(classes, name, observed))
        all_classes = observed if old is None else np.union1d(old.classes, observed)
        self._check_closed(all_classes, old)
        warn_if_look_alike(all_classes)
        self._check_unknown(all_classes, old)
        if old is None:
            learned.__dict__.pop("calibration_", None)
        learned.adopt(FittedModel.learn(learner, X, y, weight, all_classes, self.index, old))
        # All at once and at the end: where anything above fails, what was learned before still stands. Parameters may
        # have been set while this one learned.
        params = self.get_params(deep=False)
        self.__dict__ = {**learned.__dict__, **params}
        return self

    def _own_learner(self) -> Learner:
        learner = self._make_learner()
        if learner.transductive != self._is_transductive:
            kind, other = ("", "TransductiveClassifier") if learner.transductive else ("not ", "FewShotClassifier")
            raise TypeError(f"{type(learner).__name__} is {kind}transductive; use {other}")
        return learner

    def _learner_beside(self, old: FittedModel | None) -> Learner:
        """Return a learner of one's own, or the one that has learned already if it is still what is asked for."""
        learner = self._own_learner()
        if old is None:
            # A copy in double precision: the caller's learner may go on to be trained.
            return copy.deepcopy(learner).cpu().double().eval()
        if not old.learner.is_like(learner):
            raise ValueError(f"what was learned by {old.learner} cannot go on with {learner}; call fit to begin anew")
        return old.learner

    def _check_closed(self, classes: NDArray[Any], old: FittedModel | None, holder: str = "y holds") -> None:
        if self.closed_set and old is not None and len(classes) > len(old.classes):
            new = np.setdiff1d(classes, old.classes).tolist()
            raise ValueError(
                f"{holder} the new classes {new}, but closed_set=True; announce them in the first call, "
                "or set closed_set=False"
            )

    def _check_unknown(self, classes: NDArray[Any], old: FittedModel | None) -> None:
        """Refuse, before anything is changed, classes that could not be told from the answer to unknown queries."""
        if self.on_invalid == "unknown" or self.reject is not None:
            check_unknown(self.unknown_label, classes, None if old is None else old.classes)

    # ---- answering ---------------------------------------------------------------------------------------------

    def served(self, X: NDArray[np.floating]) -> FittedModel:
        """Return the model that answers queries `X`, with the index that is set now."""
        return self.model_.served(self.index, self.steady and X.dtype == np.float32)

    @isolated()
    def decision_function(self, X: ArrayLike) -> NDArray[np.floating]:
        """Return the logits of queries: similarity / temperature, summed up for each class.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Queries.

        Returns
        -------
        ndarray of shape (n, n_classes), or (n,) for two classes
            Logits, all finite: a class without support lies below all others, for k-nearest one without votes by the
            logarithm of 100 n_classes below the largest, and for an invalid row all classes have 0. For two classes,
            the logit of the second minus that of the first.
        """
        model, X, unknown = self._check_queries(X)
        model.check_room(X)
        logits = self._rounded(model.map_logits(X, lambda logits: model.learner.margins(logits).numpy()), X)
        logits[unknown] = 0
        return logits if len(model.classes) != 2 else logits[:, 1] - logits[:, 0]

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return the class of each query: the one with the largest logit, among equals the first.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Queries.

        Returns
        -------
        ndarray of shape (n,)
            Labels as they were given; the unknown label for rows that are invalid where ``on_invalid="unknown"``, and
            for those whose score lies below the threshold of `reject`.
        """
        now = self.view()  # the calibration and the model of one moment
        threshold = now._threshold()
        model, X, unknown = now._check_queries(X)
        if threshold is None:
            codes = model.map_logits(X, argmax)
        else:
            codes, scores = model.classify(X)
            unknown |= ~(scores >= threshold)
        return mark_unknown(model.classes[codes], unknown, now.unknown_label, model.classes)

    @isolated()
    def predict_log_proba(self, X: ArrayLike) -> NDArray[np.floating]:
        """Return the logarithms of `predict_proba`, computed without passing through the probabilities."""
        log_proba, X = self._log_proba(X)
        return self._rounded(log_proba, X)

    def _log_proba(self, X: Any) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
        """Return log-probabilities in the precision in which they were computed, and the checked queries."""
        now = self.view()
        model, X, unknown = now._check_queries(X)
        model.check_room(X)
        temperature = now._temperature()
        log_proba = model.map_logits(X, lambda logits: (logits / temperature).log_softmax(-1).numpy())
        supported = model.statistics.count.numpy() > 0
        with np.errstate(divide="ignore"):
            log_proba[unknown] = np.log(supported / supported.sum())
        return log_proba, X

    @isolated()
    def predict_proba(self, X: ArrayLike) -> NDArray[np.floating]:
        """Return the softmax of the logits, divided by the temperature that `calibrate` has found, if it was called.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Queries.

        Returns
        -------
        ndarray of shape (n, n_classes)
            Probabilities; 0 for a class without support, uniform for an invalid row. They are those of the known
            classes, also for a query that is rejected.
        """
        log_proba, X = self._log_proba(X)
        proba = np.exp(log_proba)
        return self._rounded(proba / proba.sum(-1, keepdims=True), X)

    def score(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """Return the share of queries (n, d) that are answered with their labels (n,), in any container."""
        labels = check_labels(y, type(self).__name__)
        weight = None if sample_weight is None else check_sample_weight(sample_weight, labels)
        return super().score(X, labels, weight)

    @available_if(_is_indexable)
    def nearest(self, X: ArrayLike, k: int = 1) -> tuple[NDArray[Any], NDArray[np.floating]]:
        """Return the nearest keys: prototypes, or support embeddings where the learner keeps them.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Queries.
        k : int, default=1
            How many.

        Returns
        -------
        labels : ndarray of shape (n, k)
            Classes of the keys, nearest first; among equals the key that comes first (prototypes in the order of
            their classes, support as it was learned).
        similarities : ndarray of shape (n, k)
            Their similarities; higher is closer.

        Raises
        ------
        ValueError
            If k is not in 1..number of keys.
        """
        model, X, unknown = self._check_queries(X)
        labels, similarities = model.nearest(X, k)
        similarities = self._rounded(similarities, X)
        similarities[unknown] = -np.inf
        return mark_unknown(labels, unknown, self.unknown_label, model.classes), similarities

    def _check_queries(self, X: Any) -> tuple[FittedModel, NDArray[Any], NDArray[np.bool_]]:
        now = self.view()
        check_is_fitted(now)
        now._check_parameters()
        X = check_embeddings(now, X, reset=False, finite=now.on_invalid != "unknown", min_samples=0)
        model, unknown = now.served(X), np.zeros(len(X), np.bool_)
        if now.on_invalid == "unknown":
            unknown = ~np.isfinite(X).all(1)
            X = np.where(unknown[:, None], X.dtype.type(0), X)
        if model.learner.metric == "cosine":
            warn_of_zero_rows(X[~unknown])
        return model, X, unknown

    def _rounded(self, values: NDArray[np.floating], X: NDArray[np.floating]) -> NDArray[np.floating]:
        """Return what was computed in float64 in the precision of the queries, where `steady`.

        Not all learners compare by products that are exact: float64 differs in its last bit, which the rounding hides.
        """
        return values.astype(X.dtype, copy=False) if self.steady else values
