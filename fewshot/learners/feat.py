"""FEAT: prototypes that take notice of each other."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from fewshot.learners.base import Learner
from fewshot.learners.memory import Memory
from fewshot.learners.registry import register_learner
from fewshot.learners.statistics import Statistics


@register_learner("feat")
class FEATLearner(Learner):
    """Answer with the class whose adapted prototype is nearest; each is adapted to the others by attention.

    ``P' = layernorm(P + dropout(softmax((P Q)(P K)' / sqrt(d)) P V O + b))`` for the class means P, a row each, and
    ``logit[c] = similarity(query, P'[c]) / temperature``. The adapted prototypes are keys as any, so an index finds
    them. O(n_way d) kept; O(n_way d^2 + n_way^2 d) to learn, O(n_way d) a query.

    Parameters
    ----------
    metric : {"sqeuclidean", "cosine", "dot"}, default="sqeuclidean"
        Similarity.
    temperature : float, default=64.0
        Logits are similarity / temperature.
    learn_temperature : bool, default=False
        Whether meta-training adjusts the temperature.
    dropout : float, default=0.5
        Of what attention adds, in training.
    d : int, optional
        Length of an embedding; by default that of the first one seen.

    References
    ----------
    H.-J. Ye, H. Hu, D.-C. Zhan, F. Sha (2020). Few-Shot Learning via Embedding Adaptation with Set-to-Set Functions.
    CVPR. arXiv:1812.03664. There the loss has a second, contrastive term, and the network is trained before.

    Examples
    --------
    >>> import torch
    >>> from fewshot import FEATLearner
    >>> learner = FEATLearner(d=2).eval()
    >>> learner(torch.eye(2), torch.tensor([0, 1]), torch.ones(3, 2), n_way=2).shape
    torch.Size([3, 2])
    """

    learned = True

    def __init__(
        self,
        metric: str = "sqeuclidean",
        temperature: float = 64.0,
        learn_temperature: bool = False,
        dropout: float = 0.5,
        d: int | None = None,
    ) -> None:
        super().__init__(metric, temperature, learn_temperature)
        if isinstance(dropout, str) or not 0 <= dropout < 1:
            raise ValueError(f"dropout is {dropout!r}; expected at least 0, below 1")
        self.dropout = float(dropout)
        if d is not None:
            self.sized(d)

    def build(self, d: int) -> None:
        """Make the projections and the normalisation."""
        self.query, self.key, self.value = (nn.Linear(d, d, bias=False) for _ in range(3))
        self.out, self.norm, self.drop = nn.Linear(d, d), nn.LayerNorm(d), nn.Dropout(self.dropout)

    def collect(self, support: Tensor, labels: Tensor, n_way: int, weight: Tensor) -> Statistics:
        """Keep class sums and counts."""
        return Statistics.of_sums(support, labels, n_way, weight)

    def memorize(self, statistics: Statistics) -> Memory:
        """Make one key a class: its mean, adapted to the means of the others."""
        means, there = statistics.means, statistics.count > 0
        scores = self.query(means) @ self.key(means).mT / math.sqrt(means.shape[-1])
        attention = scores.masked_fill(~there.unsqueeze(-2), -torch.inf).softmax(-1)
        adapted = self.norm(means + self.drop(self.out(attention @ self.value(means))))
        return Memory.of_prototypes(adapted, statistics.count)
