"""DN4: the nearest local descriptors of each class."""

from __future__ import annotations

import torch
from torch import Tensor

from fewshot.learners.local import LocalLearner
from fewshot.learners.registry import register_learner
from fewshot.utils.values import check_count


@register_learner("dn4", "deep-nearest-neighbour")
class DN4Learner(LocalLearner):
    r"""Answer with the class whose local descriptors are nearest to those of the query.

    Use it if what tells classes apart is a small part of the image, such as an object in a scene. It needs maps of
    features, which image models keep for it, and which are as many times larger than embeddings as they have places.

    .. math:: \mathrm{logit}_c = \frac{1}{\tau} \sum_{i=1}^L w_i \frac{1}{k} \sum_{x \in N_k^c(q_i)} \cos(q_i, x)

    for the L local descriptors :math:`q_i` of a query and their weights :math:`w_i = 1 / L`, the k nearest of class c
    among those of all its images, :math:`N_k^c(q_i)`, and the temperature τ. With ``salience`` the weights are in
    proportion to how much a place differs from the rest of the query; see `LocalLearner`. A class with fewer than k
    descriptors has the mean of those it has. An image of sample weight 2 counts as two images. Memory and time are
    those of `LocalLearner`.

    A class with many more images than the others has nearer descriptors, and gets too many answers.

    Parameters
    ----------
    n_neighbors : int, default=3
        k, the number of nearest descriptors of each class.
    width, salience, temperature, learn_temperature
        As for `LocalLearner`.

    References
    ----------
    W. Li, L. Wang, J. Xu, J. Huo, Y. Gao, J. Luo (2019). Revisiting Local Descriptor based Image-to-Class Measure for
    Few-shot Learning. CVPR. arXiv:1903.12290. The paper sums cosines over descriptors and neighbours; here they are
    averaged, so that one temperature suits maps of all sizes.

    Examples
    --------
    >>> import torch
    >>> from fewshot import DN4Learner
    >>> support = torch.tensor([[1.0, 0.0, 1.0, 0.1], [1.0, 0.0, 0.0, 1.0]])  # two places each; only one differs
    >>> learner = DN4Learner(n_neighbors=1, width=2)
    >>> learner(support, torch.tensor([0, 1]), torch.tensor([[0.1, 1.0, 1.0, 0.0]]), n_way=2).argmax(-1)
    tensor([1])
    """

    def __init__(
        self,
        n_neighbors: int = 3,
        width: int | None = None,
        salience: float = 0.0,
        temperature: float = 0.05,
        learn_temperature: bool = False,
    ) -> None:
        super().__init__(width, salience, temperature, learn_temperature)
        self.n_neighbors = check_count("n_neighbors", n_neighbors)

    def nearest(self, similarity: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return the similarities and weights of the nearest descriptors."""
        there = weight > 0
        # Weights below 1 take more descriptors to add up to k.
        is_whole = bool((weight[there] >= 1).all())
        n = min(self.n_neighbors, similarity.shape[-1]) if is_whole else similarity.shape[-1]
        values, places = similarity.masked_fill(~there, -torch.inf).topk(n, -1)
        weights = weight.expand_as(similarity).gather(-1, places)
        return torch.where(weights > 0, values, 0), weights

    def match(self, similarity: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean similarity to the k nearest descriptors; every place counts the same."""
        order = torch.where(weight > 0, similarity.detach(), -torch.inf).argsort(-1, descending=True)
        similarity, weight = similarity.gather(-1, order), weight.gather(-1, order)
        # The k nearest by weight: what is left of k when nearer ones are counted.
        share = torch.minimum((self.n_neighbors - weight.cumsum(-1) + weight).clamp(min=0), weight)
        total = share.sum(-1)
        mean = (similarity * share).sum(-1) / torch.where(total > 0, total, 1)
        return mean, torch.ones_like(mean)
