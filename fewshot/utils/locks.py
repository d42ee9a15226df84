"""Locks between threads that are open again in a forked child."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar
from weakref import WeakKeyDictionary, WeakSet

P = ParamSpec("P")
R = TypeVar("R")
#: Objects with a lock of their own: in a forked child the thread that held it does not exist, so nobody would open it.
_LOCKED: WeakSet[Any] = WeakSet()
#: Locks of objects that cannot carry one: estimators, whose attributes are parameters, results and nothing else.
_OF: WeakKeyDictionary[Any, threading.RLock] = WeakKeyDictionary()
_guard = threading.RLock()


def new_lock(owner: Any) -> threading.Lock:
    """Return a lock that is kept as ``owner._lock`` and is open again in a forked child."""
    _LOCKED.add(owner)
    return threading.Lock()


def lock_of(owner: Any) -> threading.RLock:
    """Return the lock of an object, which copies, clones and pickles of it do not share; a thread may take it twice."""
    with _guard:
        return _OF.setdefault(owner, threading.RLock())


def one_at_a_time(method: Callable[P, R]) -> Callable[P, R]:
    """Let one thread at a time into those methods of an object that carry this decorator.

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


def lock_of_filters() -> threading.RLock:
    """Return the lock to hold around calls that set and restore warning filters, as scikit-learn's checks do.

    Filters are the process's: of two threads that set them at once, one restores what the other has set.
    """
    return lock_of(lock_of_filters)


def _open_locks() -> None:
    global _guard
    _guard = threading.RLock()
    _OF.clear()
    for owner in list(_LOCKED):
        owner._lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_open_locks)
