"""Memory for networks on a CPU, kept between layers instead of given back to the system after each."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

#: Options of glibc's mallopt, see its manual page.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
#: Outside the block, larger ones come from the system one by one; glibc takes no larger value, and 65536 of them.
LARGEST_BLOCK, MAPPED_AFTER = 32 << 20, 65536
#: Free memory that is kept at most: inside the block all of it, and after it what glibc's own rule ends up with.
KEPT_INSIDE, KEPT_AFTER = -1, 2 * LARGEST_BLOCK

_lock, _inside = threading.Lock(), 0


@contextmanager
def keeping_memory() -> Iterator[None]:
    """Keep memory that is freed inside the block for the next that asks; glibc only, elsewhere nothing happens.

    A network frees and asks for megabytes at every layer. Where these go back to the system and come again page by
    page, that takes as long as the convolutions. After the block no more is kept than glibc keeps of its own accord.
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


@cache
def _mallopt() -> Callable[[int, int], int] | None:
    try:
        return ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return None
