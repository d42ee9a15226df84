"""A network in place: on its device, with the preprocessing that belongs to it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
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
from fewshot.embedding.network import normalize_pixels
from fewshot.utils.warning import warn

#: Pixels in a batch. On a CPU the blocks of a larger one are beyond what is kept, see `fewshot.utils.heap`.
CPU_PIXELS, GPU_PIXELS = 4 * 224 * 224, 64 * 224 * 224

if hasattr(os, "register_at_fork"):
    # A forked child would wait for ever for the OpenMP threads that its parent had and it has not.
    os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))


@dataclass(eq=False)
class Loaded:
    """A network with its preprocessing; its weights do not change while this is there.

    Parameters
    ----------
    network : nn.Module
        In evaluation mode when `embed` is called.
    preprocessing : Preprocessing
        How images are prepared for it.
    is_ours : bool, default=False
        Whether nobody else trains the network, so that what is derived from its weights stays true.
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
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    @cached_property
    def identity(self) -> str:
        """SHA-256 of architecture, weights and preprocessing: two architectures may have the same weights."""
        network = self.network
        own = spec_of(network) or [f"{type(part).__module__}.{type(part).__qualname__}" for part in network.modules()]
        return hashlib.sha256(json.dumps([own, self.fingerprint], sort_keys=True).encode()).hexdigest()

    @property
    def cache_key(self) -> str:
        """What embeddings are kept under: the identity, and how coarsely the host program lets the network compute."""
        if (precision := _precision(self.parameter.device.type)) is None:
            return self.identity
        return hashlib.sha256(f"{self.identity} {precision}".encode()).hexdigest()

    @cached_property
    def forward(self) -> nn.Module:
        """The network, or a faster one that computes the same."""
        if not self.is_ours:
            return self.network
        p = self.preprocessing
        noise = np.random.default_rng(0).integers(0, 256, (2, p.height, p.width, p.channels), np.uint8)
        return fold_batch_norm(self.network, self._input(noise))

    @property
    def parameter(self) -> Tensor:
        """One of the weights: its device and its type are those of the network."""
        return next(self.network.parameters(), torch.empty(0, dtype=torch.float32, device="cpu"))

    @property
    def is_on_cpu(self) -> bool:
        """Whether network and decoding share the same cores."""
        return self.parameter.device.type == "cpu"

    @property
    def batch_size(self) -> int:
        """Images that make a batch of about the size at which networks are fastest, 1 to 256."""
        pixels = CPU_PIXELS if self.is_on_cpu else GPU_PIXELS
        return min(max(pixels // (self.preprocessing.height * self.preprocessing.width), 1), 256)

    def embed(self, pixels: Sequence[NDArray[np.uint8] | None]) -> NDArray[np.float32]:
        """Return the embeddings (n, d) of one batch of prepared images; NaN where there is none.

        Raises
        ------
        ValueError
            If the network does not give one vector an image.
        """
        good = [i for i, image in enumerate(pixels) if image is not None]
        if not good:
            # The length of an embedding is not known before there is one.
            p = self.preprocessing
            blank = np.zeros((p.height, p.width, *([3] if p.channels == 3 else [])), np.uint8)
            return self.embed([blank, *pixels])[1:]
        y = self._forward(np.stack([image for image in pixels if image is not None]))
        embeddings = np.full((len(pixels), y.shape[1]), np.nan, np.float32)
        embeddings[good] = y.float().cpu().numpy()
        return embeddings

    def _input(self, stacked: NDArray[np.uint8]) -> Tensor:
        x = torch.from_numpy(stacked).to(self.parameter.device)
        # Channels last in memory, as they come: convolutions are up to twice as fast.
        x = x.unsqueeze(1) if x.dim() == 3 else x.permute(0, 3, 1, 2)
        return normalize_pixels(x, self.preprocessing.mean, self.preprocessing.std).to(self.parameter.dtype)

    def _forward(self, stacked: NDArray[np.uint8]) -> Tensor:
        y = self.forward(self._input(stacked))
        if not isinstance(y, Tensor) or y.dim() != 2:
            shape = tuple(y.shape) if isinstance(y, Tensor) else type(y).__name__
            raise ValueError(f"the backbone maps images to {shape}; expected (n, d), one embedding an image")
        return y


def _precision(device: str) -> str | None:
    """Return the precision of float32 products that was set for the whole process; None if nobody has changed it.

    PyTorch has no such setting for one thread, so embeddings depend on it.
    """
    backends: Any = torch.backends
    products, convolutions, usual = backends.mkldnn, backends.mkldnn, ["ieee", "ieee"]
    if device == "cuda":
        products, convolutions, usual = backends.cuda, backends.cudnn, ["ieee", "tf32"]
    try:
        found = [products.matmul.fp32_precision, convolutions.conv.fp32_precision]
    except AttributeError:  # torch before 2.9
        found = [torch.get_float32_matmul_precision().replace("highest", "ieee"), usual[1]]
    found = ["ieee" if one == "none" else one for one in found]
    return None if found == usual else " ".join(found)


def choose_device(device: str | torch.device) -> torch.device:
    """Return the device itself; for ``auto`` a GPU if there is one, else the CPU.

    Raises
    ------
    ValueError
        If there is no such device.
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
        raise ValueError(f"device is {str(device)!r}, which is not here ({reason}); use 'auto' or 'cpu'") from None
    return chosen


#: Names that torchvision gives its classification layers.
_HEADS = ("fc", "classifier", "head", "heads")
#: Above so many channels, a first convolution is hardly one of images.
_FEW = 16


def preprocessing_of(network: nn.Module, img_size: int | None = None) -> Preprocessing:
    """Return the preprocessing of a network: that of its configuration, for as many channels as it takes.

    Parameters
    ----------
    network : nn.Module
        With timm's ``pretrained_cfg``, if it is one of timm's.
    img_size : int, optional
        Side of the images; its own by default.

    Raises
    ------
    ValueError
        If it takes images of other channels than 1 or 3.

    Warns
    -----
    UserWarning
        If its classification layer is still there.
    """
    config = getattr(network, "pretrained_cfg", None) or {}
    channels = _channels(network, config)
    if channels not in (None, 1, 3):
        raise ValueError(
            f"the network takes images of {channels} channels; expected 1 (grey) or 3 (red, green, blue), as "
            "in_chans=1 and in_chans=3 of timm make them"
        )
    if (cure := _head(network)) is not None:
        warn(
            "the network still has its classification layer, so its embeddings are the scores of classes that it was "
            f"trained on; take it off: {cure}"
        )
    if channels is not None:
        _, height, width = config.get("input_size", (3, 224, 224))
        config = {**config, "input_size": (channels, height, width)}
    return Preprocessing.of(config, img_size)


def _channels(network: nn.Module, config: Mapping[str, Any]) -> int | None:
    """Return the channels of the images that a network takes; None where that cannot be seen."""
    named = config.get("first_conv")
    for name in named if isinstance(named, (tuple, list)) else [named] if named else []:
        try:
            first = network.get_submodule(str(name))
        except AttributeError:
            continue
        if isinstance(first, nn.Conv2d):
            return first.in_channels
    first_of_all = next((part for part in network.modules() if isinstance(part, nn.Conv2d)), None)
    return first_of_all.in_channels if first_of_all is not None and first_of_all.in_channels <= _FEW else None


def _head(network: nn.Module) -> str | None:
    """Return how the classification layer of a network is taken off; None where there is none to be seen."""
    get = getattr(network, "get_classifier", None)
    if callable(get) and getattr(network, "num_classes", False):
        head = get()
        return None if head is None or isinstance(head, nn.Identity) else "network.reset_classifier(0)"
    if type(network).__module__.startswith("torchvision.models."):
        name, last = list(network.named_children())[-1]
        if name in _HEADS and any(isinstance(part, nn.Linear) for part in last.modules()):
            return f"network.{name} = torch.nn.Identity()"
    return None
