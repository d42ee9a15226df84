"""Several prototypes per class, for classes of varied appearance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from fewshot.learners.base import SupportLearner
from fewshot.learners.memory import Memory, Statistics, sum_by_class
from fewshot.learners.registry import register_learner
from fewshot.search.similarity import Metric, normalize
from fewshot.utils.values import check_count

#: Most iterations of k-means; few-shot classes converge in two or three.
N_ITERATIONS = 10


@register_learner("multi-prototypical")
class MultiPrototypicalLearner(SupportLearner):
    r"""Answer with the class that has the nearest prototypes, the means of its clusters.

    Use it for classes that come in several looks, such as a thing from its front and from its back, if there are
    several images of each.

    Deterministic k-means splits the support of each class into at most `n_prototypes` clusters. The first centre is the
    row nearest to the class mean; each further centre is the row farthest from those before. Then

    .. math:: \mathrm{logit}_c = \log \sum_{j \in c} \pi_j \exp \frac{\mathrm{similarity}(q, m_j)}{\tau}

    over the clusters j of the class, where :math:`m_j` is the mean of a cluster, :math:`\pi_j` its share of the class,
    q a query and τ the temperature. With one prototype this is `PrototypicalLearner`. O(n d) to store, O(n k d) per
    iteration to learn, O(n_way k d) per query. The clusters of a class depend on its own support alone, so a classifier
    that learns a class clusters no other.

    The mean of many images lies nearer to queries than a single image does, so a class with many more images than the
    others gets too many answers; `DiscriminantLearner` does not mind.

    Parameters
    ----------
    metric : {"sqeuclidean", "cosine", "dot"}, default="sqeuclidean"
        Similarity. Under ``cosine``, embeddings are scaled to unit length before clustering.
    temperature : float or None, default=1.0
        Logits are similarity / temperature. None suits it to the spread of the class means.
    learn_temperature : bool, default=False
        Whether meta-training adjusts the temperature.
    n_prototypes : int, default=3
        Most prototypes per class.

    References
    ----------
    S. Lloyd (1982). Least squares quantization in PCM. IEEE Transactions on Information Theory 28(2).
    K. Allen, E. Shelhamer, H. Shin, J. Tenenbaum (2019). Infinite Mixture Prototypes for Few-shot Learning. ICML.
    arXiv:1902.04552. The paper infers the number of clusters from the data and learns their variance.

    Examples
    --------
    >>> from fewshot import MultiPrototypicalLearner
    >>> support = torch.tensor([[0.0], [10.0], [5.0]])
    >>> learner = MultiPrototypicalLearner(n_prototypes=2)
    >>> learner(support, torch.tensor([0, 0, 1]), torch.tensor([[9.0]]), n_way=2).argmax(-1)
    tensor([0])
    """

    by_distance = True

    def __init__(
        self,
        metric: Metric = "sqeuclidean",
        temperature: float | None = 1.0,
        learn_temperature: bool = False,
        n_prototypes: int = 3,
    ) -> None:
        super().__init__(metric, temperature, learn_temperature)
        self.n_prototypes = check_count("n_prototypes", n_prototypes)

    @property
    def keys_by_class(self) -> bool:
        """Whether the keys of a class follow from its own support."""
        return self._keeps_hooks_of(MultiPrototypicalLearner)

    def memorize(self, statistics: Statistics) -> Memory:
        """Return the mean of each cluster as a key, weighted by its share of the class."""
        statistics, extras = self.prepared(statistics)
        x, labels, weight = (statistics.support[name] for name in ("x", "labels", "weight"))
        k, n_way = self.n_prototypes, statistics.n_way
        with torch.no_grad():
            points = normalize(x) if self.metric == "cosine" else x
            cluster = _k_means(points, labels, weight, n_way, k)
        place = labels * k + cluster
        total = sum_by_class(weight.unsqueeze(-1), place, n_way * k)
        keys = sum_by_class(x * weight.unsqueeze(-1), place, n_way * k) / torch.where(total > 0, total, 1)
        share = total.squeeze(-1) / torch.where(statistics.count > 0, statistics.count, 1).repeat_interleave(k, -1)
        classes = torch.arange(n_way, device=x.device).repeat_interleave(k).expand(share.shape)
        memory = Memory.of_keys(keys, classes, share, n_way).having(extras)
        return memory if k > 1 else replace(memory, one_key_per_class=True)


def _k_means(x: Tensor, labels: Tensor, weight: Tensor, n_way: int, k: int) -> Tensor:
    """Return the cluster, in 0..k-1, of each row of `x` (..., n, d) within its class, (..., n)."""

    def means(place: Tensor, n: int) -> Tensor:
        total = sum_by_class(weight.unsqueeze(-1), place, n)
        return sum_by_class(x * weight.unsqueeze(-1), place, n) / torch.where(total > 0, total, 1)

    def distances(centres: Tensor) -> Tensor:
        """Return the distance of each row to the centre of its class; centres (..., n_way, d)."""
        own = centres.gather(-2, labels.unsqueeze(-1).expand(x.shape))
        return (x - own).square().sum(-1)

    centres = _first_centres(x, labels, weight, n_way, k, distances, means(labels, n_way))
    cluster = torch.full_like(labels, -1)
    for _ in range(N_ITERATIONS):
        nearest = torch.stack([distances(centres[..., j, :]) for j in range(k)], -1).argmin(-1)
        if torch.equal(nearest, cluster):
            break
        cluster = nearest
        place = labels * k + cluster
        filled = sum_by_class(weight.unsqueeze(-1), place, n_way * k).unflatten(-2, (n_way, k)) > 0
        centres = torch.where(filled, means(place, n_way * k).unflatten(-2, (n_way, k)), centres)
    return cluster


def _first_centres(
    x: Tensor, labels: Tensor, weight: Tensor, n_way: int, k: int, distances: Callable[[Tensor], Tensor], mean: Tensor
) -> Tensor:
    """Return centres (..., n_way, k, d): the row nearest to `mean` (..., n_way, d), then the farthest rows."""
    real = weight > 0

    def choose(rank: Tensor) -> Tensor:
        """Return the row of each class with the largest `rank` (..., n); ties go to the first."""
        rank = torch.where(real, rank, -torch.inf)
        largest = rank.new_full((*rank.shape[:-1], n_way), -torch.inf).scatter_reduce(-1, labels, rank, "amax")
        places = torch.arange(rank.shape[-1], device=rank.device).expand(rank.shape)
        last = places.shape[-1] - 1
        places = torch.where(rank == largest.gather(-1, labels), places, last)
        row = torch.full_like(largest, last, dtype=torch.long).scatter_reduce(-1, labels, places, "amin")
        return x.gather(-2, row.unsqueeze(-1).expand(*row.shape, x.shape[-1]))

    centres = [choose(-distances(mean))]
    apart = distances(centres[0])
    for _ in range(k - 1):
        centres.append(choose(apart))
        apart = torch.minimum(apart, distances(centres[-1]))
    return torch.stack(centres, -2)
