"""Tip-Adapter: a key-value cache read with sharpened similarities."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from fewshot.learners.base import SupportLearner
from fewshot.learners.memory import Memory, Statistics, read
from fewshot.learners.registry import register_learner
from fewshot.utils.values import check_name, check_number

Prior = Literal["uniform", "support"]
PRIORS: tuple[Prior, ...] = get_args(Prior)


@register_learner("key-value-cache", "tip-adapter")
class KeyValueCacheLearner(SupportLearner):
    r"""Answer with the class whose support is most activated.

    Use it to compare with Tip-Adapter. If classes have uneven numbers of images, give ``balanced=True``.

    .. math:: \mathrm{logit}_c = \frac{1}{n \tau} \sum_{i:\, y_i = c} w_i \exp(-\beta (1 - \cos(q, x_i)))
              + \log \mathrm{prior}_c

    for a query q, the support x with labels y and weights w, the sharpness β and the temperature τ, where n is the
    largest class weight: the training-free form of Tip-Adapter. The support is the memory: O(n d) to store, O(n d) per
    query. n and the prior are those of all classes, so each change of a classifier copies what it knows.

    Every image adds its share, so a class with many more images than the others gets most answers, unless the learner
    is `balanced`; `DiscriminantLearner` does not mind.

    Parameters
    ----------
    sharpness : float, default=5.5
        How fast activations fall with the cosine; the paper's beta.
    temperature : float, default=0.1
        Equals 1 / (n alpha) in the paper's terms. The paper adds the sum to the logits of a language model and tunes
        alpha for each number of shots; here sums are divided by their maximum, so the shots do not matter.
    prior : {"uniform", "support"}, default="uniform"
        Prior over classes: uniform, or in proportion to their support.
    learn_temperature : bool, default=False
        Whether meta-training adjusts the temperature.
    centered : bool, default=False
        Whether to subtract from each embedding, scaled to unit length, the mean of the class means.
    balanced : bool, default=False
        Whether each class has the same total weight, however many images it has.

    References
    ----------
    R. Zhang, W. Zhang, R. Fang, P. Gao, K. Li, J. Dai, Y. Qiao, H. Li (2022). Tip-Adapter: Training-free Adaption of
    CLIP for Few-shot Classification. ECCV. arXiv:2207.09519. The paper takes the prior from CLIP's text encoder.

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
        prior: Prior = "uniform",
        learn_temperature: bool = False,
        centered: bool = False,
        balanced: bool = False,
    ) -> None:
        super().__init__("cosine", temperature, learn_temperature)
        self.centered, self.balanced = bool(centered), bool(balanced)
        self.sharpness, self.prior = check_number("sharpness", sharpness), check_name("prior", prior, PRIORS)

    def memorize(self, statistics: Statistics) -> Memory:
        """Return one key per support embedding, with the log-prior of each class, minus infinity for absent ones."""
        count, memory = statistics.count, super().memorize(statistics)
        share = (count > 0).to(count.dtype) if self.prior == "uniform" else count / count.sum(-1, keepdim=True)
        log_prior = torch.where(share > 0, torch.where(share > 0, share, 1).log(), -torch.inf)
        most = (statistics.evened() if self.balanced else statistics).count.amax(-1, keepdim=True)
        return memory.having({"log_prior": log_prior, "most": most})

    def read(self, similarity: Tensor, memory: Memory, candidates: Tensor | None = None) -> Tensor:
        """Sum the activations of each class; a class without a retrieved key has activation 0."""
        activation = read(self.sharpness * (similarity - 1), memory, candidates).exp()
        most, log_prior = (memory.extras[name].to(activation).unsqueeze(-2) for name in ("most", "log_prior"))
        return activation / (torch.where(most > 0, most, 1) * self.temperature.to(activation)) + log_prior
