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
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from fewshot._version import __version__
from fewshot.errors import ArtifactError
from fewshot.persistence.content import is_whole, of_file, parse_json
from fewshot.persistence.files import (
    PARTIAL,
    digest,
    open_regular,
    partial_beside,
    read_regular,
    replacing,
    sync,
    take_access,
)
from fewshot.persistence.writers import LOCK, locked

MANIFEST = "manifest.json"
KINDS = ("classifier", "index", "export")
#: How else than by save() one comes about.
_MADE_BY = {"classifier": ", or fewshot fit", "export": " of fewshot.runtime, or fewshot.export()"}
#: What stands for the content of a file, if that is known, and what writes it.
Part = tuple[str | None, Callable[[Path], object]]
#: The digest of what a folder, by its full path, was known to hold.
Versions = Mapping[str, str]
#: Raised when older versions could not read what is written.
FORMAT = 2
_BEGIN = b'{"format": '
_DIGEST = re.compile(rb', "digest": "([0-9a-f]{64})"\}\n\Z')
#: What an artifact is made of, beside its manifest; the last is safetensors' own.
_PARTS = "memory|weights|learner|support|keys|changes|lists|encoder|preprocess"
_SUFFIXES = "safetensors|faiss|onnx|json|npz"
_NAME = re.compile(rf"({_PARTS})-[0-9a-f]{{16}}\.({_SUFFIXES})")
#: Those, and what a writer of them that was killed left; hidden files of others are neither.
_DATA_FILE = re.compile(
    rf"{_NAME.pattern}|{re.escape(LOCK)}|\.(({_PARTS})(-[0-9a-f]{{16}})?\.({_SUFFIXES})|manifest\.json){PARTIAL}|\.tmp\w{{6}}"
)
_SHA256 = re.compile(r"[0-9a-f]{64}")
#: A manifest is no larger; one of a million labels has some 20 MB.
MOST_BYTES = 1 << 30
#: A partial file of another process that is younger than this may still be written to.
_STALE_SECONDS = 3600


@contextmanager
def writing(folder: str | Path, kind: str) -> Iterator[None]:
    """Be the only writer of an artifact for the time of a block: what is read in it is there until it is written.

    Parameters
    ----------
    folder : path
        Made if needed; must be empty or hold an artifact of this kind.
    kind : {"classifier", "index", "export"}
        What it is.

    Raises
    ------
    ArtifactError
        If the folder holds something else.
    InUseError
        If somebody else holds it for longer than a minute.
    """
    folder, made = Path(folder), False
    with ExitStack() as lock:
        while True:
            if folder.exists():
                _files_of(folder, kind)  # no lock is left among the files of others
            else:
                folder.mkdir(parents=True, exist_ok=True)
                sync(folder.absolute().parent)
                made = True
            try:
                lock.enter_context(locked(folder))
                break
            except FileNotFoundError:
                if folder.exists():
                    raise  # else whoever made it has failed and removed it
        try:
            yield
        except BaseException:
            lock.close()
            if made:
                with suppress(OSError):  # somebody else writes there
                    folder.rmdir()
            raise


def write_artifact(
    folder: str | Path,
    kind: str,
    content: Mapping[str, Any],
    parts: Mapping[str, Part],
    caches: Mapping[str, Part],
    known: Versions | None = None,
) -> Versions:
    """Write an artifact, or replace the one that is there.

    Parameters
    ----------
    folder : path
        Made if needed; must be empty or hold an artifact of this kind.
    kind : {"classifier", "index", "export"}
        What it is.
    content : mapping
        What the manifest says, as JSON can hold it.
    parts : mapping of str to (key, write)
        Data files by name. ``write(path)`` writes one; it is not asked where the folder has the file of this `key`, a
        hexadecimal digest that stands for the content; without a key the digest of the bytes serves. A name
        without a suffix is that of a safetensors file.
    caches : mapping of str to (key, write)
        The same for files, in a form of their own, that can be made of the others again; a name ends in ``.faiss``.
    known : mapping of folder to digest, optional
        The versions that the writer has read or written; a folder that holds another one now is not replaced.

    Returns
    -------
    dict of folder to digest
        `known`, and what was written.

    Raises
    ------
    ArtifactError
        If the folder holds something else, or another version than the one that is known.
    InUseError
        If somebody else holds it for longer than a minute.
    OSError
        If it cannot be written; what was there is untouched.
    """
    folder = Path(folder)
    with writing(folder, kind):
        old, known = _files_of(folder, kind), known or {}
        _refuse_changed(folder, kind, known)
        files, cached = (
            {name: _write_part(folder, name, key, write, old) for name, (key, write) in some.items()}
            for some in (parts, caches)
        )
        facts = {"format": FORMAT, "version": __version__, "kind": kind, **content, "files": files, "caches": cached}
        body = json.dumps(facts)[:-1].encode()
        version = hashlib.sha256(body).hexdigest()
        sync(folder)  # the names of the files, before there is a manifest that names them
        with replacing(folder / MANIFEST) as partial:
            partial.write_bytes(body + f', "digest": "{version}"}}\n'.encode())
            sync(partial)
        sync(folder)
        _sweep(folder, {entry["name"] for entry in (*files.values(), *cached.values())})
    return {**known, os.path.realpath(folder): version}


