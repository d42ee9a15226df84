"""Processes that end with the one that started them, however that one ended."""

from __future__ import annotations

import os
import signal
import threading
import time

#: How often a process looks for its parent.
_SECONDS = 0.5


def end_with(parent: int) -> None:
    """End this process soon after its parent, of this id, has ended, such as by a signal that cannot be caught.

    On Windows the id of a parent outlives it, so that there nothing is noticed.

    Parameters
    ----------
    parent : int
        ``os.getpid()`` of the process that starts this one.
    """

    def watch() -> None:
        while os.getppid() == parent:  # another process adopts an orphan
            time.sleep(_SECONDS)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="fewshot parent", daemon=True).start()
