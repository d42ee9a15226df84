"""Files that are written whole or not at all, and what tells them apart."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Give a file beside `path` to write to; it takes the place of `path` if the block succeeds.

    A failure leaves what was there, and nothing else.

    Examples
    --------
    >>> import tempfile
    >>> target = Path(tempfile.mkdtemp()) / "note.txt"
    >>> with replacing(target) as partial:
    ...     _ = partial.write_text("whole")
    >>> target.read_text()
    'whole'
    """
    if Path(path).is_dir():  # before anything is computed for it
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    with partial_beside(path) as partial:
        yield partial
        os.replace(partial, path)


@contextmanager
def partial_beside(path: str | Path) -> Iterator[Path]:
    """Give a file beside `path` to write to, which no other thread or process has; it is gone after the block."""
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.partial")
    try:
        yield partial
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write a UTF-8 file, whole or not at all: a failure leaves what was there."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def sync(path: str | Path) -> None:
    """Wait until a file, or the list of names in a folder, is on the disk: after this, power may fail."""
    if os.name == "nt" and Path(path).is_dir():  # Windows has no handle for that
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def digest(path: str | Path) -> str:
    """Return the SHA-256 of a file."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
