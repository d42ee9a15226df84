"""Simple CNAPS: the Mahalanobis distance to each class under its own covariance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from fewshot.learners.base import SupportLearner
from fewshot.learners.memory import Memory, Statistics
from fewshot.learners.registry import register_learner
from fewshot.search.similarity import pairwise_similarity
from fewshot.utils.values import check_number


@register_learner("mahalanobis", "simple-cnaps")
class MahalanobisLearner(SupportLearner):
    r"""Answer with the class whose mean is nearest under the covariance of that class.

    Use it if classes differ in how widely they spread, from some images a class on; with one image a class, cosine
    prototypes are better.

    .. math:: \mathrm{logit}_c = -\frac{1}{2 \tau} (q - m_c)^\top Q_c^{-1} (q - m_c),
              \qquad Q_c = s_c \, C_c + (1 - s_c) \, C + r I, \qquad s_c = \frac{n_c}{n_c + 1}

    for a query q, the mean :math:`m_c` and covariance :math:`C_c` of the support of class c, the covariance C of all
    support, the `regularization` r and the temperature τ. :math:`n_c` is the number of shots, or the sum of sample
    weights; covariances divide by it.

    No ``(n_way, d, d)`` array is built. Classes with equally many shots share the last two terms, for which one matrix
    of side min(n, d) is factored. The first term has the rank of the shots and is inverted by Woodbury's identity.
    O(n d) to store, O(n^2 d + n^3) to learn for each distinct number of shots, O(n d) per query. Covariances are of the
    whole support, so each change of a classifier computes all again.

    A class with many more images than the others gets too many answers; `DiscriminantLearner` does not mind.

    Parameters
    ----------
    regularization : float, default=1.0
        Added to each variance; the paper's beta.
    temperature : float, default=1.0
        The paper has no temperature.
    learn_temperature : bool, default=False
        Whether meta-training adjusts the temperature.

    References
    ----------
    P. Bateni, R. Goyal, V. Masrani, F. Wood, L. Sigal (2020). Improved Few-Shot Visual Classification. CVPR.
    arXiv:1912.03432. The paper also adapts the network to the task, and its code divides covariances by n - 1.

    Examples
    --------
    >>> import torch
    >>> from fewshot import MahalanobisLearner
    >>> support = torch.tensor([[-9.0, 0.0], [9.0, 0.0], [7.0, 4.0], [7.0, 4.2]])
    >>> learner = MahalanobisLearner(regularization=0.1)
    >>> learner(support, torch.tensor([0, 0, 1, 1]), torch.tensor([[8.0, 0.5]]), n_way=2).argmax(-1)
    tensor([0])
    """

    indexable = False

    def __init__(self, regularization: float = 1.0, temperature: float = 1.0, learn_temperature: bool = False) -> None:
        super().__init__("sqeuclidean", temperature, learn_temperature)
        self.regularization = check_number("regularization", regularization, 1e-9)

    def memorize(self, statistics: Statistics) -> Memory:
        """Return the class means as keys, with low-rank factors of the inverse covariances as extras."""
        x, labels, weight = (statistics.support[name] for name in ("x", "labels", "weight"))
        count, means = statistics.count, statistics.means
        total = count.sum(-1).clamp(min=torch.finfo(count.dtype).tiny)[..., None, None]
        center = (x * weight.unsqueeze(-1)).sum(-2, keepdim=True) / total
        root = weight.sqrt().unsqueeze(-1)
        spread, keys = (x - center) * root, torch.where(count.unsqueeze(-1) > 0, means - center, 0)
        own = (x - means.gather(-2, labels.unsqueeze(-1).expand(x.shape))) * root
        shots = count.unique()
        shots = shots[shots > 0]
        group = torch.searchsorted(shots, count).clamp(max=len(shots) - 1)
        # One shared matrix for each distinct number of shots: (..., groups, r, r) with r = min(n, d).
        share = 1 / ((shots + 1)[:, None, None] * total.unsqueeze(-3))
        n, d = x.shape[-2:]
        inner = (spread @ spread.mT if n < d else spread.mT @ spread).unsqueeze(-3)
        side = torch.eye(min(n, d), dtype=x.dtype, device=x.device)
        shared = inner + self.regularization / share * side if n < d else share * inner + self.regularization * side
        extras = {"middle": center, "spread": spread, "own": own, "labels": labels, "group": group}
        extras |= {"factor": torch.linalg.cholesky(shared)}
        # Inner products of rows under the shared matrix of their class; those of different classes are dropped.
        gram = own.new_zeros((*own.shape[:-1], n))
        for g, row in _rows_of_groups(extras):
            gram = torch.where(row.unsqueeze(-1), _Shared(self, extras, g).products(own, own), gram)
        same = labels.unsqueeze(-1) == labels.unsqueeze(-2)
        own_shots = count.gather(-1, labels) + 1
        within = torch.where(same, gram, 0) + torch.diag_embed(own_shots)
        memory = Memory.of_prototypes(keys, count)
        return replace(memory, extras={**extras, "within": torch.linalg.cholesky(within)})

    def score(self, memory: Memory, queries: Tensor) -> Tensor:
        """Return minus half the squared distances / temperature."""
        extras, means = memory.extras, memory.keys
        q, labels = queries - extras["middle"], extras["labels"]
        means_of_rows = means.gather(-2, labels.unsqueeze(-1).expand(extras["own"].shape))
        distance = q.new_zeros((*q.shape[:-1], means.shape[-2]))
        along = q.new_zeros((*q.shape[:-1], labels.shape[-1]))
        for g, row in _rows_of_groups(extras):
            shared = _Shared(self, extras, g)
            of_class = (extras["group"] == g).unsqueeze(-2)
            distance = torch.where(of_class, shared.distances(q, means), distance)
            offset = shared.along(extras["own"], means_of_rows).unsqueeze(-2)
            along = torch.where(row.unsqueeze(-2), shared.products(q, extras["own"]) - offset, along)
        explained = torch.linalg.solve_triangular(extras["within"], along.mT, upper=False).mT.square()
        index = labels.unsqueeze(-2).expand(explained.shape)
        distance = distance - torch.zeros_like(distance).scatter_add(-1, index, explained)
        return self.read(-distance / 2, memory)


def _rows_of_groups(extras: Mapping[str, Tensor]) -> list[tuple[int, Tensor]]:
    """Return the index of each distinct number of shots, and the mask of the rows whose class has it."""
    of_rows = extras["group"].gather(-1, extras["labels"])
    return [(g, of_rows == g) for g in range(extras["factor"].shape[-3])]


class _Shared:
    """Products under the inverse of P = (1 - s) Cov(all) + r I, which classes with equally many shots share.

    If the support is smaller than the embedding, ``P^-1 = (I - A' (r / share I + A A')^-1 A) / r`` for its rows A.
    """

    def __init__(self, learner: MahalanobisLearner, extras: Mapping[str, Tensor], g: int) -> None:
        self.factor, self.spread = extras["factor"][..., g, :, :], extras["spread"]
        self.wide = self.spread.shape[-2] < self.spread.shape[-1]
        self.regularization = learner.regularization

    def _whitened(self, x: Tensor) -> Tensor:
        return torch.linalg.solve_triangular(self.factor, self.spread @ x.mT if self.wide else x.mT, upper=False).mT

    def products(self, x: Tensor, y: Tensor) -> Tensor:
        """Return x' P^-1 y for every pair of rows."""
        product = self._whitened(x) @ self._whitened(y).mT
        return (x @ y.mT - product) / self.regularization if self.wide else product

    def along(self, x: Tensor, y: Tensor) -> Tensor:
        """Return x' P^-1 y row by row."""
        product = (self._whitened(x) * self._whitened(y)).sum(-1)
        return ((x * y).sum(-1) - product) / self.regularization if self.wide else product

    def distances(self, x: Tensor, y: Tensor) -> Tensor:
        """Return (x - y)' P^-1 (x - y) for every pair of rows."""
        whitened = -pairwise_similarity(self._whitened(x), self._whitened(y))
        return (-pairwise_similarity(x, y) - whitened) / self.regularization if self.wide else whitened
