"""A loaded network: on its device, with its preprocessing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fewshot.data.preprocess import Preprocessing
from fewshot.embedding.backbones import spec_of
from fewshot.embedding.folding import fold_batch_norm
from fewshot.embedding.network import to_input
from fewshot.utils.threads import use_one_thread_after_fork
from fewshot.utils.warning import warn

#: Pixels in a batch. On a CPU, the allocator does not keep the blocks of larger batches (see `fewshot.utils.heap`).
CPU_PIXELS, GPU_PIXELS = 4 * 224 * 224, 64 * 224 * 224
#: Names of the classification layer in torchvision.
_HEADS = ("fc", "classifier", "head", "heads")
#: A first convolution with more input channels than this probably does not take images.
_MOST_CHANNELS = 16

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
