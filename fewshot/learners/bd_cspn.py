"""BD-CSPN: prototypes rectified by the queries."""

from __future__ import annotations

import torch
from torch import Tensor

from fewshot.errors import UnknownNameError
from fewshot.learners.base import Learner
from fewshot.learners.memory import Memory
from fewshot.learners.registry import register_learner
from fewshot.learners.statistics import Statistics
from fewshot.learners.transduction import Span, rectify
from fewshot.search.similarity import normalize
from fewshot.utils.parameters import check_number

NORMALIZATIONS = ("L2N", "UN")


@register_learner("bd-cspn")
class BDCSPNLearner(Learner):
    """Answer with the rectified prototype of the largest cosine to the shifted query. Transductive.

    Queries are shifted onto the mean of the support (so a single one is answered as that mean, whatever it is: ask for
    many at a time), take the class of the prototype of the largest cosine for a start, and count in it as
    ``exp(sharpness cosine)``; ``logit[c] = cosine(shifted query, rectified prototype[c]) / temperature``. See
    `fewshot.learners.transduction.rectify`. O(n d) kept; O(n_way d) a query.

    Parameters
    ----------
    sharpness : float, default=10.0
        How much more a row counts that is near to its prototype; the paper's epsilon.
    normalization : {"L2N", "UN"}, default="L2N"
        Whether embeddings are scaled to unit length before the shift, which long ones would decide otherwise, or stay.
    temperature : float, default=0.1
        Logits are cosine / temperature.
    learn_temperature : bool, default=False
        Whether meta-training adjusts the temperature.

    References
    ----------
    J. Liu, L. Song, Y. Qin (2020). Prototype Rectification for Few-Shot Learning. ECCV. arXiv:1911.10713. There only
    the surest queries of each class count, here all, each as its cosine says; and embeddings stay as they are.

    Examples
    --------
    >>> import torch
    >>> from fewshot import BDCSPNLearner
    >>> support, queries = torch.eye(2), torch.tensor([[3.0, 2.0], [2.0, 2.1], [2.0, 3.0]])
    >>> BDCSPNLearner()(support, torch.tensor([0, 1]), queries, n_way=2).argmax(-1)
    tensor([0, 1, 1])
    """

    indexable = False
    transductive = True

    def __init__(
        self,
        sharpness: float = 10.0,
        normalization: str = "L2N",
        temperature: float = 0.1,
        learn_temperature: bool = False,
    ) -> None:
        super().__init__("cosine", temperature, learn_temperature)
        self.sharpness = check_number("sharpness", sharpness)
        if normalization not in NORMALIZATIONS:
            raise UnknownNameError("normalization", normalization, NORMALIZATIONS)
        self.normalization = normalization

    def transform(self, x: Tensor) -> Tensor:
        """Scale each embedding to unit length."""
        return normalize(x) if self.normalization == "L2N" else x

    def collect(self, support: Tensor, labels: Tensor, n_way: int, weight: Tensor) -> Statistics:
        """Keep the support as it is."""
        return Statistics.of_support(support, labels, n_way, weight)

    def memorize(self, statistics: Statistics) -> Memory:
        """Make every support embedding a key."""
        return Memory.of_support(statistics.support, statistics.n_way)

    def score(self, memory: Memory, queries: Tensor) -> Tensor:
        """Return the logits of all queries, seen together."""
        found = rectify(Span(memory.keys, queries), memory, self.sharpness)
        logits = found.cosine / self.temperature.to(queries.dtype)
        return logits.masked_fill(found.absent, -torch.inf).mT
