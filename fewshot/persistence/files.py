"""Write files atomically, and read only regular files."""

from __future__ import annotations

import errno
import hashlib
import os
import platform
import re
import shutil
import stat
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from io import BufferedReader
from pathlib import Path

from fewshot.errors import brief

#: Most links to follow before they are considered a loop, as in Linux.
_LINKS = 40
#: End of the name of a partial file: machine (missing in older versions), process, thread.
PARTIAL = r"\.(?:[0-9a-f]{8}-)?\d+-\d+\.partial"
#: Characters of the final name in the name of a partial file, and seconds after which it counts as abandoned.
_SHOWN, _ABANDONED = 48, 24 * 3600


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a partial file to write to, which replaces `path` if the block succeeds.

    A failure leaves the old file, and nothing else. The new file keeps the mode of the old one and, if the system
    allows, its owner. A link is kept: the file that it leads to is replaced or created. A pipe, a device or
    ``/dev/stdout`` is never replaced: the whole content is sent to it once the block succeeds.

    Raises
    ------
    OSError
        If `path` is a folder, a read-only file or a link that leads to itself, or cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> target = Path(tempfile.mkdtemp()) / "note.txt"
    >>> with replacing(target) as partial:
    ...     _ = partial.write_text("whole")
    >>> target.read_text()
    'whole'
    """
    # Checked before anything is computed for the file.
    if (old := _status(path)) is not None and stat.S_ISDIR(old.st_mode):
        raise _error(errno.EISDIR, path)
    if is_special(path):
        with tempfile.TemporaryDirectory() as folder:
            partial = Path(folder) / "partial"
            yield partial
            _send(partial, path)
        return
    if old is not None and not os.access(path, os.W_OK):
        raise _error(errno.EACCES, path)
    place = Path(os.path.realpath(path))
    with partial_file(place) as partial:
        try:
            # Until it has the mode of the old file, no one else may read it.
            handle = os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666 if old is None else 0o600)
        except OSError as error:
            raise _error(error.errno, path) from None
        os.close(handle)
        yield partial
        if old is not None:
            copy_access(old, partial)
        os.replace(partial, place)


@contextmanager
def partial_file(path: str | Path) -> Iterator[Path]:
    """Yield a path in the same folder that no other thread or process uses, and remove it after the block."""
    path = Path(path)
    # Only a part of the name, because names are limited to 255 bytes.
    owner = f"{_machine()}-{os.getpid()}-{threading.get_ident()}"
    partial = path.with_name(f".{path.name[:_SHOWN]}.{owner}.partial")
    partial.unlink(missing_ok=True)  # left by a killed process of the same number
    try:
        yield partial
    finally:
        partial.unlink(missing_ok=True)


def leftovers(folder: str | Path, names: Iterable[str] | None = None) -> list[Path]:
    """Return the partial files that killed processes left, for files of these `names` or of any name.

    A partial file of another machine counts as left if nothing has written to it for a day.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> for name in (".log.csv.99999999-34.partial", ".draft.partial"):
    ...     (folder / name).touch()
    >>> [path.name for path in leftovers(folder, ["log.csv"])]
    ['.log.csv.99999999-34.partial']
    """
    named = ".+" if names is None else "|".join(re.escape(name[:_SHOWN]) for name in names)
    ours = re.compile(rf"\.({named}){PARTIAL}", re.DOTALL)
    found = [path for path in Path(folder).glob(".*.partial") if ours.fullmatch(path.name)]
    return [path for path in found if path.is_file() and _is_abandoned(path)]


def _is_abandoned(partial: Path) -> bool:
    owner = partial.name.removesuffix(".partial").rpartition(".")[2].split("-")
    # On Windows, os.kill would end the process.
    if owner[:-2] not in ([], [_machine()]) or os.name == "nt":
        return time.time() - partial.lstat().st_mtime > _ABANDONED
    try:
        os.kill(int(owner[-2]), 0)
    except (ProcessLookupError, OverflowError):
        return True
    except OSError:  # it belongs to another user
        return False
    return False


@cache
def _machine() -> str:
    """Return eight digits that identify the machine, or the container, within which process numbers are unique."""
    space = platform.node()
    with suppress(OSError):
        space += os.readlink("/proc/self/ns/pid")
    return hashlib.sha256(space.encode(errors="surrogateescape")).hexdigest()[:8]


def copy_access(source: os.stat_result, path: str | Path) -> None:
    """Give a file the mode of another one and, if the system allows, its owner and group."""
    if hasattr(os, "chown"):
        for owner, group in ((source.st_uid, -1), (-1, source.st_gid)):
            with suppress(OSError):
                os.chown(path, owner, group)
    os.chmod(path, stat.S_IMODE(source.st_mode))


def is_special(path: str | Path) -> bool:
    """Whether a path exists and is neither a regular file nor a folder, or names an open file of this process.

    Examples
    --------
    >>> is_special(os.devnull)
    True
    """
    found = _status(path)
    is_usual = found is None or stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)
    return descriptor_of(path) is not None or not is_usual


def descriptor_of(path: str | Path) -> int | None:
    """Return the file descriptor that a path such as ``/dev/stdout`` names; None for any other path.

    Examples
    --------
    >>> descriptor_of("table.csv") is None
    True
    """
    own, current = rf"/dev/fd/(\d+)|/proc/{os.getpid()}(?:/task/\d+)?/fd/(\d+)", os.fspath(path)
    for _ in range(_LINKS):
        current = os.path.join(os.path.realpath(os.path.dirname(current)), os.path.basename(current))
        if found := re.fullmatch(own, current):
            return int(found[1] or found[2])
        try:
            current = os.path.join(os.path.dirname(current), os.readlink(current))
        except (OSError, ValueError):
            return None
    return None


def write_text(path: str | Path, text: str) -> None:
    """Write a UTF-8 file atomically; see `replacing`."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def sync(path: str | Path) -> None:
    """Wait until a file, or the list of names in a folder, is on disk and would survive a power failure."""
    if os.name == "nt" and Path(path).is_dir():  # Windows cannot open folders
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


