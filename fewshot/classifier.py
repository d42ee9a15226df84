"""The scikit-learn face of any learner."""

from __future__ import annotations

from fewshot.estimator import BaseFewShotClassifier
from fewshot.learners.base import Learner
from fewshot.registry import learner_class


class _OfLearner:
    """A classifier that is given its learner."""

    learner: str | Learner

    def _learner_type(self) -> type[Learner]:
        return learner_class(self.learner) if isinstance(self.learner, str) else type(self.learner)

    def _make_learner(self) -> Learner:
        return ready_learner(self.learner)


class FewShotClassifier(_OfLearner, BaseFewShotClassifier):
    """Any learner on embeddings, in scikit-learn's manner: a registered name, or a trained learner.

    Of parameters that are set later, ``index``, ``on_invalid``, ``reject`` and ``unknown_label`` act at once,
    ``closed_set`` at the next `partial_fit` and all others at the next `fit`; until then `partial_fit` refuses them.

    Parameters
    ----------
    learner : str or Learner, default="prototypical"
        A registered name (see `list_learners`), built with its defaults, or a learner, which is copied.
    index : {"auto", "exact", "faiss", "ivf", "hnsw"}, default="auto"
        How the nearest keys are found; see `PrototypeIndex`. Through FAISS only the 256 nearest to a query are
        read; a class with none among them has probability 0. ``auto`` is exact where classes have several keys.
    closed_set : bool, default=False
        Whether `partial_fit` refuses classes that the first call did not announce.
    on_invalid : {"raise", "unknown"}, default="raise"
        What happens to a query with NaN or infinity: an error, or the answer `unknown_label`.
    reject : float or "auto", optional
        Below which similarity to the nearest key a query is answered `unknown_label`; "auto" takes the threshold that
        `calibrate` has found. By default every query is answered with a class.
    unknown_label : object, optional
        The answer for such queries; by default ``"unknown"`` for string labels and -1 for integers.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Sorted class labels.
    n_support_ : ndarray of shape (n_classes,)
        Number of support rows of each class.

    Examples
    --------
    >>> from fewshot import FewShotClassifier, PrototypicalLearner
    >>> learner = PrototypicalLearner(metric="cosine", temperature=0.1)
    >>> FewShotClassifier(learner).fit([[1.0, 0.0], [0.0, 1.0]], ["a", "b"]).predict([[3.0, 1.0]])
    array(['a'], dtype='<U1')
    """

    def __init__(
        self,
        learner: str | Learner = "prototypical",
        *,
        index: str = "auto",
        closed_set: bool = False,
        on_invalid: str = "raise",
        reject: float | str | None = None,
        unknown_label: object = None,
    ) -> None:
        self.learner = learner
        super().__init__(
            index=index, closed_set=closed_set, on_invalid=on_invalid, reject=reject, unknown_label=unknown_label
        )


class TransductiveClassifier(_OfLearner, BaseFewShotClassifier):
    """A transductive learner on embeddings, in scikit-learn's manner: the queries of a call are answered together.

    The answer to a query depends on what else is asked in the same call, and on nothing that was asked before: for one
    query at a time use an inductive classifier. This is its only departure from what scikit-learn asks of a classifier.

    Of parameters that are set later, ``reject`` and ``unknown_label`` act at once, ``closed_set`` at the next
    `partial_fit` and `learner` at the next `fit`; until then `partial_fit` refuses it.

    Parameters
    ----------
    learner : str or Learner, default="bd-cspn"
        A registered name of a transductive learner, built with its defaults, or such a learner, which is copied.
    closed_set : bool, default=False
        Whether `partial_fit` refuses classes that the first call did not announce.
    reject : float or "auto", optional
        Below which closeness, temperature times the largest logit, a query is answered `unknown_label`; see
        `PrototypicalClassifier`.
    unknown_label : object, optional
        The answer for such queries; by default ``"unknown"`` for string labels and -1 for integers.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Sorted class labels.
    n_support_ : ndarray of shape (n_classes,)
        Number of support rows of each class.

    Examples
    --------
    >>> from fewshot import TransductiveClassifier
    >>> model = TransductiveClassifier("soft-k-means").fit([[0.0], [4.0]], ["low", "high"])
    >>> model.predict([[1.0], [2.1], [6.0], [7.0]])
    array(['low', 'low', 'high', 'high'], dtype='<U4')
    >>> model.predict([[2.1]])
    array(['high'], dtype='<U4')
    """

    _is_transductive = True

    def __init__(
        self,
        learner: str | Learner = "bd-cspn",
        *,
        closed_set: bool = False,
        reject: float | str | None = None,
        unknown_label: object = None,
    ) -> None:
        self.learner = learner
        super().__init__(closed_set=closed_set, reject=reject, unknown_label=unknown_label)


def as_learner(learner: str | Learner) -> Learner:
    """Return the learner itself, or one built by its registered name with its defaults.

    Raises
    ------
    UnknownNameError
        If nothing is registered by that name.
    TypeError
        If it is neither, for example a class.
    """
    if isinstance(learner, str):
        return learner_class(learner)()
    if not isinstance(learner, Learner):
        raise TypeError(
            f"learner is {learner!r}; expected a registered name or a Learner, such as PrototypicalLearner()"
        )
    return learner


def ready_learner(learner: str | Learner) -> Learner:
    """Return a learner as `as_learner` does, one that can answer without being trained first.

    Raises
    ------
    UnknownNameError, TypeError
        As for `as_learner`.
    ValueError
        If its weights are not there yet.
    """
    found = as_learner(learner)
    if found.learned and found.d is None:
        raise ValueError(
            f"{found.name or type(found).__name__!r} has weights of its own, which are not there yet; train it with "
            "MetaTrainer, or pass load_learner(checkpoint)"
        )
    return found
