"""Alpha-TIM: prototypes that make answers informative, by gradient descent on each episode."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from fewshot.learners.base import SupportLearner
from fewshot.learners.memory import Memory
from fewshot.learners.registry import register_learner
from fewshot.learners.transduction import Span, mean_weights
from fewshot.search.similarity import normalize
from fewshot.utils.values import check_count, check_number

#: Share of the last step that is taken again, and the least probability whose power or logarithm is taken.
MOMENTUM, LEAST = 0.9, 1e-12


@register_learner("alpha-tim")
class AlphaTIMLearner(SupportLearner):
    r"""Answer with the nearest prototype, moved until the answers are sure and varied. Transductive, and iterating.

    Use it if many queries come together, some classes have more of them than others, and most have some.

    Prototypes P start at the class means of embeddings of unit length. With the probabilities
    :math:`p_{ic} = \operatorname{softmax}_c(-\tfrac{\tau}{2} \lVert x_i - P_c \rVert^2)` they descend the loss

    .. math:: -\frac{1}{\lvert S \rvert} \sum_{i \in S} \log p_{i y_i} - H_\alpha \Bigl( \frac{1}{n} \sum_q p_q \Bigr)
              + \frac{1}{n} \sum_q H_\alpha(p_q), \qquad H_\alpha(p) = \frac{1 - \sum_c p_c^\alpha}{\alpha - 1}

    over the support S with labels y and the n queries q: queries get sure answers, and all together varied ones, the
    more varied the smaller α is. Tables mark the learner as fitted iteratively to each support set: the steps are
    gradients, although in closed form and between inner products alone. O(n d) to store,
    O((n + q) d + n_iterations (n + q) n_way) per query.

    Parameters
    ----------
    alpha : float, default=2.0
        Order of the entropies. 1 is Shannon's, which expects as many queries of each class: TIM.
    sharpness : float, default=15.0
        The factor τ of squared distances.
    n_iterations : int, default=30
        Number of steps, with a momentum of 0.9.
    rate : float, default=0.5
        Step size, for the gradient divided by the sharpness.

    References
    ----------
    O. Veilleux, M. Boudiaf, P. Piantanida, I. Ben Ayed (2021). Realistic Evaluation of Transductive Few-Shot Learning.
    NeurIPS. arXiv:2204.11181. The paper takes 1000 steps of Adam, and its alpha grows with the shots.

    Examples
    --------
    >>> import torch
    >>> from fewshot import AlphaTIMLearner
    >>> support, queries = torch.eye(2), torch.tensor([[3.0, 2.0], [2.0, 2.1], [2.0, 3.0]])
    >>> AlphaTIMLearner()(support, torch.tensor([0, 1]), queries, n_way=2).argmax(-1)
    tensor([0, 1, 1])
    """

    indexable = False
    transductive = True
    iterates = True

    def __init__(self, alpha: float = 2.0, sharpness: float = 15.0, n_iterations: int = 30, rate: float = 0.5) -> None:
        super().__init__("sqeuclidean")
        self.alpha = check_number("alpha", alpha, 1.0)
        self.sharpness = check_number("sharpness", sharpness, above=True)
        self.n_iterations = check_count("n_iterations", n_iterations, 0)
        self.rate = check_number("rate", rate, above=True)

    def transform(self, x: Tensor) -> Tensor:
        """Scale each embedding to unit length."""
        return normalize(x)

    def score(self, memory: Memory, queries: Tensor) -> Tensor:
        """Return the logits of all queries, answered together."""
        m, q = memory.keys.shape[-2], queries.shape[-2]
        span = Span.of(memory.keys, queries, self.n_iterations * memory.n_way)
        means, absent = mean_weights(memory)
        prototypes = F.pad(means, (0, q))  # as combinations of embeddings
        weight = memory.log_weight.exp().unsqueeze(-2)
        share = weight / weight.sum(-1, keepdim=True).clamp(min=1e-30)
        expected = F.one_hot(memory.labels, memory.n_way).mT.to(queries)
        step = torch.zeros_like(prototypes)
        for i in range(self.n_iterations + 1):
            products = span.products(prototypes)
            half = (prototypes * products).sum(-1, keepdim=True) / 2
            logits = (self.sharpness * (products - half)).masked_fill(absent, -torch.inf)
            if i < self.n_iterations:
                p = logits.softmax(-2)
                pull = torch.cat([share * (p[..., :m] - expected), self._of_entropies(p[..., m:])], -1)
                slope = pull - pull.sum(-1, keepdim=True) * prototypes
                step = MOMENTUM * step - self.rate * slope
                prototypes = prototypes + step
        return (logits[..., m:] - self.sharpness / 2 * span.squares()[..., m:].unsqueeze(-2)).mT

    def _of_entropies(self, p: Tensor) -> Tensor:
        """Return the derivatives (..., n_way, q) of both entropies by the logits of the queries."""
        n = max(p.shape[-1], 1)
        mean = p.sum(-1, keepdim=True) / n
        by_p = (self._power(mean) - self._power(p)) / n
        return p * (by_p - (p * by_p).sum(-2, keepdim=True))

    def _power(self, p: Tensor) -> Tensor:
        """Return minus the derivative of the entropy by each probability, up to a constant."""
        p = p.clamp(min=LEAST)
        return p.log() if self.alpha == 1 else self.alpha / (self.alpha - 1) * p ** (self.alpha - 1)
