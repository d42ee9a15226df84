"""A meta-trained network on disk: one safetensors file that says how to build what it holds."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from fewshot._version import __version__
from fewshot.data.preprocess import Preprocessing
from fewshot.embedding.backbones import rebuild_backbone, spec_of
from fewshot.embedding.budget import within_budget
from fewshot.errors import UnknownNameError
from fewshot.learners.base import Learner
from fewshot.learners.registry import learner_class
from fewshot.persistence.content import MOST_NUMBERS, is_number, is_whole, is_word, parse_json
from fewshot.persistence.files import replacing, sync
from fewshot.persistence.tensors import read_metadata, read_tensors, write_tensors
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


#: The largest numbers that a file may give to a learner; of what is done or made so often, fewer.
MOST_WHOLE, MOST_NUMBER, MOST_WEIGHT = 1 << 31, 1e12, 1e18
MOST_ROUNDS = {"n_iterations": 10_000, "n_steps": 1_000, "n_prototypes": 10_000}


def save_weights(
    path: str | Path,
    backbone: nn.Module,
    learner: Learner,
    weights: Mapping[str, Tensor] | None = None,
    training: Mapping[str, Any] | None = None,
) -> None:
    """Write a checkpoint, whole or not at all: the weights of backbone and learner, and how to build both.

    `weights`, by default those that both have now, are as `state` returns them; `training` says what they come from,
    see `Checkpoint`.
    """
    metadata = describe_training(backbone, describe_learner(learner), training=training)
    with replacing(path) as partial:
        write_tensors(partial, plain(state(backbone, learner) if weights is None else weights), metadata)
        sync(partial)


def write_weights(path: str | Path, backbone: nn.Module, learner: Learner, preprocessing: Preprocessing) -> None:
    """Write a checkpoint whose images are prepared by `preprocessing`; `path` may hold a part of it for a while."""
    metadata = describe_training(backbone, describe_learner(learner), preprocessing)
    write_tensors(path, plain(state(backbone, learner)), metadata)


def plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors as safetensors takes them: on the CPU, whole, none of them sharing memory as tied weights do."""
    return {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}


def describe_learner(learner: Learner) -> dict[str, Any]:
    """Return the registered name and the arguments of a learner, as JSON can hold them.

    Raises
    ------
    TypeError
        If it cannot be built from them, see `Learner.arguments`, or one is nothing that a file may give to a learner.
    """
    params = learner.arguments()
    if fault := _fault_of_params(type(learner), params):
        raise TypeError(f"{type(learner).__name__} cannot be saved: {fault}")
    return {"name": learner.name, "params": params}


@isolated(gradients=True)
def build_learner(described: Mapping[str, Any], weights: Mapping[str, Tensor]) -> Learner:
    """Return the learner that `describe_learner` described, with `weights` and in evaluation mode.

    Anyone may have written the description, so it only gives a registered name, and plain arguments of the types that
    its constructor takes.

    Raises
    ------
    UnknownNameError
        If no learner is registered by that name here.
    ValueError
        If its arguments or its weights are not those of that learner.
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
    except UnknownNameError:
        raise
    except Exception as error:  # also of the constructor of a plug-in
        reason = " ".join(str(error).split())
        raise ValueError(f"the learner {described!r:.200} cannot be built as it was saved ({reason:.200})") from error
    return learner.eval()


def _fault_of_params(kind: type[Learner], params: Any) -> str | None:
    """Return which argument a file may not give to a learner; None where all are plain, and of the types it takes."""
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


#: Plain values by the annotation of the argument that takes them.
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
    """Return the learner of a checkpoint that `MetaTrainer` wrote, as it was trained.

    Of a stranger's file it takes a registered name, plain arguments and finite weights; nothing in it is executed.

    Parameters
    ----------
    path : path
        A file ``best.safetensors``.

    Raises
    ------
    ValueError
        If the file is no checkpoint, is damaged, or gives the learner anything but plain arguments.
    UnknownNameError
        If its learner is not registered here.

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
    """Load weights that `save_weights` wrote into a backbone of the same kind, and into a learner if given.

    Raises
    ------
    ValueError
        If the file is damaged, or the names or shapes of its weights do not fit; nothing is changed then.
    """
    loaded, _ = read_tensors(path)
    parts = [("backbone.", backbone)] + ([("learner.", learner)] if learner is not None else [])
    expected = {prefix + name: tuple(value.shape) for prefix, m in parts for name, value in m.state_dict().items()}
    found = {k: tuple(v.shape) for k, v in loaded.items() if learner is not None or k.startswith("backbone.")}
    # All of it is compared before any of it is copied: a refused file leaves the network as it was.
    if different := sorted(k for k in expected.keys() | found.keys() if expected.get(k) != found.get(k)):
        name = different[0]
        raise ValueError(
            f"{path} holds weights of another network or learner: {name} is {found.get(name, 'missing')} there and "
            f"{expected.get(name, 'missing')} here"
        )
    load_state(loaded, backbone, learner)


def state(backbone: nn.Module, learner: Learner) -> dict[str, Tensor]:
    """Return the weights and buffers of both, their names prefixed with ``backbone.`` and ``learner.``."""
    return {
        f"{part}.{name}": value
        for part, module in (("backbone", backbone), ("learner", learner))
        for name, value in module.state_dict().items()
    }


def load_state(state: dict[str, Tensor], backbone: nn.Module, learner: Learner | None) -> None:
    """Put what `state` returned back into a backbone, and into a learner if given."""
    for part, module in (("backbone", backbone), ("learner", learner)):
        if module is not None:
            prefix = part + "."
            module.load_state_dict({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})
