"""The last versions of an artifact: earlier manifests next to the current one, and the data files that they name.

Versions share the data files that did not change, by name: no data is copied, on any file system. A version is current
if ``manifest.json`` holds its manifest, so that one replaced file goes from one version to another.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from fewshot.errors import NoArtifactError
from fewshot.persistence.content import is_whole
from fewshot.persistence.files import copy_access, partial_file, read_regular, sync
from fewshot.persistence.manifest import FORMAT, KINDS, MANIFEST, MOST_BYTES, parse_manifest
from fewshot.utils.text import listed

#: Most earlier versions, and most bytes of the files that only they need. The last one is kept in any case.
MOST_VERSIONS, MOST_HISTORY = 100, 100_000_000
#: Most bytes of a manifest that is not parsed again for each change; a stranger's may be large.
MOST_CACHED = 2**16
#: Most characters of a note.
_MOST_NOTE = 200
#: What a version was made from if undo may lead back to a folder that holds nothing but its history.
EMPTY = "empty"


@dataclass(frozen=True, eq=False)
class Version:
    """A version of an artifact.

    Attributes
    ----------
    number : int
        Counts up with each change; 0 if a program without history wrote it.
    at : datetime or None
        When it was written, if known.
    note : str
        What changed.
    after : str or None
        Digest of the version from which it was made, or `EMPTY`.
    is_current : bool
        Whether the artifact holds it now.
    manifest : mapping
        Its manifest.
    raw : bytes
        The same as it was written.
    """

    number: int
    at: datetime | None
    note: str
    after: str | None
    is_current: bool
    manifest: Mapping[str, Any] = field(repr=False)
    raw: bytes = field(repr=False)

    @property
    def digest(self) -> str:
        """Digest of the whole content."""
        return str(self.manifest["digest"])

    @property
    def name(self) -> str:
        """Name of the file that keeps it once it is no longer current."""
        return history_name(self.digest)

    @property
    def sizes(self) -> dict[str, int]:
        """Size of each of its files."""
        return {entry["name"]: entry["bytes"] for entry in self.manifest["files"].values()}


def history_name(digest: str) -> str:
    """Return the name of the file that keeps the version of this digest."""
    return f"history-{digest[:16]}.json"


def read_versions(folder: str | Path, kind: str) -> list[Version]:
    """Return the whole versions of an artifact in order, the current one among them.

    Whatever is damaged, incomplete, a link, of another kind or of a newer format is left out. Data files are looked up,
    not read.
    """
    folder, found = Path(folder), {}
    for path in [*sorted(folder.glob("history-*.json")), folder / MANIFEST]:
        with suppress(OSError, ValueError):
            raw = read_regular(path, MOST_BYTES)
            manifest = _parsed(raw) if len(raw) <= MOST_CACHED else parse_manifest(raw)
            is_current = path.name == MANIFEST
            fits = manifest["format"] <= FORMAT and manifest.get("kind", KINDS[0]) == kind
            if fits and (is_current or _has_files(folder, manifest)):
                found[manifest["digest"]] = _version(manifest, raw, is_current)
    return sorted(found.values(), key=lambda one: one.number)


@lru_cache(maxsize=MOST_VERSIONS + 28)
def _parsed(raw: bytes) -> Mapping[str, Any]:
    """Return a manifest, which each change would parse again for each version that is kept."""
    return MappingProxyType(parse_manifest(raw))


def saved_facts(versions: Sequence[Version], current: str | None, note: str) -> dict[str, Any]:
    """Return what the manifest of a new version says about it, given the digest of the current one, or `EMPTY`."""
    number = 1 + max((one.number for one in versions), default=0)
    at = datetime.now(UTC).isoformat(timespec="seconds")
    return {"number": number, "after": current, "at": at, "note": note[:_MOST_NOTE]}


def store_version(folder: Path) -> None:
    """Keep the current manifest under the name that it has as an earlier version."""
    raw = read_regular(folder / MANIFEST, MOST_BYTES)
    path = folder / _version(parse_manifest(raw), raw, True).name
    with partial_file(path) as partial:
        try:
            os.link(folder / MANIFEST, partial)  # no other file is replaced, so this costs no wait for the disk
        except OSError:  # the drive has no links
            partial.write_bytes(raw)
            copy_access((folder / MANIFEST).stat(), partial)
            sync(partial)
        os.replace(partial, path)  # of a link, the link itself


def kept(versions: Sequence[Version], names: set[str], last: str | None) -> list[Version]:
    """Return the earlier versions to keep: the `last` one by its digest, and the newest others within bounds.

    Parameters
    ----------
    versions : sequence of Version
        All earlier versions.
    names : set of str
        Files that the new version needs, which cost nothing.
    last : str or None
        Digest of the version before.
    """
    found: list[Version] = []
    names, total = set(names), 0
    for one in sorted(versions, key=lambda one: (one.digest == last, one.number), reverse=True):
        total += len(one.raw) + sum(size for name, size in one.sizes.items() if name not in names)
        if found and (total > MOST_HISTORY or len(found) == MOST_VERSIONS):
            break
        found.append(one)
        names |= one.sizes.keys()
    return found


def to_restore(folder: Path, versions: Sequence[Version], current: str | None, number: int | None) -> Version | None:
    """Return the version of this number; by default the one before the current one, or the newest without a current.

    None stands for number 0, before the first class was taught to a folder that held nothing.

    Raises
    ------
    ArtifactError
        If there is none.
    """
    others = [one for one in versions if one.digest != current]
    after = next((one.after for one in versions if one.digest == current), None)
    if number is not None:
        found = [one for one in others if one.number == number]
    elif current is None:
        found = others[-1:]
    else:
        found = [one for one in others if one.digest == after]
    if found:
        return found[0]
    if after == EMPTY and not number:
        return None
    there = f"it keeps {listed([one.number for one in others])}" if others else "no other version is kept"
    what = "earlier version" if number is None else f"other version {number}"
    raise NoArtifactError(f"{folder} has no {what} to go back to: {there}")


def _version(manifest: Mapping[str, Any], raw: bytes, is_current: bool) -> Version:
    """Return a version; what it says about itself is not trusted."""
    said = manifest.get("saved")
    said = said if isinstance(said, dict) else {}
    number, after, note, at = (said.get(name) for name in ("number", "after", "note", "at"))
    when = None
    with suppress(TypeError, ValueError):
        when = datetime.fromisoformat(at)  # type: ignore[arg-type]
    return Version(
        number if is_whole(number) else 0,  # type: ignore[arg-type]
        when if when is not None and when.tzinfo is not None else None,
        note[:_MOST_NOTE] if isinstance(note, str) else "",
        after if isinstance(after, str) else None,
        is_current,
        manifest,
        raw,
    )


def _has_files(folder: Path, manifest: Mapping[str, Any]) -> bool:
    """Whether the files of a version seem whole; restoring it verifies them."""
    return all(
        (path := folder / os.path.basename(entry["name"])).is_file() and path.stat().st_size == entry["bytes"]
        for entry in manifest["files"].values()
    )
