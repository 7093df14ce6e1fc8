"""Several nodes of a cluster on one machine: killed, paused and joining ones while an index run goes on."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.conftest import TINY_LAYERS
from tests.tables import contents, difference

pytestmark = pytest.mark.slow

PORT = 6398
SOON_DEAD = {"RAY_health_check_initial_delay_ms": "0", "RAY_health_check_period_ms": "500"}
"""A node that does not answer five times is dead."""


class Nodes:
    """A head without processors, and nodes of one processor each, with token authentication on."""

    def __init__(self, folder: Path) -> None:
        token = folder / "token"
        token.write_text("0123456789abcdef" * 4)
        self.environment = {**os.environ, **SOON_DEAD, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
        self._started: list[subprocess.Popen[str]] = []
        self._start("--head", "--port", str(PORT), "--num-cpus", "0", "--include-dashboard=false")

    def add(self) -> subprocess.Popen[str]:
        """A node that joins, with an address of its own: runs attach to the head, which has their address."""
        own = f"127.0.0.{len(self._started) + 1}"
        return self._start("--address", f"127.0.0.1:{PORT}", "--num-cpus", "1", "--node-ip-address", own)

    def signal(self, node: subprocess.Popen[str], number: signal.Signals) -> None:
        """Send a signal to all processes of a node."""
        for process in (psutil.Process(node.pid), *psutil.Process(node.pid).children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    def stop(self) -> None:
        """End all nodes, paused ones too."""
        for node in self._started:
            if node.poll() is None:
                self.signal(node, signal.SIGCONT)
                self.signal(node, signal.SIGKILL)
            node.wait()

    def _start(self, *options: str) -> subprocess.Popen[str]:
        """Start one and wait for it: two that start at once may choose the same port."""
        command = [str(Path(sys.executable).with_name("ray")), "start", *options, "--block"]
        node = subprocess.Popen(
            command, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self._started.append(node)
        assert node.stdout is not None
        assert any("Ray runtime started" in line for line in node.stdout), "the node ended before it started"
        return node


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes]:
    started = Nodes(tmp_path)
    yield started
    started.stop()


def test_a_run_survives_a_killed_and_a_paused_node_and_goes_on_with_one_that_joins(
    nodes: Nodes, tiny_corpus: Path, tiny_atlas: Path, tmp_path: Path
) -> None:
    atlas = tmp_path / "atlas"
    killed, paused = nodes.add(), nodes.add()
    words = ["index", str(tiny_corpus), "--atlas", str(atlas), "--layers", ",".join(TINY_LAYERS), "--batch-size", "8"]
    options = ["--shard-size", "1", "--address", f"127.0.0.1:{PORT}", "--progress", "json"]
    command = [sys.executable, "-m", "unitscope", *words, *options]
    run = subprocess.Popen(command, env=nodes.environment, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: len(finished(atlas)) >= 3, run)
    nodes.signal(killed, signal.SIGKILL)
    nodes.signal(paused, signal.SIGSTOP)
    before = len(finished(atlas))
    nodes.add()
    _, talk = run.communicate(timeout=240)
    assert run.returncode == 0, talk
    assert before < len(finished(atlas)), "nothing was left for the node that joined"
    workers = [json.loads(line)["nodes"] for line in talk.splitlines() if '"scan"' in line][-1]
    assert sum(workers.values()) == 42
    assert len(workers) >= 2, workers
    assert difference(contents(tiny_atlas), contents(atlas)) == []
    assert not list(atlas.rglob("*.tmp"))


def finished(atlas: Path) -> list[Path]:
    return list((atlas / "receipts").glob("*.json"))


def wait_for(true: Callable[[], bool], run: subprocess.Popen[str]) -> None:
    while not true():
        assert run.poll() is None, run.communicate()[1]
        time.sleep(0.05)
