"""A server that is told to stop ends in time, whatever a reader does."""

import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest

ENDED = (-signal.SIGTERM, 128 + signal.SIGTERM)
"""How a process ends by the signal, or says that it did."""


@contextmanager
def serving(atlas: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], tuple[str, int]]]:
    command = [sys.executable, "-m", "unitscope", "serve", str(atlas), "--port", "0", *options]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        line = next(line for line in process.stderr if "serving on" in line)
        parts = urlsplit(line.split()[2])
        yield process, (str(parts.hostname), parts.port or 0)
    finally:
        process.kill()
        process.communicate()


@contextmanager
def dripping(address: tuple[str, int]) -> Iterator[threading.Event]:
    """Upload a picture a byte at a time; the event says that the server closed."""
    closed = threading.Event()
    with socket.create_connection(address) as sender:
        head = (
            "POST /api/v1/uploads HTTP/1.1\r\nHost: here\r\nContent-Type: image/png\r\nContent-Length: 100000\r\n\r\n"
        )
        sender.sendall(head.encode())

        def drip() -> None:
            with suppress(OSError):
                while True:
                    sender.sendall(b"a")
                    time.sleep(0.1)
            closed.set()

        threading.Thread(target=drip, daemon=True).start()
        time.sleep(0.5)
        yield closed


@pytest.mark.parametrize(("grace", "signals"), [("1", 1), ("60", 2)], ids=["its time ends", "told twice"])
def test_a_slow_upload_keeps_no_server_alive(grace: str, signals: int, tiny_atlas: Path) -> None:
    with serving(tiny_atlas, "--grace", grace) as (process, address), dripping(address):
        for _ in range(signals):
            process.send_signal(signal.SIGTERM)
            time.sleep(0.2)
        started = time.monotonic()
        assert process.wait(15) in ENDED
        assert time.monotonic() - started < 8


@pytest.mark.parametrize("preload", [True, False])
def test_what_runs_models_is_there_before_the_first_request_if_that_is_wanted(preload: bool, tiny_atlas: Path) -> None:
    """Beside 50 clients the first picture from outside waited a minute for it."""
    with serving(tiny_atlas, "--preload" if preload else "--no-preload") as (process, _):
        mapped = Path(f"/proc/{process.pid}/maps").read_text()
        assert [name in mapped for name in ("libtorch", "faiss")] == [preload] * 2


def test_several_processes_end_in_time_too(tiny_atlas: Path) -> None:
    with serving(tiny_atlas, "--grace", "1", "--workers", "2") as (process, address), dripping(address):
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) in ENDED
