"""The scikit-learn estimators of any learner, inductive or transductive."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewshot.classifiers.base import BaseFewShotClassifier
from fewshot.classifiers.fitted import FittedModel
from fewshot.classifiers.reaches_learner import ReachesLearner
from fewshot.learners.base import Learner
from fewshot.learners.registry import learner_class, ready_learner
from fewshot.search.snapshot import Index
from fewshot.utils.values import OnError
from fewshot.utils.warning import warn

#: Queries for each class below which no transductive learner that knows no balance gained on validation classes.
FEWEST = 3


class TakesLearner:
    """Mixin for classifiers whose learner is a parameter."""

    learner: str | Learner

    def _learner_type(self) -> type[Learner]:
        return learner_class(self.learner) if isinstance(self.learner, str) else type(self.learner)

    def _make_learner(self) -> Learner:
        return ready_learner(self.learner)


@dataclass(eq=False, repr=False, kw_only=True)
class FewShotClassifier(TakesLearner, ReachesLearner, BaseFewShotClassifier):
    """A scikit-learn classifier of embeddings by any inductive learner.

    Parameters
    ----------
    learner : str or Learner, default="discriminant"
        A registered name (see `list_learners`), built with its defaults, or a learner, which is copied. A learner with
        weights must be trained.
    {shared}

    Examples
    --------
    >>> from fewshot import FewShotClassifier, PrototypicalLearner
    >>> learner = PrototypicalLearner(metric="cosine", temperature=0.1)
    >>> FewShotClassifier(learner).fit([[1.0, 0.0], [0.0, 1.0]], ["a", "b"]).predict([[3.0, 1.0]])
    array(['a'], dtype='<U1')
    """

    learner: str | Learner = field(default="discriminant", kw_only=False)
    index: Index = "auto"
    on_error: OnError = "raise"


@dataclass(eq=False, repr=False, kw_only=True)
class TransductiveClassifier(TakesLearner, ReachesLearner, BaseFewShotClassifier):
    """A scikit-learn classifier by a transductive learner, which answers all queries of a call together.

    The answer to a query depends on the other queries of the same call, but not on earlier calls. For one query at a
    time, use an inductive classifier: a call with fewer than three queries for each class warns. This is the only
    deviation from scikit-learn's contract.

    Parameters set after fitting: ``reject`` and ``unknown_label`` take effect at once, ``closed_set`` at the next
    `partial_fit`, and `learner` at the next `fit`; until then `partial_fit` raises.

    Parameters
    ----------
    learner : str or Learner, default="bd-cspn"
        A registered name of a transductive learner, built with its defaults, or such a learner, which is copied.
    closed_set : bool, default=False
        Whether `partial_fit` refuses classes that the first call did not pass.
    reject : float or str, optional
        Which queries are answered with `unknown_label`. A number is the least score, which is temperature times the
        largest logit, or the log-odds of being inside for `OSLOLearner`. "5%", "auto" and "balanced" need held-out
        classes (`calibrate`), which are asked together with the queries: the threshold accepts that part of them. Where
        5 % were asked for, it was 5 to 8 % with half or all of the queries unknown, 10 to 12 % with a tenth
        (``benchmarks/open_world.py``). `rejection` estimates the cost before the queries are known.
    unknown_label : object, optional
        The answer to unknown queries; by default ``"unknown"`` for string labels and -1 for integers.

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

    learner: str | Learner = field(default="bd-cspn", kw_only=False)

    def _check_queries(self, X: Any) -> tuple[FittedModel, NDArray[Any], NDArray[np.bool_]]:
        model, X, unknown = super()._check_queries(X)
        n, n_classes = np.count_nonzero(~unknown), model.n_classes
        if 0 < n < FEWEST * n_classes and n_classes > 1:
            warn(
                f"too few queries to help each other, {n} for {n_classes} classes; ask {FEWEST * n_classes} or more in "
                "one call, or use an inductive learner, such as 'discriminant'"
            )
        return model, X, unknown
