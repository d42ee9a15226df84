"""Embed arrays of images with a backbone in evaluation mode."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import product
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fewshot.utils.heap import keeping_memory
from fewshot.utils.isolation import isolated
from fewshot.utils.locks import new_lock


def to_input(
    images: NDArray[np.uint8] | Tensor,
    backbone: nn.Module,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Tensor:
    """Return uint8 images as the float tensor (n, c, h, w) that `backbone` expects, on its device.

    Values are scaled to 0..1, then normalised. The memory layout of colour images stays channels-last, with which
    convolutions are up to twice as fast.

    Parameters
    ----------
    images : uint8 array of shape (n, h, w) or (n, h, w, c)
        Grey or colour images.
    backbone : nn.Module
        A network.
    mean, std : sequence of float, optional
        Mean and standard deviation; by default those of the network's configuration.
    """
    parameter = next(backbone.parameters(), torch.empty(0, dtype=torch.float32, device="cpu"))
    # torch does not accept flipped, memory-mapped or read-only arrays, so they are copied, one batch at a time.
    array = images if isinstance(images, Tensor) else torch.from_numpy(np.require(images, requirements=["C", "W"]))
    x = array.to(parameter.device)
    if x.dim() not in (3, 4):
        raise ValueError(f"images have shape {tuple(x.shape)}; expected (n, h, w) or (n, h, w, c)")
    x = x.unsqueeze(1) if x.dim() == 3 else x.permute(0, 3, 1, 2)
    config = getattr(backbone, "pretrained_cfg", None) or {}
    mean, std = mean or config.get("mean", (0.0,)), std or config.get("std", (1.0,))
    return normalize_pixels(x, mean, std).to(parameter.dtype)


def normalize_pixels(x: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Scale uint8 images (n, c, h, w) to 0..1, then normalise by mean and deviation (one value, or one per channel)."""
    x = x.to(torch.float32)
    if any(mean) or any(s != 1 for s in std):
        # Grey images use the average of colour statistics.
        means, stds = (
            x.new_tensor(v if len(v) == x.shape[1] else [sum(v) / len(v)] * x.shape[1]).view(1, -1, 1, 1)
            for v in (mean, std)
        )
        return torch.addcmul(-means / stds, x, 1 / (255 * stds))  # one pass over the pixels, not three
    return x.div_(255)


def views(x: Tensor, shifts: int, mirror: bool) -> Iterator[Tensor]:
    """Yield images (b, c, h, w) shifted by up to `shifts` pixels along each axis, edges repeated, and mirrored."""
    height, width = x.shape[-2:]
    wide = nn.functional.pad(x, (shifts,) * 4, mode="replicate") if shifts else x
    for top, left in product(range(2 * shifts + 1), repeat=2):
        view = wide[..., top : top + height, left : left + width]
        yield view
        if mirror:
            yield view.flip(-1)


class _EvaluationModes:
    """Modules that blocks have put into evaluation mode, and the mode to restore."""

    def __init__(self) -> None:
        self._lock = new_lock(self)
        self._modes: WeakKeyDictionary[nn.Module, list[int]] = WeakKeyDictionary()  # number of blocks, mode before

    def enter(self, module: nn.Module) -> list[nn.Module]:
        """Put a module into evaluation mode and return its submodules."""
        with self._lock:
            parts = list(module.modules())
            for part in parts:
                self._modes.setdefault(part, [0, part.training])[0] += 1
            if any(part.training for part in parts):
                module.eval()
            return parts

    def leave(self, parts: Sequence[nn.Module]) -> None:
        """Restore the mode of submodules, unless other threads are still inside."""
        with self._lock:
            for part in parts:
                entry = self._modes[part]
                entry[0] -= 1
                if not entry[0]:
                    del self._modes[part]
                    if part.training != bool(entry[1]):
                        part.training = bool(entry[1])


_modes = _EvaluationModes()


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put a module into evaluation mode inside the block, then restore the mode of each submodule.

    Several threads may be inside; the last one to leave restores the mode.
    """
    parts = _modes.enter(module)
    try:
        yield
    finally:
        _modes.leave(parts)


@isolated(gradients=False)
def embed(
    backbone: nn.Module,
    images: NDArray[np.uint8] | Tensor,
    batch_size: int = 256,
    *,
    shifts: int = 0,
    mirror: bool = False,
) -> NDArray[np.float32]:
    """Embed images with a backbone in evaluation mode, then restore its mode.

    Parameters
    ----------
    backbone : nn.Module
        A network that maps (n, c, h, w) to (n, d); see `create_backbone`.
    images : uint8 array of shape (n, h, w) or (n, h, w, c)
        Grey images, or colour images with channels last.
    batch_size : int, default=256
        Images per forward pass.
    shifts : int, default=0
        Average the embeddings of the image shifted by up to this many pixels along each axis, edges repeated. This
        takes ``(2 * shifts + 1) ** 2`` passes and makes the embedding less sensitive to the position of the object.
    mirror : bool, default=False
        Whether to average over mirror images too, which doubles the passes.

    Returns
    -------
    ndarray of shape (n, d), float32
        Embeddings, in the order of the images.

    Raises
    ------
    TypeError
        If the images are not a uint8 array.
    ValueError
        If the shape, `batch_size` or `shifts` is out of range.

    Examples
    --------
    >>> from fewshot import create_backbone, digits, embed
    >>> embed(create_backbone("conv4", in_chans=1), digits().images[:10]).shape
    (10, 64)
    """
    if not isinstance(images, (np.ndarray, Tensor)):
        raise TypeError(f"images are a {type(images).__name__}; expected a uint8 array, e.g. LabeledImages.images")
    if str(images.dtype).removeprefix("torch.") != "uint8":
        raise TypeError(f"images are of type {images.dtype}; expected uint8 values in 0..255")
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; expected at least 1")
    if shifts < 0:
        raise ValueError(f"shifts is {shifts}; expected at least 0")
    with evaluating(backbone), keeping_memory():
        parts = []
        for i in range(0, len(images), batch_size):
            x = to_input(images[i : i + batch_size], backbone)
            parts.append(torch.stack([backbone(view).float() for view in views(x, shifts, mirror)]).mean(0).cpu())
    if not parts:
        return np.empty((0, int(getattr(backbone, "num_features", 0))), np.float32)
    return torch.cat(parts).numpy()
