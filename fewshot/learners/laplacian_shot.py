"""LaplacianShot: neighbouring queries get similar answers."""

from __future__ import annotations

import torch
from torch import Tensor

from fewshot.learners.base import SupportLearner
from fewshot.learners.memory import Memory
from fewshot.learners.registry import register_learner
from fewshot.learners.transduction import SHARE_PRIORS, SharePrior, Shift, Span, check_shift, compare_means, rectify
from fewshot.search.similarity import largest, normalize
from fewshot.utils.values import check_count, check_name, check_number

#: Most query-to-query similarities held at once.
CHUNK = 4_000_000
#: Queries for each class that a neighbour takes.
QUERIES_FOR_ONE = 4


@register_learner("laplacian-shot", "laplacianshot")
class LaplacianShotLearner(SupportLearner):
    r"""Answer with the nearest prototype, in agreement with the nearest other queries. Transductive.

    Use it if many queries come together and most of them have others like them.

    Let :math:`a_{qc}` be the squared distance of a query q of unit length to the prototype of class c. From the softmax
    of -a, `n_iterations` rounds compute

    .. math:: y_q \leftarrow \operatorname{softmax}_c \Bigl( -a_{qc} + \lambda \sum_{p \in N(q)} y_{pc} \Bigr)

    over the nearest other queries N(q), with the smoothness λ; the logits are the argument of the last softmax /
    temperature. Unless `sharpness` is None, prototypes are first rectified as in `BDCSPNLearner`.
    O(n d) to store, O(q d + n_iterations n_neighbors n_way) per query.

    Parameters
    ----------
    smoothness : float, default=0.7
        Weight of a neighbour; the paper's lambda.
    n_neighbors : int, default=3
        Number of nearest other queries, but at most a quarter of the queries for each class: among few, the nearest
        one is often of another class.
    n_iterations : int, default=20
        Number of rounds, without early stopping, so that episodes of a batch do not affect each other.
    sharpness : float, optional, default=5.0
        How strongly rectification favours rows near their prototype; None for plain class means.
    temperature : float, default=1.0
        Divides the logits; the paper has no temperature.
    shift : bool or "prototypes", default=False
        Whether rectification moves the queries onto the support first; see `BDCSPNLearner`.
    prior : {"none", "estimated"}, default="none"
        What rectification supposes of the shares of the classes among the queries; see `BDCSPNLearner`.

    References
    ----------
    I. Ziko, J. Dolz, E. Granger, I. Ben Ayed (2020). Laplacian Regularized Few-Shot Learning. ICML. arXiv:2006.15486.
    The paper centres embeddings on the base classes (as `SimpleShotLearner` does) and tunes smoothness per shot.

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
        sharpness: float | None = 5.0,
        temperature: float = 1.0,
        shift: bool | Shift = False,
        prior: SharePrior = "none",
    ) -> None:
        super().__init__("sqeuclidean", temperature)
        self.smoothness = check_number("smoothness", smoothness)
        self.n_neighbors = check_count("n_neighbors", n_neighbors, 0)
        self.n_iterations = check_count("n_iterations", n_iterations, 0)
        self.sharpness = None if sharpness is None else check_number("sharpness", sharpness)
        self.shift, self.prior = check_shift(shift), check_name("prior", prior, SHARE_PRIORS)
        self.supposes_balance = bool(self.shift)

    def transform(self, x: Tensor) -> Tensor:
        """Scale each embedding to unit length."""
        return normalize(x)

    def score(self, memory: Memory, queries: Tensor) -> Tensor:
        """Return the logits of all queries, answered together."""
        m, q = memory.keys.shape[-2], queries.shape[-2]
        few = queries.shape[:-2].numel() * (m + q) ** 2 <= CHUNK
        span = Span.of(memory.keys, queries, m + q if few else 0)
        found = (
            compare_means(span, memory)
            if self.sharpness is None
            else rectify(span, memory, self.sharpness, self.shift, self.prior)
        )
        unary = found.sqeuclidean.masked_fill(found.absent, -torch.inf)
        near, logits = self._neighbours(span, memory.n_way), unary
        index = near.flatten(-2).unsqueeze(-2)
        index = index.expand(*index.shape[:-2], memory.n_way, -1)
        for _ in range(self.n_iterations):
            answered = logits.softmax(-2).gather(-1, index).unflatten(-1, near.shape[-2:]).sum(-2)
            logits = unary + self.smoothness * answered
        return (logits / self.temperature.to(logits)).mT

    def _neighbours(self, span: Span, n_way: int) -> Tensor:
        """Return the positions (..., k, q) of the nearest other queries."""
        x = span.queries.detach()
        n, m = x.shape[-2], span.keys.shape[-2]
        k = max(min(self.n_neighbors, n // (QUERIES_FOR_ONE * max(n_way, 1)), n - 1), 0)
        size = max(1, CHUNK // max(x.shape[:-1].numel(), 1)) if span.gram is None else max(n, 1)
        near, squares = [], span.squares().detach()[..., m:]
        for start in range(0, max(n, 1), size):
            rows = x[..., start : start + size, :]
            products = rows @ x.mT if span.gram is None else span.gram.detach()[..., m:, m:]
            # Minus the squared distance, up to a constant per row.
            similarity = 2 * products - squares.unsqueeze(-2)
            similarity.diagonal(start, -2, -1).fill_(-torch.inf)
            near.append(largest(similarity, k).mT)
        return torch.cat(near, -1)
