"""Ctrl-C and SIGTERM, deferred until the episode is over."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


@contextmanager
def deferred_signals() -> Iterator[list[int]]:
    """Record the first SIGINT or SIGTERM inside the block instead of stopping; the second has its usual effect.

    Signals can be caught only in the main thread; in other threads this does nothing.

    Yields
    ------
    list of int
        The signal received; empty until then.
    """
    received: list[int] = []
    before: dict[int, Any] = {}

    def restore() -> None:
        while before:
            signal.signal(*before.popitem())

    def record(signum: int, frame: FrameType | None) -> None:
        received.append(signum)
        restore()

    if threading.current_thread() is threading.main_thread():
        for s in (signal.SIGINT, signal.SIGTERM):
            # Ignored signals stay ignored; a handler not set from Python (None) could not be restored.
            if signal.getsignal(s) not in (None, signal.SIG_IGN):
                before[s] = signal.signal(s, record)
    try:
        yield received
    finally:
        restore()
