"""A meta-trained network on disk: one safetensors file that says how to build what it holds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from fewshot._version import __version__
from fewshot.data.preprocess import Preprocessing
from fewshot.embedding.backbones import rebuild_backbone, spec_of
from fewshot.errors import UnknownNameError
from fewshot.persistence.content import is_whole, parse_json
from fewshot.persistence.tensors import read_metadata, read_tensors
from fewshot.utils.isolation import isolated

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
    tensors : dict of str to Tensor
        The weights of both, as they were when the file was opened.
    """

    path: Path
    backbone: dict[str, Any]
    preprocessing: Preprocessing
    learner: dict[str, Any]
    training: dict[str, Any]
    tensors: dict[str, Tensor] = field(repr=False)

    @classmethod
    def open(cls, path: str | Path) -> Checkpoint:
        """Read a checkpoint, and check its digest.

        Nothing in the file is executed, and building what it describes fetches, reads and writes nothing else. The
        digest is for damage: it is no signature. Files of versions that wrote no digest are not checked.

        Raises
        ------
        ValueError
            If there is no such file, or it is damaged, of a newer version, or holds only weights.
        """
        path = Path(path)
        tensors, metadata = _content(path)
        if _KEY not in metadata:
            raise ValueError(
                f"{path} holds weights but not the network they belong to; name it: backbone=..., weights={str(path)!r}"
            )
        try:
            described = parse_json(metadata[_KEY])
            if is_newer := described["format"] > FORMAT:
                version = f"{described['version']!s:.40}"
            else:
                preprocessing = Preprocessing.from_dict(described["preprocessing"])
                backbone, learner = described["backbone"], described["learner"]
                training = _checked_training(described.get("training", {}))  # older files do not say
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} is damaged: what it says of itself cannot be read ({error!r:.200})") from error
        if is_newer:
            raise ValueError(
                f"{path} was written by fewshot {version}, which is newer than this {__version__}; upgrade"
            )
        if backbone is None:
            raise ValueError(
                f"{path} was trained with a network made by hand, which its file cannot rebuild; build the network, "
                "load_weights(path, network), and pass it as the backbone"
            )
        return cls(path, backbone, preprocessing, learner, training, tensors)

    @classmethod
    def is_one(cls, path: str | Path) -> bool:
        """Whether a file is a checkpoint, and not bare weights."""
        return Path(path).suffix == ".safetensors" and _KEY in read_metadata(path)

    @isolated(gradients=True)
    def network(self) -> nn.Module:
        """Build the backbone with its trained weights, in evaluation mode, from a timm name and plain arguments alone.

        Raises
        ------
        UnknownNameError
            If there is no such backbone here.
        ValueError
            If the weights are not those of the network that it names, or that has an argument that a file may not give.
        """
        weights = self.part("backbone.")
        try:
            # Embeddings that are NaN stand for images that cannot be read, and may be left out without an error.
            if unfit := [name for name, value in weights.items() if value.isnan().any()]:
                raise ValueError(f"its weight {unfit[0]!r:.60} is not a number")
            network = rebuild_backbone(self.backbone, bytes_of(weights))
            network.load_state_dict(weights)
        except UnknownNameError:
            raise
        except Exception as error:  # timm's networks check their arguments in many ways, or divide by them
            reason = " ".join(str(error).split())
            raise ValueError(
                f"{self.path} does not hold the weights of the network that it names; it is damaged, or timm has "
                f"changed that network ({reason:.200})"
            ) from error
        return network

    def part(self, prefix: str) -> dict[str, Tensor]:
        """Return the weights whose names begin with ``backbone.`` or ``learner.``, without that beginning."""
        return {k.removeprefix(prefix): v for k, v in self.tensors.items() if k.startswith(prefix)}


def bytes_of(tensors: Mapping[str, Tensor]) -> int:
    """Return the bytes that tensors take."""
    return sum(value.numel() * value.element_size() for value in tensors.values())


def _checked_training(said: Any) -> dict[str, Any]:
    """Return what a file says of its training, where it is of the types that are written."""
    training = dict(said)
    for name in ("classes", "images"):
        values = training.get(name, [])
        if not isinstance(values, list) or not all(isinstance(v, str) or is_whole(v, -(2**63)) for v in values):
            raise ValueError(f"{name} must be a list of texts and numbers")
    if not isinstance(training.get("began", ""), str):
        raise ValueError("began must be a text")
    return training


def _content(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    if not path.is_file():
        raise ValueError(f"{path} is {'a folder' if path.is_dir() else 'not there'}; expected a file of weights")
    tensors, metadata = read_tensors(path)
    if unknown := set(metadata) - {_KEY, "format"} if _KEY in metadata else set():
        raise ValueError(f"{path} is damaged: it says {min(unknown)!r:.40} of itself, which no checkpoint does")
    return tensors, metadata
