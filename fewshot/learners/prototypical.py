"""Prototypical Networks: a class is the mean of its support embeddings."""

from __future__ import annotations

from torch import Tensor

from fewshot.estimator import BaseFewShotClassifier
from fewshot.learners.base import Learner
from fewshot.memory import Memory
from fewshot.registry import register_learner
from fewshot.statistics import Statistics


@register_learner("prototypical")
class PrototypicalLearner(Learner):
    """Answer with the class whose prototype, the mean of its support embeddings, is nearest.

    ``logit[c] = similarity(query, mean(support of c)) / temperature``. Statistics are class sums and counts, so
    memory and time do not depend on the number of shots: O(n_way d) kept, O(n_way d) a query.

    Parameters
    ----------
    metric : {"sqeuclidean", "cosine", "dot"}, default="sqeuclidean"
        The paper uses (minus) the squared Euclidean distance.
    temperature : float, default=1.0
        Logits are similarity / temperature; the paper has none, which is 1.
    learn_temperature : bool, default=False
        Whether meta-training adjusts the temperature.

    References
    ----------
    J. Snell, K. Swersky, R. Zemel (2017). Prototypical Networks for Few-shot Learning. NeurIPS. arXiv:1703.05175.

    Examples
    --------
    >>> import torch
    >>> from fewshot import PrototypicalLearner
    >>> support = torch.tensor([[0.0, 0.0], [0.0, 2.0], [9.0, 9.0]])
    >>> logits = PrototypicalLearner()(support, torch.tensor([0, 0, 1]), torch.tensor([[0.0, 1.0]]), n_way=2)
    >>> logits.argmax(-1)
    tensor([0])
    """

    def collect(self, support: Tensor, labels: Tensor, n_way: int, weight: Tensor) -> Statistics:
        """Keep class sums and counts."""
        return Statistics.of_sums(support, labels, n_way, weight)

    def memorize(self, statistics: Statistics) -> Memory:
        """Make one key a class: its mean."""
        return Memory.of_prototypes(statistics.means, statistics.count)


class PrototypicalClassifier(BaseFewShotClassifier):
    """Prototypical Networks on embeddings, in scikit-learn's manner.

    Of parameters that are set later, ``index``, ``on_invalid``, ``reject`` and ``unknown_label`` act at once,
    ``closed_set`` at the next `partial_fit` and all others at the next `fit`; until then `partial_fit` refuses them.

    Parameters
    ----------
    metric : {"sqeuclidean", "cosine", "dot"}, default="sqeuclidean"
        Similarity; ``sqeuclidean`` is minus the squared Euclidean distance.
    temperature : float, default=1.0
        Logits are similarity / temperature.
    index : {"auto", "exact", "faiss", "ivf", "hnsw"}, default="auto"
        How the nearest prototypes are found; see `PrototypeIndex`. Through FAISS classes beyond the 256 nearest
        to a query have logit minus infinity and probability 0.
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
    n_features_in_ : int
        Length of an embedding.

    References
    ----------
    J. Snell, K. Swersky, R. Zemel (2017). Prototypical Networks for Few-shot Learning. NeurIPS. arXiv:1703.05175.

    Examples
    --------
    >>> from fewshot import PrototypicalClassifier
    >>> model = PrototypicalClassifier().fit([[0.0, 0.0], [1.0, 1.0]], ["cat", "dog"])
    >>> model.partial_fit([[5.0, 5.0]], ["owl"]).predict([[4.0, 5.0]])
    array(['owl'], dtype='<U3')
    """

    def __init__(
        self,
        metric: str = "sqeuclidean",
        temperature: float = 1.0,
        *,
        index: str = "auto",
        closed_set: bool = False,
        on_invalid: str = "raise",
        reject: float | str | None = None,
        unknown_label: object = None,
    ) -> None:
        self.metric = metric
        self.temperature = temperature
        super().__init__(
            index=index, closed_set=closed_set, on_invalid=on_invalid, reject=reject, unknown_label=unknown_label
        )

    def _make_learner(self) -> Learner:
        return PrototypicalLearner(self.metric, self.temperature)
