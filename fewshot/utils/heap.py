"""Whether a large result fits in memory, and a large file on disk."""

from __future__ import annotations

import errno
import math
import shutil
from pathlib import Path

#: Results of fewer bytes are not checked.
ALWAYS_FITS = 2**28


class TooLargeError(MemoryError):
    """A result would not fit in memory; nothing was computed."""


def available_memory() -> float:
    """Return the bytes of memory that the system reports as available; infinity if it reports none."""
    try:
        lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        return 1024.0 * int(lines["MemAvailable"].split()[0])
    except (OSError, KeyError, ValueError):
        return math.inf


def refuse_too_large(n_bytes: float, what: str, cure: str) -> None:
    """Raise TooLargeError if a result of `n_bytes` cannot fit in memory, before it is computed."""
    if n_bytes < ALWAYS_FITS:
        return
    free = available_memory()
    if n_bytes > free:
        raise TooLargeError(f"{what} take {n_bytes / 1e9:.1f} GB, and {free / 1e9:.1f} GB of memory are free; {cure}")


def refuse_full_disk(path: str | Path, n_bytes: int) -> None:
    """Raise OSError if a file of `n_bytes` cannot fit on disk, before it is written."""
    if n_bytes >= ALWAYS_FITS and n_bytes > (free := shutil.disk_usage(Path(path).parent).free):
        sizes = f"the file takes {n_bytes / 1e9:.1f} GB, and {free / 1e9:.1f} GB of disk are free"
        raise OSError(errno.ENOSPC, sizes, str(path))
