"""Data augmentation: distortion, mirroring and light."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

#: Control points along each side of the elastic field.
_KNOTS = 4


@dataclass(frozen=True)
class Distortion:
    """Warp each image by its own random map; a picklable callable for the ``augment`` argument of `MetaTrainer`.

    Each parameter is drawn uniformly between minus and plus its range. Pixels from outside the image are 0.

    Parameters
    ----------
    rotate : float, default=15.0
        Degrees about the centre.
    scale : float, default=0.15
        The logarithm of the magnification lies within ``log(1 + scale)``: from 1/1.15 to 1.15.
    shear : float, default=0.15
        Horizontal shift of a row relative to its distance from the middle row.
    translate : float, default=0.08
        Shift along each axis relative to the side.
    elastic : float, default=0.0
        Shift of each of 4 x 4 control points relative to the side; a bicubic field interpolates between them.

    Raises
    ------
    ValueError
        If a range is negative or not finite.

    References
    ----------
    P. Simard, D. Steinkraus, J. Platt (2003). Best Practices for Convolutional Neural Networks Applied to Visual
    Document Analysis. ICDAR.

    Examples
    --------
    >>> import numpy as np, torch
    >>> from fewshot import Distortion
    >>> augment = Distortion(rotate=10)
    >>> augment(torch.ones(3, 1, 28, 28), np.random.default_rng(0)).shape
    torch.Size([3, 1, 28, 28])
    """

    rotate: float = 15.0
    scale: float = 0.15
    shear: float = 0.15
    translate: float = 0.08
    elastic: float = 0.0

    def __post_init__(self) -> None:
        check_ranges(asdict(self))

    def __call__(self, images: Tensor, rng: np.random.Generator) -> Tensor:
        """Return distorted images of the same dtype on the same device.

        Item ``i`` depends only on the state of `rng` and on ``i``, so two calls on consecutive parts equal one call on
        the whole.

        Parameters
        ----------
        images : Tensor of shape (n, C, H, W)
            Floats on any device.
        rng : numpy.random.Generator
            Source of randomness; it advances by a fixed amount per image.

        Raises
        ------
        TypeError
            If `images` is not a float tensor, or `rng` is not a numpy generator.
        ValueError
            If `images` does not have 4 axes.
        """
        check_tensor(images)
        if not isinstance(rng, np.random.Generator):
            raise TypeError(f"rng is a {type(rng).__name__}; expected a numpy generator, e.g. np.random.default_rng(0)")
        n, _, height, width = images.shape
        # One row of numbers per image, so that an image does not depend on those that follow.
        draws = rng.uniform(-1.0, 1.0, (n, 5 + 2 * _KNOTS**2 if self.elastic else 5))
        if n == 0:
            return images.clone()
        span = np.array([math.radians(self.rotate), math.log1p(self.scale), self.shear, self.translate, self.translate])
        theta = torch.from_numpy(_affine(draws[:, :5] * span, width / height)).to(images.device, torch.float32)
        grid = F.affine_grid(theta, [n, 1, height, width], align_corners=False)
        if self.elastic:
            knots = draws[:, 5:].reshape(n, _KNOTS, _KNOTS, 2) * (2 * self.elastic)  # the side is 2 units of the grid
            field = torch.from_numpy(knots).to(images.device, torch.float32)
            rows, columns = _spline(height).to(images.device), _spline(width).to(images.device)
            # A bicubic surface is a product of two thin matrices, which is far faster than interpolating each image.
            grid = grid + torch.einsum("hk,nklc,wl->nhwc", rows, field, columns)
        return F.grid_sample(images, grid.to(images.dtype), align_corners=False)


def _affine(parameters: NDArray[np.float64], aspect: float) -> NDArray[np.float64]:
    """Return (n, 2, 3) maps from output to input positions, in the units of affine_grid."""
    angle, log_scale, shear, right, down = parameters.T
    cos, sin = np.cos(angle) * np.exp(-log_scale), np.sin(angle) * np.exp(-log_scale)
    # Rotation times shear. Off-diagonal entries contain the aspect, since the grid is 2 by 2 even for oblong images.
    rows = np.array([[cos, (shear * cos - sin) / aspect], [sin * aspect, shear * sin + cos]])
    linear = rows.transpose(2, 0, 1)
    shift = -np.einsum("nij,nj->ni", linear, 2 * np.stack([right, down], axis=1))
    return np.concatenate([linear, shift[..., None]], axis=2)


def _spline(side: int) -> Tensor:
    """Return the (side, 4) weights of control points in bicubic interpolation along one axis."""
    points = torch.eye(_KNOTS, dtype=torch.float32, device="cpu")[None, None]
    return F.interpolate(points, size=(side, _KNOTS), mode="bicubic", align_corners=True)[0, 0]


def check_tensor(images: Tensor) -> None:
    """Raise unless `images` is a float tensor (n, C, H, W)."""
    if not isinstance(images, Tensor) or not images.is_floating_point():
        kind = images.dtype if isinstance(images, Tensor) else type(images).__name__
        raise TypeError(f"images are {kind}; expected a float tensor (n, C, H, W)")
    if images.ndim != 4:
        raise ValueError(
            f"images have shape {tuple(images.shape)}; expected (n, C, H, W); add an axis with images[None]"
        )


def check_ranges(ranges: dict[str, float]) -> None:
    """Raise if a range is negative or not finite."""
    for name, value in ranges.items():
        if not 0 <= value < math.inf:
            raise ValueError(f"{name} is {value}; expected a finite number of at least 0 (0 disables it)")


@dataclass(frozen=True)
class Mirror:
    """Mirror each image left to right with probability 1/2.

    Examples
    --------
    >>> import numpy as np, torch
    >>> Mirror()(torch.ones(3, 3, 8, 8), np.random.default_rng(0)).shape
    torch.Size([3, 3, 8, 8])
    """

    def __call__(self, images: Tensor, rng: np.random.Generator) -> Tensor:
        """Return `images` (n, C, H, W) with about half of them mirrored."""
        check_tensor(images)
        mirrored = torch.from_numpy(rng.random(len(images)) < 0.5).to(images.device)
        return torch.where(mirrored[:, None, None, None], images.flip(-1), images)


@dataclass(frozen=True)
class Light:
    """Change brightness, contrast and saturation of each image at random.

    Each change is drawn uniformly between minus and plus its range. It does not depend on the scale and offset of the
    values, so images may be normalised.

    Parameters
    ----------
    brightness : float, default=0.2
        Added, relative to the image's standard deviation.
    contrast : float, default=0.2
        The difference from the image's mean is multiplied by 1 plus the drawn value.
    saturation : float, default=0.2
        The difference from grey is multiplied by 1 plus the drawn value.

    Raises
    ------
    ValueError
        If a range is negative or not finite.

    Examples
    --------
    >>> import numpy as np, torch
    >>> Light()(torch.ones(3, 3, 8, 8), np.random.default_rng(0)).shape
    torch.Size([3, 3, 8, 8])
    """

    brightness: float = 0.2
    contrast: float = 0.2
    saturation: float = 0.2

    def __post_init__(self) -> None:
        check_ranges(asdict(self))

    def __call__(self, images: Tensor, rng: np.random.Generator) -> Tensor:
        """Return `images` (n, C, H, W) in different light."""
        check_tensor(images)
        if not len(images):
            return images.clone()
        spans = np.array([self.brightness, self.contrast, self.saturation])
        draws = torch.from_numpy(rng.uniform(-1.0, 1.0, (len(images), 3)) * spans).to(images)
        brightness, contrast, saturation = draws.T[..., None, None, None]
        grey = images.mean(1, keepdim=True)
        images = grey + (1 + saturation) * (images - grey)
        mean, deviation = grey.mean((2, 3), keepdim=True), grey.std((2, 3), keepdim=True, correction=0)
        return mean + (1 + contrast) * (images - mean) + brightness * deviation


@dataclass(frozen=True)
class Chain:
    """Apply several augmentations in turn.

    Parameters
    ----------
    steps : tuple of callable
        Functions of images and a generator that return images.

    Examples
    --------
    >>> import numpy as np, torch
    >>> from fewshot import Chain, Distortion, Light, Mirror
    >>> augment = Chain((Mirror(), Distortion(rotate=5), Light()))
    >>> augment(torch.ones(3, 3, 8, 8), np.random.default_rng(0)).shape
    torch.Size([3, 3, 8, 8])
    """

    steps: tuple[Callable[[Tensor, np.random.Generator], Tensor], ...]

    def __call__(self, images: Tensor, rng: np.random.Generator) -> Tensor:
        """Return augmented `images` (n, C, H, W)."""
        for step in self.steps:
            images = step(images, rng)
        return images
