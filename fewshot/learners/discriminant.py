"""Regularised discriminant analysis: class means compared in the metric that the whole support teaches."""

from __future__ import annotations

from copy import copy
from dataclasses import replace

import torch
from torch import Tensor

from fewshot.learners.base import SupportLearner
from fewshot.learners.left_out import LeftOutRows
from fewshot.learners.memory import Memory, Statistics
from fewshot.learners.registry import register_learner
from fewshot.search.similarity import Metric, normalize
from fewshot.utils.discriminant import (
    TEMPERATURE,
    USUAL_STRENGTH,
    LabelledRows,
    choose,
    class_keys,
    left_out,
    signed_power,
)
from fewshot.utils.values import check_number


@register_learner("discriminant")
class DiscriminantLearner(SupportLearner):
    r"""Answer with the class whose mean is nearest by the cosine in the metric that the whole support teaches.

    Use it unless you have a reason not to: it is the default of `FewShotImageClassifier`. It keeps the support; where
    that is too much, `CosinePrototypicalLearner` keeps one sum a class.

    With f(x) the signed power of x scaled to unit length, :math:`m_c` the mean of f over the support of class c, m the
    mean of the class means, and τ the temperature:

    .. math:: \mathrm{logit}_c = \frac{s}{\tau} \left(
              \frac{f(q)^\top T^{-1} (m_c - m)}{l \, \lVert m_c - m \rVert} + a \cos(f(q), m_c) \right),
              \qquad T = \sum_i f(x_i) f(x_i)^\top + r I

    with :math:`\lVert v \rVert^2 = v^\top T^{-1} v` and l this length of f(q) for a typical query q, so that the first
    part is a cosine too. It is regularised least squares without an intercept, each output scaled by its class. T damps
    the directions in which all images differ, whatever their class. Since m is the mean of the class means, and T that
    of all images, a class counts as a class however many images it has.

    The second part, with :math:`a = 1 - 1 / \sqrt{n}` for n images a class, is for queries in another style than the
    support, such as drawings for photographs: the more images teach the metric, the more it takes their style for
    granted.

    The strength r and the scale s are those that make left-out images likeliest: each is removed in closed form,
    exactly, as if the support had never held it. So the probabilities at temperature 0.05 are honest. The only image of
    a class cannot be left out; where the support says little, r stays near 0.3, and s near a value that suits the
    number of images and classes, and how much some classes are more alike than others. Of many images, about 1000 are
    left out. At most 4096 images, or twice the length of an embedding, make up T, chosen by their content. Of more than
    1024 classes, 1024 stand for all in m, r and s, chosen by their means; their images come first in T. So the metric
    seldom changes when a class is learned, and large classifiers learn one in the same time however many they know.

    It stores the support, O(n d). Learning takes O(n d + (k + n_way) d min(k, d)) with k = min(n, 4096), so that time
    and memory grow with the support as those of prototypes do; a query takes O(n_way d).

    Parameters
    ----------
    power : float, default=0.5
        Exponent of the absolute values, in (0, 1]. The square root suits embeddings that are never negative, as after a
        ReLU; for embeddings of both signs, such as those of sentences, 1 is better.
    regularization : float, optional
        r, the strength. By default leave-one-out chooses it.
    temperature : float, default=0.05
        Logits are similarity / temperature.
    learn_temperature : bool, default=False
        Whether meta-training adjusts the temperature.

    References
    ----------
    J. Friedman (1989). Regularized Discriminant Analysis. JASA 84. R. Rifkin, R. Lippert (2007). Notes on Regularized
    Least Squares. MIT-CSAIL-TR-2007-025; leave-one-out. Y. Hu, V. Gripon, S. Pateux (2021). Leveraging the Feature
    Distribution in Transfer-based Few-Shot Learning. ICANN. arXiv:2006.03806; the power. L. Bertinetto et al. (2019).
    arXiv:1805.08136; least squares as a few-shot learner.

    Examples
    --------
    >>> import torch
    >>> from fewshot import DiscriminantLearner
    >>> support = torch.tensor([[9.0, 1.0, 0.0], [1.0, 9.0, 0.0], [9.0, 0.0, 1.0], [0.0, 9.0, 1.0]])
    >>> learner = DiscriminantLearner()
    >>> learner(support, torch.tensor([0, 0, 1, 1]), torch.tensor([[5.0, 2.0, 0.0]]), n_way=2).argmax(-1)
    tensor([0])
    """

    balanced = True

    def __init__(
        self,
        power: float = 0.5,
        regularization: float | None = None,
        temperature: float = TEMPERATURE,
        learn_temperature: bool = False,
    ) -> None:
        super().__init__("dot", temperature, learn_temperature)
        self.power = check_number("power", power, above=True)
        if self.power > 1:
            raise ValueError(f"power is {power!r}; expected a number above 0, at most 1")
        self.regularization = None if regularization is None else check_number("regularization", regularization, 1e-6)

    def transform(self, x: Tensor) -> Tensor:
        """Take the signed power of each number, and scale each embedding to unit length."""
        x = normalize(x)
        return x if self.power == 1 else normalize(signed_power(x, self.power, torch))

    @property
    def item_metric(self) -> Metric:
        """Two embeddings are compared by the cosine."""
        return "cosine"

    def memorize(self, statistics: Statistics) -> Memory:
        """Return one key per class, its mean in the metric."""
        support = _rows(statistics).limited(torch)
        chosen = choose(_exact(support), self.regularization, torch)
        keys = class_keys(support, chosen.map(lambda value: value.to(support.x)), torch)
        return Memory.of_prototypes(keys, statistics.count)

    def familiar_rows(self, statistics: Statistics) -> LabelledRows:
        """Return the rows that make up the metric."""
        return _exact(_rows(statistics).limited(torch))

    def leave_out(
        self, x: Tensor, labels: Tensor, n_way: int, every: bool = False, *, transformed: bool = False
    ) -> LeftOutRows:
        """Leave out each row in closed form; of many, those that make up the metric, or every one.

        Of more than 1024 classes, the sample that stands for all stays what it is.
        """
        support = _exact(_rows(self.learn(x, labels, n_way, transformed=transformed)))
        rows, beyond = support.rows_to_keep(torch), None
        if rows is None:
            rows = torch.arange(len(labels), device=labels.device)
        elif every:
            rest = torch.ones_like(labels, dtype=torch.bool).index_fill(0, rows, False).nonzero().flatten()
            beyond = replace(support, x=support.x[rest], labels=labels[rest], weight=support.weight[rest])
            rows = torch.cat([rows, rest])
        similarity = left_out(support.limited(torch), self.regularization, torch, beyond)
        n_taught = support.count[labels[rows]] - 1
        there = n_taught > 0
        absent = (support.count <= 0).expand_as(similarity)
        logits = (similarity / self.temperature).masked_fill(absent, -torch.inf)
        return LeftOutRows(rows[there], logits[there], n_taught[there].long())

    def without_choosing(self) -> DiscriminantLearner:
        """Return this learner with the usual strength, if it has none."""
        quick = copy(self)
        quick.regularization = self.regularization or USUAL_STRENGTH
        return quick


def _rows(statistics: Statistics) -> LabelledRows:
    x, labels, weight = (statistics.support[name] for name in ("x", "labels", "weight"))
    return LabelledRows(x, labels, weight, statistics.means, statistics.count)


def _exact(support: LabelledRows) -> LabelledRows:
    """Return the rows in float64, without a gradient."""
    names = ("x", "weight", "means", "count")
    return replace(support, **{name: getattr(support, name).detach().double() for name in names})
