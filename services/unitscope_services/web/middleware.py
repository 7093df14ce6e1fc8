"""What surrounds every request: its id, whence it comes, a bounded body, safe headers, its figures; no exception leaves
it."""

import re
import time
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from unitscope_schemas.errors import TooLargeError
from unitscope_schemas.formats import FORMATS
from unitscope_services.server.access.hosts import Hosts
from unitscope_services.server.problems import problem_of
from unitscope_services.server.telemetry import Telemetry

_POLICY = "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors "
FRAMED_POLICY = f"{_POLICY}*"
"""Policy of a page that other sites may frame: one that has nothing to press but links."""
SAFE_HEADERS = {
    "Content-Security-Policy": f"{_POLICY}'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "Cross-Origin-Opener-Policy": "same-origin",
}
_REQUEST_ID = re.compile(r"[\w.-]{1,64}")
_SUFFIX = re.compile(rf"(?<=[^/])\.({'|'.join(FORMATS)})$")
_LONG_BODIES = ("/uploads", "/neighbors")
"""Ends of the addresses that take pictures and vectors, which are read in a turn of their own."""
_SHORT_BODY_BYTES = 4_000_000
"""Longest body of all others: forms and jobs are read between the requests of all, which long ones would keep waiting.
A job for a direction of 65,536 units still fits."""
_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))


class RequestMiddleware:
    """The outermost layer of the application."""

    def __init__(self, app: ASGIApp, telemetry: Telemetry, hosts: Hosts, body_limit_bytes: int) -> None:
        self.app, self.telemetry, self.hosts, self.body_limit_bytes = app, telemetry, hosts, body_limit_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await self._connect(scope, receive, send)
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        method = scope["method"]
        scope = _addressed(scope)
        answer = _Answer(send, scope["unitscope.request_id"], bodiless=method == "HEAD")
        try:
            headers = Headers(scope=scope)
            self.hosts.check(headers, method)
            length, most_bytes = headers.get("content-length", "0"), self._most_bytes(scope["path"])
            if not length.isdecimal() or int(length) > most_bytes:
                raise TooLargeError(_too_large(most_bytes))
            await self.app(scope, _bounded(receive, most_bytes), answer)
        except Exception as error:
            if answer.status is not None:
                raise
            await problem_of(Request(scope), error)(scope, receive, answer)
        finally:
            route = getattr(scope.get("route"), "path", "unmatched")
            seconds = time.perf_counter() - started
            known_method = method if method in _METHODS else "other"
            self.telemetry.answered(known_method, route, answer.status or 500, seconds, answer.size_bytes)

    async def _connect(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a WebSocket in, unless it is asked for under another name or by a page of another site."""
        scope = {**scope, "unitscope.request_id": uuid.uuid4().hex}
        try:
            self.hosts.check(Headers(scope=scope), method="")
        except HTTPException as error:
            socket = WebSocket(scope, receive, send)
            await socket.send_denial_response(problem_of(socket, error))
            return
        await self.app(scope, receive, send)

    def _most_bytes(self, path: str) -> int:
        return self.body_limit_bytes if path.endswith(_LONG_BODIES) else min(self.body_limit_bytes, _SHORT_BODY_BYTES)


def _bounded(receive: Receive, most_bytes: int) -> Receive:
    """Stop a body that goes on beyond the limit, whatever length it announced."""
    received = 0

    async def bounded() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > most_bytes:
            raise HTTPException(413, _too_large(most_bytes))
        return message

    return bounded


def _too_large(most_bytes: int) -> str:
    return f"the body is longer than the limit of {most_bytes:,} bytes"


class _Answer:
    """The answer of the application on its way out, with the headers that every answer has."""

    def __init__(self, send: Send, request_id: str, bodiless: bool) -> None:
        self._send, self._request_id, self._bodiless = send, request_id, bodiless
        self.status: int | None = None
        self.size_bytes = 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["X-Request-ID"] = self._request_id
            for name, value in SAFE_HEADERS.items():
                headers.setdefault(name, value)
        elif message["type"] == "http.response.body":
            if self._bodiless:
                message = {**message, "body": b""}
            self.size_bytes += len(message.get("body", b""))
        await self._send(message)


def _addressed(scope: Scope) -> Scope:
    """Give the request an id, take the format's suffix off an API address, and answer HEAD like GET.

    A page answers with a slash at its end too; the API does not redirect, for its description names every status.

    The scope is a copy: the server itself reads the method of the scope that it made.
    """
    given = Headers(scope=scope).get("x-request-id", "")
    path = scope["path"]
    copied = {
        **scope,
        "method": "GET" if scope["method"] == "HEAD" else scope["method"],
        "unitscope.path": path,
        "unitscope.request_id": given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex,
    }
    if path.startswith("/api/") and (suffix := _SUFFIX.search(path)):
        copied |= {"path": path[: suffix.start()], "unitscope.suffix": suffix[1]}
    elif not path.startswith("/api/"):
        copied |= {"path": path.rstrip("/") or "/"}
    return copied
