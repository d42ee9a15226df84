"""SimpleShot: the nearest prototype of centred embeddings of unit length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from fewshot.learners.base import SumLearner
from fewshot.learners.registry import register_learner
from fewshot.search.similarity import Metric, normalize
from fewshot.utils.values import check_name

Normalization = Literal["UN", "L2N", "CL2N"]
NORMALIZATIONS: tuple[Normalization, ...] = get_args(Normalization)


@register_learner("simpleshot")
class SimpleShotLearner(SumLearner):
    r"""Answer with the nearest prototype of normalised embeddings.

    Use it if you know the mean of the classes that the network was trained on, which ``CL2N`` subtracts.

    .. math:: \mathrm{logit}_c = \frac{1}{\tau} \, \mathrm{similarity} \Bigl( f(q),
              \frac{1}{n_c} \sum_{i:\, y_i = c} f(x_i) \Bigr)

    for a query q, the support x with labels y, and the temperature τ, with ``f(x) = x`` for ``UN``, ``x / |x|`` for
    ``L2N`` and ``(x - center) / |x - center|`` for ``CL2N``. O(n_way d) to store, O(n_way d) per query.

    The mean of many images lies nearer to queries than a single image does, so a class with many more images than the
    others gets too many answers; `DiscriminantLearner` does not mind.

    Parameters
    ----------
    normalization : {"L2N", "CL2N", "UN"}, default="L2N"
        Normalisation of each embedding. The paper finds ``CL2N`` best; it needs a `center`.
    center : sequence of d floats, optional
        For ``CL2N``, the mean embedding of the *base* classes, which the backbone was trained on; never of a support
        set or of test classes.
    metric : {"sqeuclidean", "cosine", "dot"}, default="sqeuclidean"
        The paper uses the Euclidean distance.
    temperature : float or None, default=0.1
        Logits are similarity / temperature. The paper has no temperature, because it needs no probabilities. None suits
        it to the spread of the prototypes, as ``UN`` needs.
    learn_temperature : bool, default=False
        Whether meta-training adjusts the temperature.

    References
    ----------
    Y. Wang, W.-L. Chao, K. Weinberger, L. van der Maaten (2019). SimpleShot: Revisiting Nearest-Neighbor
    Classification for Few-Shot Learning. arXiv:1911.04623.

    Examples
    --------
    >>> import torch
    >>> from fewshot import SimpleShotLearner
    >>> learner = SimpleShotLearner("CL2N", center=[1.0, 1.0])
    >>> support = torch.tensor([[3.0, 1.0], [1.0, 2.0]])
    >>> learner(support, torch.tensor([0, 1]), torch.tensor([[1.1, 1.0]]), n_way=2).argmax(-1)
    tensor([0])
    """

    by_distance = True

    def __init__(
        self,
        normalization: Normalization = "L2N",
        center: Sequence[float] | None = None,
        metric: Metric = "sqeuclidean",
        temperature: float | None = 0.1,
        learn_temperature: bool = False,
    ) -> None:
        super().__init__(metric, temperature, learn_temperature)
        self.normalization = check_name("normalization", normalization, NORMALIZATIONS)
        if (center is None) == (normalization == "CL2N"):
            raise ValueError(
                "CL2N needs center, the mean embedding of the base classes"
                if center is None
                else f"center is for CL2N, and normalization is {normalization!r}; leave one of the two out"
            )
        # Not a buffer, which would fix the precision of the learner; episodes use that of the embeddings.
        self.center = None if center is None else torch.as_tensor(center, dtype=torch.float64, device="cpu")
        if self.center is not None and not (self.center.ndim == 1 and torch.isfinite(self.center).all()):
            raise ValueError(f"center has shape {tuple(self.center.shape)}; expected d finite numbers, (d,)")

    def transform(self, x: Tensor) -> Tensor:
        """Centre each embedding and scale it to unit length."""
        if self.normalization == "UN":
            return x
        if self.center is None:
            return normalize(x)
        if len(self.center) != x.shape[-1]:
            raise ValueError(f"center has {len(self.center)} numbers and the embeddings {x.shape[-1]} dimensions")
        return normalize(x - self.center.to(x))
