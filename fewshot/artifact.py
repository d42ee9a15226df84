"""A folder that is replaced as a whole: data files named by their content, and a manifest written last.

A reader believes nothing before its hash fits. A writer adds files beside the old ones and then replaces the manifest
in one step, so that whatever happens the old content or the new one is whole; what no manifest names is swept away.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from fewshot._version import __version__
from fewshot.errors import ArtifactError
from fewshot.files import replacing, sync

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

MANIFEST = "manifest.json"
#: Raised when older versions could not read what is written.
FORMAT = 2
_DIGEST = re.compile(rb', "digest": "([0-9a-f]{64})"\}\n\Z')
_DATA_FILE = re.compile(r"[a-z]+-[0-9a-f]{16}\.safetensors|\..*\.partial")
#: A partial file of another process that is younger than this may still be written to.
_STALE_SECONDS = 3600


def write_artifact(
    folder: str | Path, content: Mapping[str, Any], parts: Mapping[str, tuple[str | None, Callable[[], bytes]]]
) -> None:
    """Write an artifact, or replace the one that is there.

    Parameters
    ----------
    folder : path
        Made if needed; must be empty or hold an artifact.
    content : mapping
        What the manifest says, as JSON can hold it.
    parts : mapping of str to (key, make)
        Data files by name. `make` gives the bytes of one; it is not asked where the folder has the file of this `key`,
        a hexadecimal digest that stands for the content; without a key the digest of the bytes serves.

    Raises
    ------
    ArtifactError
        If the folder holds something else.
    OSError
        If it cannot be written; what was there is untouched.
    """
    folder = Path(folder)
    if not folder.is_file():
        folder.mkdir(parents=True, exist_ok=True)
    with _only_writer(folder):
        old = _files_of(folder)
        files = {name: _write_part(folder, name, key, make, old) for name, (key, make) in parts.items()}
        body = json.dumps({"format": FORMAT, "version": __version__, **content, "files": files})[:-1].encode()
        with replacing(folder / MANIFEST) as partial:
            partial.write_bytes(body + f', "digest": "{hashlib.sha256(body).hexdigest()}"}}\n'.encode())
            sync(partial)
        sync(folder)
        _sweep(folder, {entry["name"] for entry in files.values()})


def read_artifact(folder: str | Path) -> tuple[dict[str, Any], dict[str, Path]]:
    """Return the manifest of an artifact and the paths of its data files, all of them verified.

    Raises
    ------
    ArtifactError
        If there is none, it is damaged or incomplete, or a newer version wrote it.
    """
    folder, damaged = Path(folder), b""
    while True:
        raw = _read_manifest(folder)
        manifest = json.loads(raw)
        try:
            return manifest, {name: _verified(folder, entry) for name, entry in manifest["files"].items()}
        except ArtifactError:
            if raw == damaged:
                raise  # once could also mean that somebody was replacing it
            damaged = raw


@contextmanager
def _only_writer(folder: Path) -> Iterator[None]:
    """Let one writer at a time into a folder: one would sweep away what another has just written.

    The lock is on the folder itself and ends with its process. Where there is none (Windows, some network drives)
    writers must not meet.
    """
    if fcntl is None:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _read_manifest(folder: Path) -> bytes:
    path = folder / MANIFEST
    try:
        raw = path.read_bytes()
    except OSError as error:
        if not folder.is_dir():
            reason = "there is no such folder" if not folder.exists() else "this is a file"
        else:
            reason = f"there is no {MANIFEST}" if not path.exists() else str(error.strerror)
        raise ArtifactError(
            f"{folder} is no saved classifier: {reason}; make one with save(), or fewshot fit"
        ) from None
    found = _DIGEST.search(raw)
    if found is None or hashlib.sha256(raw[: found.start()]).hexdigest().encode() != found[1]:
        raise ArtifactError(f"{path} is damaged: its digest does not fit; restore it from a copy, or fit again")
    manifest = json.loads(raw)
    if manifest["format"] > FORMAT:
        raise ArtifactError(
            f"{folder} was written by fewshot {manifest['version']} in format {manifest['format']}; this is "
            f"{__version__}, which reads up to format {FORMAT}: upgrade fewshot"
        )
    return raw


def _verified(folder: Path, entry: Mapping[str, Any]) -> Path:
    path = folder / entry["name"]
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error.strerror}; restore it from a copy, or fit again") from None
    if digest != entry["sha256"]:
        raise ArtifactError(f"{path} is damaged: its SHA-256 does not fit; restore it from a copy, or fit again")
    return path


def _files_of(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the data files of the artifact that is to be replaced, by their names; refuse another folder."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return {}
    if folder.is_dir() and all(_DATA_FILE.fullmatch(entry.name) for entry in folder.iterdir()):
        return {}  # of a first save that was interrupted
    if not (folder / MANIFEST).is_file():
        what = "holds other files" if folder.is_dir() else "is a file"
        raise ArtifactError(f"{folder} {what} and no saved classifier, so nothing is written there; give a new folder")
    try:
        return {entry["name"]: entry for entry in json.loads(_read_manifest(folder))["files"].values()}
    except ArtifactError:
        return {}  # damaged: saving mends it


def _write_part(
    folder: Path, name: str, key: str | None, make: Callable[[], bytes], old: Mapping[str, dict[str, Any]]
) -> dict[str, Any]:
    if key is not None:
        entry = old.get(f"{name}-{key[:16]}.safetensors")
        with suppress(ArtifactError):  # damaged: written again
            if entry and _verified(folder, entry):
                return entry
    data = make()
    digest = hashlib.sha256(data).hexdigest()
    path = folder / f"{name}-{(key or digest)[:16]}.safetensors"
    with replacing(path) as partial:
        partial.write_bytes(data)
        sync(partial)
    return {"name": path.name, "sha256": digest, "bytes": len(data)}


def _sweep(folder: Path, keep: set[str]) -> None:
    now = time.time()
    for path in folder.iterdir():
        if not _DATA_FILE.fullmatch(path.name) or path.name in keep:
            continue
        if path.name.startswith(".") and now - path.stat().st_mtime < _STALE_SECONDS:
            continue
        path.unlink(missing_ok=True)


def size_of(folder: str | Path) -> int:
    """Return the bytes that an artifact takes on disk."""
    return sum(path.stat().st_size for path in Path(folder).iterdir() if path.is_file())


def is_artifact(folder: str | Path) -> bool:
    """Whether a folder looks like an artifact; `read_artifact` finds out whether it is whole."""
    return (Path(folder) / MANIFEST).is_file() and os.path.isdir(folder)
