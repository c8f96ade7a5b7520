"""Refuses requests that do not come from the page itself: an ASGI middleware.

A web page of a stranger, open in the same browser, can send requests to 127.0.0.1, or let its own name lead there (DNS
rebinding). Both are seen in the headers that browsers send: Host, Origin and Sec-Fetch-Site.
"""

import ipaddress
import re
from collections.abc import Awaitable, Callable, Iterable
from typing import Any
from urllib.parse import urlsplit

LOOPBACK = ("127.0.0.1", "localhost", "::1")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:|[/\\]{2}")
_HOST = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+)(?::\d{1,5})?")
_CHECKED = "ps3c.checked"

Scope = dict[str, Any]
Application = Callable[[Scope, Callable, Callable], Awaitable[None]]


class Guard:
    """An ASGI application that passes allowed requests on to `app` and answers the others itself.

    Args:
        hosts: names that a request may have in its Host header, besides the names of the loopback interface.
        most_bytes: the largest accepted body of a request.

    Answers: 400 for a damaged Host header, 403 for another host or origin and for a redirect to another host, 404 for
    a route that fetches from another machine, 413 for a body that is too large.
    """

    def __init__(self, app: Application, hosts: Iterable[str] = (), most_bytes: int = 1 << 20):
        self._app = app
        self._told = {plain_host(name) for name in hosts}
        self._hosts = self._told.union(LOOPBACK)
        self.most_bytes = most_bytes

    async def __call__(self, scope: Scope, receive: Callable, send: Callable) -> None:
        if scope["type"] not in ("http", "websocket") or scope.get(_CHECKED):
            return await self._app(scope, receive, send)
        refusal = self._refusal(scope)
        if refusal is not None:
            return await _answer(scope, send, *refusal)
        exchange = _Exchange(self, receive, send)
        try:
            await self._app({**scope, _CHECKED: True}, exchange.receive, exchange.send)
        except Exception:
            if not exchange.refused:
                raise
        if exchange.refused and not exchange.answered:
            await _answer(scope, send, 413, self._too_large)

    @property
    def _too_large(self) -> str:
        return f"the request has more than {self.most_bytes} bytes"

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        headers = scope["headers"]
        hosts = [value.decode("latin-1") for name, value in headers if name == b"host"]
        host = _name_in(hosts[0]) if len(hosts) == 1 else None
        if host is None:
            return 400, "expected one Host header"
        if host not in self._hosts:
            return 403, "this page does not answer to that host name; ps3c demo --allow-host NAME allows it"
        for origin in (value.decode("latin-1") for name, value in headers if name == b"origin"):
            if not self._is_own(origin, hosts[0]):
                return 403, "requests from other web pages are refused"
        fetch = {name: value for name, value in headers if name.startswith(b"sec-fetch-")}
        if fetch.get(b"sec-fetch-site") in (b"cross-site", b"same-site") and not _is_visit(scope, fetch):
            return 403, "requests from other web pages are refused"
        if _leads_elsewhere(scope["path"]):
            return 404, "not found"
        lengths = [value for name, value in headers if name == b"content-length"]
        if any(not value.isdigit() or int(value[:20]) > self.most_bytes for value in lengths):
            return 413, self._too_large
        return None

    def _is_own(self, origin: str, host: str) -> bool:
        try:
            parts = urlsplit(origin)
        except ValueError:
            return False
        if parts.scheme not in ("http", "https"):  # also "null", a page without an origin
            return False
        # Behind a proxy with a name that was told, Host may be the proxy's or this server's.
        return parts.netloc.lower() == host.lower() or _name_in(parts.netloc) in self._told

    def stays(self, location: str) -> bool:
        if not _SCHEME.match(location.strip()):
            return "\\" not in location
        try:
            parts = urlsplit(location)
        except ValueError:
            return False
        return parts.scheme in ("http", "https") and _name_in(parts.netloc) in self._hosts


class _Exchange:
    """One request and its answer. Counts the bytes of the body, which may have no length or a wrong one."""

    def __init__(self, guard: Guard, receive: Callable, send: Callable):
        self._guard, self._receive, self._send = guard, receive, send
        self._left = guard.most_bytes
        self.answered = self.refused = False

    async def receive(self) -> dict[str, Any]:
        message = await self._receive()
        self._left -= len(message.get("body", b""))
        if self._left < 0:
            self.refused = True
            raise ValueError("the body is too large")
        return message

    async def send(self, message: dict[str, Any]) -> None:
        if self.refused:
            return  # what the application answers after an error of receive(), or the body of a redirect
        self.answered = True
        if message["type"] == "http.response.start" and 300 <= message["status"] < 400:
            names = [value for name, value in message.get("headers", ()) if name.lower() == b"location"]
            if not all(self._guard.stays(name.decode("latin-1")) for name in names):
                self.refused = True
                await _answer({"type": "http"}, self._send, 403, "redirects to other machines are refused")
                return
        await self._send(message)


def plain_host(name: str) -> str:
    """The name as it is compared: lower case, without port and brackets.

    Raises:
        ValueError: it is no host name.
    """
    found = _name_in(name if ":" not in name or name.startswith("[") or name.count(":") == 1 else f"[{name}]")
    if found is None:
        raise ValueError(f"host: got {name!r}, expected a host name, such as gpu.example.org")
    return found


def _name_in(host: str) -> str | None:
    found = _HOST.fullmatch(host)
    if found is None:
        return None
    name = found["name"].strip("[]").lower().rstrip(".")
    if ":" in name:
        try:
            name = str(ipaddress.ip_address(name))
        except ValueError:
            return None
    return name or None


def _is_visit(scope: Scope, fetch: dict[bytes, bytes]) -> bool:
    """True if somebody follows a link to the page. What it shows is not seen by the page with the link."""
    navigates = fetch.get(b"sec-fetch-mode") == b"navigate" and fetch.get(b"sec-fetch-dest") == b"document"
    return navigates and scope.get("method") in ("GET", "HEAD") and scope["path"] == "/"


def _leads_elsewhere(path: str) -> bool:
    """gradio redirects /file=URL to the URL, and fetches /proxy=URL."""
    target = re.search(r"(?:^|/)(file|proxy)(?:=|/)(.*)", path, re.DOTALL)
    return target is not None and (target[1] == "proxy" or _SCHEME.match(target[2].strip()) is not None)


async def _answer(scope: Scope, send: Callable, status: int, text: str) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})
        return
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(text)).encode()),
        (b"connection", b"close"),
        (b"cache-control", b"no-store"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode("ascii")})
