"""Log each request and each mistake, with its id."""

from __future__ import annotations

import logging
import re
import secrets
import time
from itertools import count

from fewshot.serve.guard import App, Message, Receive, Scope, Send
from fewshot.serve.metrics import Metrics
from fewshot.serve.problems import problem_of
from fewshot.utils.text import shortened

_log = logging.getLogger("fewshot.serve")
#: What a client may choose as the id of its request.
_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_FILES = "/page/"


class Logs:
    """Give each request an id, count and log it, and answer for mistakes of the service.

    Parameters
    ----------
    app : ASGI application
        What answers.
    metrics : Metrics
        Told of each request.
    """

    def __init__(self, app: App, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics
        self._first, self._numbers = secrets.token_hex(6), count()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = next((text for name, text in scope["headers"] if name == b"x-request-id"), b"")
        number = given.decode() if _ID.fullmatch(given) else f"{self._first}-{next(self._numbers):x}"
        start, status = time.perf_counter(), 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", number.encode())]
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except Exception as error:
            problem = problem_of(error)
            if problem.status == 500:
                _log.error("the service has made a mistake", exc_info=error, extra={"request_id": number})
            if status:
                raise  # the response has begun, so the connection must end
            await problem.response()(scope, receive, send_with_id)
        finally:
            self._count(scope, number, status, time.perf_counter() - start)

    def _count(self, scope: Scope, number: str, status: int, seconds: float) -> None:
        method = scope["method"] if scope["method"] in _METHODS else "OTHER"
        route = getattr(scope.get("route"), "path", "none")
        if route.startswith(_FILES):
            route = f"{_FILES}*"  # one line of the metrics for all files of the page
        self._metrics.requests.labels(method, route, str(status)).inc()
        self._metrics.seconds.labels(route).observe(seconds)
        level = logging.DEBUG if route.startswith(("/health/", "/metrics")) else logging.INFO
        facts = {
            "request_id": number, "method": method, "path": shortened(scope["path"]), "status": status,
            "milliseconds": round(1000 * seconds, 1), "client": shortened((scope.get("client") or ("",))[0], 64),
        }  # fmt: skip
        _log.log(level, "request", extra=facts)
