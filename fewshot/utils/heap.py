"""Memory: kept between the layers of a network on a CPU, and asked for only where there is enough."""

from __future__ import annotations

import ctypes
import math
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

#: Options of glibc's mallopt, see its manual page.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
#: Outside the block, larger ones come from the system one by one; glibc takes no larger value, and 65536 of them.
LARGEST_BLOCK, MAPPED_AFTER = 32 << 20, 65536
#: Free memory that is kept at most: inside the block all of it, and after it what glibc's own rule ends up with.
KEPT_INSIDE, KEPT_AFTER = -1, 2 * LARGEST_BLOCK

#: Bytes for which nobody asks the system first.
ALWAYS_FITS = 2**28

_lock, _inside = threading.Lock(), 0


def _begin_anew() -> None:
    """Forget, in a forked child, the threads that were inside."""
    global _lock, _inside
    _lock, _inside = threading.Lock(), 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)


@contextmanager
def keeping_memory() -> Iterator[None]:
    """Keep memory that is freed inside the block for the next that asks; glibc only, elsewhere nothing happens.

    A network frees and asks for megabytes at every layer. Where these go back to the system and come again page by
    page, that takes as long as the convolutions. Afterwards glibc's limits are those at which its own rule arrives in
    a program with large arrays, 32 and 64 MiB. They hold for the process, and stay; there is no way to read what they
    were. Where variables of the environment tune the allocator (``MALLOC_*``, ``GLIBC_TUNABLES``) nothing is set.
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
            mallopt(_MMAP_MAX, 0)  # of any size: the activations of an episode can be larger than that
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0:
                mallopt(_TRIM_THRESHOLD, KEPT_AFTER)
                mallopt(_MMAP_MAX, MAPPED_AFTER)


def available_memory() -> float:
    """Return the bytes that the system says are free for use; infinity where it does not say."""
    try:
        lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        return 1024.0 * int(lines["MemAvailable"].split()[0])
    except (OSError, KeyError, ValueError):
        return math.inf


def refuse_too_large(n_bytes: float, what: str, cure: str) -> None:
    """Refuse a result that cannot fit in memory, before the work for it is begun.

    Raises
    ------
    MemoryError
        With the numbers.
    """
    if n_bytes < ALWAYS_FITS:
        return
    free = available_memory()
    if n_bytes > free:
        raise MemoryError(f"{what} take {n_bytes / 1e9:.1f} GB, and {free / 1e9:.1f} GB of memory are free; {cure}")


def give_back_memory() -> None:
    """Give free memory back to the system; glibc only. After episodes of uneven sizes it can be gigabytes."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


@cache
def _mallopt() -> Callable[[int, int], int] | None:
    # Whoever has tuned the allocator wants it so.
    if any(name.startswith("MALLOC_") for name in os.environ) or "malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return None
    try:
        return ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return None
