"""How OpenMP's threads wait for work: asleep, so that other processes get the processor."""

from __future__ import annotations

import os

#: OpenMP itself; GNU's runtime (torch, FAISS, scikit-learn); LLVM's and Intel's. A thread looks a thousand times, some
#: microseconds, before it sleeps: without that an idle machine embeds a third slower, and with ten times that a busy
#: one twice slower.
_SETTINGS = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "1000", "KMP_BLOCKTIME": "0"}


def passive_waiting() -> dict[str, str]:
    """Return the environment variables that let waiting threads sleep; what the user has set stays.

    Examples
    --------
    >>> sorted(passive_waiting())
    ['GOMP_SPINCOUNT', 'KMP_BLOCKTIME', 'OMP_WAIT_POLICY']
    """
    if os.environ.get("OMP_WAIT_POLICY", "PASSIVE").strip().upper() != "PASSIVE":
        return {}  # the user wants threads to spin
    return {name: os.environ.get(name, value) for name, value in _SETTINGS.items()}


def wait_passively() -> None:
    """Let OpenMP's threads sleep while they wait, in a process of our own.

    By default they spin for some milliseconds after each loop. Where another process wants the same cores, every loop
    then waits for a thread that is not running. OpenMP reads the environment once, when its library is loaded: call
    this before torch, FAISS, scikit-learn or NumPy is imported.
    """
    os.environ.update(passive_waiting())
