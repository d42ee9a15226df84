"""Python's collector of cyclic garbage: in our own short processes it would take most of the time."""

from __future__ import annotations

import atexit
import gc

#: New objects between two collections. Importing torch and timm makes half a million, none of them garbage.
_OFTEN = 50_000


def collect_rarely() -> None:
    """Collect cyclic garbage after more new objects, and not at exit. Call this only in a process of our own.

    By default Python looks through all young objects after 700 new ones, and through all objects again and again at
    exit: for a process that imports torch and timm that is half of its time.
    """
    gc.set_threshold(_OFTEN)
    atexit.register(gc.freeze)
