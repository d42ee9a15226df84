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
    scales_columns = True

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
        group, shots = _grouped(count)
        # One shared matrix for each distinct number of shots: (..., groups, r, r) with r = min(n, d).
        share = 1 / ((shots + 1)[..., None, None] * total.unsqueeze(-3))
        n, d = x.shape[-2:]
        inner = (spread @ spread.mT if n < d else spread.mT @ spread).unsqueeze(-3)
        side = torch.eye(min(n, d), dtype=x.dtype, device=x.device)
        shared = inner + self.regularization / share * side if n < d else share * inner + self.regularization * side
        extras = {"middle": center, "spread": spread, "own": own, "labels": labels, "group": group}
        extras |= {"factor": torch.linalg.cholesky(shared)}
        # Inner products of rows under the shared matrix of their class; those of different classes are dropped.
        gram, crossed, plain = own.new_zeros((*own.shape[:-1], n)), _crossed(spread, own), own @ own.mT
        for g, row in _rows_of_groups(extras):
            inverse = _Shared(self, extras, g)
            whitened = inverse.whitened(crossed)
            gram = torch.where(row.unsqueeze(-1), inverse.corrected(plain, whitened @ whitened.mT), gram)
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
        apart, plain = -pairwise_similarity(q, means), q @ extras["own"].mT
        aligned = (extras["own"] * means_of_rows).sum(-1)
        crossed = [_crossed(extras["spread"], x) for x in (q, means, extras["own"])]
        for g, row in _rows_of_groups(extras):
            inverse = _Shared(self, extras, g)
            to_query, to_mean, to_row = map(inverse.whitened, crossed)
            of_class = (extras["group"] == g).unsqueeze(-2)
            found = inverse.corrected(apart, -pairwise_similarity(to_query, to_mean))
            distance = torch.where(of_class, found, distance)
            offset = (to_row * to_mean.gather(-2, labels.unsqueeze(-1).expand(to_row.shape))).sum(-1)
            offset = inverse.corrected(aligned, offset).unsqueeze(-2)
            along = torch.where(row.unsqueeze(-2), inverse.corrected(plain, to_query @ to_row.mT) - offset, along)
        explained = torch.linalg.solve_triangular(extras["within"], along.mT, upper=False).mT.square()
        index = labels.unsqueeze(-2).expand(explained.shape)
        distance = distance - torch.zeros_like(distance).scatter_add(-1, index, explained)
        return self.read(-distance / 2, memory)


def _grouped(count: Tensor) -> tuple[Tensor, Tensor]:
    """Return which classes (..., n_way) have equally many shots, and how many each group (..., groups) has.

    Groups are those of each episode: a batch of uneven ones has far more numbers of shots than any of them.
    """
    ordered, places = torch.where(count > 0, count, count.amax(-1, keepdim=True)).sort(-1)
    rank = torch.zeros_like(places)
    rank[..., 1:] = (ordered[..., 1:] != ordered[..., :-1]).cumsum(-1)
    group = torch.zeros_like(places).scatter(-1, places, rank)
    n_groups = int(rank.amax()) + 1 if rank.numel() else 0
    return group, torch.ones_like(ordered[..., :n_groups]).scatter(-1, rank, ordered)


def _rows_of_groups(extras: Mapping[str, Tensor]) -> list[tuple[int, Tensor]]:
    """Return the index of each distinct number of shots, and the mask of the rows whose class has it."""
    of_rows = extras["group"].gather(-1, extras["labels"])
    return [(g, of_rows == g) for g in range(extras["factor"].shape[-3])]


def _crossed(spread: Tensor, x: Tensor) -> Tensor:
    """Return what the shared matrices of all groups need of rows x: (..., n, rows) for few rows of spread, else x'."""
    return spread @ x.mT if _is_wide(spread) else x.mT


def _is_wide(spread: Tensor) -> bool:
    return spread.shape[-2] < spread.shape[-1]


class _Shared:
    """Products under the inverse of P = (1 - s) Cov(all) + r I, which classes with equally many shots share.

    If the support is smaller than the embedding, ``P^-1 = (I - A' (r / share I + A A')^-1 A) / r`` for its rows A.
    """

    def __init__(self, learner: MahalanobisLearner, extras: Mapping[str, Tensor], g: int) -> None:
        self.factor, self.wide = extras["factor"][..., g, :, :], _is_wide(extras["spread"])
        self.regularization = learner.regularization

    def whitened(self, crossed: Tensor) -> Tensor:
        """Return whitened rows (..., rows, r) of what `_crossed` returns."""
        return torch.linalg.solve_triangular(self.factor, crossed, upper=False).mT

    def corrected(self, plain: Tensor, whitened: Tensor) -> Tensor:
        """Return products or squared distances under P^-1, of plain ones and those of whitened rows."""
        return (plain - whitened) / self.regularization if self.wide else whitened
