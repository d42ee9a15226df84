"""The saved state of a training run, from which it resumes as if it had never stopped."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fewshot._version import __version__
from fewshot.embedding.checkpoint import savable
from fewshot.persistence.files import replacing, sync
from fewshot.persistence.tensors import read_tensors, write_tensors
from fewshot.utils.warning import warn

#: Files in the folder of a training.
STATE, LOG, BEST = "state.safetensors", "log.csv", "best.safetensors"
#: Bump when older versions cannot read a new state.
FORMAT = 1
_KEY = "fewshot-training"


@dataclass
class TrainingState:
    """Everything that determines how a run continues.

    Attributes
    ----------
    run : dict
        What must be the same to resume: configuration, network, learner, data, episodes.
    progress : dict
        Steps taken, best validation accuracy, seconds, skipped episodes.
    model, best : dict of Tensor
        The current weights, and the best so far.
    optimizer : dict of int to dict of str to Tensor
        The optimiser's state for each parameter.
    """

    run: dict[str, Any]
    progress: dict[str, Any]
    model: dict[str, Tensor]
    best: dict[str, Tensor]
    optimizer: dict[int, dict[str, Tensor]]

    def save(self, folder: Path) -> None:
        """Write the state as a whole; a power failure at any time leaves the old or the new one."""
        tensors = {f"model.{k}": v for k, v in self.model.items()} | {f"best.{k}": v for k, v in self.best.items()}
        tensors |= {f"optimizer.{i}.{k}": v for i, values in self.optimizer.items() for k, v in values.items()}
        described = {"format": FORMAT, "version": __version__, "run": self.run, "progress": self.progress}
        with replacing(folder / STATE) as partial:
            write_tensors(partial, savable(tensors), {_KEY: json.dumps(described)})
            sync(partial)
        sync(folder)

    @classmethod
    def load(cls, folder: Path, run: dict[str, Any]) -> TrainingState | None:
        """Return the state in a folder, or None; it must be a state of `run`.

        Raises
        ------
        ValueError
            If the state is damaged, or of another run; the message names the first difference.
        """
        path = folder / STATE
        if not path.is_file():
            return None
        try:
            tensors, metadata = read_tensors(path)
            described = json.loads(metadata[_KEY])
            newer, version = described["format"] > FORMAT, described["version"]
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            reason = str(error).removeprefix(f"{path} ").partition(";")[0]
            raise ValueError(
                f"{path} is not a complete training state ({reason}); restore it from a copy, or start again without "
                "resume=True"
            ) from error
        if newer:
            raise ValueError(f"{path} was written by fewshot {version}, which is newer than {__version__}; upgrade")
        _check_same(described["run"], json.loads(json.dumps(run)), path)
        optimizer: dict[int, dict[str, Tensor]] = {}
        for name, value in _part(tensors, "optimizer.").items():
            index, _, key = name.partition(".")
            optimizer.setdefault(int(index), {})[key] = value
        model, best = _part(tensors, "model."), _part(tensors, "best.")
        return cls(described["run"], described["progress"], model, best, optimizer)


def restore_optimizer(state: TrainingState, optimizer: torch.optim.Optimizer) -> None:
    """Load the saved state of an optimiser."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    # In the memory layout of the parameter, or the optimiser's kernels would copy at every step.
    memory = {
        i: {
            k: torch.empty_like(parameters[i], dtype=v.dtype).copy_(v) if v.shape == parameters[i].shape else v
            for k, v in values.items()
        }
        for i, values in state.optimizer.items()
    }
    optimizer.load_state_dict({"state": memory, "param_groups": optimizer.state_dict()["param_groups"]})


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _check_same(old: dict[str, Any], new: dict[str, Any], path: Path) -> None:
    for name in sorted(old.keys() | new.keys()):
        a, b = old.get(name), new.get(name)
        if isinstance(a, dict) and isinstance(b, dict):
            _check_same(a, b, path)
        elif name == "sampler" and a is None:
            warn(f"{path} was written with an older sampler; the remaining episodes come from version {b}")
        elif a != b:
            raise ValueError(
                f"{path} is the state of another training: {name} is {b!r:.60} here and was {a!r:.60}; use the same "
                "settings, or start again without resume=True"
            )
