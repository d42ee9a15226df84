"""The folder of a training: its files, its saved state, and which files must not be touched."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fewshot._version import __version__
from fewshot.embedding.checkpoint import savable
from fewshot.persistence.arrays import read_metadata
from fewshot.persistence.files import leftovers, refuse_irregular, refuse_other_files, replacing, sync
from fewshot.persistence.locking import BRIEF, locked
from fewshot.persistence.tensors import read_tensors, write_tensors
from fewshot.training.callbacks import CsvLog
from fewshot.training.config import TrainConfig
from fewshot.training.distributed import rank
from fewshot.utils.warning import warn

#: Files in the folder of a training; ``fewshot train`` writes the last one at the end.
STATE, BEST, LOG, MANIFEST = FILES = "state.safetensors", "best.safetensors", "log.csv", "manifest.json"
#: Bump when older versions cannot read a new state.
FORMAT = 1
_KEY = "fewshot-training"
#: Temporary files of safetensors. They begin with eight bytes, the length of the JSON header, and then the header.
_TEMPORARY = re.compile(r"\.tmp\w{6}")


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
                f"{path} is not a complete training state ({reason}); restore it from a copy, or start again with "
                "overwrite=True instead of resume=True"
            ) from error
        if newer:
            raise ValueError(f"{path} was written by fewshot {version}, which is newer than {__version__}; upgrade")
        was, now = described["run"], json.loads(json.dumps(run))
        _check_same(_completed(was, now), now, path)
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


def _completed(was: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """Return what an older version wrote with what the present one adds to it."""
    if "config" in was:  # a setting that is newer than the state had the effect of its default
        was["config"] = {k: v for k, v in asdict(TrainConfig()).items() if k in now["config"]} | was["config"]
    of_learner, given = (one.get("learner", {}).get("params", {}) for one in (was, now))
    for name, value in given.items():
        if of_learner.get(f"learn_{name}"):  # the initial value was not written
            of_learner.setdefault(name, value)
    return was


def _check_same(old: dict[str, Any], new: dict[str, Any], path: Path) -> None:
    """Raise if a setting or the data differ, and name all that do: a person may have lost the command."""
    if found := list(_differences(old, new, path)):
        longer = f"; to train on, begin another from {BEST}" if [name for name, _ in found] == ["n_episodes"] else ""
        raise ValueError(
            f"{path} is the state of another training: {', '.join(said for _, said in found)}; use the same settings, "
            f"or start again with overwrite=True instead of resume=True{longer}"
        )


def _differences(old: dict[str, Any], new: dict[str, Any], path: Path) -> Iterator[tuple[str, str]]:
    """Yield names that differ, and what is said of each."""
    for name in sorted(old.keys() | new.keys()):
        a, b = old.get(name), new.get(name)
        if isinstance(a, dict) and isinstance(b, dict):
            yield from _differences(a, b, path)
        elif name == "sampler" and a is None:
            warn(f"{path} was written with an older sampler; the remaining episodes come from version {b}")
        elif a != b:
            shown = (_steps(b), _steps(a)) if name == "augment" else (f"{b!r:.60}", f"{a!r:.60}")
            said = f"{name} is {shown[0]} here and was {shown[1]}"
            if name in ("train", "val") and None not in (a, b):  # digests, which tell nobody anything
                said = f"{name} holds other images or labels"
            yield name, said


def _steps(augment: Any) -> str:
    """Return the names of the steps of an augmentation, given how it was written down."""
    return " and ".join(re.findall(r"\b(?!Chain\b)[A-Z]\w+(?=\()", str(augment))) or "None"


def holds_training(folder: Path) -> bool:
    """Whether the folder holds a state or a checkpoint of a training."""
    return any((folder / name).is_file() for name in (STATE, BEST))


def lock_training(folder: Path | None) -> AbstractContextManager[None]:
    """Lock a folder against other trainings; of several processes only the first takes the lock.

    Raises
    ------
    InUseError
        If another training holds the lock.
    """
    return nullcontext() if folder is None or rank() else locked(folder, BRIEF)


def refuse_foreign_files(folder: Path) -> None:
    """Raise if a folder holds anything but a training; hidden files do not count, because none is touched.

    Raises
    ------
    ValueError
        The message names a foreign file.
    """
    refuse_foreign_log(folder)
    manifest = folder / MANIFEST
    if manifest.is_file() and not _is_of_training(manifest):
        raise ValueError(
            f"{folder} holds a {MANIFEST} of something else, such as a classifier; choose another folder with --out"
        )
    if not holds_training(folder):
        refuse_other_files(folder, FILES)


def refuse_foreign_log(folder: Path) -> None:
    """Raise if the log is not one of a training, or a file to be written is a link.

    Raises
    ------
    ValueError
        The message names the file.
    """
    refuse_irregular(folder, FILES)
    log = folder / LOG
    if log.is_file() and not holds_training(folder):
        with log.open("rb") as file:
            beginning = file.read(100)
        if beginning and not beginning.startswith(",".join(CsvLog.columns[:3]).encode()):
            raise ValueError(f"{log} is not the log of a training and would be replaced; choose another folder")


def refuse_interrupted(folder: Path) -> None:
    """Raise if a folder holds the state of a training that has not come to its end.

    Raises
    ------
    ValueError
        The message says how far it had come.
    """
    try:
        described = json.loads(read_metadata(folder / STATE)[_KEY])
        config = described["run"]["config"]
        done, wanted = described["progress"]["steps"] * config["meta_batch"], config["n_episodes"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):  # none, or nothing that could be continued
        return
    if done < wanted:
        raise ValueError(
            f"{folder} holds a training that was interrupted after episode {done} of {wanted}; continue it with "
            "resume=True, replace it with overwrite=True, or choose another folder"
        )


def remove_training(folder: Path) -> None:
    """Remove the files of an earlier training, and no others."""
    for name in (STATE, BEST, LOG):
        (folder / name).unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Remove files that a killed training left half-written."""
    temporary = [path for path in folder.glob(".tmp*") if _TEMPORARY.fullmatch(path.name) and _is_tensors(path)]
    for path in (*leftovers(folder, FILES), *temporary):
        path.unlink(missing_ok=True)


def _is_of_training(manifest: Path) -> bool:
    try:
        return {"manifest", "config"} <= json.loads(manifest.read_text(encoding="utf-8")).keys()
    except (OSError, ValueError, AttributeError, RecursionError):
        return False


def _is_tensors(path: Path) -> bool:
    if not path.is_file() or path.is_symlink():
        return False
    with path.open("rb") as file:
        return (beginning := file.read(9)) == b"" or beginning[8:] == b"{"
