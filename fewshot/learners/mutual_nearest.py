"""The mean of the best matches of local descriptors that choose each other."""

from __future__ import annotations

import torch
from torch import Tensor

from fewshot.learners.local import LocalLearner
from fewshot.learners.registry import register_learner
from fewshot.search.similarity import normalize


@register_learner("mutual-nearest")
class MutualNearestLearner(LocalLearner):
    r"""Answer with the class whose local descriptors match those of the query best, where both choose each other.

    Use it if images of a class share some parts and little else. It needs maps of features, which image models keep for
    it, and which are as many times larger than embeddings as they have places.

    .. math:: \mathrm{logit}_c = \frac{1}{\tau} \frac{\sum_{i \in M_c} w_i \cos(q_i, x_i^c)}{\sum_{i \in M_c} w_i}

    for the local descriptors :math:`q_i` of a query, of which the mean of all of its image is subtracted, as from those
    of the support; their weights :math:`w_i` by salience (see `LocalLearner`); the nearest descriptor :math:`x_i^c`
    among those of all images of class c; and the temperature τ. :math:`M_c` are the places that are themselves the
    nearest of the query to the descriptor they choose; there is at least one. Memory and time are those of
    `LocalLearner`. Sample weights do not matter, as long as they are above 0.

    A class with many more images than the others has nearer descriptors, and gets too many answers.

    Parameters
    ----------
    width, salience, temperature, learn_temperature
        As for `LocalLearner`; `salience` is 8 by default.

    References
    ----------
    Mutual neighbours are those of Y. Liu, T. Zheng, J. Song, D. Cai, X. He (2022). DMN4: Few-shot Learning via
    Discriminative Mutual Nearest Neighbor Neural Network. AAAI. arXiv:2103.08160. There, a place chooses among the
    descriptors of all classes, and the margin between the best two classes counts; here, it chooses in each class.

    Examples
    --------
    >>> import torch
    >>> from fewshot import MutualNearestLearner
    >>> support = torch.tensor([[1.0, 0.0, 1.0, 0.1], [1.0, 0.0, 0.0, 1.0]])  # two places each; only one differs
    >>> learner = MutualNearestLearner(width=2)
    >>> learner(support, torch.tensor([0, 1]), torch.tensor([[0.1, 1.0, 1.0, 0.0]]), n_way=2).argmax(-1)
    tensor([1])
    """

    def __init__(
        self,
        width: int | None = None,
        salience: float = 8.0,
        temperature: float = 0.05,
        learn_temperature: bool = False,
    ) -> None:
        super().__init__(width, salience, temperature, learn_temperature)

    def compared(self, descriptors: Tensor) -> Tensor:
        """Subtract the mean of each image, so that what all of its places share is no match; one place stays."""
        n_places = descriptors.shape[-2]
        return descriptors if n_places < 2 else normalize(descriptors - descriptors.mean(-2, keepdim=True))

    def nearest(self, similarity: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return the similarity of the nearest descriptor, and 1 if it chooses the same place of the query, else 0."""
        best, places = similarity.masked_fill(weight <= 0, -torch.inf).max(-1, keepdim=True)
        chosen = similarity.detach().amax(-2, keepdim=True).expand_as(similarity).gather(-1, places)
        found = torch.isfinite(best)
        return best.masked_fill(~found, -2.0), (found & (best >= chosen)).to(best)  # -2 is below any cosine

    def match(self, similarity: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return the nearest of all, and whether it is mutual."""
        best, part = similarity.max(-1, keepdim=True)
        return best.squeeze(-1), weight.gather(-1, part).squeeze(-1)
