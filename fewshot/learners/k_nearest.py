"""The k nearest support embeddings vote."""

from __future__ import annotations

import torch
from torch import Tensor

from fewshot.learners.base import IGNORE, SMOOTHING, Learner, least_chance
from fewshot.learners.memory import Memory
from fewshot.learners.registry import register_learner
from fewshot.learners.statistics import Statistics
from fewshot.utils.parameters import check_count


@register_learner("k-nearest", "knn")
class KNearestLearner(Learner):
    """Answer with the class that gathers most votes of the k nearest support embeddings, near ones counting more.

    ``p(c | query) ~ sum over the k nearest i of class c of weight[i] exp(similarity(query, x[i]) / temperature)``.
    The support is the memory: O(n d) kept, O(n d) a query. A sample weight of 2 is two neighbours; where several keys
    are equally far and only some of them fit, they share what is left. A class that has none of the k nearest has
    logit minus infinity; the training loss is the cross-entropy of probabilities mixed with 1 % of chance.

    Parameters
    ----------
    n_neighbors : int, default=5
        How many vote; all of the support where it is smaller, and through FAISS 256 at most.
    metric : {"cosine", "sqeuclidean", "dot"}, default="cosine"
        What is near.
    temperature : float, default=0.1
        How much more a near one counts; a large one makes all votes equal.
    learn_temperature : bool, default=False
        Whether meta-training adjusts the temperature.

    References
    ----------
    S. Dudani (1976). The Distance-Weighted k-Nearest-Neighbor Rule. IEEE Transactions on Systems, Man, and Cybernetics
    6(4). There votes fall linearly with the distance, here exponentially.

    Examples
    --------
    >>> import torch
    >>> from fewshot import KNearestLearner
    >>> support = torch.tensor([[0.0], [1.0], [2.0], [9.0]])
    >>> learner = KNearestLearner(n_neighbors=3, metric="sqeuclidean", temperature=100.0)
    >>> learner(support, torch.tensor([0, 1, 1, 0]), torch.tensor([[0.1]]), n_way=2).argmax(-1)
    tensor([1])
    """

    def __init__(
        self, n_neighbors: int = 5, metric: str = "cosine", temperature: float = 0.1, learn_temperature: bool = False
    ) -> None:
        super().__init__(metric, temperature, learn_temperature)
        self.n_neighbors = check_count("n_neighbors", n_neighbors)

    def collect(self, support: Tensor, labels: Tensor, n_way: int, weight: Tensor) -> Statistics:
        """Keep the support as it is."""
        return Statistics.of_support(support, labels, n_way, weight)

    def memorize(self, statistics: Statistics) -> Memory:
        """Make every support embedding a key, weighted by its sample weight."""
        return Memory.of_support(statistics.support, statistics.n_way)

    def read(self, similarity: Tensor, memory: Memory, candidates: Tensor | None = None) -> Tensor:
        """Read the nearest keys alone."""
        log_weight = memory.log_weight.to(similarity.dtype)
        if candidates is None:
            log_weight = log_weight.unsqueeze(-2).expand_as(similarity)
        else:
            log_weight = torch.where(candidates >= 0, log_weight[candidates.clamp(min=0)], -torch.inf)
        share = _voting(similarity.detach(), log_weight.exp(), self.n_neighbors)
        votes = similarity.masked_fill(share == 0, -torch.inf)
        # In similarities, which are divided by the temperature when they are read.
        extra = torch.where(share > 0, share, 1).log() * self.temperature.to(similarity)
        return super().read(votes + extra, memory, candidates)

    def margins(self, logits: Tensor) -> Tensor:
        """Return logits (..., n_way) that are bounded below as the loss is: most classes have no vote."""
        return torch.maximum(logits, logits.amax(-1, keepdim=True) - least_chance(logits))

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean cross-entropy of probabilities that are mixed with a little chance."""
        log_proba, real = logits.log_softmax(-1).flatten(0, -2), labels.flatten() != IGNORE
        chosen = log_proba.gather(-1, labels.flatten().clamp(min=0).unsqueeze(-1)).squeeze(-1).exp()
        return -((1 - SMOOTHING) * chosen[real] + SMOOTHING / logits.shape[-1]).log().mean()


def _voting(similarity: Tensor, weight: Tensor, k: int) -> Tensor:
    """Return the part (..., q, m), in 0..1, of each key's weight that is among the nearest of total weight `k`."""
    similarity = similarity.masked_fill(weight == 0, -torch.inf)
    whole = bool((weight[weight > 0] >= 1).all())  # then no more than k keys can be among them
    n = min(k, similarity.shape[-1]) if whole else similarity.shape[-1]
    nearest, places = similarity.topk(n, -1)
    reached = weight.gather(-1, places).cumsum(-1) >= k * (1 - 1e-5)
    # The similarity at which enough are reached: the first place, or the last where there are never enough.
    last = torch.where(reached.any(-1, keepdim=True), reached.int().argmax(-1, keepdim=True), n - 1)
    edge = nearest.gather(-1, last)
    slack = 64 * torch.finfo(similarity.dtype).eps * torch.where(weight > 0, similarity, 0).abs().amax(-1, keepdim=True)
    nearer, level = similarity > edge + slack, (similarity - edge).abs() <= slack
    above, equal = (torch.where(mask, weight, 0).sum(-1, keepdim=True) for mask in (nearer, level))
    share = ((k - above) / torch.where(equal > 0, equal, 1)).clamp(0, 1)
    share = torch.where(level, share, nearer.to(share.dtype))
    return share.masked_fill(weight == 0, 0)
