"""How much of a request is read, and for how long: bodies are bounded in size, time and sum."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from starlette.datastructures import Headers

from fewshot.serve.guard import App, Message, Receive, Scope, Send, route_path
from fewshot.serve.problems import Problem, busy
from fewshot.serve.settings import Settings

#: The one route whose body is a file, which goes to a disk; and those that make such files. So many at once.
ARCHIVE = "/v1/model/load"
ARCHIVES, MOST_ARCHIVES = (ARCHIVE, "/v1/model/download", "/v1/model/device"), 4
#: Most bytes of a body that holds no images: a command.
SMALL = 2**16
#: Bytes a second that a client may count on, and seconds for which the rest of a refused body is thrown away, so that
#: its sender reads the reason.
RATE, LINGER = 16_384, 2.0


class Bodies:
    """Bound the bodies of requests, and how many requests there are.

    Parameters
    ----------
    app : ASGI application
        What answers.
    settings : Settings
        The limits.
    """

    def __init__(self, app: App, settings: Settings) -> None:
        self._app, self._settings = app, settings
        self._requests = self._bytes = self._archives = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] != "http" or route_path(scope).startswith("/health/"):
            await self._app(scope, receive, send)
            return
        body = _Body(self, scope, receive, self._settings)
        if self._requests >= self._settings.max_requests:
            await body.refuse(busy(f"{self._requests} requests are being answered"), send)
            return
        is_archive = route_path(scope) in ARCHIVES
        if is_archive and self._archives >= MOST_ARCHIVES:
            await body.refuse(busy(f"{MOST_ARCHIVES} zip files are on their way already"), send)
            return
        self._requests += 1
        self._archives += is_archive
        try:
            if (problem := body.problem()) is not None:
                await body.refuse(problem, send)
                return
            await self._app(scope, body.receive, body.sender(send))
        finally:
            self._requests -= 1
            self._archives -= is_archive
            self.free(body.held)

    def take(self, n: int) -> None:
        """Count bytes that a request holds.

        Raises
        ------
        Problem
            If all requests together hold too much.
        """
        if self._bytes + n > self._settings.max_memory:
            raise busy("the requests that are being read are too large together")
        self._bytes += n

    def free(self, n: int) -> None:
        """Count bytes that are no longer held."""
        self._bytes -= n


class _Body:
    """The body of one request."""

    def __init__(self, all_: Bodies, scope: Scope, receive: Receive, settings: Settings) -> None:
        self._all, self._scope, self._receive = all_, scope, receive
        self._is_archive = route_path(scope) == ARCHIVE
        usual = settings.max_body if scope["method"] == "POST" else min(settings.max_body, SMALL)
        self._most = settings.max_archive if self._is_archive else usual
        self._clock, self._seconds = asyncio.get_running_loop().time, settings.body_seconds
        self._until = self._clock() + self._seconds
        self._read, self._is_done, self.held = 0, False, 0

    def problem(self) -> Problem | None:
        """Return why the body is refused before it is read."""
        length = Headers(scope=self._scope).get("content-length", "0")
        if length.isascii() and length.isdigit() and int(length[:20]) > self._most:
            return self._too_large()
        return None

    def _too_large(self) -> Problem:
        most = f"{self._most / 2**20:.4g} MiB"
        return Problem(413, "too_large", f"more than {most} in one request; send fewer images, or smaller ones")

    async def receive(self) -> Message:
        """Return the next part of the body.

        Raises
        ------
        Problem
            If the body is too large, or takes too long.
        """
        if self._is_done:
            return await self._receive()  # waits for the client to go
        try:
            async with asyncio.timeout_at(self._until):
                message = await self._receive()
        except TimeoutError:
            raise Problem(408, "slow", "the body took too long to arrive; try again with less") from None
        n = len(message.get("body", b""))
        self._read += n
        self._until = min(self._until + n / RATE, self._clock() + self._seconds)  # a burst buys no hours
        self._is_done = not message.get("more_body", False)
        if self._read > self._most:
            raise self._too_large()
        if not self._is_archive:
            self._all.take(n)
            self.held += n
        return message

    def sender(self, send: Send) -> Send:
        """Return what sends an answer; if it refuses a body that has not all come, the rest is thrown away before."""

        async def send_when_read(message: Message) -> None:
            if message.get("status") == 413 and not self._is_done:
                await self._throw_away()
            await send(message)

        return send_when_read

    async def refuse(self, problem: Problem, send: Send) -> None:
        """Send a problem instead of reading the body."""
        await self._throw_away()
        await problem.response({"Connection": "close"})(self._scope, self._receive, send)

    async def _throw_away(self) -> None:
        """Throw away what comes of the body for a moment: its sender would not read the answer before."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER):
                while (await self._receive()).get("more_body", False):
                    pass
