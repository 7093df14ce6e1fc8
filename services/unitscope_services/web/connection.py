"""Connections that cost no more than they may: heads are short, and heads and bodies come in time."""

import asyncio
import uuid
from enum import Enum, auto
from http import HTTPStatus

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from unitscope_schemas.answers.served import Problem

LONGEST_HEAD_BYTES = 65_536
"""Most bytes of a request's line and headers."""
HEAD_S = 10.0
"""Most seconds from a connection, or a request's first byte, to the end of its head."""
BODY_IDLE_S = 30.0
"""Most seconds between two pieces of a body."""
BODY_S = 600.0
"""Most seconds that a whole body may take."""


class _Stage(Enum):
    """What a connection waits for."""

    HEAD = auto()
    BODY = auto()
    ANSWER = auto()
    REFUSED = auto()


class BoundedConnection(HttpToolsProtocol):
    """A connection of uvicorn's that is closed where a reader would make it costly, with a problem in words."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first head."""
        super().connection_made(transport)
        self._stage, self._head_bytes, self._body_until = _Stage.HEAD, 0, 0.0
        self._timer = self.loop.call_later(HEAD_S, self._late)

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing more."""
        self._timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take a piece of a request, unless it was refused or its head is too long by now."""
        if self._stage is _Stage.REFUSED:
            return
        super().data_received(data)
        if self._stage is _Stage.HEAD:
            self._count(len(data))
        elif self._stage is _Stage.BODY:
            self._wait(min(BODY_IDLE_S, self._body_until - self.loop.time()))

    def handle_websocket_upgrade(self) -> None:
        """Leave the connection to the WebSocket, which has limits of its own."""
        self._timer.cancel()
        super().handle_websocket_upgrade()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no request."""
        self._refuse(HTTPStatus.BAD_REQUEST, "this is no HTTP request that can be read")

    def on_message_begin(self) -> None:
        """Wait for the rest of the head."""
        super().on_message_begin()
        if self._stage is _Stage.ANSWER:
            self._stage, self._head_bytes = _Stage.HEAD, 0
            self._wait(HEAD_S)

    def on_url(self, url: bytes) -> None:
        """Count the address."""
        super().on_url(url)
        self._count(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count a header."""
        super().on_header(name, value)
        self._count(len(name) + len(value) + 4)

    def on_headers_complete(self) -> None:
        """Begin to answer, and wait for the body."""
        if self._stage is not _Stage.REFUSED:
            self._stage = _Stage.BODY
            self._body_until = self.loop.time() + BODY_S
            self._wait(BODY_IDLE_S)
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Pass a piece of the body on."""
        if self._stage is not _Stage.REFUSED:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Wait for the answer alone, which has limits of its own."""
        if self._stage is not _Stage.REFUSED:
            self._stage = _Stage.ANSWER
            self._timer.cancel()
            super().on_message_complete()

    def _count(self, size_bytes: int) -> None:
        self._head_bytes += size_bytes
        if self._head_bytes > LONGEST_HEAD_BYTES and self._stage is not _Stage.REFUSED:
            limit = f"the request's line and headers are longer than {LONGEST_HEAD_BYTES:,} bytes"
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, limit)

    def _wait(self, seconds: float) -> None:
        self._timer.cancel()
        self._timer = self.loop.call_later(max(0.0, seconds), self._late)

    def _late(self) -> None:
        """Close the connection, which has been waited for long enough; a body that the server itself holds up waits."""
        if self._stage is _Stage.BODY and self.flow.read_paused:
            self._wait(BODY_IDLE_S)
        elif self._stage is _Stage.BODY or not self._head_bytes:
            self._stage = _Stage.REFUSED
            self.transport.close()
        else:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, f"the request's head took longer than {HEAD_S:g} seconds")

    def _refuse(self, status: HTTPStatus, detail: str) -> None:
        """Answer with a problem and close; what still comes is not read."""
        self._stage = _Stage.REFUSED
        self._timer.cancel()
        number = uuid.uuid4().hex
        # the path is not told: it may be what is too long, or was never read
        problem = Problem(title=status.phrase, status=status.value, detail=detail, instance="", request_id=number)
        content = problem.model_dump_json().encode()
        lines = ["content-type: application/problem+json", f"content-length: {len(content)}", f"x-request-id: {number}"]
        head = "\r\n".join([*lines, "connection: close", "", ""])
        self.transport.write(STATUS_LINE[status.value] + head.encode() + content)
        self.transport.close()
