"""Prototypical Networks: each class is the mean of its support embeddings."""

from __future__ import annotations

from fewshot.learners.base import SumLearner
from fewshot.learners.registry import register_learner
from fewshot.search.similarity import Metric


@register_learner("prototypical", "protonet")
class PrototypicalLearner(SumLearner):
    r"""Answer with the class whose prototype, the mean of its support embeddings, is nearest.

    Use it on embeddings that were meta-trained for it, as the paper does. On those of a pretrained network,
    `CosinePrototypicalLearner` and `DiscriminantLearner` are better.

    .. math:: \mathrm{logit}_c = \frac{\mathrm{similarity}(q, \bar{x}_c)}{\tau},
          \qquad \bar{x}_c = \frac{1}{n_c} \sum_{i:\, y_i = c} x_i

    for a query q, the support x with labels y, and the temperature τ. Statistics are class sums and counts, so memory
    and time do not depend on the number of shots: O(n_way d) to store, O(n_way d) per query.

    The mean of many images lies nearer to queries than a single image does, so a class with many more images than the
    others gets too many answers, except under the cosine if `centered`; `DiscriminantLearner` does not mind.

    A classifier that learns a class touches no other. If `centered`, every key moves a little; candidates are found
    around a slightly earlier centre and compared around the present one, while probabilities compute all keys again.

    Parameters
    ----------
    metric : {"sqeuclidean", "cosine", "dot"}, default="sqeuclidean"
        The paper uses (minus) the squared Euclidean distance.
    temperature : float or None, default=1.0
        Logits are similarity / temperature; the paper has no temperature, which means 1. None suits it to the spread of
        the prototypes, so that the scale of the embeddings does not matter; `PrototypicalClassifier` does so.
    learn_temperature : bool, default=False
        Whether meta-training adjusts the temperature.
    centered : bool, default=False
        Whether to subtract the mean of the class means from embeddings, scaled to unit length under the cosine; it
        makes no difference to distances.

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

    by_distance = True

    def __init__(
        self,
        metric: Metric = "sqeuclidean",
        temperature: float | None = 1.0,
        learn_temperature: bool = False,
        centered: bool = False,
    ) -> None:
        super().__init__(metric, temperature, learn_temperature)
        self.centered = bool(centered)
        self.balanced = self.centered and metric == "cosine"
