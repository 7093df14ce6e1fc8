"""Connections that would cost a server much are closed, while others are answered at once."""

import json
import socket
import threading
import time
from collections.abc import Iterator

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from unitscope_services.web import connection
from unitscope_services.web.connection import LONGEST_HEAD_BYTES, BoundedConnection

Address = tuple[str, int]


async def alive(_request: Request) -> PlainTextResponse:
    return PlainTextResponse("alive")


async def length(request: Request) -> PlainTextResponse:
    return PlainTextResponse(str(len(await request.body())))


async def echo(socket: WebSocket) -> None:
    await socket.accept()
    await socket.send_text(await socket.receive_text())
    await socket.close()


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> Iterator[Address]:
    """A server with short limits."""
    for name, seconds in (("HEAD_S", 1.0), ("BODY_IDLE_S", 1.0), ("BODY_S", 3.0)):
        monkeypatch.setattr(connection, name, seconds)
    routes = [Route("/livez", alive), Route("/length", length, methods=["POST"]), WebSocketRoute("/echo", echo)]
    config = uvicorn.Config(Starlette(routes=routes), http=BoundedConnection, log_level="critical")
    server = uvicorn.Server(config)
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield listener.getsockname()
    server.should_exit = True
    thread.join(10)


def head(path: str = "/livez", method: str = "GET", *headers: str) -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: here", *headers, "", ""]).encode()


def answer(sender: socket.socket) -> bytes:
    """All that comes until the server closes, or a second passes without."""
    sender.settimeout(5)
    data = b""
    while True:
        try:
            piece = sender.recv(65_536)
        except (TimeoutError, ConnectionResetError):
            return data
        data += piece
        if not piece:
            return data


def status(data: bytes) -> int:
    return int(data.split(b" ", 2)[1])


def seconds_to_answer(address: Address) -> float:
    started = time.monotonic()
    with socket.create_connection(address) as sender:
        sender.sendall(head("/livez", "GET", "Connection: close"))
        assert answer(sender).endswith(b"alive")
    return time.monotonic() - started


@pytest.mark.parametrize(
    "start",
    [
        head()[:-2] + b"X-Long: ",
        b"GET /" + b"a" * 10,
        head()[:-2] + b"\r\n".join(b"X-%d: %s" % (number, b"v" * 90) for number in range(2_000)),
    ],
    ids=["one header", "address", "many headers"],
)
def test_a_head_without_end_is_refused_while_others_are_answered(start: bytes, address: Address) -> None:
    with socket.create_connection(address) as sender:
        sent = len(start)
        try:
            sender.sendall(start)
            while sent < 40_000_000:
                sender.sendall(b"a" * 65_536)
                sent += 65_536
        except OSError:
            pass
        assert sent < 8_000_000, "it is closed long before all was sent"
        assert seconds_to_answer(address) < 1


@pytest.mark.parametrize("size", [LONGEST_HEAD_BYTES - 200, LONGEST_HEAD_BYTES + 1])
def test_the_limit_of_a_head_is_exact_enough_and_said(size: int, address: Address) -> None:
    with socket.create_connection(address) as sender:
        sender.sendall(head("/livez", "GET", "Connection: close", "X-Long: " + "a" * size))
        data = answer(sender)
    if size < LONGEST_HEAD_BYTES:
        assert status(data) == 200
    else:
        assert status(data) == 431
        problem = json.loads(data.partition(b"\r\n\r\n")[2])
        assert problem["status"] == 431 and "65,536 bytes" in problem["detail"]
        assert f"x-request-id: {problem['request_id']}".encode() in data


@pytest.mark.parametrize("start", [b"", b"GET /livez HT"])
def test_connections_that_ask_nothing_are_closed(start: bytes, address: Address) -> None:
    senders = [socket.create_connection(address) for _ in range(50)]
    for sender in senders:
        sender.sendall(start)
    assert seconds_to_answer(address) < 1
    started = time.monotonic()
    answers = [answer(sender) for sender in senders]
    assert time.monotonic() - started < 4
    assert {data.split(b"\r\n")[0] for data in answers} == ({b"HTTP/1.1 408 Request Timeout"} if start else {b""})


@pytest.mark.parametrize("pause", [1.6, 0.3], ids=["it stops", "it never ends"])
def test_a_body_that_does_not_come_in_time_is_not_waited_for(pause: float, address: Address) -> None:
    with socket.create_connection(address) as sender:
        sender.sendall(head("/length", "POST", "Content-Length: 1000"))
        started = time.monotonic()
        try:
            while time.monotonic() - started < 8:
                sender.sendall(b"a")
                time.sleep(pause)
        except OSError:
            pass
        assert time.monotonic() - started < 6


def test_a_slow_body_within_the_limits_is_taken(address: Address) -> None:
    with socket.create_connection(address) as sender:
        sender.sendall(head("/length", "POST", "Content-Length: 4", "Connection: close"))
        for _ in range(4):
            time.sleep(0.5)
            sender.sendall(b"a")
        assert answer(sender).endswith(b"4")


def test_requests_on_one_connection_have_the_limits_each(address: Address) -> None:
    with socket.create_connection(address) as sender:
        for _ in range(4):
            sender.sendall(head("/livez", "GET", "X-Long: " + "a" * 40_000))
            sender.settimeout(5)
            assert status(sender.recv(65_536)) == 200
            time.sleep(0.4)


def test_what_is_no_request_is_a_problem(address: Address) -> None:
    with socket.create_connection(address) as sender:
        sender.sendall(b"\x16\x03\x01 this is no request\r\n\r\n")
        data = answer(sender)
    assert status(data) == 400 and b"application/problem+json" in data


def test_a_websocket_outlives_the_limits_of_a_head(address: Address) -> None:
    from websockets.sync.client import connect

    with connect(f"ws://{address[0]}:{address[1]}/echo") as client:
        time.sleep(1.6)
        client.send("here")
        assert client.recv() == "here"
