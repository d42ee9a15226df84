"""The folder of a training: what in it was made by one, and what belongs to others and stays."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from fewshot.persistence.files import leftovers, refuse_irregular
from fewshot.persistence.writers import BRIEF, locked
from fewshot.training.callbacks import CsvLog
from fewshot.training.distributed import rank
from fewshot.training.state import BEST, LOG, STATE

#: What ``fewshot train`` writes at the end.
MANIFEST = "manifest.json"
#: What safetensors writes to before the file has its name: eight bytes that say how long the description is, then that.
_UNNAMED = re.compile(r"\.tmp\w{6}")


def holds_training(folder: Path) -> bool:
    """Whether a state or a checkpoint of a training is there."""
    return any((folder / name).is_file() for name in (STATE, BEST))


@contextmanager
def only_training(folder: Path | None) -> Iterator[None]:
    """Be the only training that writes to a folder; of several processes the first stands for all.

    Raises
    ------
    InUseError
        If another one does.
    """
    with nullcontext() if folder is None or rank() else locked(folder, BRIEF):
        yield


def refuse_other_training(folder: Path) -> None:
    """Refuse a folder that holds anything but a training; hidden files do not count, as none is touched.

    Raises
    ------
    ValueError
        Naming what is there.
    """
    refuse_log(folder)
    manifest = folder / MANIFEST
    if manifest.is_file() and not _is_of_training(manifest):
        raise ValueError(
            f"{folder} holds a {MANIFEST} of something else, such as a classifier; choose another folder with --out"
        )
    others = sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []
    others = [name for name in others if not name.startswith(".") and name not in (STATE, BEST, LOG, MANIFEST)]
    if others and not holds_training(folder):
        raise ValueError(f"{folder} holds other files, such as {others[0]!r}; choose an empty folder, or a new one")


def refuse_log(folder: Path) -> None:
    """Refuse a folder whose log is none of a training, or which has links in the place of files: both would be written.

    Raises
    ------
    ValueError
        If so.
    """
    refuse_irregular(folder, (STATE, BEST, LOG, MANIFEST))
    log = folder / LOG
    if log.is_file() and not holds_training(folder):
        with log.open("rb") as file:
            beginning = file.read(100)
        if beginning and not beginning.startswith(",".join(CsvLog.columns[:3]).encode()):
            raise ValueError(f"{log} is no log of a training, and would be replaced; choose another folder")


def clear(folder: Path) -> None:
    """Remove a training, so that it is not taken for the one that begins; what belongs to others stays."""
    for name in (STATE, BEST, LOG):
        (folder / name).unlink(missing_ok=True)


def sweep(folder: Path) -> None:
    """Remove what a training that was killed left half written."""
    unnamed = [path for path in folder.glob(".tmp*") if _UNNAMED.fullmatch(path.name) and _is_tensors(path)]
    for path in (*leftovers(folder, (STATE, BEST, LOG, MANIFEST)), *unnamed):
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
