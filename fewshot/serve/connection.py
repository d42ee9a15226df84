"""A connection that ends if its client is too slow to say what it wants, or to take what it asked for."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from fewshot.serve.settings import Settings


def connection_of(settings: Settings) -> type[H11Protocol]:
    """Return the type of connections with the time limits of these settings."""

    class Connection(H11Protocol):
        """A connection with time limits; bodies have their own, in `Bodies`."""

        _head: asyncio.TimerHandle | None = None
        _stuck: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._watch()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._watch()

        def _watch(self) -> None:
            """Limit the time until a whole head has come; between two requests, the server has its own limit."""
            waits = self.cycle is None or (self.cycle.response_complete and self.timeout_keep_alive_task is None)
            if waits and self._head is None:
                self._head = self.loop.call_later(settings.head_seconds, self.transport.abort)
            elif not waits:
                self._head = stopped(self._head)

        def pause_writing(self) -> None:
            super().pause_writing()
            if self._stuck is None:
                self._stuck = self.loop.call_later(settings.send_seconds, self.transport.abort)

        def resume_writing(self) -> None:
            super().resume_writing()
            self._stuck = stopped(self._stuck)

        def connection_lost(self, exc: Exception | None) -> None:
            self._head, self._stuck = stopped(self._head), stopped(self._stuck)
            super().connection_lost(exc)

    return Connection


def stopped(timer: asyncio.TimerHandle | None) -> asyncio.TimerHandle | None:
    """Stop a timer, and return what takes its place."""
    if timer is not None:
        timer.cancel()
    return None
