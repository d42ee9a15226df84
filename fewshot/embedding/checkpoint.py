"""Checkpoints: the weights of a backbone and its learner, and how to build both, in one safetensors file."""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from fewshot._version import __version__
from fewshot.data.preprocess import Preprocessing
from fewshot.embedding.backbones import rebuild_backbone, spec_of
from fewshot.embedding.backbones.limits import within_budget
from fewshot.errors import UnknownNameError, brief
from fewshot.learners.base import Learner
from fewshot.learners.registry import learner_class
from fewshot.persistence.arrays import read_metadata
from fewshot.persistence.content import MOST_NUMBERS, is_number, is_whole, is_word, json_object
from fewshot.persistence.files import check_file, replacing, sync
from fewshot.persistence.tensors import read_tensors, write_tensors
from fewshot.utils.isolation import isolated

#: Bump when the format changes.
FORMAT = 1
_KEY = "fewshot"
#: Limits of a learner's arguments and weights in a file, with lower ones for numbers of iterations and prototypes.
MOST_WHOLE, MOST_NUMBER, MOST_WEIGHT = 1 << 31, 1e12, 1e18
MOST_ROUNDS = {"n_iterations": 10_000, "n_steps": 1_000, "n_prototypes": 10_000}


def save_weights(
    path: str | Path,
    backbone: nn.Module,
    learner: Learner,
    weights: Mapping[str, Tensor] | None = None,
    training: Mapping[str, Any] | None = None,
) -> None:
    """Write a checkpoint atomically.

    Parameters
    ----------
    path : path
        The file.
    backbone : nn.Module
        A network from `create_backbone`. Any other can be saved, but the file alone cannot rebuild it.
    learner : Learner
        The learner.
    weights : mapping of str to Tensor, optional
        Weights as `state` returns them; by default the current ones.
    training : mapping, optional
        See `Checkpoint`.
    """
    with replacing(path) as partial:
        write_weights(partial, backbone, learner, weights=weights, training=training)
        sync(partial)


def write_weights(
    path: str | Path,
    backbone: nn.Module,
    learner: Learner,
    preprocessing: Preprocessing | None = None,
    weights: Mapping[str, Tensor] | None = None,
    training: Mapping[str, Any] | None = None,
) -> None:
    """Write a checkpoint in place; the preprocessing is by default that of the network's configuration."""
    preprocessing = preprocessing or Preprocessing.of(getattr(backbone, "pretrained_cfg", None) or {})
    described = {
        "format": FORMAT,
        "version": __version__,
        "backbone": spec_of(backbone),
        "preprocessing": preprocessing.to_dict(),
        "learner": describe_learner(learner),
        "training": dict(training or {}),
    }
    write_tensors(path, savable(weights or state(backbone, learner)), {_KEY: json.dumps(described)})


