"""A network on its device, in evaluation mode, with its preprocessing: from images to embeddings.

A collection is embedded chunk by chunk: it is decoded on threads, then passed through the network in batches.
"""

from __future__ import annotations

import hashlib
import json
import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fewshot.data.cache import warn_of_unreadable
from fewshot.data.preprocess import MAPS, Decoded, Prepared, Preprocessing, prepared_chunks
from fewshot.data.views import shown
from fewshot.embedding.backbones import spec_of
from fewshot.embedding.backbones.registered import network_code
from fewshot.embedding.folding import fold_batch_norm
from fewshot.embedding.maps import Shape, feature_map, pooling
from fewshot.embedding.pointwise import hasten_pointwise
from fewshot.embedding.sources import warn_of_pixels
from fewshot.errors import ImageDecodeError
from fewshot.utils.isolation import isolated
from fewshot.utils.locks import new_lock
from fewshot.utils.logs import timed
from fewshot.utils.malloc import keeping_memory
from fewshot.utils.progress import progress_bar
from fewshot.utils.text import counted
from fewshot.utils.threads import use_one_thread_after_fork

_log = logging.getLogger(__name__)
#: Pixels in a batch. On a CPU, the allocator does not keep the blocks of larger batches (see `keeping_memory`).
CPU_PIXELS, GPU_PIXELS = 4 * 224 * 224, 64 * 224 * 224
#: Pixels in a chunk, enough to keep every decoding thread busy.
CHUNK_PIXELS = 96 * 224 * 224
#: Seconds before a progress bar appears.
BAR_AFTER = 2

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
    def code(self) -> str:
        """Digest of the network's code, as far as it is somebody's own; empty if it is of packages."""
        return network_code(self.network)

    @cached_property
    def identity(self) -> str:
        """SHA-256 of architecture, own code, weights and preprocessing: two networks may have the same weights."""
        network = self.network
        own = spec_of(network) or [f"{type(part).__module__}.{type(part).__qualname__}" for part in network.modules()]
        known = [own, self.fingerprint, *([self.code] if self.code else [])]
        return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()

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
        folded = fold_batch_norm(self.network, self._to_input(noise))
        return folded if folded is self.network else hasten_pointwise(folded)

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

    @cached_property
    @isolated(gradients=False)
    def map_shape(self) -> Shape | None:
        """Rows, columns and features of the map that an embedding is; None if it is one vector for the whole image."""
        if self.preprocessing.pool != MAPS:
            return None
        with evaluating(self.network):
            x = self._to_input(self.preprocessing.blank()[None])
            rows, columns, d = feature_map(self.network, x).shape[1:]
        return rows, columns, d

    def embed(self, pixels: Sequence[NDArray[np.uint8] | None]) -> NDArray[np.float32]:
        """Return the embeddings (n, d) of one batch of prepared images; None becomes a row of NaN.

        Raises
        ------
        ValueError
            If the network does not return one vector per image.
        """
        good = [i for i, image in enumerate(pixels) if image is not None]
        if not good:  # only a forward pass shows the length of an embedding
            return self.embed([self.preprocessing.blank(), *pixels])[1:]
        read = [image for image in pixels if image is not None]
        y = self.preprocessing.embed(read, self._forward)
        embeddings = np.full((len(pixels), y.shape[1]), np.nan, np.float32)
        embeddings[good] = y
        return embeddings

    def _forward(self, stacked: NDArray[np.uint8]) -> NDArray[np.float32]:
        return _vectors(pooling(self.forward, self.preprocessing.pool)(self._to_input(stacked))).cpu().numpy()

    def _to_input(self, stacked: NDArray[np.uint8]) -> Tensor:
        return to_input(stacked, self.network, self.preprocessing.mean, self.preprocessing.std)


