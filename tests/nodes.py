"""Several Ray nodes on one machine, each a tree of processes that can be killed, paused and cut off."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.conftest import TINY_LAYERS

PORT = 6398
START_TRIES = 3
"""Ray waits half a minute for a node to start, which a busy machine may need for itself."""
IMPATIENT = {
    "RAY_health_check_initial_delay_ms": "0",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_grpc_client_keepalive_time_ms": "2000",
    "RAY_grpc_client_keepalive_timeout_ms": "2000",
}
"""A node that does not answer five times is dead."""


class Loopback:
    """All nodes in this machine's network, each with a loopback address of its own."""

    head = "127.0.0.1"

    def join(self, number: int) -> tuple[str, list[str]]:
        """The address of a node, and the words before its command."""
        return f"127.0.0.{number + 1}", []

    def remove(self) -> None:
        """Nothing was made."""


class Namespaces:
    """Each node in a network namespace, joined to the head's by a bridge: its cable can be pulled."""

    head = "10.231.7.254"
    _BRIDGE = "unitscope-test"

    def __init__(self) -> None:
        self.remove()
        _ip("link", "add", self._BRIDGE, "type", "bridge")
        _ip("address", "add", f"{self.head}/24", "dev", self._BRIDGE)
        _ip("link", "set", self._BRIDGE, "up")

    @staticmethod
    def allowed() -> bool:
        """Whether this machine lets its user make networks."""
        if shutil.which("ip") is None or os.geteuid() != 0:
            return False
        made = subprocess.run(["ip", "netns", "add", "unitscope-try"], capture_output=True, check=False)
        subprocess.run(["ip", "netns", "del", "unitscope-try"], capture_output=True, check=False)
        return made.returncode == 0

    def join(self, number: int) -> tuple[str, list[str]]:
        """The address of a node, and the words before its command."""
        name, cable, address = f"unitscope-{number}", f"uscope{number}", f"10.231.7.{number}"
        _ip("netns", "add", name)
        _ip("link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", name)
        _ip("link", "set", cable, "master", self._BRIDGE)
        _ip("link", "set", cable, "up")
        inside = ["ip", "netns", "exec", name]
        for words in (
            ["address", "add", f"{address}/24", "dev", "eth0"],
            ["link", "set", "eth0", "up"],
            ["link", "set", "lo", "up"],
        ):
            subprocess.run([*inside, "ip", *words], check=True)
        return address, inside

    def cut(self, number: int) -> None:
        """Pull a node's cable."""
        _ip("link", "set", f"uscope{number}", "down")

    def remove(self) -> None:
        """Take away all namespaces and the bridge; cables go with them."""
        listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=False).stdout
        for line in listed.splitlines():
            if line.startswith("unitscope-"):
                _ip("netns", "del", line.split()[0])
        subprocess.run(["ip", "link", "del", self._BRIDGE], capture_output=True, check=False)


@dataclass(frozen=True)
class Node:
    """A node's number in its network and its first process."""

    number: int
    process: subprocess.Popen[str]

    def send(self, number: signal.Signals) -> None:
        """Send a signal to all its processes."""
        with suppress(psutil.NoSuchProcess):
            first = psutil.Process(self.process.pid)
            for process in (first, *first.children(recursive=True)):
                with suppress(psutil.NoSuchProcess):
                    process.send_signal(number)

    def workers(self) -> list[psutil.Process]:
        """Its processes that are workers."""
        with suppress(psutil.NoSuchProcess):
            return [child for child in psutil.Process(self.process.pid).children(recursive=True) if is_worker(child)]
        return []


class Nodes:
    """A head without processors, and nodes of one processor each, with token authentication on."""

    def __init__(self, folder: Path, network: Loopback | Namespaces) -> None:
        token = folder / "token"
        token.write_text("0123456789abcdef" * 4)
        self.environment = {**os.environ, **IMPATIENT, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
        self.address = f"{network.head}:{PORT}"
        self.started: list[Node] = []
        self.network = network
        self._start(
            [],
            "--head",
            "--port",
            str(PORT),
            "--node-ip-address",
            network.head,
            "--num-cpus",
            "0",
            "--include-dashboard=false",
        )

    def add(self) -> Node:
        """A node that joins, with an address of its own: runs attach to the head, which has their address."""
        address, inside = self.network.join(len(self.started))
        return self._start(inside, "--address", self.address, "--num-cpus", "1", "--node-ip-address", address)

    def index(self, corpus: Path, atlas: Path) -> subprocess.Popen[str]:
        """An index run of one file to a shard on these nodes."""
        words = ["index", str(corpus), "--atlas", str(atlas), "--layers", ",".join(TINY_LAYERS), "--batch-size", "8"]
        options = ["--shard-size", "1", "--address", self.address, "--progress", "json"]
        command = [sys.executable, "-m", "unitscope", *words, *options]
        return subprocess.Popen(command, env=self.environment, stderr=subprocess.PIPE, text=True)

    def stop(self) -> None:
        """End all nodes, paused ones too, and take their network away."""
        for node in self.started:
            if node.process.poll() is None:
                node.send(signal.SIGCONT)
                node.send(signal.SIGKILL)
            node.process.wait()
        self.network.remove()

    def _start(self, inside: list[str], *options: str) -> Node:
        """Start one and wait for it: two that start at once may choose the same port."""
        ray = [str(Path(sys.executable).with_name("ray")), "start", "--block"]
        for _ in range(START_TRIES):
            process = subprocess.Popen(
                [*inside, *ray, *options],
                env=self.environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            assert process.stdout is not None
            if any("Ray runtime started" in line for line in process.stdout):
                self.started.append(Node(len(self.started), process))
                return self.started[-1]
            process.wait()
        raise AssertionError("the node ended before it started")


def finished(atlas: Path) -> int:
    """How many shards are done."""
    return len(list((atlas / "receipts").glob("*.json")))


def wait_for(true: Callable[[], bool], run: subprocess.Popen[str]) -> None:
    """Wait until it is true; the run may not end before."""
    while not true():
        assert run.poll() is None, run.communicate()[1]
        time.sleep(0.05)


def is_worker(process: psutil.Process) -> bool:
    """Whether a process is a worker of an index run."""
    try:
        return "ray::WorkerProcess" in " ".join(process.cmdline())
    except psutil.Error:
        return False


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)
