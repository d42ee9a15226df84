"""Artifacts: folders that are replaced as a whole, with data files named by content and a manifest written last.

A reader verifies every hash before it uses a file. A writer adds new files to the old ones and then replaces the
manifest in one step, so that a crash leaves the old content or the new one; files that no manifest names are deleted.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from fewshot._version import __version__
from fewshot.errors import ArtifactError, NoArtifactError
from fewshot.persistence.content import errors_of_file
from fewshot.persistence.files import check_writable, copy_access, digest, partial_file, read_regular, replacing, sync
from fewshot.persistence.locking import LOCK, is_held, locked
from fewshot.persistence.manifest import (
    BEGIN,
    DATA_FILE,
    KINDS,
    MANIFEST,
    MOST_BYTES,
    PLAIN,
    parse_manifest,
    refuse_newer,
    verified,
)
from fewshot.persistence.versions import EMPTY, Version, kept, read_versions, saved_facts, store_version, to_restore
from fewshot.utils.logs import timed

_log = logging.getLogger(__name__)
T = TypeVar("T")
#: What creates an artifact of a kind, apart from save().
_MADE_BY = {"classifier": ", or fewshot fit", "export": " of fewshot.runtime, or fewshot export"}
#: A digest of the content of a file, if known, and a function that writes it to a path; None keeps the present file.
Part = tuple[str | None, Callable[[Path], object]] | None
#: Full path of a folder -> digest of the artifact that it is known to hold.
Versions = Mapping[str, str]
#: Another process may still be writing to a partial file that is younger than this.
_STALE_SECONDS = 3600


@contextmanager
def writing(folder: str | Path, kind: str) -> Iterator[None]:
    """Hold the write lock of an artifact inside the block: no one else changes it between reading and writing.

    Parameters
    ----------
    folder : path
        Created if needed; must be empty or hold an artifact of this kind.
    kind : {"classifier", "index", "export", "store"}
        Kind of artifact.

    Raises
    ------
    ArtifactError
        If the folder holds something else.
    InUseError
        If another writer holds the folder for longer than a minute.
    """
    folder, made = Path(folder), False
    if is_held(folder):
        yield
        return
    with ExitStack() as lock:
        while True:
            if folder.exists():
                _replaceable(folder, kind)  # before a lock file appears among files of others
            else:
                folder.mkdir(parents=True, exist_ok=True)
                sync(folder.absolute().parent)
                made = True
            try:
                lock.enter_context(locked(folder))
                break
            except FileNotFoundError:
                if folder.exists():
                    raise  # otherwise its creator failed and removed it
        try:
            yield
        except BaseException:
            lock.close()
            if made:
                with suppress(OSError):  # another writer is using it
                    folder.rmdir()
            raise


def write_artifact(
    folder: str | Path,
    kind: str,
    content: Mapping[str, Any],
    parts: Mapping[str, Part],
    caches: Mapping[str, Part],
    known: Versions | None = None,
    note: str | None = None,
) -> Versions:
    """Write an artifact, or replace an existing one.

    Parameters
    ----------
    folder : path
        Created if needed; must be empty or hold an artifact of this kind.
    kind : {"classifier", "index", "export", "store"}
        Kind of artifact.
    content : mapping
        Content of the manifest, as values that JSON can hold; it may name a later ``format``, which older versions
        cannot read.
    parts : mapping of str to (key, write) or None
        Data files by name. ``write(path)`` writes one. It is not called if the folder already has the file of this
        `key`, a hexadecimal digest of the content; without a key, the digest of the bytes serves. A name without a
        suffix is a safetensors file; after a space, a number tells several files of one name apart. None keeps
        the file that the folder has under this name, unread.
    caches : mapping of str to (key, write)
        The same for files that can be computed from the others; their names end in ``.faiss``.
    known : mapping of folder to digest, optional
        The versions that the writer has read or written; a folder that now holds another version is not replaced.
        ``EMPTY`` stands for a folder that held nothing: undo leads back to that.
    note : str, optional
        What changed, for people. With a note, the last versions are kept, and equal content is not a new version.

    Returns
    -------
    dict of folder to digest
        `known`, with the version that was written.

    Raises
    ------
    ArtifactError
        If the folder holds something else, or a version that is not the known one.
    InUseError
        If another writer holds the folder for longer than a minute.
    OSError
        If the artifact cannot be written; the old content is unchanged.
    """
    folder = Path(folder)
    with writing(folder, kind):
        manifest, known = _replaceable(folder, kind), known or {}
        mine, current = known.get(os.path.realpath(folder)), manifest.get("digest")
        if mine == EMPTY and current is not None and note is None:
            raise ArtifactError(
                f"{folder} holds a saved {kind} already, which a new one would replace: load it and change it, or call "
                "save with overwrite=True"
            )
        if mine is not None and current is not None and mine != current:
            raise ArtifactError(
                f"{folder} has changed since this {kind} was loaded from it or saved to it, and saving would undo "
                "that: load it again and repeat your changes, or call save with overwrite=True"
            )
        versions = [] if note is None else read_versions(folder, kind)
        old = {entry["name"]: entry for one in (manifest, *(v.manifest for v in versions)) for entry in _entries(one)}
        files, cached = (
            {
                name: _kept_part(folder, name, manifest) if part is None else _write_part(folder, name, *part, old)
                for name, part in some.items()
            }
            for some in (parts, caches)
        )
        facts = {"format": PLAIN, "version": __version__, "kind": kind, **content, "files": files, "caches": cached}
        if note is not None:
            if current is not None and _is_same(facts, manifest):
                return {**known, os.path.realpath(folder): current}
            facts["saved"] = saved_facts(versions, EMPTY if current is None and mine == EMPTY else current, note)
        body = json.dumps(facts)[:-1].encode()
        version = hashlib.sha256(body).hexdigest()
        if versions and current is not None:
            store_version(folder)
        if {entry["name"] for entry in _entries(facts)} - old.keys():
            sync(folder)  # file names reach the disk before the manifest that refers to them
        _replace_manifest(folder, body + f', "digest": "{version}"}}\n'.encode())
        earlier = kept(versions, {entry["name"] for entry in _entries(facts)}, current)
        _sweep(folder, [facts, *(one.manifest for one in earlier)], {one.name for one in earlier})
    return {**known, os.path.realpath(folder): version}


def restore_artifact(folder: str | Path, kind: str, number: int | None = None) -> Version | None:
    """Make an earlier version of an artifact the current one again, in one step, and return it.

    The version that was current is kept, so that it can be restored as well. None is returned if nothing was before:
    the folder then holds only its history, and counts as new.

    Parameters
    ----------
    folder : path
        Holds an artifact of this kind, written with notes.
    kind : {"classifier", "index", "export", "store"}
        Kind of artifact.
    number : int, optional
        The version; by default the one from which the current one was made, or the newest if that is damaged.

    Raises
    ------
    ArtifactError
        If the folder holds no artifact of this kind, or no such version that is whole.
    InUseError
        If another writer holds the folder for longer than a minute.
    OSError
        If nothing can be written; the current version is unchanged.
    """
    folder = Path(folder)
    if not read_versions(folder, kind):
        read_artifact(folder, kind)  # says why
    with writing(folder, kind):
        current, versions = _replaceable(folder, kind), read_versions(folder, kind)
        found = to_restore(folder, versions, current.get("digest"), number)
        for entry in found.manifest["files"].values() if found else ():
            verified(folder, entry)
        if current:
            store_version(folder)
        sync(folder)
        if found is None:
            (folder / MANIFEST).unlink()
            sync(folder)
            return None
        _replace_manifest(folder, found.raw)
    return replace(found, is_current=True)


def forget_versions(folder: str | Path, kind: str) -> None:
    """Delete all versions of an artifact but the current one, with the files that only they need.

    Raises
    ------
    ArtifactError
        If the folder holds no artifact of this kind, or the current version is damaged.
    InUseError
        If another writer holds the folder for longer than a minute.
    """
    folder = Path(folder)
    read_artifact(folder, kind)  # raises before anything is created
    with writing(folder, kind):
        _sweep(folder, [read_artifact(folder, kind)[0]], set())


def _entries(manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [entry for part in ("files", "caches") for entry in manifest.get(part, {}).values()]


def _is_same(facts: Mapping[str, Any], manifest: Mapping[str, Any]) -> bool:
    """Whether a manifest says what is about to be written."""
    written = {name: value for name, value in manifest.items() if name not in ("saved", "digest")}
    return bool(json.loads(json.dumps(facts)) == written)


def _replace_manifest(folder: Path, raw: bytes) -> None:
    with replacing(folder / MANIFEST) as partial:
        partial.write_bytes(raw)
        sync(partial)
    sync(folder)


def read_artifact(folder: str | Path, kind: str) -> tuple[dict[str, Any], dict[str, Path]]:
    """Return the manifest of an artifact and the paths of its data files, all of them verified.

    A cache is among the paths only if it is present and whole. All files are regular files in the folder itself, of the
    size in the manifest; links, pipes and devices raise an error. The digests reveal damage, but are not a signature:
    anyone can make a folder whose digests fit, so the caller must check the content as well.

    Raises
    ------
    ArtifactError
        If the folder holds no artifact of this `kind`, or one that is damaged, incomplete or of a newer version.
    """
    folder, damaged = Path(folder), b""
    while True:
        raw, manifest = _read_manifest(folder, kind)
        if (found := manifest.get("kind", KINDS[0])) != kind:
            raise NoArtifactError(f"{folder} is not a saved {kind}: it holds a saved {found}; give another folder")
        try:
            paths = {name: verified(folder, entry) for name, entry in manifest["files"].items()}
        except ArtifactError:
            if raw == damaged:
                raise  # failing once may only mean that another process was replacing it
            damaged = raw
            continue
        for name, entry in manifest.get("caches", {}).items():
            with suppress(ArtifactError):
                paths[name] = verified(folder, entry)
        return manifest, paths


def load_artifact(folder: str | Path, kind: str, build: Callable[[dict[str, Any], dict[str, Path]], T]) -> T:
    """Return ``build(manifest, paths)`` of an artifact; see `read_artifact`.

    It is read again if another process replaces it, maybe by identical content, after its files were verified.

    Raises
    ------
    ArtifactError
        As for `read_artifact`, and instead of any error of `build` about the content.
    """
    while True:
        before = _stamp(folder)
        manifest, paths = read_artifact(folder, kind)
        try:
            with (
                errors_of_file(folder, "restore it from a copy, or save again"),
                timed(_log, "loaded the %s %s", kind, folder),
            ):
                return build(manifest, paths)
        except (OSError, ArtifactError):
            if _stamp(folder) == before and all(path.exists() for path in paths.values()):
                raise  # if a file is really missing, read_artifact says so


def version_of(folder: str | Path) -> str | None:
    """Return the digest of the whole content of an artifact; None if it has no whole manifest."""
    with suppress(OSError, ValueError):
        return str(parse_manifest(read_regular(Path(folder) / MANIFEST, MOST_BYTES))["digest"])
    return None


def refuse_others(folder: str | Path, kind: str) -> None:
    """Raise, before any work, if `writing` would: if the folder holds something else, or may not be written."""
    if os.path.exists(folder):
        _replaceable(Path(folder), kind)
    check_writable(folder)


def refuse_absent(folder: str | Path, kind: str) -> None:
    """Raise as `load_artifact` would if there is no such folder, without what takes a while to import."""
    if not os.path.exists(folder):
        _read_manifest(Path(folder), kind)


def _stamp(folder: str | Path) -> tuple[int, int] | None:
    """Return a value that changes whenever the folder is written, even with the same content.

    If it differs before and after reading, another process may have replaced files after they were verified.
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
        _refuse_archive(folder, kind)
        if not folder.is_dir():
            reason = "there is no such folder" if not folder.exists() else "this is a file"
        else:
            reason = f"it has no {MANIFEST}" if not os.path.lexists(path) else f"{MANIFEST}: {error.strerror}"
        if not os.path.lexists(path) and any(folder.glob("history-*.json")):
            raise ArtifactError(
                f"{folder} holds no current {kind}, only earlier versions; go back to one with undo(), or fewshot undo"
            ) from None
        error_class = ArtifactError if os.path.lexists(path) else NoArtifactError
        raise error_class(
            f"{folder} is not a saved {kind}: {reason}; make one with save(){_MADE_BY.get(kind, '')}"
        ) from None
    with errors_of_file(path, "restore it from a copy, or save again"):
        manifest = parse_manifest(raw)
    refuse_newer(folder, manifest)
    return raw, manifest


