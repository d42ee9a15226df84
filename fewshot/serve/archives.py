"""Folders as zip files: what is downloaded, and what a stranger uploads."""

from __future__ import annotations

import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast

from fewshot.persistence.artifact import read_artifact
from fewshot.persistence.files import read_regular
from fewshot.persistence.manifest import DATA_FILE, MANIFEST, MOST_BYTES, parse_manifest
from fewshot.serve.problems import Problem

#: Most files of an upload, and bytes that are copied at a time.
MOST_FILES, PART = 1000, 2**18
#: Most bytes of the list of its files, and how they may be packed.
MOST_LIST, PACKED = 2**20, (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
#: Attempts to read a folder that others are changing.
_ATTEMPTS = 20
_NO_ARCHIVE = Problem(422, "invalid", "this is not a zip file of a classifier; send one that was downloaded here")


def zip_artifact(folder: str | Path, kind: str) -> IO[bytes]:
    """Return the present version of an artifact, without its history, as a zip file."""
    folder = Path(folder)
    for _ in range(_ATTEMPTS):
        manifest, paths = read_artifact(folder, kind)
        try:
            raw = read_regular(folder / MANIFEST, MOST_BYTES)
            if parse_manifest(raw)["digest"] == manifest["digest"]:
                return _zipped({MANIFEST: raw}, list(paths.values()))
        except FileNotFoundError:
            continue  # another version has taken its place
    raise Problem(503, "in_use", "the classifier changes too fast to be copied; try again in a second", retry_after=1)


def zip_folder(folder: str | Path) -> IO[bytes]:
    """Return the files of a folder as a zip file."""
    return _zipped({}, sorted(path for path in Path(folder).iterdir() if path.is_file()))


def _zipped(contents: dict[str, bytes], paths: list[Path]) -> IO[bytes]:
    file = tempfile.TemporaryFile()  # noqa: SIM115
    try:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            for path in paths:
                archive.write(path, path.name)
            for name, content in contents.items():
                archive.writestr(name, content)
    except BaseException:
        file.close()
        raise
    file.seek(0)
    return file


def parts_of(file: IO[bytes]) -> Iterator[bytes]:
    """Yield a file in parts, and close it."""
    with file:
        while part := file.read(PART):
            yield part


def unzip(file: IO[bytes], folder: str | Path, most: int) -> None:
    """Write the files of an uploaded classifier to a folder.

    Names decide nothing but which file of a classifier one is: anything else is refused, so nothing lands elsewhere.

    Raises
    ------
    Problem
        If it is no zip file of a classifier, or too large when unpacked.
    """
    try:
        with zipfile.ZipFile(cast(IO[bytes], _InParts(file))) as archive:
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
            if len(entries) > MOST_FILES:
                raise _NO_ARCHIVE
            for entry in entries:
                name = entry.filename.rpartition("/")[2]  # people zip the folder, or what is in it
                if (name != MANIFEST and not DATA_FILE.fullmatch(name)) or entry.compress_type not in PACKED:
                    raise _NO_ARCHIVE
                with archive.open(entry) as source, open(Path(folder, name), "xb") as target:
                    most = _copy(source, target, most)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError, ValueError, FileExistsError):
        raise _NO_ARCHIVE from None


class _InParts:
    """A file of which little is read at once: the list of millions of files would fill the memory."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def read(self, n: int = -1) -> bytes:
        """Return the next bytes."""
        if n > MOST_LIST:
            raise _NO_ARCHIVE
        return self._file.read(n)


def _copy(source: IO[bytes], target: IO[bytes], most: int) -> int:
    """Copy a file and return how many of the `most` bytes are left."""
    while part := source.read(PART):
        most -= len(part)
        if most < 0:
            raise Problem(413, "too_large", "the classifier is too large when unpacked")
        target.write(part)
    return most
