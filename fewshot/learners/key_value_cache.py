"""A cache of keys and labels, read with sharpened similarities."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from fewshot.errors import UnknownNameError
from fewshot.learners.base import Learner
from fewshot.learners.memory import Memory, read
from fewshot.learners.registry import register_learner
from fewshot.learners.statistics import Statistics
from fewshot.utils.parameters import check_number

PRIORS = ("uniform", "support")


@register_learner("key-value-cache", "tip-adapter")
class KeyValueCacheLearner(Learner):
    """Answer with the class whose support is activated most.

    ``logit[c] = sum over the support i of c of weight[i] exp(-sharpness (1 - cosine(query, x[i]))) / (n temperature)
    + log prior[c]`` with n the largest sum of weights of any class: the training-free form of Tip-Adapter. The support
    is the memory: O(n d) kept, O(n d) a query.

    Parameters
    ----------
    sharpness : float, default=5.5
        How fast an activation falls with the cosine; the paper's beta.
    temperature : float, default=0.1
        One by the paper's alpha times n: there a sum stands beside the logits of a language model and alpha is sought
        for each number of shots; here sums are set against the largest there can be, so that shots do not matter.
    prior : {"uniform", "support"}, default="uniform"
        Which classes are likelier before anything is seen: none, or those of which the support holds more.
    learn_temperature : bool, default=False
        Whether meta-training adjusts the temperature.

    References
    ----------
    R. Zhang, W. Zhang, R. Fang, P. Gao, K. Li, J. Dai, Y. Qiao, H. Li (2022). Tip-Adapter: Training-free Adaption of
    CLIP for Few-shot Classification. ECCV. arXiv:2207.09519. There the prior is the answer of CLIP's text encoder.

    Examples
    --------
    >>> import torch
    >>> from fewshot import KeyValueCacheLearner
    >>> support = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]])
    >>> learner = KeyValueCacheLearner(temperature=1.0)
    >>> learner(support, torch.tensor([0, 0, 1]), torch.tensor([[0.0, 2.0]]), n_way=2)
    tensor([[0.0058, 0.5000]])
    """

    def __init__(
        self,
        sharpness: float = 5.5,
        temperature: float = 0.1,
        prior: str = "uniform",
        learn_temperature: bool = False,
    ) -> None:
        super().__init__("cosine", temperature, learn_temperature)
        if prior not in PRIORS:
            raise UnknownNameError("prior", prior, PRIORS)
        self.sharpness, self.prior = check_number("sharpness", sharpness), prior

    def collect(self, support: Tensor, labels: Tensor, n_way: int, weight: Tensor) -> Statistics:
        """Keep the support as it is."""
        return Statistics.of_support(support, labels, n_way, weight)

    def memorize(self, statistics: Statistics) -> Memory:
        """Make every support embedding a key; beside them stands how likely each class is, minus infinity for none."""
        count, memory = statistics.count, Memory.of_support(statistics.support, statistics.n_way)
        share = (count > 0).to(count.dtype) if self.prior == "uniform" else count / count.sum(-1, keepdim=True)
        log_prior = torch.where(share > 0, torch.where(share > 0, share, 1).log(), -torch.inf)
        return replace(memory, extras={"log_prior": log_prior, "most": count.amax(-1, keepdim=True)})

    def read(self, similarity: Tensor, memory: Memory, candidates: Tensor | None = None) -> Tensor:
        """Sum up the activations of each class; one of which nothing was retrieved has none."""
        activation = read(self.sharpness * (similarity - 1), memory, candidates).exp()
        most, log_prior = (memory.extras[name].to(activation).unsqueeze(-2) for name in ("most", "log_prior"))
        return activation / (torch.where(most > 0, most, 1) * self.temperature.to(activation)) + log_prior
