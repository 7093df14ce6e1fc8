"""Several processes that answer as one server: uploads, jobs and figures are found whichever is asked."""

import io
import json
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.deploy.test_figures import names_in
from tests.pictures import blobs
from tests.processes import still_running
from unitscope_schemas import layout
from unitscope_services.server.access.key_file import make_key, remove_key

PROCESSES = 2
API = "/api/v1"


class Server:
    """A running server of several processes; each request comes on a connection of its own."""

    def __init__(self, atlas: Path, *options: str) -> None:
        command = [sys.executable, "-m", "unitscope", "serve", str(atlas), "--port", "0", "--workers", str(PROCESSES)]
        self.process = subprocess.Popen([*command, *options], stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        line = next(line for line in self.process.stderr if "serving on" in line)
        self.root = line.split()[2].rstrip("/")
        assert self.ask("/readyz") == {"status": "ready"}

    def ask(self, path: str, data: bytes | None = None, media_type: str = "application/json", key: str = "") -> Any:
        headers = {
            "Content-Type": media_type,
            "Connection": "close",
            **({"Authorization": f"Bearer {key}"} if key else {}),
        }
        request = urllib.request.Request(self.root + path, data, headers)
        with urllib.request.urlopen(request, timeout=60) as answer:
            body = answer.read()
        return json.loads(body) if answer.headers.get_content_type().endswith("json") else body.decode()

    def workers(self) -> list[psutil.Process]:
        """The processes that answer, once all of them have started."""
        for _ in range(300):
            with suppress(psutil.Error):  # one that ends meanwhile
                children = psutil.Process(self.process.pid).children(recursive=True)
                found = [child for child in children if "spawn_main" in " ".join(child.cmdline())]
                if len(found) == PROCESSES and all(len(child.threads()) > 2 for child in found):
                    return found
            time.sleep(0.1)
        raise AssertionError(children)

    @contextmanager
    def only(self, worker: psutil.Process) -> Iterator[None]:
        """Let one process answer and all others wait; not for long, as those that hang are replaced."""
        others = [other for other in self.workers() if other.pid != worker.pid]
        for other in others:
            other.suspend()
        try:
            yield
        finally:
            for other in others:
                other.resume()


@pytest.fixture(scope="module")
def atlas(tiny_atlas: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    copied = shutil.copytree(tiny_atlas, tmp_path_factory.mktemp("beside") / "tiny")
    shutil.rmtree(copied / layout.VISUALS, ignore_errors=True)
    return copied


@pytest.fixture(scope="module")
def server(atlas: Path) -> Iterator[Server]:
    started = Server(atlas)
    yield started
    started.process.kill()
    started.process.communicate(timeout=60)


@pytest.mark.long
def test_each_process_knows_the_uploads_jobs_and_figures_of_the_others(server: Server) -> None:
    first, second = server.workers()
    picture = io.BytesIO()
    blobs(990).save(picture, "PNG")
    job = {"kind": "optimise", "atlas": "tiny", "units": ["_blocks.0:3"], "steps": 100_000}
    with server.only(first):
        upload = server.ask(f"{API}/atlases/tiny/uploads", picture.getvalue(), "image/png")["id"]
        running = server.ask(f"{API}/jobs", json.dumps(job).encode())["id"]
        asked = [server.ask(f"{API}/atlases/tiny/layers") for _ in range(3)]
    with server.only(second):
        assert server.ask(f"{API}/atlases/tiny/uploads/{upload}")["id"] == upload
        assert server.ask(f"{API}/jobs/{running}")["state"] in ("waiting", "running")
        server.ask(f"{API}/jobs/{running}/cancel", b"")
        assert asked == [server.ask(f"{API}/atlases/tiny/layers")] * 3
        figures = names_in(server.ask("/metrics"))
        with pytest.raises(urllib.error.HTTPError, match="404"):
            server.ask(f"{API}/atlases/tiny/uploads/none")
    assert figures["unitscope_responses_total"] >= 9
    assert figures["unitscope_uploads_bytes"] > len(picture.getvalue())
    for _ in range(300):
        if server.ask(f"{API}/jobs/{running}")["state"] == "cancelled":
            break
        time.sleep(0.1)
    assert server.ask(f"{API}/jobs")["rows"][0]["state"] == "cancelled"


@pytest.mark.long
def test_each_process_knows_whose_an_upload_is_and_that_a_key_was_removed(atlas: Path, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    anna, bob = (make_key(keys, name, "compute") for name in ("anna", "bob"))
    server = Server(atlas, "--key-file", str(keys))
    try:
        first, second = server.workers()
        picture = io.BytesIO()
        blobs(990).save(picture, "PNG")
        with server.only(first):
            upload = server.ask(f"{API}/atlases/tiny/uploads", picture.getvalue(), "image/png", anna)["id"]
        with server.only(second):
            assert server.ask(f"{API}/atlases/tiny/uploads/{upload}", key=anna)["id"] == upload
            with pytest.raises(urllib.error.HTTPError, match="404"):
                server.ask(f"{API}/atlases/tiny/uploads/{upload}", key=bob)
        remove_key(keys, "anna")
        for worker in (first, second):
            with server.only(worker), pytest.raises(urllib.error.HTTPError, match="401"):
                server.ask(f"{API}/atlases", key=anna)
    finally:
        server.process.kill()
        server.process.communicate(timeout=60)


@pytest.mark.long
def test_a_process_that_dies_is_replaced_and_its_job_has_failed(server: Server) -> None:
    first, _ = server.workers()
    job = {"kind": "optimise", "atlas": "tiny", "units": ["_blocks.0:3"], "steps": 100_000}
    with server.only(first):
        running = server.ask(f"{API}/jobs", json.dumps(job).encode())["id"]
    first.kill()
    for _ in range(300):
        found = server.ask(f"{API}/jobs/{running}")
        if found["state"] == "failed":
            break
        time.sleep(0.1)
    assert "the process that ran it has ended" in found["problem"]
    assert first.pid not in [worker.pid for worker in server.workers()]
    assert server.ask("/readyz") == {"status": "ready"}


@pytest.mark.long
def test_a_process_that_dies_while_it_is_asked_for_its_health_is_replaced_at_once(server: Server) -> None:
    first, second = server.workers()
    second.suspend()
    first.kill()
    time.sleep(2)  # now the parent waits for what the second one says
    second.kill()
    assert not {first.pid, second.pid} & {worker.pid for worker in server.workers()}
    assert server.ask("/readyz") == {"status": "ready"}


@pytest.mark.long
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGKILL, -9), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.long)]
)
def test_a_signal_stops_all_processes(atlas: Path, number: signal.Signals, code: int) -> None:
    stopped(Server(atlas), number, code)


def test_an_interrupt_stops_all_processes(server: Server) -> None:
    stopped(server, signal.SIGINT, 130)


def stopped(server: Server, number: signal.Signals, code: int) -> None:
    """Send a signal to the first process, and see that all end."""
    workers = server.workers()
    server.process.send_signal(number)
    server.process.wait(timeout=60)
    assert server.process.returncode == code
    assert still_running(workers, 30) == []
    server.process.communicate(timeout=60)
