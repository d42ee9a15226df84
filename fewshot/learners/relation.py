"""Relation Networks: a learned similarity."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fewshot.learners.base import IGNORE, SumLearner
from fewshot.learners.memory import Memory
from fewshot.learners.registry import register_learner
from fewshot.utils.values import check_count

#: Most hidden activations of one chunk of queries.
CHUNK = 4_000_000


@register_learner("relation", "relation-net")
class RelationLearner(SumLearner):
    r"""Answer with the class that a small network finds most related to the query.

    Use it meta-trained: its weights are learned from the episodes of many classes.

    .. math:: \mathrm{logit}_c = \frac{1}{\tau} \, \sigma \bigl( w^\top \max(0, A m_c + B q + b) + a \bigr)

    for a query q, the mean :math:`m_c` of the support of class c, the temperature τ, the sigmoid σ, and weights A, B,
    a, b and w that are meta-trained. The loss is the squared difference of the sigmoid to 1 for the true class and to 0
    for the others. O(n_way d) to store; O(d hidden) per class and per query, O(hidden) per pair; queries are processed
    in chunks. Each change of a classifier copies the class means.

    Parameters
    ----------
    hidden : int, default=64
        Width of the network.
    temperature : float, default=0.1
        Scales probabilities; the loss does not depend on it.
    d : int, optional
        Embedding length; by default that of the first embeddings seen.

    References
    ----------
    F. Sung, Y. Yang, L. Zhang, T. Xiang, P. Torr, T. Hospedales (2018). Learning to Compare: Relation Network for
    Few-Shot Learning. CVPR. arXiv:1711.06025. The paper's network applies convolutions to feature maps, and sums the
    shots of a class instead of averaging them.

    Examples
    --------
    >>> import torch
    >>> from fewshot import RelationLearner
    >>> learner = RelationLearner(d=2)
    >>> logits = learner(torch.eye(2), torch.tensor([0, 1]), torch.ones(3, 2), n_way=2)
    >>> logits.shape
    torch.Size([3, 2])
    """

    indexable = False
    learned = True

    def __init__(self, hidden: int = 64, temperature: float = 0.1, d: int | None = None) -> None:
        super().__init__("dot", temperature)
        self.hidden = check_count("hidden", hidden)
        if d is not None:
            self.sized(d)

    def build(self, d: int) -> None:
        """Create both layers, the first in two halves."""
        self.of_class = nn.Linear(d, self.hidden)
        self.of_query = nn.Linear(d, self.hidden, bias=False)
        self.out = nn.Linear(self.hidden, 1)

    def score(self, memory: Memory, queries: Tensor) -> Tensor:
        """Return the relation of each query to each class, divided by the temperature."""
        classes = self.of_class(memory.keys).unsqueeze(-3)
        size = max(1, CHUNK // max(classes.numel(), 1))
        parts = [
            self.out((classes + self.of_query(part).unsqueeze(-2)).relu()).squeeze(-1)
            for part in queries.split(size, -2)
        ]
        return self.read(torch.cat(parts, -2).sigmoid(), memory)

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean squared error of the relations to all classes with support."""
        real = labels != IGNORE
        relation = (logits * self.temperature.to(logits))[real]
        present = torch.isfinite(relation)
        wanted = F.one_hot(labels[real], logits.shape[-1]).to(logits)
        return (torch.where(present, relation, 0) - torch.where(present, wanted, 0)).square().sum() / present.sum()
