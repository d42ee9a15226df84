"""PADDLE: soft k-means on the queries, with a penalty on the number of classes that they come from."""

from __future__ import annotations

import torch
from torch import Tensor

from fewshot.learners.base import SumLearner
from fewshot.learners.memory import Memory, Statistics
from fewshot.learners.registry import register_learner
from fewshot.search.similarity import normalize, pairwise_similarity
from fewshot.utils.values import check_count, check_number

#: Added to shares before their logarithm is taken.
EPSILON = 1e-6


@register_learner("paddle")
class PADDLELearner(SumLearner):
    r"""Answer with the nearest prototype after soft k-means that prefers few classes. Transductive.

    Use it if many queries come together, of several classes, and you cannot tell how many of them are of each.

    From the class means P of embeddings of unit length, and equal shares v, `n_iterations` times:

    .. math:: z_{qc} = \operatorname{softmax}_c \Bigl( -\frac{\lVert q - P_c \rVert^2}{\tau} + \gamma \log v_c \Bigr),
              \qquad v_c \leftarrow \frac{1}{n} \sum_q z_{qc}, \qquad
              P_c \leftarrow \frac{n_c m_c + \sum_q z_{qc} \, q}{n_c + \sum_q z_{qc}}

    for the n queries q, the mean :math:`m_c` of the :math:`n_c` support images of class c, the temperature τ and the
    penalty γ. The logits are the argument of the softmax for the last P and v. A single query gets the answer of the
    nearest class mean, if classes have equally many images. O(n_way d) to store, O(n_iterations n_way d) per query.

    Parameters
    ----------
    temperature : float, default=0.02
        Divides squared distances.
    penalty : float, default=1.0
        Weight of the description length of the shares; the paper's lambda divided by the number of queries. 0 for soft
        k-means.
    n_iterations : int, default=5
        Number of rounds. More of them gain on balanced queries what they lose on queries of one class.

    References
    ----------
    S. Martin, M. Boudiaf, E. Chouzenoux, J.-C. Pesquet, I. Ben Ayed (2022). Towards Practical Few-Shot Query Sets:
    Transductive Minimum Description Length Inference. NeurIPS. arXiv:2210.14545. The paper scales each number of an
    embedding by its range over the queries, and lets the rounds converge.

    Examples
    --------
    >>> import torch
    >>> from fewshot import PADDLELearner
    >>> support, queries = torch.eye(2), torch.tensor([[3.0, 2.0], [2.0, 2.1], [2.0, 3.0]])
    >>> PADDLELearner()(support, torch.tensor([0, 1]), queries, n_way=2).argmax(-1)
    tensor([0, 1, 1])
    """

    indexable = False
    transductive = True

    def __init__(self, temperature: float = 0.02, penalty: float = 1.0, n_iterations: int = 5) -> None:
        super().__init__("sqeuclidean", temperature)
        self.penalty = check_number("penalty", penalty)
        self.n_iterations = check_count("n_iterations", n_iterations, 0)

    def transform(self, x: Tensor) -> Tensor:
        """Scale each embedding to unit length."""
        return normalize(x)

    def memorize(self, statistics: Statistics) -> Memory:
        """Return one key per class, its mean, and keep the counts."""
        return super().memorize(statistics).having({"count": statistics.count})

    def score(self, memory: Memory, queries: Tensor) -> Tensor:
        """Return the logits of all queries, answered together."""
        count, prototypes = memory.extras["count"].unsqueeze(-1), memory.keys
        absent, log_share = count.mT == 0, torch.zeros_like(count.mT)
        for i in range(self.n_iterations + 1):
            similarity = pairwise_similarity(queries, prototypes, self.metric) / self.temperature.to(queries)
            logits = (similarity + self.penalty * log_share).masked_fill(absent, -torch.inf)
            if i < self.n_iterations:
                own = logits.softmax(-1)
                total = own.sum(-2, keepdim=True)
                log_share = (total / max(queries.shape[-2], 1) + EPSILON).log()
                prototypes = (count * memory.keys + own.mT @ queries) / (count + total.mT).clamp(min=1e-30)
        return logits
