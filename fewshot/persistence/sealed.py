"""Seals: the SHA-256 of a file, stored in the file itself where readers of its format do not look."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import BinaryIO

_MARK = b"fewshot sha256: "
#: Size of a seal, in bytes.
SEAL = len(_MARK) + hashlib.sha256().digest_size
_CHUNK = 1 << 20


def seal(path: str | Path, tail: int = 0) -> None:
    """Insert the digest of all bytes of a file in front of its last `tail` bytes.

    The file format must allow unused bytes there: NumPy arrays do at the end, Parquet does in front of its footer.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "array.npy"
    >>> _ = path.write_bytes(b"content")
    >>> seal(path)
    >>> with path.open("rb") as file:
    ...     seal_fits(file)
    True
    """
    with Path(path).open("r+b") as file:
        size = file.seek(0, 2)
        file.seek(size - tail)
        end = file.read()
        found = _digest(file, size - tail, end)
        file.seek(size - tail)
        file.write(_MARK + found + end)


def seal_fits(file: BinaryIO, tail: int = 0) -> bool | None:
    """Whether the content of a file fits its seal; None if it has no seal, like files of other programs."""
    start = file.seek(0, 2) - tail - SEAL
    if start < 0:
        return None
    file.seek(start)
    sealed, end = file.read(SEAL), file.read()
    if not sealed.startswith(_MARK):
        return None
    return sealed[len(_MARK) :] == _digest(file, start, end)


def _digest(file: BinaryIO, size: int, end: bytes) -> bytes:
    """Return the digest of the first `size` bytes of a file, followed by `end`."""
    found = hashlib.sha256()
    file.seek(0)
    while size > 0 and (some := file.read(min(size, _CHUNK))):
        found.update(some)
        size -= len(some)
    found.update(end)
    return found.digest()
