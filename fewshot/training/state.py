"""The state of a training run on disk, from which it goes on as if it had never stopped."""

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

STATE, LOG, BEST = "state.safetensors", "log.csv", "best.safetensors"
FORMAT = 1
_KEY = "fewshot-training"


@dataclass
class TrainingState:
    """All that decides how a run goes on.

    Attributes
    ----------
    run : dict
        What must be the same when it goes on: configuration, network, learner, data, episodes.
    progress : dict
        Steps done, the best validation so far, seconds, episodes skipped.
    model, best : dict of Tensor
        Weights as they are, and the best so far.
    optimizer : dict of int to dict of str to Tensor
        The optimiser's memory of each parameter.
    """

    run: dict[str, Any]
    progress: dict[str, Any]
    model: dict[str, Tensor]
    best: dict[str, Tensor]
    optimizer: dict[int, dict[str, Tensor]]

    def save(self, folder: Path) -> None:
        """Write the state, whole or not at all; power may fail at any time."""
        tensors = {f"model.{k}": v for k, v in self.model.items()} | {f"best.{k}": v for k, v in self.best.items()}
        tensors |= {f"optimizer.{i}.{k}": v for i, values in self.optimizer.items() for k, v in values.items()}
        described = {"format": FORMAT, "version": __version__, "run": self.run, "progress": self.progress}
        with replacing(folder / STATE) as partial:
            write_tensors(partial, savable(tensors), {_KEY: json.dumps(described)})
            sync(partial)
        sync(folder)

    @classmethod
    def load(cls, folder: Path, run: dict[str, Any]) -> TrainingState | None:
        """Return the state in a folder, which must be one of `run`; None if there is none.

        Raises
        ------
        ValueError
            If it is damaged, or of another run, naming what differs.
        """
        path = folder / STATE
        if not path.is_file():
            return None
        try:
            tensors, said = read_tensors(path)
            described = json.loads(said[_KEY])
            newer, version = described["format"] > FORMAT, described["version"]
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            reason = str(error).removeprefix(f"{path} ").partition(";")[0]
            raise ValueError(
                f"{path} is no whole state of a training ({reason}); restore it from a copy, or start again without "
                "resume"
            ) from error
        if newer:
            raise ValueError(f"{path} was written by fewshot {version}, which is newer than {__version__}; upgrade")
        _check_same(described["run"], json.loads(json.dumps(run)), path)
        optimizer: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            part, _, rest = name.partition(".")
            if part == "optimizer":
                index, _, key = rest.partition(".")
                optimizer.setdefault(int(index), {})[key] = value
        model, best = (
            {k.removeprefix(p): v for k, v in tensors.items() if k.startswith(p)} for p in ("model.", "best.")
        )
        return cls(described["run"], described["progress"], model, best, optimizer)


def put_back(state: TrainingState, optimizer: torch.optim.Optimizer) -> None:
    """Give an optimiser the memory that it had."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    # In the layout of the parameter, or the optimiser's kernels would copy at every step.
    memory = {
        i: {
            k: torch.empty_like(parameters[i], dtype=v.dtype).copy_(v) if v.shape == parameters[i].shape else v
            for k, v in values.items()
        }
        for i, values in state.optimizer.items()
    }
    optimizer.load_state_dict({"state": memory, "param_groups": optimizer.state_dict()["param_groups"]})


def _check_same(old: dict[str, Any], new: dict[str, Any], path: Path) -> None:
    for name in sorted(old.keys() | new.keys()):
        a, b = old.get(name), new.get(name)
        if isinstance(a, dict) and isinstance(b, dict):
            _check_same(a, b, path)
        elif a != b:
            raise ValueError(
                f"{path} is the state of another training: {name} is {b!r:.60} here and was {a!r:.60}; go on with the "
                "same, or start anew without resume=True"
            )
