"""The base class of the scikit-learn estimators: fit, partial_fit, predict, nearest, editing and calibration."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import DataConversionWarning
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from fewshot.classifiers.calibration import FALSE_ACCEPTS
from fewshot.classifiers.chunks import learn_chunks
from fewshot.classifiers.clashes import check_classes, marked, telling_labels
from fewshot.classifiers.conformal import predict_sets
from fewshot.classifiers.fitted import FittedModel, log_softmax
from fewshot.classifiers.kinds import lively, model_type, rows_for
from fewshot.classifiers.reject_rule import RejectRule, asked_of
from fewshot.classifiers.rejection import Rejection, check_rate
from fewshot.learners.base import Learner, parameter_names
from fewshot.learners.columns import warn_of_rows
from fewshot.learners.local import of_maps
from fewshot.search.similarity import check_k
from fewshot.search.snapshot import INDEXES
from fewshot.utils.isolation import isolated
from fewshot.utils.labels import as_labels, unknown_mark
from fewshot.utils.locks import one_at_a_time
from fewshot.utils.pickling import VersionedPickle
from fewshot.utils.values import (
    ON_ERROR,
    check_embeddings,
    check_name,
    check_same_length,
    check_sample_weight,
    skip_bad_rows,
)

#: What `calibrate` sets, and `fit` drops.
TAUGHT = ("calibration_", "background_")


def _is_indexable(estimator: BaseFewShotClassifier) -> bool:
    if not estimator._learner_type().indexable:
        raise AttributeError(f"{estimator._learner_type().__name__} has no nearest keys, because it overrides score")
    return True


@dataclass(eq=False, repr=False, kw_only=True)
class BaseFewShotClassifier(VersionedPickle, ClassifierMixin, BaseEstimator):
    """The base class of all few-shot classifiers of embeddings.

    A subclass names its learner as ``method`` and lists the learner's parameters as dataclass fields. ``{shared}`` in
    its docstring is replaced by the documentation of the shared parameters below.

    Embeddings are compared in their own precision, float32 or float64 (integers become float64). Statistics are kept in
    float64, so learning support in any order or chunking equals one fit up to float64 rounding.

    The last digits of answers to float32 queries depend on the number of queries per call, because matrix products of
    different sizes sum in different orders. Similarities vary by up to 1e-6 of the product of the two lengths, and
    logits by that over the temperature; either of two closer keys or classes may come first. Float64 queries have eight
    more digits. `FewShotImageClassifier` sets ``steady``.

    Parameters
    ----------
    index : {"auto", "exact", "faiss", "ivf", "hnsw"}, default="auto"
        How `predict` and `nearest` find the nearest keys (prototypes or support embeddings); see `PrototypeIndex`. Of
        keys that an index proposes, `predict` reads 256. Logits and probabilities always come from all keys. ``auto``
        is exact if classes have several keys.
    closed_set : bool, default=False
        Whether `partial_fit` refuses classes that the first call did not pass.
    on_error : {"raise", "skip", "unknown"}, default="raise"
        What to do with rows that hold NaN or infinity. ``raise`` raises an error. ``skip`` leaves such support out,
        with a warning, and answers such queries with `unknown_label`. ``unknown`` raises for support and answers
        queries with `unknown_label`.
    reject : float or str, optional
        Which queries are answered with `unknown_label`; by default none. A number is the least similarity to the
        nearest key. "5%" is a threshold that accepts 5 % of the queries of unknown classes, "auto" the rate given to
        `calibrate`, or else 5 %, and "balanced" accepts as large a part of the unknown as it rejects of the known; see
        `rejection`.
    unknown_label : object, optional
        The answer to unknown queries; by default ``"unknown"`` for string labels and -1 for integers.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Sorted class labels.
    n_support_ : ndarray of shape (n_classes,)
        Number of support rows of each class; in a bounded memory, those that it still holds.
    n_features_in_ : int
        Embedding length.

    Notes
    -----
    Learning, renaming and removing cost what they change, however much is known, if the keys of a class follow from its
    own support: prototypes, several prototypes, matching and k-nearest; and for the default learner beyond 1024
    classes, if what teaches its metric stays. Answers of other learners need all classes, and so does a change.

    Parameters set after fitting: ``index``, ``on_error``, ``reject`` and ``unknown_label`` take effect at once,
    ``closed_set`` at the next `partial_fit`, and all others at the next `fit`; until then `partial_fit` raises.
    """

    #: Class of the estimator's learner.
    method: ClassVar[type[Learner]]
    #: Whether answers to float32 queries are equal to the last bit for every batch size, processor and number of
    #: threads; products then take up to twice as long.
    steady = False
    _is_transductive = False  # whether all queries of a call are answered together
    # Parameters only of estimators whose learners can use them.
    index = "auto"
    on_error = "raise"

    closed_set: bool = False
    reject: float | str | None = None
    unknown_label: object = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        shared = (BaseFewShotClassifier.__doc__ or "").partition("    ----------\n")[2].rstrip() + "\n"
        cls.__doc__ = (cls.__doc__ or "").replace("    {shared}\n", shared)

    def _make_learner(self) -> Learner:
        names = parameter_names(self.method)
        return self.method(**{name: getattr(self, name) for name in names if hasattr(self, name)})

    def _learner_type(self) -> type[Learner]:
        return self.method

    # ---- learning ----------------------------------------------------------------------------------------------

    @one_at_a_time
    def fit(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None, *, reject_examples: Any = None
    ) -> Self:
        """Learn classes from labelled support embeddings, and forget what was learned before.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Support embeddings: an array, tensor, data frame of numbers or column of vectors, from any library.
        y : array-like of shape (n,)
            Labels: strings of at most 10,000 characters, integers, booleans, or members of an enumeration of these, in
            any ordered container.
        sample_weight : array-like of shape (n,), optional
            Weights, at least 0.
        reject_examples : array-like of shape (m, d), optional
            Embeddings of "none of these", without labels, for `reject`; see `calibrate`.

        Returns
        -------
        self
            The fitted classifier.

        Raises
        ------
        ValueError
            If X, y or the weights are invalid; the message says where.
        TypeError
            If labels mix types, or X is sparse.
        """
        return self._learn(X, y, None, sample_weight, None, reject_examples)

    @one_at_a_time
    def partial_fit(
        self,
        X: ArrayLike | Iterator[Any],
        y: ArrayLike | None = None,
        classes: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Learn more support of known or new classes.

        Parameters
        ----------
        X : array-like of shape (n, d), or iterator of (X, y) or (X, y, sample_weight)
            Support embeddings; or, without y, chunks of support, of which one at a time is in memory: all are learned,
            or none if one of them is invalid. To learn chunk by chunk, call this for each, as with scikit-learn.
        y : array-like of shape (n,)
            Labels; new classes are accepted unless ``closed_set=True``.
        classes : array-like of shape (n_classes,), optional
            Classes to register, even without support; a class without support is never predicted.
        sample_weight : array-like of shape (n,), optional
            Weights, at least 0.

        Raises
        ------
        ValueError
            As for `fit`, and for a new class if ``closed_set=True``. The classifier is then unchanged.

        Examples
        --------
        >>> from fewshot import PrototypicalClassifier
        >>> chunks = (([[float(i), 0.0]], [f"class {i}"]) for i in range(3))
        >>> PrototypicalClassifier().partial_fit(chunks).predict([[2.1, 0.0]]).tolist()
        ['class 2']
        """
        if y is not None or sample_weight is not None or not isinstance(X, Iterator):
            return self._learn(X, y, classes, sample_weight, getattr(self, "model_", None))
        self.__dict__ = {**learn_chunks(self.view(), X, classes).__dict__, **self.get_params(deep=False)}
        return self

    def adopt(self, model: FittedModel) -> Self:
        """Answer with the given model, for example one that was loaded from a file."""
        # In one step, so that a concurrent `view` is consistent.
        self.__dict__ = {**self.__dict__, "model_": lively(model), "n_features_in_": model.d}
        return self

    @property
    def classes_(self) -> NDArray[Any]:
        """Sorted class labels, (n_classes,)."""
        check_is_fitted(self)
        return self.model_.classes

    @property
    def n_support_(self) -> NDArray[np.int64]:
        """Number of support rows of each class, (n_classes,); in a bounded memory, those that it still holds."""
        check_is_fitted(self)
        return self.model_.n_support

    def view(self, **params: Any) -> Self:
        """Return a shallow copy with different parameters; both share the fitted model."""
        view = object.__new__(type(self))
        view.__dict__ = {**self.__dict__, **params}
        return view

    def check_parameters(self) -> None:
        """Raise for invalid parameters, before any costly work such as embedding."""
        self._check_parameters()
        self._checked_learner()

    def _check_parameters(self) -> None:
        check_name("index", self.index, INDEXES)
        check_name("on_error", self.on_error, ON_ERROR)
        if self.reject is not None:
            asked_of(self.reject)

    @isolated()
    def _learn(
        self, X: Any, y: Any, classes: Any, sample_weight: Any, old: FittedModel | None, reject_examples: Any = None
    ) -> Self:
        self._check_parameters()
        learned, finite, known = self.view(), self.on_error != "skip", None if old is None else old.some_classes
        learner, X = of_maps(self._checked_learner(), X, warns=True)
        X, y, weight = learned._check_support(X, y, sample_weight, known, reset=old is None, finite=finite)
        if not finite:
            X, y, weight = skip_bad_rows(X, y, weight)
        learner = self._learner_for(old, learner)
        observed = np.unique(y)
        warn_of_rows(X, learner, first=old is None and len(observed) > 1)
        if classes is not None:
            observed = np.union1d(observed, self._check_labels(classes, observed))
        check_classes(self, observed, old)
        if old is None:
            learned.clear_calibration()
        kind = model_type(learner, len(observed), len(X))
        learned.adopt(kind.learn(learner, X, y, weight, observed, old))
        if old is None:
            learned.model_.warn_if_sharp()
        if reject_examples is not None:
            learned.calibrate(reject_examples=reject_examples)
        # In one step at the end, so that a failure above changes nothing. Parameters set meanwhile are kept.
        self.__dict__ = {**learned.__dict__, **self.get_params(deep=False)}
        return self

    def _check_labels(self, y: Any, known: NDArray[Any] | None = None) -> NDArray[Any]:
        if y is None:  # in the words that scikit-learn's checks expect
            raise ValueError(f"This {type(self).__name__} estimator requires y to be passed, but the target y is None.")
        return as_labels(y, known=known, warning=DataConversionWarning)

    def _check_support(
        self, X: Any, y: Any, sample_weight: Any, known: NDArray[Any] | None, **how: bool
    ) -> tuple[NDArray[np.floating], NDArray[Any], NDArray[np.float64]]:
        """Return support, labels of the type of the `known` ones, and weights; `how` goes to `check_embeddings`."""
        X = check_embeddings(self, rows_for(self, X), **how)
        y = self._check_labels(y, known)
        check_same_length(X, y)
        return X, y, check_sample_weight(sample_weight, X)

    def _checked_learner(self) -> Learner:
        learner = self._make_learner()
        if learner.transductive != self._is_transductive:
            kind, other = ("", "TransductiveClassifier") if learner.transductive else ("not ", "FewShotClassifier")
            raise TypeError(f"{type(learner).__name__} is {kind}transductive; use {other}")
        return learner

    def _learner_for(self, old: FittedModel | None, learner: Learner) -> Learner:
        """Return the old model's learner if it is as `learner`, else raise; without an old model, a copy of it."""
        if old is None:
            # A copy in double precision, because the caller may train the learner further.
            return copy.deepcopy(learner).cpu().double().eval()
        if not old.learner.is_like(learner):
            raise ValueError(f"cannot continue what {old.learner} learned with {learner}; call fit to start again")
        return old.learner

    # ---- editing -----------------------------------------------------------------------------------------------

    @one_at_a_time
    def remove_class(self, label: Any) -> Self:
        """Forget a class and all its support, as if it had never been learned.

        Parameters
        ----------
        label : object
            One of ``classes_``.

        Raises
        ------
        ValueError
            If the class does not exist or is the only one. The classifier is then unchanged.
        """
        check_is_fitted(self)
        return self.adopt(self.model_.without(label))

    @one_at_a_time
    def remove(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None, *, drop_empty: bool = True
    ) -> Self:
        """Forget some of the support, as if it had never been learned.

        The result equals learning only the remaining support, within 1e-12 of the sum of absolute values. A method that
        keeps its support (Matching Networks) refuses rows that it has not learned. A method that keeps class sums
        (prototypes) cannot tell rows apart. It refuses more rows or more weight than a class has, and last rows that do
        not add up to the rest of the class sum; wrong rows go unnoticed as long as the class keeps some.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Support embeddings that were learned.
        y : array-like of shape (n,)
            Their labels.
        sample_weight : array-like of shape (n,), optional
            Their weights when they were learned.
        drop_empty : bool, default=True
            Whether classes without remaining support are forgotten; otherwise they stay in ``classes_`` and are never
            the answer.

        Raises
        ------
        ValueError
            If a class is unknown or has fewer rows, the rows are not those that were learned (see above), or nothing
            would remain. The classifier is then unchanged.

        Examples
        --------
        >>> from fewshot import PrototypicalClassifier
        >>> model = PrototypicalClassifier().fit([[0.0], [4.0], [1.0]], ["a", "a", "b"])
        >>> model.remove([[4.0]], ["a"]).nearest([[0.0]])[1]
        array([[0.]])
        """
        check_is_fitted(self)
        X, y, weight = self._check_support(X, y, sample_weight, self.model_.some_classes, reset=False)
        return self.adopt(self.model_.less(X, y, weight, drop_empty))

    @one_at_a_time
    def rename_class(self, old: Any, new: Any) -> Self:
        """Give a class another label.

        Parameters
        ----------
        old : object
            One of ``classes_``.
        new : object
            An unused label of the same type.

        Raises
        ------
        ValueError
            If there is no class `old`, or `new` is a class already or the unknown label. The classifier is then
            unchanged.
        TypeError
            If the type of `new` differs from that of the other labels.

        Examples
        --------
        >>> from fewshot import PrototypicalClassifier
        >>> PrototypicalClassifier().fit([[0.0], [1.0]], ["a", "b"]).rename_class("a", "cat").classes_
        array(['b', 'cat'], dtype='<U3')
        """
        check_is_fitted(self)
        given = self._check_labels([new], self.model_.some_classes)
        (label,) = given.tolist()
        if old != new and self.model_.known_among([label]):
            raise ValueError(f"{new!r} is a class already; choose another label")
        renamed = self.model_.renamed(old, label)
        check_classes(self, given, self.model_, after=renamed)
        return self.adopt(renamed)

    @one_at_a_time
    def merge(self, other: Self) -> Self:
        """Learn everything that another classifier has learned, as if from its support.

        Parameters
        ----------
        other : classifier
            A classifier with the same learner and embeddings; it is not changed.

        Raises
        ------
        ValueError
            If the learners or the embedding lengths differ, the other classifier has new classes and
            ``closed_set=True``, or one of its classes is the answer to unknown queries here. The classifier is then
            unchanged.
        TypeError
            If the label types differ.

        Examples
        --------
        >>> from fewshot import PrototypicalClassifier
        >>> one, two = PrototypicalClassifier(), PrototypicalClassifier()
        >>> one.fit([[0.0]], ["a"]).merge(two.fit([[1.0], [5.0]], ["a", "b"])).nearest([[5.0]], 2)[1]
        array([[  0.  , -20.25]])
        """
        check_is_fitted(self)
        check_is_fitted(other)
        mine, theirs = self.model_, other.model_
        mine.check_mergeable(theirs)
        added = self._check_labels(theirs.classes, mine.some_classes)
        check_classes(self, added, mine, "the other classifier has")
        rule = self.reject_rule().joined(other.reject_rule())
        self.adopt(mine.merged(theirs)).__dict__.update(rule.taught())
        return self

    # ---- answering ---------------------------------------------------------------------------------------------

    @property
    def learner_(self) -> Learner:
        """The learner that answers, on the CPU and in double precision."""
        return self.model_.learner

    def served(self, X: NDArray[np.floating]) -> FittedModel:
        """Return the model that answers queries `X` through the current ``index``."""
        return self.model_.served(self.index, self.steady and X.dtype == np.float32)

    @isolated()
    def decision_function(self, X: ArrayLike) -> NDArray[np.floating]:
        """Return the logits of queries.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Queries.

        Returns
        -------
        ndarray of shape (n, n_classes), or (n,) for two classes
            Finite logits. A class without support lies below all others; for k-nearest, a class without votes lies
            log(100 n_classes) below the largest. Invalid rows have 0 for all classes. For two classes, the logit of the
            second minus that of the first.
        """
        model, X, unknown = self._check_queries(X)
        model.check_room(X)
        logits = self._rounded(model.map_logits(X, lambda logits: model.learner.margins(logits).numpy()), X)
        logits[unknown] = 0
        return logits if len(model.classes) != 2 else logits[:, 1] - logits[:, 0]

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return the class of each query, the one with the largest logit; ties go to the first.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Queries.

        Returns
        -------
        ndarray of shape (n,)
            Labels as they were given; the unknown label for invalid rows unless ``on_error="raise"``, and for queries
            whose score is below the threshold of `reject`.
        """
        now = self.view()  # a consistent pair of calibration and model
        model, X, unknown = now._check_queries(X)
        codes, refused = now.reject_rule().answer(model, X)
        return marked(model.names(codes), unknown | refused, now.unknown_label, model)

    @isolated()
    def predict_log_proba(self, X: ArrayLike) -> NDArray[np.floating]:
        """Return the logarithms of `predict_proba`, computed in log space."""
        return self._rounded(*self._log_proba(X))

    def _log_proba(self, X: Any) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
        """Return log-probabilities, in the precision of the computation, and the checked queries."""
        now = self.view()
        model, X, unknown = now._check_queries(X)
        return model.log_proba(X, unknown, now.proba_temperature()), X

    @isolated()
    def predict_proba(self, X: ArrayLike) -> NDArray[np.floating]:
        """Return the softmax of the logits, divided by the temperature of `calibrate` if it was called.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Queries.

        Returns
        -------
        ndarray of shape (n, n_classes)
            Probabilities of the known classes, also for rejected queries; 0 for classes without support, uniform for
            invalid rows.
        """
        return self._proba(*self._log_proba(X))

    def _proba(self, log_proba: NDArray[np.floating], X: NDArray[np.floating]) -> NDArray[np.floating]:
        return self._rounded((proba := np.exp(log_proba)) / proba.sum(-1, keepdims=True), X)

    @isolated()
    def predict_with_proba(self, X: ArrayLike) -> tuple[NDArray[Any], NDArray[np.floating]]:
        """Return what `predict` and `predict_proba` do, in one pass unless an index answers one of them.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Queries.

        Returns
        -------
        labels : ndarray of shape (n,)
            Classes, or the unknown label.
        proba : ndarray of shape (n, n_classes)
            Probabilities of the known classes.

        Examples
        --------
        >>> from fewshot import PrototypicalClassifier
        >>> labels, proba = PrototypicalClassifier().fit([[0.0], [5.0]], ["a", "b"]).predict_with_proba([[1.0]])
        >>> labels.tolist(), proba.round(3).tolist()
        (['a'], [[0.992, 0.008]])
        """
        now = self.view()
        model, X, unknown = now._check_queries(X)
        codes, refused, found = now.reject_rule().answer_with(model, X, log_softmax(now.proba_temperature()))
        proba = now._proba(model.with_even_choice(found, unknown), X)
        return marked(model.names(codes), unknown | refused, now.unknown_label, model), proba

    @isolated()
    def predict_top(self, X: ArrayLike, k: int = 5) -> tuple[NDArray[Any], NDArray[np.floating]]:
        """Return the likeliest classes of each query, with the probabilities that `predict_proba` has for them.

        For many classes: of `n` queries nothing of the size (n, n_classes) is kept. Each query is compared with every
        class, since the probability of one depends on all.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Queries.
        k : int, default=5
            Number of classes.

        Returns
        -------
        labels : ndarray of shape (n, k)
            Labels, likeliest first; the unknown label for invalid rows. `reject` has no part in it.
        probabilities : ndarray of shape (n, k)
            Their probabilities; 0 for invalid rows.

        Raises
        ------
        ValueError
            If k is not in 1..number of classes.

        Examples
        --------
        >>> from fewshot import PrototypicalClassifier
        >>> model = PrototypicalClassifier(temperature=1.0).fit([[0.0], [1.0], [9.0]], ["a", "b", "c"])
        >>> labels, probabilities = model.predict_top([[1.0]], k=2)
        >>> labels.tolist(), probabilities.round(2).tolist()
        ([['b', 'a']], [[0.73, 0.27]])
        """
        now = self.view()
        model, X, unknown = now._check_queries(X)
        check_k(k, model.n_classes, "classes")
        labels, proba = model.top(X, k, now.proba_temperature())
        return marked(labels, unknown, now.unknown_label, model), self._rounded(np.where(unknown[:, None], 0, proba), X)

    def predict_set(
        self,
        X: ArrayLike,
        coverage: float = 0.9,
        *,
        by_class: bool = False,
        held_out: Any = None,
    ) -> list[list[Any]]:
        """Return for each query a set of classes that holds the right one as often as promised.

        The promise is for queries like the rows it rests on, in the same shares of the classes. An empty set means that
        no class fits: the query is unknown. `reject` has no part in it.

        A class is in the set if its probability is at least that of the right class in all but the fraction
        1 - `coverage` of the answers to rows that had not been learned. By default these are rows of the support, each
        left out in turn; the learner must keep them. Since answers get better with the row that is left out, a miss
        counts less, by a power of the number of rows that was chosen by measuring; ``benchmarks/coverage.py`` shows how
        well the promise is kept. With `held_out` rows it is exact.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Queries.
        coverage : float, default=0.9
            How often the set is to hold the right class; above 0 and below 1. 0.8 needs 4 rows that had not been
            learned, 0.9 needs 9, and 0.95 needs 19.
        by_class : bool, default=False
            Whether to promise it for each class instead of their mean. Classes with fewer rows than that share the
            promise for the mean, with a warning.
        held_out : (X, y), optional
            Labelled embeddings that were not learned, to compare with instead of the support.

        Returns
        -------
        list of n lists
            Labels, likeliest first; empty for invalid rows.

        Raises
        ------
        ValueError
            If there are too few rows, such as one of each class, or the learner keeps no support.
        TypeError
            If the learner is transductive.

        References
        ----------
        M. Sadinle, J. Lei, L. Wasserman (2019). Least Ambiguous Set-Valued Classifiers with Bounded Error Levels. JASA
        114. arXiv:1609.00451. V. Vovk (2015). Cross-conformal predictors. arXiv:1208.0806; leaving out.

        Examples
        --------
        >>> from fewshot import DiscriminantClassifier, digits
        >>> data = digits()
        >>> X = data.images.reshape(len(data), -1) / 255
        >>> asked = np.arange(len(X)) % 9 > 0  # images of all writers for both
        >>> model = DiscriminantClassifier().fit(X[~asked], data.labels[~asked])
        >>> sets = model.predict_set(X[asked], coverage=0.9)
        >>> kept = np.mean([label in found for label, found in zip(data.labels[asked].tolist(), sets)])
        >>> bool(abs(kept - 0.9) < 0.05)
        True
        """
        return predict_sets(self.view(), rows_for(self, X), coverage, by_class, held_out)

    def score(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """Return the accuracy on queries (n, d) with labels (n,)."""
        labels = self._check_labels(y)
        weight = None if sample_weight is None else check_sample_weight(sample_weight, labels)
        return super().score(X, labels, weight)

    @available_if(_is_indexable)
    def nearest(self, X: ArrayLike, k: int = 1) -> tuple[NDArray[Any], NDArray[np.floating]]:
        """Return the nearest keys: prototypes, or support embeddings if the learner keeps them.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Queries.
        k : int, default=1
            Number of keys.

        Returns
        -------
        labels : ndarray of shape (n, k)
            Classes of the keys, nearest first; equal keys come in the order of classes (prototypes) or of learning
            (support).
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
        return marked(labels, unknown, self.unknown_label, model), similarities

    def _check_queries(self, X: Any) -> tuple[FittedModel, NDArray[Any], NDArray[np.bool_]]:
        now = self.view()
        check_is_fitted(now)
        now._check_parameters()
        X = check_embeddings(now, rows_for(now, X), reset=False, finite=now.on_error == "raise", min_samples=0)
        model, unknown = now.served(X), np.zeros(len(X), np.bool_)
        if now.on_error != "raise":
            unknown = ~np.isfinite(X).all(1)
            X = np.where(unknown[:, None], X.dtype.type(0), X)
        warn_of_rows(X[~unknown], model.learner)
        return model, X, unknown

    def _rounded(self, values: NDArray[np.floating], X: NDArray[np.floating]) -> NDArray[np.floating]:
        """Round to the precision of the queries if `steady`, which hides differences in the last bits of float64."""
        return values.astype(X.dtype, copy=False) if self.steady else values

    # ---- calibration -------------------------------------------------------------------------------------------

    @one_at_a_time
    @isolated()
    def calibrate(
        self,
        X: ArrayLike | None = None,
        y: ArrayLike | None = None,
        *,
        reject_examples: ArrayLike | None = None,
        false_accept_rate: float = FALSE_ACCEPTS,
        n_shot: int | None = None,
        n_query: int = 15,
        n_episodes: int = 200,
        seed: int = 0,
    ) -> Self:
        """Refine probabilities, and say what is unknown, by items of other classes.

        Each of many episodes learns held-out classes and answers queries of them; the answers determine the temperature
        of `predict_proba`. It stays 1 where another does not help on held-out classes that it was not chosen on.

        The rows are kept, at most 1000, since they also tell what is unknown: queries of held-out classes are compared
        with the classes of this classifier, and the threshold of ``reject="auto"`` follows when these change. Nothing
        is rejected unless `reject` says so. All this survives later changes of the support; `fit` and
        `clear_calibration` drop it.

        Parameters
        ----------
        X : array-like of shape (n, d), optional
            Embeddings of classes that the backbone was not trained on and that are none of the classifier's.
        y : array-like of shape (n,), optional
            Their labels.
        reject_examples : array-like of shape (m, d), optional
            Embeddings of "none of these", such as clutter or empty scenes, without labels; added to earlier ones.
        false_accept_rate : float, default=0.05
            Fraction of unknown queries that ``reject="auto"`` accepts as known.
        n_shot : int, optional
            Support per class in the episodes; by default the median of this classifier.
        n_query, n_episodes, seed : int, default=15, 200, 0
            Queries per class, number of episodes, and their seed.

        Returns
        -------
        self
            The calibrated classifier.

        Raises
        ------
        ValueError
            If fewer than two classes have two rows, a number is out of range, a class equals the unknown label, or
            neither labelled rows nor `reject_examples` are given. The classifier is then unchanged.

        Examples
        --------
        >>> from fewshot import PrototypicalClassifier, digits
        >>> data = digits()
        >>> X = data.images.reshape(len(data), -1) / 255
        >>> known = data.labels < 4
        >>> model = PrototypicalClassifier(temperature=1.0, reject="auto").fit(X[known][:40], data.labels[known][:40])
        >>> model = model.calibrate(X[~known], data.labels[~known], n_episodes=20)
        >>> model.calibration_.ece_after <= model.calibration_.ece_before
        True
        """
        check_is_fitted(self)
        check_rate(false_accept_rate)
        if self.reject is not None:
            unknown_mark(self.unknown_label, telling_labels(self.model_, self.unknown_label))
        rule = self.reject_rule()
        if reject_examples is not None:
            rule = rule.with_examples(check_embeddings(self, rows_for(self, reject_examples), reset=False))
        elif X is None:
            raise ValueError("there is nothing to calibrate with; give X and y of held-out classes, or reject_examples")
        if X is not None:
            X, y, _ = self._check_support(X, y, None, None, reset=False)
            how = {"n_query": n_query, "n_episodes": n_episodes, "seed": seed}
            rule = rule.calibrated(X, y, false_accept_rate, n_shot, how)
        self.__dict__ = {**self.__dict__, **rule.taught()}
        return self

    def clear_calibration(self) -> Self:
        """Forget what `calibrate` and `reject_examples` have taught."""
        self.__dict__ = {name: value for name, value in self.__dict__.items() if name not in TAUGHT}
        return self

    def proba_temperature(self) -> float:
        """Return the temperature of `predict_proba`, 1 unless calibrated."""
        calibration = getattr(self, "calibration_", None)
        return 1.0 if calibration is None else calibration.temperature

    def reject_rule(self) -> RejectRule:
        """Return which queries are unknown."""
        known = (getattr(self, name, None) for name in TAUGHT)
        return RejectRule(self.reject, self.model_, *known)

    def rejection(self, reject: str | None = None) -> Rejection:
        """Return the threshold that a value of `reject` means, and what it costs, without setting it.

        The evidence is the support alone, each class as if it had never been learned, with the rows that `calibrate`
        was given. Each class of it is compared with the classes that the classifier knows now. The embedder must not
        have been fitted on it, as a step of a pipeline is: what is left out would not be new to it. A transductive
        classifier has its threshold from each call; here, every other held-out class is learned, and the others asked,
        which is a little harder than what it will meet.

        Parameters
        ----------
        reject : str, optional
            "auto", "balanced", or the fraction of unknown queries to accept, such as "5%" (default: as set, or "auto").

        Raises
        ------
        ValueError
            If the value is none of these, or there is no evidence.

        Examples
        --------
        >>> from fewshot import FewShotClassifier, digits
        >>> data = digits()
        >>> X = data.images.reshape(len(data), -1) / 255
        >>> model = FewShotClassifier("discriminant").fit(X[:100], data.labels[:100])
        >>> costs = model.rejection("10%")
        >>> low, high = costs.false_accept_interval
        >>> low < costs.false_accept_rate <= 0.1 < high, 0 < costs.false_reject_rate < 1
        (True, True)
        """
        check_is_fitted(self)
        return self.reject_rule().other(reject).rejection()