def read_artifact(folder: str | Path, kind: str) -> tuple[dict[str, Any], dict[str, Path]]:
    """Return the manifest of an artifact and the paths of its data files, all of them verified.

    A cache is only among the paths if it is there and whole. All files are regular files in the folder itself, of the
    size that the manifest says; links, pipes and devices are refused. The digests show damage. They are no signature:
    anyone can make a folder whose digests fit, so whoever reads its content has to check that as well.

    Raises
    ------
    ArtifactError
        If there is none of this `kind`, it is damaged or incomplete, or a newer version wrote it.
    """
    folder, damaged = Path(folder), b""
    while True:
        raw, manifest = _read_manifest(folder, kind)
        if (found := manifest.get("kind", KINDS[0])) != kind:
            raise ArtifactError(f"{folder} is no saved {kind}: a saved {found} is there; give another folder")
        try:
            paths = {name: _verified(folder, entry) for name, entry in manifest["files"].items()}
        except ArtifactError:
            if raw == damaged:
                raise  # once could also mean that somebody was replacing it
            damaged = raw
            continue
        for name, entry in manifest.get("caches", {}).items():
            with suppress(ArtifactError):
                paths[name] = _verified(folder, entry)
        return manifest, paths


def version_of(folder: str | Path) -> str | None:
    """Return the digest that stands for all that an artifact holds; None where there is no whole manifest."""
    with suppress(OSError, ValueError):
        manifest = _whole(read_regular(Path(folder) / MANIFEST, MOST_BYTES))
        return None if manifest is None else str(manifest["digest"])
    return None


def _refuse_changed(folder: Path, kind: str, known: Versions) -> None:
    """Refuse to replace what the writer has never seen."""
    mine, there = known.get(os.path.realpath(folder)), version_of(folder)
    if mine is not None and there is not None and mine != there:
        raise ArtifactError(
            f"{folder} has changed since this {kind} was loaded from it or saved to it, and saving would undo that: "
            "load it again and repeat what was done since, or call save with overwrite=True"
        )


def refuse_others(folder: str | Path, kind: str) -> None:
    """Refuse what is there and is no artifact of this kind, as `writing` does: before the work, not after it."""
    if os.path.exists(folder):
        _files_of(Path(folder), kind)


def stamp(folder: str | Path) -> tuple[int, int] | None:
    """Return what changes each time that a folder is written, also to what it held before.

    Whoever reads the files of an artifact after they were verified has to look again: another process may have replaced
    them.
    """
    with suppress(OSError):
        found = (Path(folder) / MANIFEST).stat()
        return found.st_ino, found.st_mtime_ns
    return None


def _read_manifest(folder: Path, kind: str) -> tuple[bytes, dict[str, Any]]:
    path = folder / MANIFEST
    try:
        raw = read_regular(path, MOST_BYTES)
    except OSError as error:
        if not folder.is_dir():
            reason = "there is no such folder" if not folder.exists() else "this is a file"
        else:
            reason = f"there is no {MANIFEST}" if not os.path.lexists(path) else f"{MANIFEST}: {error.strerror}"
        raise ArtifactError(
            f"{folder} is no saved {kind}: {reason}; make one with save(){_MADE_BY.get(kind, '')}"
        ) from None
    with of_file(path, "restore it from a copy, or save again"):
        manifest = _whole(raw)
    if manifest is None:
        raise ArtifactError(f"{path} is damaged: its digest does not fit; restore it from a copy, or save again")
    _refuse_newer(folder, manifest)
    return raw, manifest


def _whole(raw: bytes) -> dict[str, Any] | None:
    """Return a manifest whose digest fits; None where it does not.

    Raises
    ------
    ValueError
        If the digest fits what no version has written.
    """
    found = _DIGEST.search(raw)
    if found is None or hashlib.sha256(raw[: found.start()]).hexdigest().encode() != found[1]:
        return None
    manifest = parse_json(raw)
    if not is_whole(manifest.get("format"), 1) or not isinstance(manifest.get("version"), str):
        raise ValueError("it does not say which version wrote it")
    if manifest["format"] <= FORMAT:
        if manifest.get("kind", KINDS[0]) not in KINDS:
            raise ValueError(f"its kind is {manifest['kind']!r:.60}; expected {', '.join(KINDS)}")
        for part in ("files", "caches"):
            entries = manifest.get(part, {} if part == "caches" else None)
            if not isinstance(entries, dict) or not all(map(_is_entry, entries.values())):
                raise ValueError(f"its {part} are not all described by name, sha256 and bytes")
    return manifest


