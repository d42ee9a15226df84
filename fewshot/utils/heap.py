"""Whether a large result fits in memory."""

from __future__ import annotations

import math
from pathlib import Path

#: Results of fewer bytes are not checked against the free memory.
ALWAYS_FITS = 2**28


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
