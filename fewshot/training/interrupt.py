"""Ctrl-C and SIGTERM, deferred until the episode is over."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self


class Interruption:
    """Record the first SIGINT or SIGTERM inside the block instead of stopping; the second has its usual effect.

    Signals can be caught only in the main thread; in other threads this does nothing.

    Attributes
    ----------
    signum : int
        The signal received, or 0.
    """

    def __init__(self) -> None:
        self.signum = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            # Ignored signals stay ignored; a handler not set from Python (None) could not be restored.
            kept = (None, signal.SIG_IGN)
            caught = [s for s in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(s) not in kept]
            self._before = {s: signal.signal(s, self._record) for s in caught}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._restore()

    def _record(self, signum: int, frame: FrameType | None) -> None:
        self.signum = signum
        self._restore()

    def _restore(self) -> None:
        for s, handler in self._before.items():
            signal.signal(s, handler)
        self._before = {}
