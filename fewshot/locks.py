"""Locks that do not stay shut in a forked child."""

from __future__ import annotations

import os
import threading
from typing import Any
from weakref import WeakSet

#: Whoever has a lock: in a forked child another thread may have held it, which is not there to let it go.
_LOCKED: WeakSet[Any] = WeakSet()


def new_lock(owner: Any) -> threading.Lock:
    """Return a lock that is kept as ``owner._lock`` and is open again in a forked child."""
    _LOCKED.add(owner)
    return threading.Lock()


def _open_locks() -> None:
    for owner in list(_LOCKED):
        owner._lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_open_locks)
