"""Work that takes minutes, done by daemon threads while others search."""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

from fewshot.utils.locks import lock_of
from fewshot.utils.warning import warn

#: Seconds that the end of the process waits for a thread to notice: FAISS must not be cut off while it computes.
PATIENCE = 30

_guard = threading.Lock()
_begun: WeakKeyDictionary[Any, threading.Thread] = WeakKeyDictionary()
_ending = threading.Event()


class Abandoned(Exception):
    """The owner of the work is gone, or the process ends."""


def begin(owner: Any, work: Callable[[Callable[[], Any]], Any], what: str) -> None:
    """Let a daemon thread do ``work(alive)`` under the lock of `owner`, once for each owner and process.

    Parameters
    ----------
    owner : object
        What the work is for. The thread holds no reference to it, so that it can be forgotten meanwhile.
    work : callable
        Calls ``alive()`` often, which returns the owner, or raises `Abandoned` if it is gone or the process ends.
    what : str
        What happens, for a warning if it fails.
    """
    with _guard:
        if owner in _begun or _ending.is_set():
            return
        arguments = (weakref.ref(owner), lock_of(owner), work, what)
        thread = threading.Thread(target=_run, args=arguments, name="fewshot-build", daemon=True)
        _begun[owner] = thread
    thread.start()


def is_running(owner: Any) -> bool:
    """Return whether work that has begun for `owner` goes on in this process."""
    with _guard:
        thread = _begun.get(owner)
    return thread is not None and thread.is_alive()


def _run(ref: Callable[[], Any], lock: threading.RLock, work: Callable[[Callable[[], Any]], Any], what: str) -> None:
    def alive() -> Any:
        if (owner := ref()) is None or _ending.is_set():
            raise Abandoned
        return owner

    try:
        with lock:
            work(alive)
    except Abandoned:
        pass
    except Exception as error:
        warn(f"{what} failed ({type(error).__name__}: {error}); answers stay exact, and build() tries again")


def _end() -> None:
    _ending.set()
    for thread in list(_begun.values()):
        thread.join(PATIENCE)


def _forget() -> None:
    """Forget, in a forked child, the threads that it lacks."""
    global _guard, _begun
    _guard, _begun = threading.Lock(), WeakKeyDictionary()


atexit.register(_end)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
