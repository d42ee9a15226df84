"""What SIGTERM and Ctrl-C do."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def quiet_signals(act: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Call `act` at SIGTERM and Ctrl-C, which the server raises again once it has stopped."""
    before = {number: signal.signal(number, lambda *_: act()) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
