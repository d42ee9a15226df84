"""What answers in a process: a workshop and its server."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable

import uvicorn

from fewshot.embedding.embedder import Embedder
from fewshot.images.image_classifier import FewShotImageClassifier
from fewshot.learners.registry import add_plugin
from fewshot.serve.app import create_app
from fewshot.serve.connection import connection_of
from fewshot.serve.log_lines import set_up
from fewshot.serve.settings import Settings
from fewshot.serve.signals import quiet_signals
from fewshot.serve.workshop import Workshop

#: Seconds that requests may take to end after SIGTERM.
DRAIN_SECONDS = 30
#: Seconds after which a thread hands over Python's lock; by default 5 ms, which a network waits for each layer.
SWITCH_SECONDS = 0.001


def open_workshop(settings: Settings) -> Workshop:
    """Return the workshop of a service, with its network loaded."""
    new = None
    if not settings.read_only:
        new = FewShotImageClassifier(Embedder(**settings.embedder, device=settings.device, progress=False))
    return Workshop(settings.folder, new, settings.device, settings.read_only)


def work(settings: Settings, listener: socket.socket, ready: Callable[[], None] | None = None) -> None:
    """Answer requests in this process, whose threads share a heap; see `share_one_heap`."""
    sys.setswitchinterval(SWITCH_SECONDS)
    set_up(settings.log_level)
    _join_parent(settings)
    server = server_of(open_workshop(settings), settings, ready)
    with quiet_signals():  # only now: what was told to end while it loads, ends at once
        server.run([listener])


def server_of(workshop: Workshop, settings: Settings, ready: Callable[[], None] | None = None) -> uvicorn.Server:
    """Return the server of a workshop; `ready` is called once it answers."""
    config = uvicorn.Config(
        create_app(workshop, settings), log_config=None, access_log=False,
        server_header=False, ws="none", lifespan="on", http=connection_of(settings),
        timeout_graceful_shutdown=DRAIN_SECONDS, limit_concurrency=4 * settings.max_requests,
    )  # fmt: skip
    return _Server(config, ready)


class _Server(uvicorn.Server):
    """A server that says when it answers."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None] | None) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self._ready is not None:
            self._ready()


def _join_parent(settings: Settings) -> None:
    """Know what the parent knows, and end with it if it is killed; do nothing in a process without a parent."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of the parent, too, which then ends its workers
    for plugin in settings.plugins:
        add_plugin(plugin)

    def wait() -> None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()
