"""A meta-trained network on disk: one safetensors file that says how to build what it holds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from fewshot._version import __version__
from fewshot.backbones import create_backbone, spec_of
from fewshot.data.preprocess import Preprocessing

#: Raised when files of the older kind must be read in another way.
FORMAT = 1
_KEY = "fewshot"


def describe_training(
    backbone: nn.Module,
    learner: Mapping[str, Any],
    preprocessing: Preprocessing | None = None,
    training: Mapping[str, Any] | None = None,
) -> dict[str, str]:
    """Return the metadata of a checkpoint: how to build backbone and learner, and how images are prepared.

    Parameters
    ----------
    backbone : nn.Module
        The network; one that `create_backbone` has not made can be saved, but not built from the file alone.
    learner : mapping
        Its registered ``name`` and its ``params``.
    preprocessing : Preprocessing, optional
        By default that of the network's own configuration.
    training : mapping, optional
        ``classes`` that it was trained on or chosen by, and whether it began from weights that it had: ``began``.
    """
    preprocessing = preprocessing or Preprocessing.of(getattr(backbone, "pretrained_cfg", None) or {})
    described = {
        "format": FORMAT,
        "version": __version__,
        "backbone": spec_of(backbone),
        "preprocessing": preprocessing.to_dict(),
        "learner": dict(learner),
        "training": dict(training or {}),
    }
    return {_KEY: json.dumps(described)}


@dataclass(frozen=True)
class Checkpoint:
    """What a file of meta-trained weights says of itself.

    Attributes
    ----------
    path : Path
        The file.
    backbone : dict
        ``name`` and ``kwargs`` for `create_backbone`.
    preprocessing : Preprocessing
        How images were prepared in training.
    learner : dict
        Registered ``name`` and ``params``.
    training : dict
        What it was trained on, where that is known: ``classes``, and ``began``, how its weights began: "random" or
        "given".
    """

    path: Path
    backbone: dict[str, Any]
    preprocessing: Preprocessing
    learner: dict[str, Any]
    training: dict[str, Any]

    @classmethod
    def open(cls, path: str | Path) -> Checkpoint:
        """Read what a checkpoint says of itself.

        Raises
        ------
        ValueError
            If there is no such file, or it is damaged, of a newer version, or holds only weights.
        """
        path = Path(path)
        metadata = _metadata(path)
        if _KEY not in metadata:
            raise ValueError(
                f"{path} holds weights but not the network they belong to; name it: backbone=..., weights={str(path)!r}"
            )
        try:
            described = json.loads(metadata[_KEY])
            is_newer, version = described["format"] > FORMAT, described["version"]
            if not is_newer:
                preprocessing = Preprocessing.from_dict(described["preprocessing"])
                backbone, learner = described["backbone"], described["learner"]
                training = dict(described.get("training", {}))  # which files of before do not say
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is damaged: what it says of itself cannot be read ({error!r})") from error
        if is_newer:
            raise ValueError(
                f"{path} was written by fewshot {version}, which is newer than this {__version__}; upgrade"
            )
        if backbone is None:
            raise ValueError(
                f"{path} was trained with a network made by hand, which its file cannot rebuild; build the network, "
                "load_weights(path, network), and pass it as the backbone"
            )
        return cls(path, backbone, preprocessing, learner, training)

    @classmethod
    def is_one(cls, path: str | Path) -> bool:
        """Whether a file is a checkpoint, and not bare weights."""
        return Path(path).suffix == ".safetensors" and _KEY in _metadata(Path(path))

    def network(self) -> nn.Module:
        """Build the backbone with its trained weights, in evaluation mode.

        Raises
        ------
        UnknownNameError
            If there is no such backbone here.
        ValueError
            If the weights are not those of the network that it names.
        """
        try:
            network = create_backbone(self.backbone["name"], **self.backbone["kwargs"])
            network.load_state_dict(self.part("backbone."))
        except (KeyError, TypeError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            raise ValueError(
                f"{self.path} does not hold the weights of the network that it names; it is damaged, or timm has "
                f"changed that network ({reason:.200})"
            ) from error
        return network

    def part(self, prefix: str) -> dict[str, Tensor]:
        """Return the weights whose names begin with ``backbone.`` or ``learner.``, without that beginning."""
        return {k.removeprefix(prefix): v for k, v in load_file(self.path).items() if k.startswith(prefix)}


def _metadata(path: Path) -> dict[str, str]:
    if not path.is_file():
        raise ValueError(f"{path} is {'a folder' if path.is_dir() else 'not there'}; expected a file of weights")
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(f"{path} is not a whole file of weights: {error}") from error