def savable(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return copies of tensors on the CPU, since safetensors does not accept tensors that share memory."""
    return {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}


@dataclass(frozen=True)
class Checkpoint:
    """The content of a checkpoint.

    Attributes
    ----------
    path : Path
        The file.
    stamp : tuple of int or None
        Size and modification time of the file when it was opened.
    backbone : dict
        ``name`` and ``kwargs`` for `create_backbone`.
    preprocessing : Preprocessing
        How images were prepared in training.
    learner : dict
        Registered ``name`` and ``params``.
    training : dict
        As far as known, ``classes`` and hashes of ``images`` used in training or validation, and ``began``, the
        initial weights: "random" or "given".
    tensors : dict of str to Tensor
        The weights of backbone and learner.
    """

    path: Path
    stamp: tuple[int, int] | None
    backbone: dict[str, Any]
    preprocessing: Preprocessing
    learner: dict[str, Any]
    training: dict[str, Any]
    tensors: dict[str, Tensor] = field(repr=False)

    @classmethod
    def open(cls, path: str | Path) -> Checkpoint:
        """Read a checkpoint and verify its digest.

        Nothing in the file is executed, and building what it describes accesses neither other files nor the network.
        The digest detects damage; it is not a signature. Files of old versions have no digest.

        Raises
        ------
        ValueError
            If the file does not exist, is damaged, was written by a newer version, or holds only weights.
        """
        path = Path(path)
        check_file(path, "a file of weights")
        stamp = stamp_of(path)
        tensors, metadata = read_tensors(path)
        if _KEY not in metadata:
            raise ValueError(
                f"{path} holds weights but does not name their network; name it: backbone=..., weights={str(path)!r}"
            )
        try:
            if unknown := set(metadata) - {_KEY, "format"}:
                raise ValueError(f"unknown key {min(unknown)!r:.40}")
            described = json_object(metadata[_KEY])
            if is_newer := described["format"] > FORMAT:
                version = f"{described['version']!s:.40}"
            else:
                preprocessing = Preprocessing.from_dict(described["preprocessing"])
                backbone, learner = described["backbone"], described["learner"]
                training = _checked_training(described.get("training", {}))  # missing in old files
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} is damaged: its description cannot be read ({error!r:.200})") from error
        if is_newer:
            raise ValueError(f"{path} was written by fewshot {version}, which is newer than {__version__}; upgrade")
        if backbone is None:
            raise ValueError(
                f"{path} was trained with a network that create_backbone did not build; build the network, call "
                "load_weights(path, network), and pass it as the backbone"
            )
        return cls(path, stamp, backbone, preprocessing, learner, training, tensors)

    @classmethod
    def is_one(cls, path: str | Path) -> bool:
        """Whether a file is a checkpoint rather than bare weights."""
        return Path(path).suffix == ".safetensors" and _KEY in read_metadata(path)

    @isolated(gradients=True)
    def network(self) -> nn.Module:
        """Build the backbone with its trained weights, in evaluation mode.

        Raises
        ------
        UnknownNameError
            If timm has no such network.
        ValueError
            If the weights do not fit the network, or it has an argument that a file may not give.
        """
        weights = self.part("backbone.")
        try:
            # NaN embeddings would pass for unreadable images, which may be skipped silently.
            if unfit := [name for name, value in weights.items() if value.isnan().any()]:
                raise ValueError(f"its weight {unfit[0]!r:.60} is NaN")
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
        """Return the weights whose names start with ``backbone.`` or ``learner.``, without the prefix."""
        return {k.removeprefix(prefix): v for k, v in self.tensors.items() if k.startswith(prefix)}


def stamp_of(path: str | Path) -> tuple[int, int] | None:
    """Return size and modification time of a file; None if it does not exist."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def bytes_of(tensors: Mapping[str, Tensor]) -> int:
    """Return the size of tensors in bytes."""
    return sum(value.numel() * value.element_size() for value in tensors.values())


def _checked_training(described: Any) -> dict[str, Any]:
    training = dict(described)
    for name in ("classes", "images"):
        values = training.get(name, [])
        if not isinstance(values, list) or not all(isinstance(v, str) or is_whole(v, -(2**63)) for v in values):
            raise ValueError(f"{name} must be a list of strings and integers")
    if not isinstance(training.get("began", ""), str):
        raise ValueError("began must be a string")
    return training


def describe_learner(learner: Learner) -> dict[str, Any]:
    """Return the registered name and the arguments of a learner, ready for JSON.

    Raises
    ------
    TypeError
        If the learner cannot be built from its arguments (see `Learner.arguments`), or a file may not hold one of them.
    """
    params = learner.arguments()
    if fault := _fault_of_params(type(learner), params):
        raise TypeError(f"{type(learner).__name__} cannot be saved: {fault}")
    return {"name": learner.name, "params": params}


@isolated(gradients=True)
def build_learner(described: Mapping[str, Any], weights: Mapping[str, Tensor]) -> Learner:
    """Build the learner that `describe_learner` described, in evaluation mode.

    The description is not trusted: it can only give a registered name, and plain arguments of the types that the
    constructor declares.

    Raises
    ------
    UnknownNameError
        If no learner is registered by that name.
    ValueError
        If the arguments or weights do not fit the learner.
    """
    try:
        if set(described) != {"name", "params"}:
            raise ValueError("expected name and params")
        kind, params = learner_class(described["name"]), described["params"]
        if fault := _fault_of_params(kind, params):
            raise ValueError(fault)
        for name, value in weights.items():
            if value.is_floating_point() and not (value.abs() <= MOST_WEIGHT).all():
                raise ValueError(f"its weight {name!r:.40} is not finite, or above {MOST_WEIGHT:.0e}")
        with within_budget(bytes_of(weights)):
            learner = kind(**params)
        learner.load_state_dict(dict(weights))
    except UnknownNameError as error:
        said = (
            f"this was saved with the learner {brief(repr(error.name))}, which nothing here registers; import its "
            "plug-in first"
        )
        raise UnknownNameError(error.kind, error.name, error.known, said) from None
    except Exception as error:  # the constructor of a plug-in may raise anything
        reason = " ".join(str(error).split())
        raise ValueError(f"the learner {described!r:.200} cannot be built as it was saved ({reason:.200})") from error
    return learner.eval()


def _fault_of_params(kind: type[Learner], params: Any) -> str | None:
    """Return which argument a file may not give to a learner; None if all are plain and of the declared types."""
    if not isinstance(params, Mapping):
        return f"its arguments are {params!r:.60}"
    expected = inspect.signature(kind).parameters
    for name, value in params.items():
        if name not in expected:
            return f"it takes no argument {name!r:.40}"
        annotation = inspect.formatannotation(expected[name].annotation).replace("'", "")
        types = {part.partition("[")[0].strip() for part in annotation.split("|")}
        if not any(check(value) for of, check in _PLAIN.items() if of in types or not types & _PLAIN.keys()):
            return f"its argument {name}={value!r:.60} is not plain, or not {annotation}"
        if is_whole(value) and value > MOST_ROUNDS.get(name, MOST_WHOLE):
            return f"its argument {name} is {value}; expected at most {MOST_ROUNDS.get(name, MOST_WHOLE)}"
    return None


#: Checks of plain values, by the annotation of the argument.
_PLAIN: dict[str, Any] = {
    "None": lambda value: value is None,
    "bool": lambda value: isinstance(value, bool),
    "int": is_whole,
    "float": lambda value: is_number(value, -MOST_NUMBER, MOST_NUMBER),
    "str": is_word,
    "Sequence": lambda value: (
        isinstance(value, (list, tuple)) and len(value) <= MOST_NUMBERS and all(map(is_number, value))
    ),
}


def load_learner(path: str | Path) -> Learner:
    """Return the trained learner of a checkpoint that `MetaTrainer` wrote.

    The file need not be trusted: only a registered name, plain arguments and finite weights are read from it, and
    nothing in it is executed.

    Parameters
    ----------
    path : path
        A file ``best.safetensors``.

    Raises
    ------
    ValueError
        If the file is not a checkpoint, is damaged, or gives the learner anything but plain arguments.
    UnknownNameError
        If the learner is not registered.

    Examples
    --------
    >>> import tempfile
    >>> from fewshot import PrototypicalLearner, create_backbone
    >>> path = tempfile.mkdtemp() + "/best.safetensors"
    >>> save_weights(path, create_backbone("conv4"), PrototypicalLearner("cosine", temperature=0.5))
    >>> load_learner(path)
    PrototypicalLearner(metric='cosine', temperature=0.5)
    """
    checkpoint = Checkpoint.open(path)
    return build_learner(checkpoint.learner, checkpoint.part("learner."))


def load_weights(path: str | Path, backbone: nn.Module, learner: Learner | None = None) -> None:
    """Load the weights of a checkpoint into a backbone of the same architecture, and into a learner if given.

    Raises
    ------
    ValueError
        If the file is damaged, or names or shapes of weights do not fit; then nothing is changed.
    FileNotFoundError
        If there is no file.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} does not exist; expected a file of weights, such as best.safetensors")
    loaded, _ = read_tensors(path)
    expected = {name: tuple(value.shape) for name, value in _joined(backbone, learner).state_dict().items()}
    found = {k: tuple(v.shape) for k, v in loaded.items() if learner is not None or k.startswith("backbone.")}
    # Compare everything before copying anything, so that a refused file leaves the network unchanged.
    if different := sorted(k for k in expected.keys() | found.keys() if expected.get(k) != found.get(k)):
        name = different[0]
        raise ValueError(
            f"{path} holds weights of another network or learner: {name} is {found.get(name, 'missing')} in the file, "
            f"expected {expected.get(name, 'no such weight')}"
        )
    load_state(loaded, backbone, learner)


def state(backbone: nn.Module, learner: Learner) -> dict[str, Tensor]:
    """Return the weights and buffers of both, with the prefixes ``backbone.`` and ``learner.``."""
    return _joined(backbone, learner).state_dict()


def load_state(state: dict[str, Tensor], backbone: nn.Module, learner: Learner | None) -> None:
    """Load the result of `state` into a backbone, and into a learner if given."""
    _joined(backbone, learner).load_state_dict(
        {k: v for k, v in state.items() if learner is not None or k.startswith("backbone.")}
    )


def _joined(backbone: nn.Module, learner: Learner | None) -> nn.Module:
    return nn.ModuleDict({"backbone": backbone} | ({} if learner is None else {"learner": learner}))
