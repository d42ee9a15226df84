"""Matching Networks: attention over the support embeddings."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from fewshot.errors import UnknownNameError
from fewshot.learners.base import Learner
from fewshot.learners.memory import Memory
from fewshot.learners.registry import register_learner
from fewshot.learners.replacement import REPLACEMENTS, rows_to_keep
from fewshot.learners.statistics import Statistics


@register_learner("matching", "matching-networks")
class MatchingLearner(Learner):
    """Answer with the class that gathers most attention over its support images.

    ``p(c | query) = sum over the support of c of softmax(cosine(query, support) / temperature)``, without
    full-context embeddings. The support itself is the memory: O(n d) kept, O(n d) a query.

    Parameters
    ----------
    metric : {"cosine", "sqeuclidean", "dot"}, default="cosine"
        The paper uses the cosine.
    temperature : float, default=0.1
        Logits are similarity / temperature. The paper has none, which is 1; since a cosine lies in [-1, 1], its
        softmax is then nearly flat, so the default here is sharper.
    learn_temperature : bool, default=False
        Whether meta-training adjusts the temperature.
    max_support : int, optional
        Support rows that a growing classifier keeps of each class; by default all.
    replacement : {"reservoir", "oldest"}, default="reservoir"
        Which rows go where there are more: those outside a uniform sample of all that came, whatever their order and
        portions, or the oldest; see `fewshot.learners.replacement`.

    References
    ----------
    O. Vinyals, C. Blundell, T. Lillicrap, K. Kavukcuoglu, D. Wierstra (2016). Matching Networks for One Shot
    Learning. NeurIPS. arXiv:1606.04080.

    Examples
    --------
    >>> import torch
    >>> from fewshot import MatchingLearner
    >>> support = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]])
    >>> logits = MatchingLearner()(support, torch.tensor([0, 0, 1]), torch.tensor([[0.2, 1.0]]), n_way=2)
    >>> logits.argmax(-1)
    tensor([1])
    """

    def __init__(
        self,
        metric: str = "cosine",
        temperature: float = 0.1,
        learn_temperature: bool = False,
        max_support: int | None = None,
        replacement: str = "reservoir",
    ) -> None:
        super().__init__(metric, temperature, learn_temperature)
        if max_support is not None and (not isinstance(max_support, (int, np.integer)) or max_support < 1):
            raise ValueError(f"max_support is {max_support!r}; expected at least 1, or None to keep all support")
        if replacement not in REPLACEMENTS:
            raise UnknownNameError("replacement", replacement, REPLACEMENTS)
        self.max_support, self.replacement = max_support, replacement

    def collect(self, support: Tensor, labels: Tensor, n_way: int, weight: Tensor) -> Statistics:
        """Keep the support as it is."""
        return Statistics.of_support(support, labels, n_way, weight)

    def kept_rows(self, statistics: Statistics) -> Tensor | None:
        """Return at most `max_support` rows a class."""
        if self.max_support is None:
            return None
        return rows_to_keep(statistics.support, self.max_support, self.replacement)

    def memorize(self, statistics: Statistics) -> Memory:
        """Make every support embedding a key, weighted by its sample weight."""
        return Memory.of_support(statistics.support, statistics.n_way)
