"""The folder of a training: which files belong to it, and which must not be touched."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from fewshot.persistence.files import leftovers, refuse_irregular
from fewshot.persistence.locking import BRIEF, locked
from fewshot.training.callbacks import CsvLog
from fewshot.training.distributed import rank
from fewshot.training.state import BEST, LOG, STATE

#: Written by ``fewshot train`` at the end.
MANIFEST = "manifest.json"
FILES = (STATE, BEST, LOG, MANIFEST)
#: Temporary files of safetensors. They begin with eight bytes, the length of the JSON header, and then the header.
_TEMPORARY = re.compile(r"\.tmp\w{6}")


def holds_training(folder: Path) -> bool:
    """Whether the folder holds a state or a checkpoint of a training."""
    return any((folder / name).is_file() for name in (STATE, BEST))


@contextmanager
def lock_training(folder: Path | None) -> Iterator[None]:
    """Lock a folder against other trainings; of several processes only the first takes the lock.

    Raises
    ------
    InUseError
        If another training holds the lock.
    """
    with nullcontext() if folder is None or rank() else locked(folder, BRIEF):
        yield


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
    others = sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []
    others = [name for name in others if not name.startswith(".") and name not in FILES]
    if others and not holds_training(folder):
        raise ValueError(f"{folder} holds other files, such as {others[0]!r}; choose an empty folder, or a new one")


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
