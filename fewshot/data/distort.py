"""Random distortions of images: an affine map of its own for each, and if asked for a smooth bend."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

#: Control points a side of the displacement field.
_KNOTS = 4


@dataclass(frozen=True)
class Distortion:
    """A random distortion, ready to be passed as ``augment`` to `MetaTrainer`.

    Every image gets an affine map of its own, drawn uniformly from these ranges.

    Parameters
    ----------
    rotate : float, default=10.0
        Largest rotation, in degrees.
    scale : float, default=0.1
        Largest relative change of size, along each axis on its own.
    shear : float, default=0.1
        Largest shear, as a share of the height.
    translate : float, default=0.05
        Largest shift, as a share of the side.
    elastic : float, default=0.0
        Largest displacement of a smooth field of 4 x 4 control points, as a share of the side.

    Raises
    ------
    ValueError
        If a range is negative or not finite, or `scale` is 1 or more.

    Examples
    --------
    >>> import numpy as np, torch
    >>> from fewshot import Distortion
    >>> Distortion(rotate=15)(torch.zeros(2, 1, 28, 28), np.random.default_rng(0)).shape
    torch.Size([2, 1, 28, 28])
    """

    rotate: float = 10.0
    scale: float = 0.1
    shear: float = 0.1
    translate: float = 0.05
    elastic: float = 0.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0 <= value < math.inf:
                raise ValueError(f"{name} is {value!r}; expected a range of at least 0")
        if self.scale >= 1:
            raise ValueError(f"scale is {self.scale!r}; at 1 an image vanishes, so expected less")

    def __call__(self, images: Tensor, rng: np.random.Generator) -> Tensor:
        """Distort images (n, c, h, w), each with parameters of its own from `rng`; outside is 0."""
        n, size = len(images), 6 + 2 * _KNOTS**2
        # Row i of one block: the map of an image does not depend on how many follow it.
        draws = torch.from_numpy(rng.uniform(-1, 1, (n, size))).to(images)
        grid = F.affine_grid(self._affine(draws), list(images.shape), align_corners=False)
        if self.elastic:
            knots = draws[:, 6:].view(n, 2, _KNOTS, _KNOTS) * (2 * self.elastic)
            field = F.interpolate(knots, size=images.shape[-2:], mode="bicubic", align_corners=True)
            grid = grid + field.permute(0, 2, 3, 1)
        return F.grid_sample(images, grid, padding_mode="zeros", align_corners=False)

    def _affine(self, draws: Tensor) -> Tensor:
        """Turn uniform numbers (n, 6 or more) in -1..1 into affine maps (n, 2, 3)."""
        angle = draws[:, 0] * math.radians(self.rotate)
        x_scale, y_scale = 1 + self.scale * draws[:, 1], 1 + self.scale * draws[:, 2]
        cos, sin, shear = angle.cos(), angle.sin(), self.shear * draws[:, 3]
        # Rotation times shear times scale; the map goes from the result to the image, which only mirrors signs.
        rows = [cos * x_scale, (cos * shear - sin) * y_scale, 2 * self.translate * draws[:, 4]]
        rows += [sin * x_scale, (sin * shear + cos) * y_scale, 2 * self.translate * draws[:, 5]]
        return torch.stack(rows, 1).view(-1, 2, 3)
