"""Random changes that leave a photograph what it is: mirrored, and in other light."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor

from fewshot.data.distort import check_ranges, check_tensor


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
        """Return `images` (n, C, H, W), some of them mirrored."""
        check_tensor(images)
        mirrored = torch.from_numpy(rng.random(len(images)) < 0.5).to(images.device)
        return torch.where(mirrored[:, None, None, None], images.flip(-1), images)


@dataclass(frozen=True)
class Light:
    """Change brightness, contrast and saturation of each image in its own way.

    Each is drawn uniformly between minus and plus its range. Any common scale and offset of the values is fine, as the
    preprocessing of networks gives them.

    Parameters
    ----------
    brightness : float, default=0.2
        Added, as a part of the image's standard deviation.
    contrast : float, default=0.2
        The difference from the image's mean is multiplied by 1 plus this.
    saturation : float, default=0.2
        The difference from grey is multiplied by 1 plus this.

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
        """Return `images` (n, C, H, W) in other light, with the numbers of `rng`."""
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
    """Apply one change after another.

    Parameters
    ----------
    steps : tuple of callable
        Each maps images and a generator to images.

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
        """Return `images` (n, C, H, W), changed by every step in turn."""
        for step in self.steps:
            images = step(images, rng)
        return images