def _status(path: str | Path) -> os.stat_result | None:
    """Return the status of the file that a path leads to; None if there is none."""
    try:
        return os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None


def check_writable(folder: str | Path) -> None:
    """Raise, before anything is computed for it, if this user may not write a folder, or make it.

    Raises
    ------
    OSError
        As the system would.
    """
    place = os.path.abspath(folder)
    while not os.path.exists(place):
        place = os.path.dirname(place)
    if not os.path.isdir(place):
        raise _error(errno.ENOTDIR, folder)
    if not os.access(place, os.W_OK | os.X_OK):
        raise _error(errno.EACCES, folder)


def _error(number: int | None, path: str | Path) -> OSError:
    """Return the system's error about a path; Python chooses the subclass."""
    number = number or errno.EIO
    return OSError(number, os.strerror(number), os.fspath(path))


def _send(partial: Path, path: str | Path) -> None:
    """Write the content of a file to a pipe, a device or an open file of this process."""
    number = descriptor_of(path)
    if number in (1, 2):
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()  # earlier output comes first
    try:
        handle = os.open(path, os.O_WRONLY) if number is None else os.dup(number)
        with os.fdopen(handle, "wb") as target, partial.open("rb") as source:
            shutil.copyfileobj(source, target)
    except OSError as error:
        raise _error(error.errno, path) from None


def open_regular(path: str | Path, *, follow: bool = False) -> BufferedReader:
    """Open a regular file for reading; raise for a pipe, a device or a folder, without blocking.

    Parameters
    ----------
    path : path
        The file.
    follow : bool, default=False
        Whether it may be a symbolic link.

    Raises
    ------
    OSError
        If it is not a regular file, or cannot be read.

    Examples
    --------
    >>> open_regular(os.devnull)
    Traceback (most recent call last):
    OSError: [Errno 22] it is not a regular file: '/dev/null'
    """
    name = os.fspath(path)
    if not follow and os.path.islink(name):
        raise OSError(errno.ELOOP, "it is a link, and only a regular file is read", name)
    # Without O_NONBLOCK, opening a pipe would wait for a writer before its type can be checked.
    flags = ("O_RDONLY", "O_BINARY", "O_CLOEXEC", "O_NONBLOCK", *([] if follow else ["O_NOFOLLOW"]))
    handle = os.open(name, sum(getattr(os, flag, 0) for flag in flags))
    mode = os.fstat(handle).st_mode
    if not stat.S_ISREG(mode):
        os.close(handle)
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), name)
        raise OSError(errno.EINVAL, "it is not a regular file", name)
    return os.fdopen(handle, "rb")


def refuse_irregular(folder: str | Path, names: Iterable[str]) -> None:
    """Raise if a file to be written in a folder is a link, a pipe or a device.

    `replacing` writes through these, as a user who names one on the command line expects. In a stranger's folder, they
    may lead out of the folder or wait for a reader.

    Raises
    ------
    ValueError
        Naming the file.

    Examples
    --------
    >>> refuse_irregular("/dev", ["null"])
    Traceback (most recent call last):
    ValueError: /dev/null is a link or not a regular file, and would be written to; remove it, or choose another folder
    """
    for path in (Path(folder) / name for name in names):
        if os.path.lexists(path) and not stat.S_ISREG(os.lstat(path).st_mode):
            raise ValueError(
                f"{path} is a link or not a regular file, and would be written to; remove it, or choose another folder"
            )


def check_file(path: str | Path, expected: str) -> None:
    """Raise ValueError unless a path leads to a file; `expected` ends the message."""
    if not os.path.isfile(path):
        state = "is a folder" if os.path.isdir(path) else "does not exist"
        raise ValueError(f"{brief(path)} {state}; expected {expected}")


def refuse_other_files(folder: str | Path, own: Iterable[str] = ()) -> None:
    """Raise if a folder for results holds files other than its `own`; hidden files do not count.

    Raises
    ------
    ValueError
        Naming a file.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file; expected a folder")
    names = sorted(entry.name for entry in folder.iterdir()) if folder.exists() else []
    if others := [name for name in names if not name.startswith(".") and name not in own]:
        raise ValueError(f"{folder} holds other files, such as {others[0]!r}; choose an empty folder, or a new one")


def read_regular(path: str | Path, most: int, *, follow: bool = False) -> bytes:
    """Return the content of a regular file of at most `most` bytes; see `open_regular`.

    Raises
    ------
    OSError
        If it is larger, is not a regular file, or cannot be read.
    """
    with open_regular(path, follow=follow) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise OSError(errno.EFBIG, f"it has {size} bytes, more than the {most} expected", os.fspath(path))
        return file.read(size)
