"""A network on its device, in evaluation mode, with its preprocessing: from arrays of images to embeddings."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fewshot.data.preprocess import Preprocessing
from fewshot.embedding.backbones import spec_of
from fewshot.embedding.folding import fold_batch_norm
from fewshot.utils.heap import keeping_memory
from fewshot.utils.isolation import isolated
from fewshot.utils.locks import lock_of
from fewshot.utils.threads import use_one_thread_after_fork
from fewshot.utils.warning import warn

#: Pixels in a batch. On a CPU, the allocator does not keep the blocks of larger batches (see `fewshot.utils.heap`).
CPU_PIXELS, GPU_PIXELS = 4 * 224 * 224, 64 * 224 * 224
#: Names of the classification layer in torchvision.
_HEADS = ("fc", "classifier", "head", "heads")
#: A first convolution with more input channels than this probably does not take images.
_MOST_CHANNELS = 16
#: Modules inside `evaluating`, each with the number of blocks, and the mode before the first.
_INSIDE: WeakKeyDictionary[nn.Module, list[int]] = WeakKeyDictionary()

use_one_thread_after_fork()


@dataclass(eq=False)
class Loaded:
    """A network with its preprocessing. The weights must not change during its lifetime.

    Parameters
    ----------
    network : nn.Module
        Must be in evaluation mode when `embed` is called.
    preprocessing : Preprocessing
        How images are prepared for the network.
    is_ours : bool, default=False
        Whether no one else can train the network. Only then is a folded copy of its weights safe to keep.
    """

    network: nn.Module
    preprocessing: Preprocessing
    is_ours: bool = False

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of weights and preprocessing."""
        digest = hashlib.sha256(json.dumps(self.preprocessing.identity(), sort_keys=True).encode())
        for name, value in sorted(self.network.state_dict().items()):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
        return digest.hexdigest()

    @cached_property
    def identity(self) -> str:
        """SHA-256 of architecture, weights and preprocessing: two architectures may have the same weights."""
        network = self.network
        own = spec_of(network) or [f"{type(part).__module__}.{type(part).__qualname__}" for part in network.modules()]
        return hashlib.sha256(json.dumps([own, self.fingerprint], sort_keys=True).encode()).hexdigest()

    @property
    def cache_key(self) -> str:
        """Key of cached embeddings: the identity, and the float32 precision if the host program has changed it."""
        if (precision := _changed_precision(self.parameter.device.type)) is None:
            return self.identity
        return hashlib.sha256(f"{self.identity} {precision}".encode()).hexdigest()

    @cached_property
    def forward(self) -> nn.Module:
        """The network, or a faster one that computes the same function."""
        if not self.is_ours:
            return self.network
        p = self.preprocessing
        noise = np.random.default_rng(0).integers(0, 256, (1, p.height, p.width, p.channels), np.uint8)
        return fold_batch_norm(self.network, self._to_input(noise))

    @property
    def parameter(self) -> Tensor:
        """One of the weights, which has the device and dtype of the network."""
        return next(self.network.parameters(), torch.empty(0, dtype=torch.float32, device="cpu"))

    @property
    def is_on_cpu(self) -> bool:
        """Whether the network shares its cores with decoding."""
        return self.parameter.device.type == "cpu"

    @property
    def batch_size(self) -> int:
        """Images in a batch of about the fastest size, 1 to 256."""
        pixels = CPU_PIXELS if self.is_on_cpu else GPU_PIXELS
        return min(max(pixels // (self.preprocessing.height * self.preprocessing.width), 1), 256)

    def embed(self, pixels: Sequence[NDArray[np.uint8] | None]) -> NDArray[np.float32]:
        """Return the embeddings (n, d) of one batch of prepared images; None becomes a row of NaN.

        Raises
        ------
        ValueError
            If the network does not return one vector per image.
        """
        good = [i for i, image in enumerate(pixels) if image is not None]
        if not good:  # only a forward pass shows the length of an embedding
            p = self.preprocessing
            blank = np.zeros((p.height, p.width, *([3] if p.channels == 3 else [])), np.uint8)
            return self.embed([blank, *pixels])[1:]
        y = self._forward(np.stack([image for image in pixels if image is not None]))
        embeddings = np.full((len(pixels), y.shape[1]), np.nan, np.float32)
        embeddings[good] = y.float().cpu().numpy()
        return embeddings

    def _forward(self, stacked: NDArray[np.uint8]) -> Tensor:
        y = self.forward(self._to_input(stacked))
        if not isinstance(y, Tensor) or y.dim() != 2:
            shape = tuple(y.shape) if isinstance(y, Tensor) else type(y).__name__
            raise ValueError(f"the backbone maps images to {shape}; expected (n, d), one embedding per image")
        return y

    def _to_input(self, stacked: NDArray[np.uint8]) -> Tensor:
        return to_input(stacked, self.network, self.preprocessing.mean, self.preprocessing.std)


def _changed_precision(device: str) -> str | None:
    """Return the process-wide precision of float32 products, on which embeddings depend; None if it is the default."""
    backends: Any = torch.backends
    products, convolutions, default = backends.mkldnn, backends.mkldnn, ["ieee", "ieee"]
    if device == "cuda":
        products, convolutions, default = backends.cuda, backends.cudnn, ["ieee", "tf32"]
    try:
        found = [products.matmul.fp32_precision, convolutions.conv.fp32_precision]
    except AttributeError:  # torch < 2.9
        found = [torch.get_float32_matmul_precision().replace("highest", "ieee"), default[1]]
    found = ["ieee" if one == "none" else one for one in found]
    return None if found == default else " ".join(found)


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


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put a module into evaluation mode inside the block, then restore the mode of each submodule.

    Several threads may be inside; the last one to leave restores the mode.
    """
    with lock_of(evaluating):
        parts = list(module.modules())
        for part in parts:
            _INSIDE.setdefault(part, [0, part.training])[0] += 1
        if any(part.training for part in parts):
            module.eval()
    try:
        yield
    finally:
        with lock_of(evaluating):
            for part in parts:
                entry = _INSIDE[part]
                entry[0] -= 1
                if not entry[0]:
                    del _INSIDE[part]
                    if part.training != bool(entry[1]):
                        part.training = bool(entry[1])


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


def choose_device(device: str | torch.device) -> torch.device:
    """Return a device; ``auto`` is a GPU if there is one, else the CPU.

    Raises
    ------
    ValueError
        If the device is not available.
    """
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(1, dtype=torch.float32, device=chosen).cpu()
    except (RuntimeError, AssertionError, TypeError, ImportError) as error:
        reason = str(error).partition("\n")[0].partition(". ")[0]
        raise ValueError(f"device {str(device)!r} is not available ({reason}); use 'auto' or 'cpu'") from None
    return chosen


def preprocessing_of(network: nn.Module, img_size: int | None = None) -> Preprocessing:
    """Return the preprocessing of a network that the caller built: its configuration, for its number of channels.

    Parameters
    ----------
    network : nn.Module
        A timm network has a ``pretrained_cfg``; the defaults apply to others.
    img_size : int, optional
        Side of the images; by default the network's own.

    Raises
    ------
    ValueError
        If the network takes images of other than 1 or 3 channels.

    Warns
    -----
    UserWarning
        If the network still has its classification layer.
    """
    config = getattr(network, "pretrained_cfg", None) or {}
    channels = _channels(network, config.get("first_conv"))
    if channels not in (None, 1, 3):
        raise ValueError(
            f"the network takes images of {channels} channels; expected 1 (grey) or 3 (red, green, blue); with timm, "
            "create it with in_chans=1 or in_chans=3"
        )
    if (cure := _head_removal(network)) is not None:
        warn(
            "the network still has its classification layer, so its embeddings are scores of the classes that it was "
            f"trained on; remove the layer: {cure}"
        )
    if channels is not None:
        _, height, width = config.get("input_size", (3, 224, 224))
        config = {**config, "input_size": (channels, height, width)}
    return Preprocessing.of(config, img_size)


def _channels(network: nn.Module, first_conv: Any) -> int | None:
    """Return the number of image channels that a network takes; None if it cannot be determined."""
    parts = dict(network.named_modules())
    names = first_conv if isinstance(first_conv, (tuple, list)) else [first_conv]
    for first in (parts.get(name) for name in names):
        if isinstance(first, nn.Conv2d):
            return first.in_channels
    found = next((part.in_channels for part in parts.values() if isinstance(part, nn.Conv2d)), None)
    return found if found is not None and found <= _MOST_CHANNELS else None


def _head_removal(network: nn.Module) -> str | None:
    """Return the line of code that removes the classification layer; None if no such layer is found."""
    get = getattr(network, "get_classifier", None)
    if callable(get) and getattr(network, "num_classes", False):
        head = get()
        return None if head is None or isinstance(head, nn.Identity) else "network.reset_classifier(0)"
    if type(network).__module__.startswith("torchvision.models."):
        name, last = list(network.named_children())[-1]
        if name in _HEADS and any(isinstance(part, nn.Linear) for part in last.modules()):
            return f"network.{name} = torch.nn.Identity()"
    return None