def _refuse_archive(path: Path, kind: str) -> None:
    """Raise if a file is a zip archive of an artifact, such as the page of the service makes."""
    if not path.is_file():
        return
    import zipfile  # which is slow, and seldom needed

    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            is_flat = MANIFEST in archive.namelist()
        target = path.with_name(path.stem if path.suffix else f"{path.name}-unzipped") if is_flat else path.parent
        line = shlex.join(("python3", "-m", "zipfile", "-e", os.fspath(path), os.fspath(target)))
        raise NoArtifactError(f"{path} is a zip archive; expected the folder of a saved {kind}: unzip it first: {line}")


def _replaceable(folder: Path, kind: str) -> dict[str, Any]:
    """Return the manifest of the artifact to replace, empty if it has none; raise if the folder holds anything else."""
    if not folder.is_dir():
        _refuse_archive(folder, kind)
        raise NoArtifactError(
            f"{folder} is a file, not a saved {kind}, so nothing was written there; give a new folder"
        )
    path = folder / MANIFEST
    try:
        raw = read_regular(path, MOST_BYTES)
    except FileNotFoundError:
        raw = b""
    except OSError as error:  # a link would lead out of the folder, a pipe would wait for a reader
        raise ArtifactError(
            f"{path} cannot be replaced ({error.strerror}), so nothing was written there; give a new folder"
        ) from None
    try:
        manifest = parse_manifest(raw)
    except ValueError:
        others = [entry.name for entry in folder.iterdir() if not DATA_FILE.fullmatch(entry.name)]
        if set(others) <= {MANIFEST} and (not raw or raw.startswith(BEGIN)):
            return {}  # an interrupted first save, or damage: saving repairs it
        raise NoArtifactError(
            f"{folder} holds other files but no saved {kind}, so nothing was written there; give a new folder"
        ) from None
    refuse_newer(folder, manifest)
    if (found := manifest.get("kind", KINDS[0])) != kind:
        raise NoArtifactError(f"{folder} holds a saved {found}, so no {kind} was written there; give a new folder")
    return manifest


