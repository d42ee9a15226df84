"""Lock a folder for one writer: threads and processes wait for each other, and errors name the holder.

A writer holds two locks of the system. The lock on the file ``.lock`` records its holder; older versions and other
programs use the lock on the folder itself. The system releases both when their process ends in any way, so a crash
leaves no lock. On network drives they work as far as the drive supports ``flock``: NFS does since version 4, many SMB
mounts do not. Without any locks, there must be only one writer.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import stat
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from fewshot.errors import InUseError, MissingExtraError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_log = logging.getLogger(__name__)
LOCK = ".lock"
#: Beginning of the content of a lock file, once it has been held.
_BEGIN = b'{"pid": '
#: Seconds to wait for a writer that holds a folder briefly, and for one that holds it for a whole run.
PATIENCE, BRIEF = 60.0, 1.0
#: Seconds between two attempts.
_PAUSE = 0.02
#: File descriptors of the open locks of all threads.
_HANDLES: set[int] = set()
_mine = threading.local()


@contextmanager
def locked(folder: str | Path, patience: float | None = None) -> Iterator[None]:
    """Hold the write lock of an existing folder; the same thread may lock it again inside the block.

    Parameters
    ----------
    folder : path
        The folder.
    patience : float, optional
        Seconds to wait, `PATIENCE` by default.

    Raises
    ------
    InUseError
        If another thread, process or program still holds the folder; the message names it if the system can tell.
    MissingExtraError
        If the package filelock is missing.
    ValueError
        If ``.lock`` exists and is not a lock: a folder, a link, or a file of another program.

    Examples
    --------
    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> with locked(folder), locked(folder):
    ...     os.listdir(folder)
    ['.lock']
    >>> os.listdir(folder)
    []
    """
    if is_held(folder):
        yield
        return
    place = os.path.realpath(folder)
    key = _key(place)  # a child forked inside the block leaves with it, too
    deadline = time.monotonic() + (PATIENCE if patience is None else patience)
    with ExitStack() as locks:
        locks.enter_context(_file_lock(folder, Path(place, LOCK), deadline))
        locks.enter_context(_folder_lock(folder, place, deadline))
        _mine.__dict__[key] = True
        try:
            yield
        finally:
            del _mine.__dict__[key]


@contextmanager
def locked_new(folder: str | Path, patience: float | None = None) -> Iterator[None]:
    """Create a folder if needed and hold its write lock; at the end, remove the folder if it is empty; see `locked`."""
    folder = Path(folder)
    try:
        with ExitStack() as lock:
            while True:
                folder.mkdir(parents=True, exist_ok=True)
                try:
                    lock.enter_context(locked(folder, patience))
                    break
                except FileNotFoundError:
                    if folder.exists():
                        raise  # else its last holder has just removed it
            yield
    finally:
        with suppress(OSError):  # not empty
            folder.rmdir()


def is_held(folder: str | Path) -> bool:
    """Whether this thread holds the write lock of a folder."""
    return _key(os.path.realpath(folder)) in _mine.__dict__


def _key(place: str) -> str:
    return f"{os.getpid()} {place}"  # a forked child has its parent's entries, but not its locks


@contextmanager
def _file_lock(folder: str | Path, path: Path, deadline: float) -> Iterator[None]:
    try:
        from filelock import FileLock, Timeout
    except ImportError:
        raise MissingExtraError("filelock is missing, which saving needs; run: pip install filelock") from None
    pid = os.getpid()
    while True:
        _refuse_others(path)
        with _opened(path, os.O_RDWR | os.O_CREAT) as handle:
            lock = FileLock(path, fallback_to_soft=False)  # a lock that is only a file would outlive a killed process
            try:
                _acquire(lock, folder, deadline)
            except Timeout:
                raise InUseError(folder, _holder(handle)) from None
            except (NotImplementedError, OSError) as error:
                if isinstance(error, (FileNotFoundError, PermissionError)):
                    raise
                yield  # the drive has no locks
                return
            try:
                if not _is_at(path, handle):
                    continue  # its last holder removed it, and the next writer locks a new file
                _write_holder(handle, path.parent)
                yield
                return
            finally:
                if os.getpid() == pid:  # not in a child forked inside the block
                    if _is_at(path, handle):
                        with suppress(OSError):
                            path.unlink()
                    lock.release()


def _acquire(lock: Any, folder: str | Path, deadline: float) -> None:
    from filelock import Timeout

    try:
        lock.acquire(timeout=0)
    except Timeout:
        _log.info("waiting for another writer of %s", folder)
        lock.acquire(timeout=max(deadline - time.monotonic(), 0), poll_interval=_PAUSE)


@contextmanager
def _folder_lock(folder: str | Path, place: str, deadline: float) -> Iterator[None]:
    if fcntl is None:
        yield
        return
    pid = os.getpid()
    with _opened(place, os.O_RDONLY) as handle:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise InUseError(folder, _holder(handle)) from None
                time.sleep(_PAUSE)
            except OSError:  # many network drives cannot lock folders
                break
        try:
            yield
        finally:
            if os.getpid() == pid:
                with suppress(OSError):
                    fcntl.flock(handle, fcntl.LOCK_UN)


@contextmanager
def _opened(path: str | Path, flags: int) -> Iterator[int]:
    handle = os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)
    _HANDLES.add(handle)
    try:
        yield handle
    finally:
        if handle in _HANDLES:  # a forked child has closed it already
            _HANDLES.discard(handle)
            os.close(handle)


def _refuse_others(path: Path) -> None:
    """Raise if a file with the name of the lock is not a lock: it would be overwritten and removed."""
    try:
        found = path.lstat()
        if is_ours := stat.S_ISREG(found.st_mode) and found.st_nlink < 2:
            with suppress(PermissionError), path.open("rb") as file:
                beginning = file.read(len(_BEGIN))
                is_ours = _BEGIN.startswith(beginning)
    except FileNotFoundError:
        return
    if not is_ours:
        raise ValueError(
            f"{path} is not a lock file of fewshot, so nothing was written there; remove it, or choose another folder"
        )


def _is_at(path: Path, handle: int) -> bool:
    """Whether an open file still has this path; it is opened, because network drives cache its status."""
    try:
        now = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))  # a pipe would wait for a writer
    except OSError:
        return False
    try:
        return os.path.samestat(os.fstat(now), os.fstat(handle))
    finally:
        os.close(now)


# ---- the holder -----------------------------------------------------------------------------------------------------


def _write_holder(handle: int, folder: Path) -> None:
    program, *arguments = sys.argv or [""]
    facts = {
        "pid": os.getpid(),
        "host": platform.node(),
        "command": " ".join([os.path.basename(program), *arguments[:2]]),  # the other arguments may be secret
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
    }
    with suppress(OSError, AttributeError):  # Windows gives no access to a locked file
        os.fchmod(handle, os.stat(folder).st_mode & 0o666)  # all who may write in the folder may lock it
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps(facts).encode(), 0)


def _holder(handle: int) -> str:
    """Describe the process that holds the lock of an open file, as far as the file and the system tell."""
    facts: dict[str, Any] = {}
    with suppress(OSError, ValueError, AttributeError):
        found = json.loads(os.pread(handle, 4096, 0))
        facts = found if isinstance(found, dict) else {}
    pids = _pids(os.fstat(handle).st_ino)
    written, host = facts.get("pid"), facts.get("host")
    is_here = host in (None, platform.node())
    if pids and not (is_here and written in pids):
        pid, command, since = pids[0], "", ""
    elif isinstance(written, int):
        pid, command, since = written, facts.get("command", ""), f" since {facts.get('since')}"
    else:
        return "another process"
    if not is_here and pid == written:
        return f"process {pid} on {_plain(host)} ({_plain(command)}){_plain(since)}"
    state, running = _look(pid)
    what = _plain(command or running)
    stopped = ", which is stopped" if state in ("T", "t") else ""
    return f"process {pid}{f' ({what})' if what else ''}{stopped}{_plain(since)}"


def _pids(inode: int) -> list[int]:
    """Return the processes that hold a lock on a file; none except on Linux."""
    found = []
    with suppress(OSError, ValueError):
        for line in Path("/proc/locks").read_text(encoding="ascii").splitlines():
            fields = line.split()
            if fields[1] == "FLOCK" and fields[5].endswith(f":{inode}") and int(fields[4]) > 0:
                found.append(int(fields[4]))
    return found


def _look(pid: int) -> tuple[str, str]:
    """Return the state and the command of a process, both empty except on Linux."""
    state = command = ""
    with suppress(OSError, IndexError):
        state = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0]
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    return state, command


def _plain(text: Any) -> str:
    """Return text, which anyone may have written, as one short line."""
    line = "".join(c if c.isprintable() else " " for c in str(text))
    return line if len(line) <= 120 else f"{line[:117]}..."


def _close_handles() -> None:
    """Close, in a forked child, its parent's locks: otherwise they would outlive the parent."""
    for handle in list(_HANDLES):
        with suppress(OSError):
            os.close(handle)
    _HANDLES.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_handles)
