"""OpenMP threads: how they wait for work in our own processes, and how many a forked child may use."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from fewshot.utils.locks import lock_of

#: OpenMP itself; GNU's runtime (torch, FAISS, scikit-learn); LLVM's and Intel's. A thread spins a thousand times, some
#: microseconds, before it sleeps: without spinning an idle machine embeds a third slower, and with ten times as much a
#: busy one takes twice as long.
_SETTINGS = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "1000", "KMP_BLOCKTIME": "0"}


def passive_waiting() -> dict[str, str]:
    """Return environment variables that make waiting threads sleep, with the values that the user has set unchanged.

    Examples
    --------
    >>> sorted(passive_waiting())
    ['GOMP_SPINCOUNT', 'KMP_BLOCKTIME', 'OMP_WAIT_POLICY']
    """
    if os.environ.get("OMP_WAIT_POLICY", "PASSIVE").strip().upper() != "PASSIVE":
        return {}  # the user wants threads to spin
    return {name: os.environ.get(name, value) for name, value in _SETTINGS.items()}


def wait_passively() -> None:
    """Make OpenMP threads sleep while they wait. Call this only in a process of our own.

    By default they spin for some milliseconds after each loop. If another process wants the same cores, every loop
    then waits for a thread that is not running. OpenMP reads the environment once, when its library is loaded: call
    this before torch, FAISS, scikit-learn or NumPy is imported.
    """
    os.environ.update(passive_waiting())


def compute_on(n_threads: int) -> None:
    """Let this thread compute on so many threads from now on, in torch; all others stay as they are."""
    with lock_of(compute_on):
        torch = sys.modules["torch"]
        usual = torch.get_num_threads()
        torch.set_num_threads(n_threads)  # torch also takes this as the number for threads to come
        restoring = threading.Thread(target=torch.set_num_threads, args=(usual,))
        restoring.start()
        restoring.join()


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread inside the block, in torch; also a decorator. Other threads stay as they are.

    Sums are then taken in the same order everywhere. Many small steps, such as those of episodes, take a third of the
    time, and on a busy machine a tenth: threads wait for each other at each of them.
    """
    torch = sys.modules["torch"]
    before = torch.get_num_threads()
    if before > 1:
        compute_on(1)
    try:
        yield
    finally:
        if before > 1:
            torch.set_num_threads(before)


@cache
def use_one_thread_after_fork() -> None:
    """Make every forked child use one thread: it would wait forever for its parent's OpenMP threads, which it lacks."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_use_one_thread)


def _use_one_thread() -> None:
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    if "faiss" in sys.modules:
        sys.modules["faiss"].omp_set_num_threads(1)
