"""The scikit-learn face of any learner."""

from __future__ import annotations

from fewshot.estimator import BaseFewShotClassifier
from fewshot.learners.base import Learner, as_learner
from fewshot.registry import learner_class


class FewShotClassifier(BaseFewShotClassifier):
    """Any learner on embeddings, in scikit-learn's manner: a registered name, or a trained learner.

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

    def _learner_type(self) -> type[Learner]:
        return learner_class(self.learner) if isinstance(self.learner, str) else type(self.learner)

    def _make_learner(self) -> Learner:
        return as_learner(self.learner)
