"""LaplacianShot: queries that lie near each other are answered alike."""

from __future__ import annotations

import torch
from torch import Tensor

from fewshot.learners.base import Learner
from fewshot.learners.memory import Memory
from fewshot.learners.registry import register_learner
from fewshot.learners.statistics import Statistics
from fewshot.learners.transduction import Span, compare_means, rectify
from fewshot.search.ranking import largest
from fewshot.search.similarity import normalize
from fewshot.utils.parameters import check_count, check_number

#: Similarities of queries to each other that are looked at at a time.
CHUNK = 4_000_000


@register_learner("laplacian-shot", "laplacianshot")
class LaplacianShotLearner(Learner):
    """Answer with the nearest prototype, and as the nearest other queries are answered. Transductive.

    With a[q, c] the squared distances of queries of unit length to prototypes, y = softmax(-a) is replaced
    `n_iterations` times by
    ``softmax over c of -a[q, c] + smoothness * sum over the nearest queries p of q of y[p, c]``; the logits are what
    stands in the last softmax, / temperature. Queries are shifted and prototypes rectified as in `BDCSPNLearner` first,
    unless `sharpness` is None. O(n d) kept; O(q d + n_iterations n_neighbors n_way) a query.

    Parameters
    ----------
    smoothness : float, default=0.7
        What a neighbour counts; the paper's lambda.
    n_neighbors : int, default=3
        Queries that are near, the query itself left out.
    n_iterations : int, default=20
        Rounds; all of them are made, so that an answer does not depend on what else is in the batch.
    sharpness : float, optional, default=10.0
        How much more a row counts in rectification that is near to its prototype; None for plain class means.
    temperature : float, default=1.0
        Of the logits; the paper has none.

    References
    ----------
    I. Ziko, J. Dolz, E. Granger, I. Ben Ayed (2020). Laplacian Regularized Few-Shot Learning. ICML. arXiv:2006.15486.
    There embeddings are centred on the base classes before (`SimpleShotLearner`), and smoothness is chosen by shots.

    Examples
    --------
    >>> import torch
    >>> from fewshot import LaplacianShotLearner
    >>> support, queries = torch.eye(2), torch.tensor([[3.0, 2.0], [2.0, 2.1], [2.0, 3.0]])
    >>> LaplacianShotLearner()(support, torch.tensor([0, 1]), queries, n_way=2).argmax(-1)
    tensor([0, 1, 1])
    """

    indexable = False
    transductive = True

    def __init__(
        self,
        smoothness: float = 0.7,
        n_neighbors: int = 3,
        n_iterations: int = 20,
        sharpness: float | None = 10.0,
        temperature: float = 1.0,
    ) -> None:
        super().__init__("sqeuclidean", temperature)
        self.smoothness = check_number("smoothness", smoothness)
        self.n_neighbors = check_count("n_neighbors", n_neighbors, 0)
        self.n_iterations = check_count("n_iterations", n_iterations, 0)
        self.sharpness = None if sharpness is None else check_number("sharpness", sharpness)

    def transform(self, x: Tensor) -> Tensor:
        """Scale each embedding to unit length."""
        return normalize(x)

    def collect(self, support: Tensor, labels: Tensor, n_way: int, weight: Tensor) -> Statistics:
        """Keep the support as it is."""
        return Statistics.of_support(support, labels, n_way, weight)

    def memorize(self, statistics: Statistics) -> Memory:
        """Make every support embedding a key."""
        return Memory.of_support(statistics.support, statistics.n_way)

    def score(self, memory: Memory, queries: Tensor) -> Tensor:
        """Return the logits of all queries, seen together."""
        m, q = memory.keys.shape[-2], queries.shape[-2]
        few = queries.shape[:-2].numel() * (m + q) ** 2 <= CHUNK
        span = Span.of(memory.keys, queries, m + q if few else 0)
        found = compare_means(span, memory) if self.sharpness is None else rectify(span, memory, self.sharpness)
        unary = found.sqeuclidean.masked_fill(found.absent, -torch.inf)
        near, logits = self._neighbours(span), unary
        index = near.flatten(-2).unsqueeze(-2)
        index = index.expand(*index.shape[:-2], memory.n_way, -1)
        for _ in range(self.n_iterations):
            answered = logits.softmax(-2).gather(-1, index).unflatten(-1, near.shape[-2:]).sum(-2)
            logits = unary + self.smoothness * answered
        return (logits / self.temperature.to(logits)).mT

    def _neighbours(self, span: Span) -> Tensor:
        """Return the places (..., k, q) of the nearest other queries."""
        x = span.queries.detach()
        n, m = x.shape[-2], span.keys.shape[-2]
        k = max(min(self.n_neighbors, n - 1), 0)
        size = max(1, CHUNK // max(x.shape[:-1].numel(), 1)) if span.gram is None else max(n, 1)
        near, squares = [], span.squares().detach()[..., m:]
        for start in range(0, max(n, 1), size):
            rows = x[..., start : start + size, :]
            products = rows @ x.mT if span.gram is None else span.gram.detach()[..., m:, m:]
            # Minus the squared distance, but for a term of the row.
            likeness = 2 * products - squares.unsqueeze(-2)
            likeness.diagonal(start, -2, -1).fill_(-torch.inf)
            near.append(largest(likeness, k).mT)
        return torch.cat(near, -1)
