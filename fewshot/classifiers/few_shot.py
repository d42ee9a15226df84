"""The scikit-learn estimator of any inductive learner."""

from __future__ import annotations

from dataclasses import dataclass, field

from fewshot.classifiers.base import BaseFewShotClassifier
from fewshot.learners.base import Learner
from fewshot.learners.registry import learner_class, ready_learner


class TakesLearner:
    """Mixin for classifiers whose learner is a parameter."""

    learner: str | Learner

    def _learner_type(self) -> type[Learner]:
        return learner_class(self.learner) if isinstance(self.learner, str) else type(self.learner)

    def _make_learner(self) -> Learner:
        return ready_learner(self.learner)


@dataclass(eq=False, repr=False, kw_only=True)
class FewShotClassifier(TakesLearner, BaseFewShotClassifier):
    """A scikit-learn classifier of embeddings by any inductive learner.

    Parameters
    ----------
    learner : str or Learner, default="prototypical"
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

    learner: str | Learner = field(default="prototypical", kw_only=False)
    index: str = "auto"
    on_error: str = "raise"
