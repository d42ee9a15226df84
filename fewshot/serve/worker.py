"""The beginning of a worker process. Light to import, since threads must not start before `share_one_heap`."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable

from fewshot.serve.settings import Settings
from fewshot.utils.malloc import share_one_heap


def run_worker(settings: Settings, listener: socket.socket, ready: Callable[[], None]) -> None:
    """Answer requests in this process, which a supervisor has started for that."""
    share_one_heap()
    from fewshot.serve.process import work

    work(settings, listener, ready)
    sys.stderr.flush()
    os._exit(0)  # everything is answered and saved, and to take torch apart takes seconds