def _kept_part(folder: Path, name: str, manifest: Mapping[str, Any]) -> dict[str, Any]:
    entry: dict[str, Any] = manifest["files"][name]
    path = folder / entry["name"]
    if not path.is_file() or path.stat().st_size != entry["bytes"]:
        raise ArtifactError(f"{path} is missing or damaged; restore it from a copy, or save with overwrite=True")
    return entry


def _write_part(
    folder: Path, name: str, key: str | None, write: Callable[[Path], object], old: Mapping[str, dict[str, Any]]
) -> dict[str, Any]:
    stem, _, kind = name.partition(" ")[0].partition(".")
    suffix = f".{kind or 'safetensors'}"
    if key is not None:
        entry = old.get(f"{stem}-{key[:16]}{suffix}")
        with suppress(ArtifactError):  # a damaged file is written again
            if entry and verified(folder, entry):
                return entry
    with partial_file(folder / f"{stem}{suffix}") as partial:
        write(partial)
        with suppress(FileNotFoundError):  # if the manifest is private, so are all files
            copy_access((folder / MANIFEST).stat(), partial)
        sync(partial)
        sha256, size = digest(partial), partial.stat().st_size
        path = folder / f"{stem}-{(key or sha256)[:16]}{suffix}"
        os.replace(partial, path)
    return {"name": path.name, "sha256": sha256, "bytes": size}


def _sweep(folder: Path, manifests: Sequence[Mapping[str, Any]], others: set[str]) -> None:
    """Delete the data files that no manifest names, except `others`."""
    now, keep = time.time(), others | {entry["name"] for one in manifests for entry in _entries(one)}
    for path in folder.iterdir():
        if not DATA_FILE.fullmatch(path.name) or path.name in keep:
            continue
        with suppress(OSError):  # the new content is complete already
            if path.name != LOCK and (not path.name.startswith(".") or now - path.stat().st_mtime > _STALE_SECONDS):
                path.unlink(missing_ok=True)


def size_of(folder: str | Path) -> int:
    """Return the size of an artifact on disk, in bytes."""
    return sum(path.stat().st_size for path in Path(folder).iterdir() if path.is_file())


def is_artifact(folder: str | Path) -> bool:
    """Whether a folder looks like an artifact; `read_artifact` checks whether it is whole."""
    return (Path(folder) / MANIFEST).is_file() and os.path.isdir(folder)
