"""Prototypical Networks under the cosine, with a temperature that suits it."""

from __future__ import annotations

from fewshot.learners.prototypical import PrototypicalLearner
from fewshot.learners.registry import register_learner


@register_learner("cosine-prototypical")
class CosinePrototypicalLearner(PrototypicalLearner):
    r"""Answer with the class whose prototype has the largest cosine with the query.

    Use it for very many classes that come and go: it keeps one sum a class, and learns a class in the same time however
    many it knows.

    .. math:: \mathrm{logit}_c = \frac{\cos(q, \bar{x}_c)}{\tau},
          \qquad \bar{x}_c = \frac{1}{n_c} \sum_{i:\, y_i = c} x_i

    for a query q, the support x with labels y, and the temperature τ: `PrototypicalLearner` under the cosine.

    The mean of many images lies nearer to queries than a single image does, so a class with many more images than the
    others gets too many answers, unless the learner is `centered`; `DiscriminantLearner` does not mind.

    Parameters
    ----------
    temperature : float or None, default=0.05
        Logits are cosine / temperature. ``benchmarks/temperature.py`` chose the default on validation classes. None
        suits it to the spread of the prototypes.
    learn_temperature : bool, default=False
        Whether meta-training adjusts the temperature.
    centered : bool, default=False
        Whether to subtract from each embedding, scaled to unit length, the mean of the class means.

    References
    ----------
    S. Gidaris, N. Komodakis (2018). Dynamic Few-Shot Visual Learning without Forgetting. CVPR. arXiv:1804.09458. Its
    cosine classifier also learns the temperature.

    Examples
    --------
    >>> import torch
    >>> from fewshot import CosinePrototypicalLearner
    >>> support = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    >>> CosinePrototypicalLearner()(support, torch.tensor([0, 1]), torch.tensor([[3.0, 4.0]]), n_way=2)
    tensor([[12., 16.]])
    """

    def __init__(
        self, temperature: float | None = 0.05, learn_temperature: bool = False, centered: bool = False
    ) -> None:
        super().__init__("cosine", temperature, learn_temperature, centered)