def _vectors(y: Any) -> Tensor:
    """Return what a network maps images to in float32, if it is one embedding (d,) of each."""
    if not isinstance(y, Tensor) or y.dim() != 2:
        shape = tuple(y.shape) if isinstance(y, Tensor) else type(y).__name__
        raise ValueError(f"the backbone maps images to {shape}; expected (n, d), one embedding per image")
    return y.float()


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

    Raises
    ------
    ValueError
        If images have another shape, or the network is known to take another number of channels.
    """
    parameter = next(backbone.parameters(), torch.empty(0, dtype=torch.float32, device="cpu"))
    # torch does not accept flipped, memory-mapped or read-only arrays, so they are copied, one batch at a time.
    array = images if isinstance(images, Tensor) else torch.from_numpy(np.require(images, requirements=["C", "W"]))
    x = array.to(parameter.device)
    if x.dim() not in (3, 4):
        raise ValueError(f"images have shape {tuple(x.shape)}; expected (n, h, w) or (n, h, w, c)")
    x = x.unsqueeze(1) if x.dim() == 3 else x.permute(0, 3, 1, 2)
    config = getattr(backbone, "pretrained_cfg", None) or {}
    if spec_of(backbone) and (wanted := config["input_size"][0]) != x.shape[1]:
        cure = "repeat grey images by np.repeat(images[..., None], 3, -1)" if wanted == 3 else "convert them to grey"
        raise ValueError(
            f"the images have {counted(x.shape[1], 'channel')} and the network takes {wanted}; {cure}, or create the "
            f"network with in_chans={x.shape[1]}"
        )
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


class evaluating:
    """Put a module into evaluation mode inside the block, then restore the mode of each submodule.

    Several threads may be inside; the last one to leave restores the mode.
    """

    _lock: threading.Lock
    #: Modules inside a block, each with the number of blocks, and its mode before the first.
    _inside: ClassVar[WeakKeyDictionary[nn.Module, list[int]]] = WeakKeyDictionary()

    def __init__(self, module: nn.Module) -> None:
        self._module, self._parts = module, list(module.modules())

    def __enter__(self) -> None:
        with self._lock:
            for part in self._parts:
                self._inside.setdefault(part, [0, part.training])[0] += 1
            if any(part.training for part in self._parts):
                self._module.eval()

    def __exit__(self, *raised: object) -> None:
        with self._lock:
            for part in self._parts:
                entry = self._inside[part]
                entry[0] -= 1
                if not entry[0]:
                    del self._inside[part]
                    if part.training != bool(entry[1]):
                        part.training = bool(entry[1])


evaluating._lock = new_lock(evaluating)


@dataclass(frozen=True, eq=False)
class Embedded:
    """The embeddings of a collection of images, and the images that could not be read.

    Attributes
    ----------
    embeddings : ndarray of shape (n, d), float32
        NaN in the rows of unreadable images.
    errors : list of ImageDecodeError
        One per unreadable image.
    thumbnails : list of bytes
        Thumbnails of the network's input, if requested; empty bytes for unreadable images.
    """

    embeddings: NDArray[np.float32]
    errors: list[ImageDecodeError]
    thumbnails: list[bytes] = field(default_factory=list)

    def warn(self) -> None:
        """Warn if images could not be read."""
        warn_of_unreadable(self.errors, len(self.embeddings))


@isolated(gradients=False)
def embed_items(
    loaded: Loaded,
    items: Sequence[Any],
    *,
    batch_size: int | None = None,
    n_jobs: int | None = None,
    on_error: str = "raise",
    progress: bool = False,
    thumbnails: bool = False,
    keep: Callable[[int, Embedded], object] | None = None,
) -> Embedded:
    """Embed images with a loaded network.

    Parameters
    ----------
    loaded : Loaded
        The network.
    items : sequence of n images
        As returned by `as_items`, or `prepare_items`.
    batch_size, n_jobs : int, optional
        See `Embedder`.
    on_error : {"raise", "skip", "unknown"}, default="raise"
        "raise" raises the first error of a chunk; the other two leave a row of NaN.
    progress, thumbnails : bool, default=False
        Whether to show a progress bar, and to make thumbnails.
    keep : callable, optional
        ``keep(start, embedded)`` is called with each chunk as soon as it is embedded.

    Raises
    ------
    ImageDecodeError
        If an image cannot be read and `on_error` is "raise".
    """
    size, seen = batch_size or loaded.batch_size, loaded.preprocessing
    level = logging.INFO if len(items) > size else logging.DEBUG  # a service embeds a few at a time
    embedding = timed(_log, "embedded %s on %s", counted(len(items), "image"), loaded.parameter.device, level=level)
    # On the CPU decoding would compete with the network for cores, so they take turns.
    ahead = 0 if loaded.is_on_cpu else 2
    parts: list[Embedded] = []
    start = 0
    bar: Any = nullcontext()
    if progress:
        bar = progress_bar(len(items), "image", show=True, desc="embedding", delay=BAR_AFTER, leave=False)
    with embedding, evaluating(loaded.network), keeping_memory(), bar as shown:
        n_chunk = max(_n_chunk(seen), size)
        chunks: Iterable[list[Decoded]]
        if isinstance(items, Prepared):
            chunks = [items]
        else:
            chunks = prepared_chunks(items, seen, n_chunk, n_jobs=n_jobs, ahead=ahead, thumbnails=thumbnails)
        for chunk in chunks:
            errors = [error for _, _, error in chunk if error is not None]
            if errors and on_error == "raise":
                raise errors[0]
            done = []
            for i in range(0, len(chunk), size):
                done.append(loaded.embed([pixels for pixels, _, _ in chunk[i : i + size]]))
                if shown is not None:
                    shown.update(len(done[-1]))
            parts.append(Embedded(np.concatenate(done), errors, [picture for _, picture, _ in chunk if thumbnails]))
            if keep is not None:
                keep(start, parts[-1])
            start += len(chunk)
        if not parts:
            parts.append(Embedded(loaded.embed([None])[:0], []))
    return Embedded(
        np.concatenate([part.embeddings for part in parts]),
        [error for part in parts for error in part.errors],
        [picture for part in parts for picture in part.thumbnails],
    )


def draw_items(loaded: Loaded, items: Sequence[Any], n_jobs: int | None = None) -> list[bytes]:
    """Return the thumbnails that `embed_items` would make, without embedding; empty bytes for unreadable images."""
    return [picture for _, picture, _ in prepare_items(loaded, items, n_jobs, thumbnails=True)]


def prepare_items(
    loaded: Loaded, items: Sequence[Any], n_jobs: int | None = None, thumbnails: bool = False
) -> Prepared:
    """Return images, decoded and scaled, for `embed_items`; all of them at once."""
    seen = loaded.preprocessing
    chunks = prepared_chunks(items, seen, _n_chunk(seen), n_jobs=n_jobs, thumbnails=thumbnails)
    return Prepared(one for chunk in chunks for one in chunk)


def _n_chunk(preprocessing: Preprocessing) -> int:
    return max(CHUNK_PIXELS // (preprocessing.height * preprocessing.width), 1)


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
        A network that maps (n, c, h, w) to (n, d); see `create_backbone`. If its ``pretrained_cfg`` names no mean, it
        sees pixels from 0 to 1, with a warning unless `MetaTrainer` has trained it.
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
        If the shape, `batch_size` or `shifts` is out of range, or the network returns anything but one vector each.

    Examples
    --------
    >>> from fewshot import create_backbone, digits, embed
    >>> embed(create_backbone("conv4", in_chans=1), digits().images[:10]).shape
    (10, 64)
    """
    if not isinstance(images, (np.ndarray, Tensor)):
        raise TypeError(f"images are a {type(images).__name__}; expected a uint8 array, e.g. LabeledImages.images")
    if str(images.dtype).removeprefix("torch.") != "uint8":
        raise TypeError(
            f"images are of type {images.dtype}; expected uint8 values in 0..255, which are scaled here; or call the "
            "network yourself"
        )
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; expected at least 1")
    if shifts < 0:
        raise ValueError(f"shifts is {shifts}; expected at least 0")
    warn_of_pixels(backbone)
    steps = range(-shifts, shifts + 1)
    grid = list(product(steps, steps))
    with evaluating(backbone), keeping_memory():
        parts = []
        for i in range(0, len(images), batch_size):
            views = shown(images[i : i + batch_size], grid, mirror)
            parts.append(torch.stack([_vectors(backbone(to_input(view, backbone))) for view in views]).mean(0).cpu())
    if not parts:
        return np.empty((0, int(getattr(backbone, "num_features", 0))), np.float32)
    return torch.cat(parts).numpy()


@isolated(gradients=False)
def map_width(backbone: nn.Module, images: NDArray[np.uint8]) -> int:
    """Return how many features a network has of each place of images, of which the first is looked at.

    Raises
    ------
    ValueError
        If the network has no map of features.
    """
    with evaluating(backbone):
        return feature_map(backbone, to_input(images[:1], backbone)).shape[-1]


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
