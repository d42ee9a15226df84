"""BD-CSPN: prototypes rectified by the queries."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from fewshot.learners.base import SupportLearner
from fewshot.learners.memory import Memory
from fewshot.learners.registry import register_learner
from fewshot.learners.transduction import SHARE_PRIORS, SharePrior, Shift, Span, check_shift, rectify
from fewshot.search.similarity import normalize
from fewshot.utils.values import check_name, check_number

Normalization = Literal["L2N", "UN"]
NORMALIZATIONS: tuple[Normalization, ...] = get_args(Normalization)


@register_learner("bd-cspn")
class BDCSPNLearner(SupportLearner):
    r"""Answer with the rectified prototype of the largest cosine with the query. Transductive.

    Use it if tens of queries or more come together, and all of them are of the classes.

    Queries are pseudo-labelled with the prototype of largest cosine, and added to that prototype, weighted by the
    cosine:

    .. math:: P_c \propto \sum_{i \in c} e^{\beta \cos(x_i, m_c)} \, x_i, \qquad
              \mathrm{logit}_c = \frac{\cos(q, P_c)}{\tau}

    over the support and the queries that are of class c, with the mean :math:`m_c` of the support, the sharpness β and
    the temperature τ. See `fewshot.learners.transduction.rectify`. O(n d) to store, O(n_way d) per query.

    Parameters
    ----------
    sharpness : float, default=5.0
        How strongly rows near their prototype are favoured; the paper's epsilon, which it sets to 10.
    normalization : {"L2N", "UN"}, default="L2N"
        Whether embeddings are scaled to unit length first; otherwise long ones dominate the shift.
    temperature : float, default=0.1
        Logits are cosine / temperature.
    learn_temperature : bool, default=False
        Whether meta-training adjusts the temperature.
    shift : bool or "prototypes", default=False
        Whether queries are first moved so that their mean is that of the support, as in the paper. It helps if there
        are as many queries of each class, or if all come from another camera. Otherwise it harms: a single query, or
        many of one class, would lie on the middle of all classes. With "prototypes" queries are moved to rectify the
        prototypes, and answered where they were, as the easyfsl package does.
    prior : {"none", "estimated"}, default="none"
        What pseudo-labels suppose of the shares of the classes among the queries: nothing, or the shares under which
        the queries are likeliest. "estimated" gains where queries are of one or two classes, and costs one to three
        points where they are balanced.

    References
    ----------
    J. Liu, L. Song, Y. Qin (2020). Prototype Rectification for Few-Shot Learning. ECCV. arXiv:1911.10713. The paper
    uses only the most confident queries of each class and does not normalise embeddings.

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
        sharpness: float = 5.0,
        normalization: Normalization = "L2N",
        temperature: float = 0.1,
        learn_temperature: bool = False,
        shift: bool | Shift = False,
        prior: SharePrior = "none",
    ) -> None:
        super().__init__("cosine", temperature, learn_temperature)
        self.shift, self.prior = check_shift(shift), check_name("prior", prior, SHARE_PRIORS)
        self.supposes_balance = bool(self.shift)
        self.sharpness = check_number("sharpness", sharpness)
        self.normalization = check_name("normalization", normalization, NORMALIZATIONS)

    def transform(self, x: Tensor) -> Tensor:
        """Scale each embedding to unit length under ``L2N``."""
        return normalize(x) if self.normalization == "L2N" else x

    def score(self, memory: Memory, queries: Tensor) -> Tensor:
        """Return the logits of all queries, answered together."""
        found = rectify(Span(memory.keys, queries), memory, self.sharpness, self.shift, self.prior)
        logits = found.cosine / self.temperature.to(queries.dtype)
        return logits.masked_fill(found.absent, -torch.inf).mT