def _is_entry(entry: Any) -> bool:
    return (
        isinstance(entry, dict)
        and all(isinstance(entry.get(name), str) for name in ("name", "sha256"))
        and _SHA256.fullmatch(entry["sha256"]) is not None
        and is_whole(entry.get("bytes"))
    )


def _refuse_newer(folder: Path, manifest: Mapping[str, Any]) -> None:
    if manifest["format"] > FORMAT:
        raise ArtifactError(
            f"{folder} was written by fewshot {manifest['version']!s:.40} in format {manifest['format']}; this is "
            f"{__version__}, which reads up to format {FORMAT}: upgrade fewshot"
        )


def _verified(folder: Path, entry: Mapping[str, Any]) -> Path:
    if not _NAME.fullmatch(entry["name"]):
        raise ArtifactError(f"{folder / MANIFEST} names {entry['name']!r:.80}, which is no file of its own; save again")
    path = folder / entry["name"]
    try:
        with open_regular(path) as file:
            # The size first: what is far larger takes long to read.
            as_said = os.fstat(file.fileno()).st_size == entry["bytes"]
            found = hashlib.file_digest(file, "sha256").hexdigest() if as_said else ""
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error.strerror}; restore it from a copy, or save again") from None
    if found != entry["sha256"]:
        what = "SHA-256" if found else "size"
        raise ArtifactError(f"{path} is damaged: its {what} does not fit; restore it from a copy, or save again")
    return path


def _files_of(folder: Path, kind: str) -> dict[str, dict[str, Any]]:
    """Return the data files of the artifact that is to be replaced, by their names; refuse a folder of others."""
    if not folder.is_dir():
        raise ArtifactError(f"{folder} is a file and no saved {kind}, so nothing is written there; give a new folder")
    path = folder / MANIFEST
    try:
        raw = read_regular(path, MOST_BYTES)
    except FileNotFoundError:
        raw = b""
    except OSError as error:  # a link would lead the new manifest out of the folder, a pipe would wait for a reader
        raise ArtifactError(
            f"{path} cannot be replaced ({error.strerror}), so nothing is written there; give a new folder"
        ) from None
    try:
        manifest = _whole(raw)
    except ValueError:
        manifest = None
    if manifest is None:
        others = [entry.name for entry in folder.iterdir() if not _DATA_FILE.fullmatch(entry.name)]
        if set(others) <= {MANIFEST} and (not raw or raw.startswith(_BEGIN)):
            return {}  # of a first save that was interrupted, or damaged: saving mends it
        raise ArtifactError(
            f"{folder} holds other files and no saved {kind}, so nothing is written there; give a new folder"
        )
    _refuse_newer(folder, manifest)
    if (found := manifest.get("kind", KINDS[0])) != kind:
        raise ArtifactError(f"{folder} holds a saved {found}, so no {kind} is written there; give a new folder")
    return {entry["name"]: entry for part in ("files", "caches") for entry in manifest.get(part, {}).values()}


def _write_part(
    folder: Path, name: str, key: str | None, write: Callable[[Path], object], old: Mapping[str, dict[str, Any]]
) -> dict[str, Any]:
    stem, _, kind = name.partition(".")
    suffix = f".{kind or 'safetensors'}"
    if key is not None:
        entry = old.get(f"{stem}-{key[:16]}{suffix}")
        with suppress(ArtifactError):  # damaged: written again
            if entry and _verified(folder, entry):
                return entry
    with partial_beside(folder / f"{stem}{suffix}") as partial:
        write(partial)
        with suppress(FileNotFoundError):  # a folder whose manifest is private stays so with all its files
            take_access(partial, (folder / MANIFEST).stat())
        sync(partial)
        sha256, size = digest(partial), partial.stat().st_size
        path = folder / f"{stem}-{(key or sha256)[:16]}{suffix}"
        os.replace(partial, path)
    return {"name": path.name, "sha256": sha256, "bytes": size}


def _sweep(folder: Path, keep: set[str]) -> None:
    now = time.time()
    for path in folder.iterdir():
        if not _DATA_FILE.fullmatch(path.name) or path.name in keep:
            continue
        with suppress(OSError):  # the new content stands already
            if path.name != LOCK and (not path.name.startswith(".") or now - path.stat().st_mtime > _STALE_SECONDS):
                path.unlink(missing_ok=True)


def size_of(folder: str | Path) -> int:
    """Return the bytes that an artifact takes on disk."""
    return sum(path.stat().st_size for path in Path(folder).iterdir() if path.is_file())


def is_artifact(folder: str | Path) -> bool:
    """Whether a folder looks like an artifact; `read_artifact` finds out whether it is whole."""
    return (Path(folder) / MANIFEST).is_file() and os.path.isdir(folder)
