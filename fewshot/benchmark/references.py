"""What users would try instead: scikit-learn's classifiers as learners of a benchmark."""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from inspect import signature
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewshot.benchmark.grid_file import LINEAR_PROBE, OWN, SCIKIT_LEARN, LearnerSpec
from fewshot.errors import UnknownNameError
from fewshot.learners.base import SupportLearner
from fewshot.learners.memory import Memory
from fewshot.learners.registry import learner_class
from fewshot.utils.warning import ignored_warnings

LOGISTIC_REGRESSION = "LogisticRegression"
#: Its probabilities are undefined if classes have one image each.
NO_PROBABILITIES = "NearestCentroid"


@cache
def classifiers() -> dict[str, Any]:
    """Return scikit-learn's classifiers by name."""
    from sklearn.utils import all_estimators

    with ignored_warnings():
        return dict(all_estimators("classifier"))


def iterates(method: LearnerSpec) -> bool:
    """Whether a learner repeats the steps of fitting, such as those of gradient descent, for each support set."""
    if method.learner in (LINEAR_PROBE, OWN):
        return method.learner == LINEAR_PROBE
    if method.learner != SCIKIT_LEARN:
        with suppress(UnknownNameError):  # of a plug-in that is not installed where the table is made
            return learner_class(method.learner).iterates
        return False
    kind = classifiers()[method.params.get("classifier", LOGISTIC_REGRESSION)]
    return "max_iter" in signature(kind).parameters


class ScikitLearn(SupportLearner):
    """A classifier of scikit-learn, fitted to each support set on its own.

    These references show what the few-shot methods gain. A benchmark measures them like any learner, but they are not
    registered and cannot be meta-trained.

    Parameters
    ----------
    classifier : str, default="LogisticRegression"
        The name of the class.
    unit : bool, default=False
        Whether embeddings are first scaled to unit length.
    **params
        Arguments of the class. ``random_state`` is 0 unless it is given.

    Raises
    ------
    UnknownNameError
        If scikit-learn has no such classifier.
    TypeError
        If the class does not take these arguments.

    Examples
    --------
    >>> import torch
    >>> nearest = ScikitLearn("KNeighborsClassifier", n_neighbors=1)
    >>> support, queries = torch.tensor([[0.0], [1.0], [9.0]]), torch.tensor([[2.0], [7.0]])
    >>> nearest(support, torch.tensor([0, 0, 1]), queries, n_way=2).argmax(-1)
    tensor([0, 1])
    """

    name, indexable = SCIKIT_LEARN, False

    def __init__(self, classifier: str = LOGISTIC_REGRESSION, unit: bool = False, **params: Any) -> None:
        super().__init__()
        if classifier not in classifiers():
            raise UnknownNameError("classifier of scikit-learn", classifier, list(classifiers()))
        self.classifier, self.unit, self.params = classifier, unit, params
        self.make()

    def arguments(self) -> dict[str, Any]:
        """Return the constructor arguments."""
        return {"classifier": self.classifier, "unit": self.unit, **self.params}

    def make(self) -> Any:
        """Return a new, unfitted classifier."""
        model = classifiers()[self.classifier](**self.params)
        if "random_state" in model.get_params() and "random_state" not in self.params:
            model.set_params(random_state=0)
        return model

    def score(self, memory: Memory, queries: Tensor) -> Tensor:
        """Return log-probabilities, or 0 and -1 from a classifier without them, with one fit per episode."""
        parts = [
            part.reshape(-1, *part.shape[queries.ndim - 2 :]).double().numpy()
            for part in (memory.keys, memory.labels, memory.log_weight.exp(), queries)
        ]
        logits = np.full((len(parts[0]), queries.shape[-2], memory.n_way), -np.inf)
        for i, (x, labels, weight, asked) in enumerate(zip(*parts, strict=True)):
            real = weight > 0
            classes, answers = self._answer(x[real], labels[real].astype(int), weight[real], asked)
            logits[i][:, classes] = answers
        return torch.from_numpy(logits).reshape(*queries.shape[:-1], memory.n_way)

    def _answer(
        self, x: NDArray[np.float64], labels: NDArray[np.int64], weight: NDArray[np.float64], asked: NDArray[np.float64]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return the classes (c,) of a support set and the answers (q, c) to queries."""
        from sklearn.preprocessing import normalize

        classes = np.unique(labels)
        if len(classes) < 2:
            return classes, np.zeros((len(asked), len(classes)))
        x, asked = (normalize(x), normalize(asked)) if self.unit else (x, asked)
        weighted = {} if (weight == 1).all() else {"sample_weight": weight}
        with ignored_warnings(), np.errstate(all="ignore"):  # of convergence, and of many classes with one image
            model = self.make().fit(x, labels, **weighted)
            if hasattr(model, "predict_log_proba") and self.classifier != NO_PROBABILITIES:
                return classes, model.predict_log_proba(asked)
            return classes, (model.predict(asked)[:, None] == classes) - 1.0


class LinearProbe(ScikitLearn):
    """scikit-learn's logistic regression on embeddings of unit length.

    Parameters
    ----------
    C : float, default=1.0
        Inverse regularisation strength.
    """

    name = LINEAR_PROBE

    def __init__(self, C: float = 1.0) -> None:
        super().__init__(LOGISTIC_REGRESSION, unit=True, C=C, max_iter=1000)
        self.C = C

    def arguments(self) -> dict[str, Any]:
        """Return the constructor arguments."""
        return {"C": self.C}
