"""Votes of the k nearest support embeddings."""

from __future__ import annotations

import torch
from torch import Tensor

from fewshot.learners.base import IGNORE, SMOOTHING, SupportLearner, chance_gap
from fewshot.learners.memory import Memory, read
from fewshot.learners.registry import register_learner
from fewshot.search.similarity import Metric
from fewshot.utils.values import check_count


@register_learner("k-nearest", "knn")
class KNearestLearner(SupportLearner):
    r"""Answer with the class that wins the vote of the k nearest support embeddings, weighted by similarity.

    Use it if the images of a class are alike in small groups and have no common centre, and there are many of them.

    .. math:: p(c \mid q) \propto \sum_{i \in N_k(q):\, y_i = c} w_i \exp \frac{\mathrm{similarity}(q, x_i)}{\tau}

    for a query q, its k nearest rows :math:`N_k(q)` of the support x with labels y and weights w, and the temperature
    τ. The support is the memory: O(n d) to store, O(n d) per query. A row of sample weight 2 counts as two neighbours.
    Keys tied for the last places share them. A class without a vote has logit minus infinity; the training loss is the
    cross-entropy of probabilities mixed with 1 % of the uniform distribution.

    A class with many more images than the others has the most voters and gets too many answers; `DiscriminantLearner`
    does not mind.

    A classifier learns and forgets an image without touching the others, unless the learner is `centered`: then every
    key moves with the centre.

    Parameters
    ----------
    n_neighbors : int, default=5
        Number of voters, at most the size of the support, and at most 256 through FAISS.
    metric : {"cosine", "sqeuclidean", "dot"}, default="cosine"
        Similarity.
    temperature : float or None, default=0.1
        The lower it is, the more the nearest votes dominate. None suits it to the spread of the class means.
    learn_temperature : bool, default=False
        Whether meta-training adjusts the temperature.
    centered : bool, default=False
        Whether to subtract the mean of the class means from embeddings, scaled to unit length under the cosine.

    References
    ----------
    S. Dudani (1976). The Distance-Weighted k-Nearest-Neighbor Rule. IEEE Transactions on Systems, Man, and Cybernetics
    6(4). In the paper, votes fall linearly with the distance; here they fall exponentially.

    Examples
    --------
    >>> import torch
    >>> from fewshot import KNearestLearner
    >>> support = torch.tensor([[0.0], [1.0], [2.0], [9.0]])
    >>> learner = KNearestLearner(n_neighbors=3, metric="sqeuclidean", temperature=100.0)
    >>> learner(support, torch.tensor([0, 1, 1, 0]), torch.tensor([[0.1]]), n_way=2).argmax(-1)
    tensor([1])
    """

    by_distance = True

    def __init__(
        self,
        n_neighbors: int = 5,
        metric: Metric = "cosine",
        temperature: float | None = 0.1,
        learn_temperature: bool = False,
        centered: bool = False,
    ) -> None:
        super().__init__(metric, temperature, learn_temperature)
        self.centered = bool(centered)
        self.n_neighbors = check_count("n_neighbors", n_neighbors)

    @property
    def keys_by_class(self) -> bool:
        """Whether the keys of a class follow from its own support; not if `centered`."""
        return self._keeps_hooks_of(KNearestLearner)

    @property
    def n_read(self) -> int:
        """How many of the nearest keys decide an answer, if each has a weight of 1."""
        return self.n_neighbors

    def read(self, similarity: Tensor, memory: Memory, candidates: Tensor | None = None) -> Tensor:
        """Read only the nearest keys."""
        log_weight = memory.log_weight.to(similarity.dtype)
        if candidates is None:
            log_weight = log_weight.unsqueeze(-2).expand_as(similarity)
        else:
            log_weight = torch.where(candidates >= 0, log_weight[candidates.clamp(min=0)], -torch.inf)
        share = _voting(similarity.detach(), log_weight.exp(), self.n_neighbors)
        scores = similarity / self.temperature_of(memory).to(similarity)[..., None, None]
        votes = (scores + torch.where(share > 0, share, 1).log()).masked_fill(share == 0, -torch.inf)
        return read(votes, memory, candidates)

    def margins(self, logits: Tensor) -> Tensor:
        """Return logits (..., n_way) with the lower bound of the loss, because most classes have no vote."""
        return torch.maximum(logits, logits.amax(-1, keepdim=True) - chance_gap(logits))

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean cross-entropy of probabilities mixed with 1 % of the uniform distribution."""
        log_proba, real = logits.log_softmax(-1).flatten(0, -2), labels.flatten() != IGNORE
        chosen = log_proba.gather(-1, labels.flatten().clamp(min=0).unsqueeze(-1)).squeeze(-1).exp()
        return -((1 - SMOOTHING) * chosen[real] + SMOOTHING / logits.shape[-1]).log().mean()


def _voting(similarity: Tensor, weight: Tensor, k: int) -> Tensor:
    """Return the fraction (..., q, m) of each key's weight that counts among the nearest keys of total weight `k`."""
    similarity = similarity.masked_fill(weight == 0, -torch.inf)
    whole = bool((weight[weight > 0] >= 1).all())  # then at most k keys can count
    n = min(k, similarity.shape[-1]) if whole else similarity.shape[-1]
    nearest, places = similarity.topk(n, -1)
    reached = weight.gather(-1, places).cumsum(-1) >= k * (1 - 1e-5)
    # The similarity of the key that completes weight k, or of the farthest key if the weight never suffices.
    last = torch.where(reached.any(-1, keepdim=True), reached.int().argmax(-1, keepdim=True), n - 1)
    edge = nearest.gather(-1, last)
    slack = 64 * torch.finfo(similarity.dtype).eps * torch.where(weight > 0, similarity, 0).abs().amax(-1, keepdim=True)
    nearer, level = similarity > edge + slack, (similarity - edge).abs() <= slack
    above, equal = (torch.where(mask, weight, 0).sum(-1, keepdim=True) for mask in (nearer, level))
    share = ((k - above) / torch.where(equal > 0, equal, 1)).clamp(0, 1)
    share = torch.where(level, share, nearer.to(share.dtype))
    return share.masked_fill(weight == 0, 0)
