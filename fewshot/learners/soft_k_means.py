"""Prototypes refined by soft k-means on the queries."""

from __future__ import annotations

from torch import Tensor

from fewshot.learners.base import SumLearner
from fewshot.learners.memory import Memory, Statistics
from fewshot.learners.registry import register_learner
from fewshot.search.similarity import Metric, pairwise_similarity
from fewshot.utils.values import check_count


@register_learner("soft-k-means")
class SoftKMeansLearner(SumLearner):
    r"""Answer with the nearest prototype after soft k-means on the queries. Transductive.

    Use it if many queries come together, and all of them are of the classes.

    From the class means P, `n_iterations` times:

    .. math:: z_{qc} = \operatorname{softmax}_c \frac{\mathrm{similarity}(q, P_c)}{\tau}, \qquad
              P_c \leftarrow \frac{n_c m_c + \sum_q z_{qc} \, q}{n_c + \sum_q z_{qc}}

    for the queries q, the mean :math:`m_c` of the :math:`n_c` support images of class c, and the temperature τ. The
    logits are the argument of the softmax for the last P. O(n_way d) to store, O(n_iterations n_way d) per query.

    Parameters
    ----------
    metric : {"sqeuclidean", "cosine", "dot"}, default="sqeuclidean"
        Similarity.
    temperature : float or None, default=1.0
        Logits are similarity / temperature; the paper has no temperature. None suits it to the spread of the
        prototypes: at 1, embeddings of large numbers make every share 0 or 1.
    learn_temperature : bool, default=False
        Whether meta-training adjusts the temperature.
    n_iterations : int, default=1
        Number of refinements; the paper uses one.

    References
    ----------
    M. Ren, E. Triantafillou, S. Ravi, J. Snell, K. Swersky, J. Tenenbaum, H. Larochelle, R. Zemel (2018). Meta-Learning
    for Semi-Supervised Few-Shot Classification. ICLR. arXiv:1803.00676. In the paper, the unlabelled images are not the
    queries, and may come from other classes.

    Examples
    --------
    >>> import torch
    >>> from fewshot import SoftKMeansLearner
    >>> queries = torch.tensor([[1.0], [2.0], [5.0], [6.0]])
    >>> SoftKMeansLearner()(torch.tensor([[0.0], [4.0]]), torch.tensor([0, 1]), queries, n_way=2).argmax(-1)
    tensor([0, 0, 1, 1])
    """

    by_distance = True
    indexable = False
    transductive = True

    def __init__(
        self,
        metric: Metric = "sqeuclidean",
        temperature: float | None = 1.0,
        learn_temperature: bool = False,
        n_iterations: int = 1,
    ) -> None:
        super().__init__(metric, temperature, learn_temperature)
        self.n_iterations = check_count("n_iterations", n_iterations, 0)

    def memorize(self, statistics: Statistics) -> Memory:
        """Return one key per class, its mean, and keep the counts."""
        return super().memorize(statistics).having({"count": statistics.count})

    def score(self, memory: Memory, queries: Tensor) -> Tensor:
        """Return the logits of all queries, answered together."""
        count, prototypes = memory.extras["count"].unsqueeze(-1), memory.keys
        for _ in range(self.n_iterations):
            share = self._logits(queries, prototypes, memory).softmax(-1).mT
            prototypes = (count * memory.keys + share @ queries) / (count + share.sum(-1, keepdim=True)).clamp(
                min=1e-30
            )
        return self._logits(queries, prototypes, memory)

    def _logits(self, queries: Tensor, prototypes: Tensor, memory: Memory) -> Tensor:
        return self.read(pairwise_similarity(queries, prototypes, self.metric), memory)
