"""Keep memory that networks free and allocate at every layer; the only place that tunes malloc.

Light to import: the threads of libraries, such as pyarrow's, must not start before `share_one_heap`.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache

#: Options of glibc's mallopt; see its manual page.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -3, -4, -8
#: After `keeping_memory`, larger blocks are mapped (glibc allows no larger limit), up to its default of 65536 blocks.
LARGEST_BLOCK, MAPPED_AFTER = 32 << 20, 65536
#: Free memory that malloc keeps: all of it inside `keeping_memory`, and afterwards what glibc's own rule leads to.
KEPT_INSIDE, KEPT_AFTER = -1, 2 * LARGEST_BLOCK
#: The latter in a process whose threads share a heap: what two batches at once need.
KEPT_SHARED = 4 * KEPT_AFTER

_lock, _inside = threading.Lock(), 0
_kept_after = KEPT_AFTER


def _reset() -> None:
    """Forget, in a forked child, the threads that were inside `keeping_memory`."""
    global _lock, _inside
    _lock, _inside = threading.Lock(), 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset)


@contextmanager
def keeping_memory() -> Iterator[None]:
    """Let malloc reuse memory that is freed inside the block instead of returning it to the system.

    A network frees and allocates megabytes at every layer. Returning them and fetching them page by page takes as long
    as the convolutions. Only glibc is tuned, and only if no environment variable does so (``MALLOC_*``,
    ``GLIBC_TUNABLES``). The limits hold for the whole process. glibc cannot report the previous limits, so the block
    ends with those that its own rule reaches in any program with large arrays: 32 and 64 MiB.
    """
    global _inside
    mallopt = _mallopt()
    if mallopt is None:
        yield
        return
    with _lock:
        _inside += 1
        if _inside == 1:
            mallopt(_MMAP_THRESHOLD, LARGEST_BLOCK)
            mallopt(_TRIM_THRESHOLD, KEPT_INSIDE)
            mallopt(_MMAP_MAX, 0)  # reuse blocks of any size: an episode's activations can exceed 32 MiB
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0:
                mallopt(_TRIM_THRESHOLD, _kept_after)
                mallopt(_MMAP_MAX, MAPPED_AFTER)


def share_one_heap() -> None:
    """Let threads allocate from one heap. Call this only in a process of our own, before it has any other thread.

    By default glibc gives each a heap of its own, in pieces of 64 MiB, and returns a piece as soon as it is empty. A
    network whose activations fill one piece then fetches and returns the next at every layer, whatever
    `keeping_memory` says; whether it does is a matter of chance, and takes as long as the convolutions. Heaps that
    exist already stay in use: a thread that pyarrow starts when it is imported leaves one.
    """
    global _kept_after
    if (mallopt := _mallopt()) is not None:
        mallopt(_ARENA_MAX, 1)
        _kept_after = KEPT_SHARED


def give_back_memory() -> None:
    """Return free memory to the system (glibc only): after episodes of uneven sizes, gigabytes."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


@cache
def _mallopt() -> Callable[[int, int], int] | None:
    # The user has tuned malloc.
    if any(name.startswith("MALLOC_") for name in os.environ) or "malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return None
    try:
        return ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return None
