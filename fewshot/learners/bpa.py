"""BPA: embeddings replaced by their balanced affinities with all others, before any other learner."""

from __future__ import annotations

import torch
from torch import Tensor

from fewshot.learners.base import Learner, SupportLearner
from fewshot.learners.memory import Memory
from fewshot.learners.registry import learner_class, register_learner
from fewshot.search.similarity import normalize
from fewshot.utils.values import check_count, check_number

#: Logarithm of the affinity of a row with itself, which is left out of the plan.
NOTHING = -1e9


@register_learner("bpa")
class BPALearner(SupportLearner):
    r"""Answer by another learner, of affinities with all others in place of embeddings. Transductive.

    Use it if many queries come together and as many of them are of each class.

    The affinities W of the n rows of support and queries are a symmetric plan of optimal transport between them, in
    which no row goes to itself:

    .. math:: W_{ij} = e^{f_i + \cos(x_i, x_j) / \epsilon + f_j} \quad (i \neq j), \qquad \sum_{j \neq i} W_{ij} = 1

    W is scaled so that its largest entry is 1, then its diagonal is set to 1, and row i takes the place of the
    embedding :math:`x_i`. The transform has no parameter to train. O(n d) to store, O((n + q)(d + n_iterations)) per
    query, beside the other learner.

    Parameters
    ----------
    learner : str, default="cosine-prototypical"
        The registered name of the learner that answers, with its defaults; one without weights of its own.
    regularization : float, default=0.1
        The entropic regularisation ε.
    n_iterations : int, default=30
        Number of rounds of symmetric Sinkhorn scaling.

    Raises
    ------
    ValueError
        If the learner has weights that have to be trained, or compares the places of images.

    References
    ----------
    D. Shalam, S. Korman (2024). The Balanced-Pairwise-Affinities Feature Transform. ICML. arXiv:2407.01467. The paper
    scales rows and columns in turn. Here a row of weight w counts as w equal rows, which share their mean.

    Examples
    --------
    >>> import torch
    >>> from fewshot import BPALearner
    >>> support, queries = torch.eye(2), torch.tensor([[3.0, 2.0], [2.0, 2.1], [2.0, 3.0]])
    >>> BPALearner()(support, torch.tensor([0, 1]), queries, n_way=2).argmax(-1)
    tensor([0, 1, 1])
    """

    indexable = False
    transductive = True
    supposes_balance = True

    def __init__(
        self, learner: str = "cosine-prototypical", regularization: float = 0.1, n_iterations: int = 30
    ) -> None:
        super().__init__("cosine")
        self.learner = learner
        self._inner: Learner = learner_class(learner)()
        if self._inner.learned:
            raise ValueError(f"{learner!r} has weights that have to be trained; choose a learner without weights")
        if self._inner.local:
            raise ValueError(
                f"{learner!r} compares the places of images, of which affinities know nothing; choose a learner of "
                "whole images"
            )
        self.regularization = check_number("regularization", regularization, above=True)
        self.n_iterations = check_count("n_iterations", n_iterations)

    def transform(self, x: Tensor) -> Tensor:
        """Scale each embedding to unit length."""
        return normalize(x)

    def score(self, memory: Memory, queries: Tensor) -> Tensor:
        """Return the logits of all queries, answered together."""
        m, log_weight = memory.keys.shape[-2], memory.log_weight
        rows = torch.cat([memory.keys, queries], -2)
        log_weight = torch.cat([log_weight, log_weight.new_zeros(queries.shape[:-1])], -1)
        support, queries = self._affinities(rows, log_weight).split([m, queries.shape[-2]], -2)
        return self._inner(support, memory.labels, queries, memory.n_way, memory.log_weight.exp())

    def _affinities(self, rows: Tensor, log_weight: Tensor) -> Tensor:
        """Return the affinities (..., n, n) of rows (..., n, d) and weights ``exp(log_weight)`` (..., n)."""
        similarity, weight = rows @ rows.mT / self.regularization, log_weight.exp()
        itself = torch.eye(rows.shape[-2], dtype=torch.bool, device=rows.device)
        # A row of weight w meets w - 1 equal ones, and not itself.
        equals = torch.where(weight > 1, (weight - 1).clamp(min=1e-30).log(), NOTHING).unsqueeze(-1)
        across = similarity + torch.where(itself, equals, log_weight.unsqueeze(-2))
        factors = torch.zeros_like(log_weight).unsqueeze(-1)
        for _ in range(self.n_iterations):
            factors = (factors - (across + factors.mT).logsumexp(-1, keepdim=True)) / 2
        plan = factors + similarity + factors.mT
        there = (weight > 0).unsqueeze(-1) & (weight > 0).unsqueeze(-2) & (~itself | (weight > 1).unsqueeze(-1))
        plan = plan.masked_fill(~there, -torch.inf)
        largest = plan.amax((-2, -1), keepdim=True) if plan.numel() else plan.sum((-2, -1), keepdim=True)
        plan = (plan - torch.where(largest.isfinite(), largest, 0)).exp()
        copies = weight.clamp(min=1).unsqueeze(-1)
        return torch.where(itself, (1 + (copies - 1) * plan) / copies, plan) * weight.sqrt().unsqueeze(-2)
