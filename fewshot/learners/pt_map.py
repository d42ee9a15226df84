"""PT-MAP: power transform of embeddings, and optimal transport of queries to classes."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from fewshot.learners.base import SumLearner
from fewshot.learners.memory import Memory, Statistics
from fewshot.learners.registry import register_learner
from fewshot.learners.transduction import ESTIMATED, SHARE_PRIORS, Span, log_shares, transport
from fewshot.search.similarity import normalize, sum_of_squares
from fewshot.utils.values import check_count, check_name, check_number

Prior = Literal["estimated", "uniform", "support", "none"]
PRIORS: tuple[Prior, ...] = get_args(Prior)
#: The factor on squared distances of the paper, where they are 1 from the middle, and that for estimated shares.
KNOWN, UNKNOWN = 10.0, 30.0
#: Queries that each class is counted with more than it has, when shares are estimated.
MORE = 2.0
#: Added before taking the power, so that no embedding is zero.
EPSILON = 1e-6


@register_learner("pt-map")
class PTMAPLearner(SumLearner):
    r"""Answer by optimal transport of queries to prototypes, which it refines. Transductive.

    Use it if many queries come together, of several classes. If you know that as many of them are of each class, give
    ``prior="uniform"``, as in the paper: it gains much if that is so, and fails if it is not, as for a single query.

    Embeddings become ``f(x) = sign(x) (|x| + 1e-6)^power``, scaled to unit length. From the class means P,
    `n_iterations` rounds compute

    .. math:: z = \operatorname{transport}(-\lambda \lVert q - P_c \rVert^2), \qquad
              P_c \leftarrow P_c + \rho \left( \frac{n_c m_c + \sum_q z_{qc} \, q}{n_c + \sum_q z_{qc}} - P_c \right)

    for the queries q, the mean :math:`m_c` of the :math:`n_c` support images of class c, the `regularization` λ and the
    `rate` ρ. The rows of z sum to 1, and its columns to the class shares. The logits are log z for the last P. With
    estimated shares, z is the softmax of the same scores plus the logarithm of the shares, which start equal and become
    those of z in each round, every class counted with two queries more than it has. So a single query gets the answer
    of the nearest class mean, if classes have equally many images.
    O(n_way d) to store, O(n_iterations n_way d) per query plus the transport rounds.

    Parameters
    ----------
    prior : {"estimated", "uniform", "support", "none"}, default="estimated"
        **Class shares of the queries**: estimated; uniform, as in the paper, whose episodes are balanced, which
        explains most of the gain; those of the support; or none, which with ``rate=1`` is soft k-means and supposes
        balance, too, since each class mean moves towards all queries.
    power : float, default=0.5
        The paper's beta.
    regularization : float, optional
        Factor on squared distances; the paper's lambda. By default 10, and 30 if shares are estimated, divided by the
        mean squared distance of the queries from the middle of the class means. The paper scales embeddings once more,
        to unit length around their mean, so that this is 1.
    n_iterations : int, default=10
        Number of prototype updates.
    rate : float, default=0.2
        Step size of an update; the paper's alpha.

    References
    ----------
    Y. Hu, V. Gripon, S. Pateux (2021). Leveraging the Feature Distribution in Transfer-based Few-Shot Learning. ICANN.
    arXiv:2006.03806. The paper's embeddings are non-negative. It also reduces them by QR, which keeps distances, and
    centres support and queries by their own means before scaling again.

    Examples
    --------
    >>> import torch
    >>> from fewshot import PTMAPLearner
    >>> support, queries = torch.eye(2), torch.tensor([[3.0, 2.0], [2.0, 2.1], [2.0, 3.0], [2.1, 2.0]])
    >>> PTMAPLearner()(support, torch.tensor([0, 1]), queries, n_way=2).argmax(-1)
    tensor([0, 1, 1, 0])
    """

    indexable = False
    transductive = True

    def __init__(
        self,
        prior: Prior = "estimated",
        power: float = 0.5,
        regularization: float | None = None,
        n_iterations: int = 10,
        rate: float = 0.2,
    ) -> None:
        super().__init__("sqeuclidean")
        self.prior, self.power = check_name("prior", prior, PRIORS), check_number("power", power, above=True)
        self.regularization = regularization
        default = UNKNOWN if prior == ESTIMATED else KNOWN
        self._factor = check_number("regularization", default if regularization is None else regularization, above=True)
        self.n_iterations = check_count("n_iterations", n_iterations, 0)
        self.rate = check_number("rate", rate, above=True)
        # Without rounds, only the transport knows the shares, which are equal or those of the support.
        self.supposes_balance = prior in ("uniform", "support") or (prior == "none" and self.n_iterations > 0)

    def transform(self, x: Tensor) -> Tensor:
        """Take the power of each number and scale each embedding to unit length."""
        power = (x.abs() + EPSILON) ** self.power
        return normalize(torch.where(x < 0, -power, power))

    def memorize(self, statistics: Statistics) -> Memory:
        """Return one key per class, its mean, and keep the counts."""
        memory = super().memorize(statistics)
        return replace(memory, extras={"count": statistics.count})

    def score(self, memory: Memory, queries: Tensor) -> Tensor:
        """Return the log-probabilities of all queries, answered together."""
        m, q, count = memory.n_way, queries.shape[-2], memory.extras["count"]
        absent = (count == 0).unsqueeze(-1)
        keys, queries = self._centre(memory.keys, queries, absent)
        span = Span.of(keys, queries, 2 * self.n_iterations * m)
        share = (count > 0).to(count.dtype) if self.prior == "uniform" else count
        share = share / share.sum(-1, keepdim=True).clamp(min=1e-30)
        support = torch.diag_embed(count)
        # Prototypes as combinations of embeddings; absent classes keep their rows.
        prototypes = F.pad(torch.eye(m, dtype=queries.dtype, device=queries.device).expand_as(support), (0, q))
        factors, log_share = None, torch.zeros_like(support[..., :1])
        for i in range(self.n_iterations + 1):
            products = span.products(prototypes)
            # Minus the squared distance, up to a constant per query.
            similarity = 2 * products[..., m:] - (prototypes * products).sum(-1, keepdim=True)
            scores = (self._factor * similarity).masked_fill(absent, -torch.inf)
            if self.prior in SHARE_PRIORS:
                log_plan = (scores + log_share).log_softmax(-2)
            else:
                log_plan, factors = transport(scores, share, factors)
            if i < self.n_iterations:
                if self.prior == ESTIMATED:
                    log_share = log_shares(log_plan.exp(), MORE)
                counted = torch.cat([support, log_plan.exp()], -1)
                target = counted / counted.sum(-1, keepdim=True).clamp(min=1e-30)
                prototypes = prototypes + self.rate * (target - prototypes)
        return log_plan.mT

    def _centre(self, keys: Tensor, queries: Tensor, absent: Tensor) -> tuple[Tensor, Tensor]:
        """Subtract the mean of the class means, and scale queries to mean squared length 1 unless the factor is given.

        Answers stay the same, with fewer digits lost to what all embeddings share.
        """
        present = (~absent).to(keys.dtype)
        middle = (keys * present).sum(-2, keepdim=True) / present.sum(-2, keepdim=True).clamp(min=1)
        keys, queries = (keys - middle) * present, queries - middle
        if self.regularization is not None or not queries.shape[-2]:
            return keys, queries
        spread = sum_of_squares(queries).mean(-1)[..., None, None]
        scale = spread.clamp(min=torch.finfo(keys.dtype).eps).rsqrt()  # below, it is rounding
        return keys * scale, queries * scale
