"""Locks between threads, which a forked child finds unlocked."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar
from weakref import WeakKeyDictionary, WeakSet

P = ParamSpec("P")
R = TypeVar("R")
#: Objects with a lock in `_lock`. A forked child lacks the thread that held it, so no one would release it.
_LOCKED: WeakSet[Any] = WeakSet()
#: Locks of objects that cannot carry one, such as estimators, whose attributes are only parameters and results.
_OF: WeakKeyDictionary[Any, threading.RLock] = WeakKeyDictionary()
_guard = threading.RLock()


def new_lock(owner: Any) -> threading.Lock:
    """Return a lock, to be kept as ``owner._lock``, which a forked child finds unlocked."""
    _LOCKED.add(owner)
    return threading.Lock()


def lock_of(owner: Any) -> threading.RLock:
    """Return the reentrant lock of an object; copies, clones and pickles of the object have other locks."""
    with _guard:
        return _OF.setdefault(owner, threading.RLock())


def one_at_a_time(method: Callable[P, R]) -> Callable[P, R]:
    """Let only one thread at a time run the decorated methods of an object.

    Examples
    --------
    >>> class Counter:
    ...     n = 0
    ...     @one_at_a_time
    ...     def count(self):
    ...         self.n += 1
    ...         return self.n
    >>> Counter().count()
    1
    """

    @wraps(method)
    def locked(*args: P.args, **kwargs: P.kwargs) -> R:
        with lock_of(args[0]):
            return method(*args, **kwargs)

    return locked


def _open_locks() -> None:
    global _guard
    _guard = threading.RLock()
    _OF.clear()
    for owner in list(_LOCKED):
        owner._lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_open_locks)
