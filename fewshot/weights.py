"""Weights of a backbone and its learner: one safetensors file, no pickle."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fewshot.files import replacing
from fewshot.learners.base import Learner


def save_weights(path: str | Path, backbone: nn.Module, learner: Learner) -> None:
    """Write the weights of backbone and learner to one safetensors file, whole or not at all."""
    with replacing(path) as partial:
        save_file({k: v.detach().contiguous().cpu() for k, v in state(backbone, learner).items()}, partial)


def load_weights(path: str | Path, backbone: nn.Module, learner: Learner | None = None) -> None:
    """Load weights that `save_weights` wrote into a backbone of the same kind, and into a learner if given.

    Raises
    ------
    ValueError
        If the file is damaged, or the names or shapes of its weights do not fit; nothing is changed then.
    """
    try:
        loaded = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is not a whole file of weights: {error}") from error
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
