"""Ctrl-C and SIGTERM, noted until the episode is over."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self


class Interruption:
    """Note the first SIGINT or SIGTERM inside the block instead of stopping at once; the second has its usual effect.

    Only the main thread can do so; elsewhere signals keep their usual effect.

    Attributes
    ----------
    signum : int
        The signal that came, or 0.
    """

    def __init__(self) -> None:
        self.signum = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            # What the program ignores stays so; what no Python code has set could not be put back.
            kept = (None, signal.SIG_IGN)
            caught = [s for s in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(s) not in kept]
            self._before = {s: signal.signal(s, self._note) for s in caught}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._restore()

    def _note(self, signum: int, frame: FrameType | None) -> None:
        self.signum = signum
        self._restore()

    def _restore(self) -> None:
        for s, handler in self._before.items():
            signal.signal(s, handler)
        self._before = {}
