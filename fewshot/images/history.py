"""The versions of a saved model, for people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from fewshot.persistence.artifact import forget_versions, read_artifact, restore_artifact
from fewshot.persistence.content import is_whole
from fewshot.persistence.versions import EMPTY, Version, read_versions

_KIND = "classifier"


@dataclass(frozen=True)
class SavedVersion:
    """A version of a saved model; see `FewShotModel.history`.

    Attributes
    ----------
    number : int
        Counts up with each change; 0 if a program without history wrote it, or before the first class was taught.
    at : datetime or None
        When it was saved, if known.
    note : str
        What changed, such as "add 3 images of heron".
    n_classes, n_support : int
        Number of classes and of support items.
    is_current : bool
        Whether the folder holds it now.
    """

    number: int
    at: datetime | None
    note: str
    n_classes: int
    n_support: int
    is_current: bool

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold; the time is in ISO 8601."""
        return {**vars(self), "at": None if self.at is None else self.at.isoformat()}


@dataclass(frozen=True)
class Steps:
    """Where undo and redo lead: numbers of versions, 0 to what was before the first; None if there is no step."""

    undo: int | None
    redo: int | None


def read_steps(folder: str | Path) -> Steps:
    """Return where undo and redo lead: to the version the current one was made from, and the newest made from it."""
    versions = read_versions(folder, _KIND)
    now = next((one for one in versions if one.is_current), None)
    before = [one.number for one in versions if now and one.digest == now.after]
    if now and now.after == EMPTY:
        before = [0]
    after = [one.number for one in versions if one.after == (now.digest if now else EMPTY)]
    return Steps(*(max(found, default=None) for found in (before, after)))


def read_history(folder: str | Path) -> list[SavedVersion]:
    """Return the versions of a saved model, oldest first; see `FewShotModel.history`."""
    versions = read_versions(folder, _KIND)
    if not versions:
        read_artifact(folder, _KIND)  # says why
    return [_described(one) for one in versions]


def go_back(folder: str | Path, number: int | None = None) -> SavedVersion:
    """Make an earlier version the current one; see `FewShotModel.undo`."""
    found = restore_artifact(folder, _KIND, number)
    return SavedVersion(0, None, "", 0, 0, True) if found is None else _described(found)


def clear_history(folder: str | Path) -> None:
    """Delete all versions but the current one; see `FewShotModel.clear_history`."""
    forget_versions(folder, _KIND)


def _described(version: Version) -> SavedVersion:
    """Return a version for people; the manifest of a stranger may hold anything."""
    classes, n_support = version.manifest.get("classes"), version.manifest.get("n_support")
    values: Any = classes.get("values") if isinstance(classes, Mapping) else None
    counts = n_support if isinstance(n_support, list) and all(map(is_whole, n_support)) else []
    n_classes, n = len(values) if isinstance(values, list) else 0, sum(counts)
    if isinstance(classes, Mapping) and is_whole(classes.get("n")) and isinstance(n_support, int):  # of a large model
        n_classes, n = classes["n"], n_support
    return SavedVersion(version.number, version.at, version.note, n_classes, n, version.is_current)
