"""Who may use the service, before anything of a request is read: Host, Origin and token; and headers of all responses.

A page of a stranger, open in the browser of someone who runs the service, must not reach it. If the stranger lets a
name of his own lead to this machine (DNS rebinding), Host shows that name. If his page sends requests across (CSRF),
the browser says so in Origin and Sec-Fetch-Site.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from starlette.datastructures import Headers

from fewshot.serve.problems import Problem
from fewshot.serve.settings import Settings

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

#: The cookie that a page holds instead of the token.
COOKIE = "fewshot"
#: What pages of this service may load and do: only what it serves itself.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; "
    "connect-src 'self'; font-src 'self'; manifest-src 'self'; worker-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "X-Frame-Options": "DENY",
}
_HEADERS = [(name.lower().encode(), text.encode()) for name, text in HEADERS.items()]
_USUAL_PORTS = {"http": ":80", "https": ":443"}


class Guard:
    """Refuse requests of strangers.

    Parameters
    ----------
    app : ASGI application
        What is guarded.
    settings : Settings
        Names of the service, and its token.
    """

    def __init__(self, app: App, settings: Settings) -> None:
        self._app, self._token, self._root = app, settings.token, settings.root_path
        self._extra = {name.lower() for name in settings.hosts}
        self._names = {"localhost", settings.host.lower(), *self._extra}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope["root_path"] = self._root  # not uvicorn's, which adds it to paths from which the proxy has not taken it

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = {name.lower() for name, _ in message["headers"]}
                message["headers"] = [*message["headers"], *(one for one in _HEADERS if one[0] not in given)]
            await send(message)

        try:
            self.check(scope["method"], route_path(scope), Headers(scope=scope))
        except Problem as problem:
            headers = {"WWW-Authenticate": "Bearer"} if problem.status == 401 else {}
            await problem.response(headers)(scope, receive, send_with_headers)
            return
        await self._app(scope, receive, send_with_headers)

    def check(self, method: str, path: str, headers: Headers) -> None:
        """Raise `Problem` unless a request may be answered."""
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not self._is_ours(hosts[0]):
            raise Problem(403, "host", "the service is not known by this host name; allow it with --allow-host NAME")
        is_page = path == "/" or path.startswith("/page/")
        if not (is_page and method in ("GET", "HEAD")):
            self._check_origin(headers, hosts[0])
        if self._token is not None and not is_page and not path.startswith("/health/"):
            self._check_token(self._token, headers)

    def _is_ours(self, host: str) -> bool:
        """Whether a value of Host is an address or a name of this service: no stranger can let those lead here."""
        name = name_of_host(host)
        if name in self._names:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    def _check_origin(self, headers: Headers, host: str) -> None:
        problem = Problem(403, "origin", "the request comes from a page of another site")
        cure = "a proxy must pass on the header Host with its port, as $http_host in nginx"
        other_port = Problem(403, "origin", f"the request comes from a page of another port; {cure}")
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            raise problem
        for origin in headers.getlist("origin"):
            scheme, _, rest = origin.lower().partition("://")
            usual = _USUAL_PORTS.get(scheme)
            if usual is None:
                raise problem
            if rest.removesuffix(usual) != host.lower().removesuffix(usual) and name_of_host(rest) not in self._extra:
                raise other_port if name_of_host(rest) == name_of_host(host) else problem

    def _check_token(self, token: str, headers: Headers) -> None:
        kind, _, given = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and same(given.strip(), token):
            return
        wanted = cookie_of(token)
        if any(same(one, wanted) for one in _cookies_in(headers)):
            return
        raise Problem(401, "token", "the token is missing or wrong; send it as Authorization: Bearer TOKEN")


def route_path(scope: Scope) -> str:
    """Return the path of a request below the path under which a proxy puts the service."""
    root, path = scope.get("root_path", ""), scope["path"]
    return path[len(root) :] if root and path.startswith(f"{root}/") else path


def name_of_host(host: str) -> str:
    """Return the name in a value of Host, without a port.

    Examples
    --------
    >>> name_of_host("LocalHost:8000"), name_of_host("[::1]:80"), name_of_host("a.example")
    ('localhost', '::1', 'a.example')
    """
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()


def same(given: str, secret: str) -> bool:
    """Whether a client knows a secret, in a time that does not tell how much of it."""
    return hmac.compare_digest(given.encode("utf-8", "replace"), secret.encode())


def cookie_of(token: str) -> str:
    """Return what a page holds as a cookie: it does not tell the token."""
    return hmac.new(token.encode(), b"fewshot page", hashlib.sha256).hexdigest()


def _cookies_in(headers: Headers) -> list[str]:
    """Return the cookies of our name; SimpleCookie of Python 3.11 takes seconds for what strangers may send."""
    pairs = (part.partition("=") for part in headers.get("cookie", "").split(";"))
    return [value.strip() for name, _, value in pairs if name.strip() == COOKIE]
