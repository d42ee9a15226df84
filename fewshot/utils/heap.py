"""Memory: the only place that tunes malloc, and a check that a large result fits."""

from __future__ import annotations

import ctypes
import math
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

#: Options of glibc's mallopt; see its manual page.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
#: After `keeping_memory`, larger blocks are mapped (glibc allows no larger limit), up to its default of 65536 blocks.
LARGEST_BLOCK, MAPPED_AFTER = 32 << 20, 65536
#: Free memory that malloc keeps: all of it inside `keeping_memory`, and afterwards what glibc's own rule leads to.
KEPT_INSIDE, KEPT_AFTER = -1, 2 * LARGEST_BLOCK

#: Results of fewer bytes are not checked against the free memory.
ALWAYS_FITS = 2**28

_lock, _inside = threading.Lock(), 0


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
                mallopt(_TRIM_THRESHOLD, KEPT_AFTER)
                mallopt(_MMAP_MAX, MAPPED_AFTER)


def available_memory() -> float:
    """Return the bytes of memory that the system reports as available; infinity if it reports none."""
    try:
        lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        return 1024.0 * int(lines["MemAvailable"].split()[0])
    except (OSError, KeyError, ValueError):
        return math.inf


def refuse_too_large(n_bytes: float, what: str, cure: str) -> None:
    """Raise MemoryError if a result of `n_bytes` cannot fit in memory, before it is computed."""
    if n_bytes < ALWAYS_FITS:
        return
    free = available_memory()
    if n_bytes > free:
        raise MemoryError(f"{what} take {n_bytes / 1e9:.1f} GB, and {free / 1e9:.1f} GB of memory are free; {cure}")


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
