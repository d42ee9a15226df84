"""FEAT: prototypes adapted to each other by attention."""

from __future__ import annotations

import math

import torch
from torch import nn

from fewshot.learners.base import SumLearner
from fewshot.learners.memory import Memory, Statistics
from fewshot.learners.registry import register_learner
from fewshot.search.similarity import Metric


@register_learner("feat")
class FEATLearner(SumLearner):
    r"""Answer with the nearest prototype after attention has adapted prototypes to each other.

    Use it meta-trained: its weights are learned from the episodes of many classes.

    .. math:: P' = \operatorname{norm} \Bigl( P + \operatorname{softmax} \bigl( \frac{(P Q)(P K)^\top}{\sqrt{d}} \bigr)
              P V O + b \Bigr), \qquad \mathrm{logit}_c = \frac{\mathrm{similarity}(q, P'_c)}{\tau}

    for the matrix P of class means, a query q and the temperature τ. Q, K, V, O and b are meta-trained, with dropout
    before the sum, and norm is layer normalisation. Adapted prototypes are ordinary keys, so an index can find them.
    O(n_way d) to store, O(n_way d^2 + n_way^2 d) to learn, O(n_way d) per query. Prototypes depend on all classes, so
    each change of a classifier adapts all of them again.

    Parameters
    ----------
    metric : {"sqeuclidean", "cosine", "dot"}, default="sqeuclidean"
        Similarity.
    temperature : float, default=64.0
        Logits are similarity / temperature.
    learn_temperature : bool, default=False
        Whether meta-training adjusts the temperature.
    dropout : float, default=0.5
        Dropout rate on the output of attention, in training.
    d : int, optional
        Embedding length; by default that of the first embeddings seen.

    References
    ----------
    H.-J. Ye, H. Hu, D.-C. Zhan, F. Sha (2020). Few-Shot Learning via Embedding Adaptation with Set-to-Set Functions.
    CVPR. arXiv:1812.03664. The paper adds a contrastive term to the loss and pretrains the network.

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
        metric: Metric = "sqeuclidean",
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
        """Create the projections and the normalisation."""
        self.query, self.key, self.value = (nn.Linear(d, d, bias=False) for _ in range(3))
        self.out, self.norm, self.drop = nn.Linear(d, d), nn.LayerNorm(d), nn.Dropout(self.dropout)

    def memorize(self, statistics: Statistics) -> Memory:
        """Return one key per class, its mean adapted to the other means."""
        means, present = statistics.means, statistics.count > 0
        scores = self.query(means) @ self.key(means).mT / math.sqrt(means.shape[-1])
        attention = scores.masked_fill(~present.unsqueeze(-2), -torch.inf).softmax(-1)
        adapted = self.norm(means + self.drop(self.out(attention @ self.value(means))))
        return Memory.of_prototypes(adapted, statistics.count)
