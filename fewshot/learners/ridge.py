"""Ridge regression in closed form: R2D2."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fewshot.learners.base import SupportLearner, log_parameter
from fewshot.learners.memory import Memory, Statistics, sum_by_class
from fewshot.learners.registry import register_learner
from fewshot.utils.values import check_number


@register_learner("ridge", "r2d2")
class RidgeLearner(SupportLearner):
    r"""Answer by closed-form ridge regression from embeddings to one-hot labels.

    Use it as a strong linear classifier in closed form, also in meta-training, which differentiates through the
    solution.

    .. math:: \mathrm{logit} = \frac{q W}{\tau},
              \qquad W = \operatorname{argmin}_W \sum_i w_i \lVert x_i W - e_{y_i} \rVert^2 + r \lVert W \rVert^2

    for a query q, the support x with weights w and one-hot labels :math:`e_y`, the `regularization` r and the
    temperature τ. With X the support, D its weights and Y the one-hot labels, ``W = (X'DX + r I)^-1 X'DY``. If the
    support is smaller than the embedding, Woodbury's identity gives ``W = X'S (S XX' S + r I)^-1 S Y`` with S the root
    of D. O(n d) to store, O(n d min(n, d)) to learn, O(n_way d) per query. W depends on the whole support, so each
    change of a classifier solves for all classes again.

    A class with many more images than the others gets too many answers; `DiscriminantLearner` does not mind.

    Parameters
    ----------
    regularization : float, default=1.0
        r. The larger it is, the closer W comes to scaled class sums.
    temperature : float, default=0.1
        The inverse of the factor on the outputs that the paper learns.
    learn_temperature, learn_regularization : bool, default=False
        Whether meta-training adjusts them, as in the paper.

    References
    ----------
    L. Bertinetto, J. Henriques, P. Torr, A. Vedaldi (2019). Meta-learning with differentiable closed-form solvers.
    ICLR. arXiv:1805.08136. The paper also learns a bias, which softmax cancels. This learner stores the support rather
    than ``X'DX``, so that a class can be removed again.

    Examples
    --------
    >>> import torch
    >>> from fewshot import RidgeLearner
    >>> support = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    >>> RidgeLearner(temperature=1.0)(support, torch.tensor([0, 1]), torch.tensor([[1.0, 0.5]]), n_way=2)
    tensor([[0.5000, 0.2500]])
    """

    log_regularization: nn.Parameter | None

    def __init__(
        self,
        regularization: float = 1.0,
        temperature: float = 0.1,
        learn_temperature: bool = False,
        learn_regularization: bool = False,
    ) -> None:
        super().__init__("dot", temperature, learn_temperature)
        self._fixed_regularization = check_number("regularization", regularization, 1e-9)
        self.register_parameter("log_regularization", log_parameter(regularization) if learn_regularization else None)

    @property
    def regularization(self) -> Tensor:
        """The number added to the diagonal, a scalar tensor; differentiable if it is learned."""
        if self.log_regularization is not None:
            return self.log_regularization.exp()
        return torch.tensor(self._fixed_regularization, dtype=torch.float64, device="cpu")

    @property
    def learn_regularization(self) -> bool:
        """Whether meta-training adjusts the regularization."""
        return self.log_regularization is not None

    def memorize(self, statistics: Statistics) -> Memory:
        """Return one key per class, its column of the solution."""
        x, labels, weight = (statistics.support[name] for name in ("x", "labels", "weight"))
        n, d = x.shape[-2:]
        scaled = x * weight.sqrt().unsqueeze(-1)
        ridge = self.regularization.to(x) * torch.eye(min(n, d), dtype=x.dtype, device=x.device)
        if n <= d:
            solved = _solve(scaled @ scaled.mT + ridge, scaled) * weight.sqrt().unsqueeze(-1)
            keys = sum_by_class(solved, labels, statistics.n_way)
        else:
            sums = sum_by_class(x * weight.unsqueeze(-1), labels, statistics.n_way)
            keys = _solve(scaled.mT @ scaled + ridge, sums.mT).mT
        return Memory.of_prototypes(keys, statistics.count)


def _solve(matrix: Tensor, right: Tensor) -> Tensor:
    """Solve a linear system with a positive definite `matrix`."""
    return torch.cholesky_solve(right, torch.linalg.cholesky(matrix))
