"""A connection that ends if its client says too much before its request, or is too slow to send or to take anything."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from fewshot.serve.problems import Problem
from fewshot.serve.settings import Settings

#: Most bytes of all headers and trailers of a request, and of anything else that the parser has not told yet.
MOST_HEAD = 2**16
#: Bytes of a response that are held back until the event loop goes on; more are sent at once.
MOST_HELD = 2**16


class _Together:
    """A transport that sends together what is written at once: the head of a response, and its body.

    A call of the system takes longer than all that the server does to write a head.
    """

    def __init__(self, transport: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop
        self._parts, self._size = list[bytes](), 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Send bytes, when the event loop goes on or many have come."""
        self._parts.append(data)
        self._size += len(data)
        if self._size > MOST_HELD:
            self._flush()
        elif len(self._parts) == 1:
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        if self._parts and not self._transport.is_closing():
            parts, self._parts, self._size = self._parts, [], 0
            self._transport.write(b"".join(parts))

    def close(self) -> None:
        """Send what was written, and end the connection."""
        self._flush()
        self._transport.close()


class _Connection(HttpToolsProtocol):
    """A connection with bounds of its heads, whose parser, in C, has none; bodies have theirs in `Bodies`."""

    settings: Settings
    _n_unread = _n_headers = 0
    _head: asyncio.TimerHandle | None = None
    _stuck: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        together: Any = _Together(transport, self.loop)
        super().connection_made(together)
        self._watch()

    def data_received(self, data: bytes) -> None:
        self._n_unread += len(data)
        super().data_received(data)
        if self._n_unread > MOST_HEAD and not self.transport.is_closing():
            self.send_400_response("the head of the request is too large")
        self._watch()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._n_headers = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header, or a trailer, which follows a body in chunks."""
        self._n_unread = 0
        self._n_headers += len(name) + len(value)
        if self._n_headers > MOST_HEAD:
            raise ValueError("too many headers")  # for the parser, which takes it as an error of the client
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._n_unread = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._n_unread = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._n_unread = 0
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """End the connection with an error in the form of all others."""
        said = Problem(400, "malformed", msg[:1].lower() + msg[1:].rstrip(".")).response({"Connection": "close"})
        head = b"".join(name + b": " + value + b"\r\n" for name, value in said.raw_headers)
        self.transport.write(b"HTTP/1.1 400 Bad Request\r\n" + head + b"\r\n" + bytes(said.body))
        self.transport.close()

    def _watch(self) -> None:
        """Limit the time until a whole head has come; between two requests, the server has its own limit."""
        waits = self.cycle is None or (self.cycle.response_complete and self.timeout_keep_alive_task is None)
        if waits and self._head is None:
            self._head = self.loop.call_later(self.settings.head_seconds, self.transport.abort)
        elif not waits:
            self._head = stopped(self._head)

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._stuck is None:
            self._stuck = self.loop.call_later(self.settings.send_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stuck = stopped(self._stuck)

    def connection_lost(self, exc: Exception | None) -> None:
        self._head, self._stuck = stopped(self._head), stopped(self._stuck)
        super().connection_lost(exc)


def connection_of(settings: Settings) -> type[HttpToolsProtocol]:
    """Return the type of connections with the time limits of these settings."""
    return type("Connection", (_Connection,), {"settings": settings})


def stopped(timer: asyncio.TimerHandle | None) -> asyncio.TimerHandle | None:
    """Stop a timer, and return what takes its place."""
    if timer is not None:
        timer.cancel()
    return None
