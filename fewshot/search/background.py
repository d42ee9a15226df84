"""Work that takes minutes, done by daemon threads while others search."""

from __future__ import annotations

import atexit
import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from fewshot.utils.locks import lock_of
from fewshot.utils.warning import warn

T = TypeVar("T")
#: Seconds that the end of the process waits for a thread to notice: a thread that is cut off inside of C++ aborts it.
PATIENCE = 30

_guard = threading.Lock()
_begun: WeakKeyDictionary[Any, threading.Thread] = WeakKeyDictionary()
_running: set[threading.Thread] = set()
_ending = threading.Event()


class Abandoned(Exception):
    """The owner of the work is gone, or the process ends."""


def begin(owner: Any, work: Callable[[Callable[[], Any]], Any], what: str) -> threading.Thread | None:
    """Let a daemon thread do ``work(alive)`` under the lock of `owner`, once for each owner and process.

    Return the thread; None if it has begun before, or the process ends.

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
            return None
        arguments = (weakref.ref(owner), lock_of(owner), work, what)
        thread = threading.Thread(target=_run, args=arguments, name="fewshot-build", daemon=True)
        _begun[owner] = thread
        _running.add(thread)
        thread.start()  # the end of the process joins it, which it must have begun for
    return thread


def while_wanted(parts: Iterable[T]) -> Iterator[T]:
    """Yield parts of the work, of which each takes a second at most; end a background thread when the process ends."""
    for part in parts:
        if _ending.is_set() and threading.current_thread() in _running:
            raise Abandoned
        yield part


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
        if not _ending.is_set():  # else FAISS was interrupted
            warn(f"{what} failed ({type(error).__name__}: {error}); answers stay exact, and build() tries again")
    finally:
        with _guard:
            _running.discard(threading.current_thread())


def _end() -> None:
    _ending.set()
    with _guard:
        threads = list(_running)
    if not threads:
        return
    faiss = sys.modules.get("faiss")
    if faiss is not None:  # k-means looks at it after each round
        faiss.TimeoutCallback.reset(0)
    for thread in threads:
        thread.join(PATIENCE)
    if faiss is not None:
        faiss.InterruptCallback.clear_instance()


def _forget() -> None:
    """Forget, in a forked child, the threads that it lacks."""
    global _guard, _begun, _running
    _guard, _begun, _running = threading.Lock(), WeakKeyDictionary(), set()


atexit.register(_end)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
