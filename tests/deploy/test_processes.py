"""The processes that the images run, as they run them, without containers."""

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from urllib.request import Request, urlopen

import psutil
import pytest

from tests.deploy.files import compose, entrypoint, index_command
from tests.pictures import write_corpus

KEY = "the key of a reader"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """What compose mounts: a corpus, an empty store of atlases, secrets."""
    write_corpus(tmp_path / "corpus", 6)
    (tmp_path / "atlases").mkdir()
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "ray_token").write_text("0123456789abcdef" * 4)
    digest = subprocess.run(["sha256sum"], input=KEY, capture_output=True, text=True, check=True).stdout.split()[0]
    (tmp_path / "secrets" / "api_keys").write_text(f"reader read {digest}\n")
    return tmp_path


def adapted(words: list[str], place: Path, ports: dict[str, int]) -> list[str]:
    """The words of a container's command with this machine's folders, ports and loopback address."""
    changed = [word.replace("/run/secrets", f"{place}/secrets").replace("0.0.0.0", "127.0.0.1") for word in words]
    changed = [re.sub(r"^/(corpus|atlases)", rf"{place}/\1", word) for word in changed]
    changed = [re.sub(r"\b(6379|8000|8080|9108)$", lambda found: str(ports[found[1]]), word) for word in changed]
    return [str(Path(sys.executable).with_name(changed[0])), *changed[1:]]


def free_ports(names: list[str]) -> dict[str, int]:
    listeners = {name: socket.create_server(("127.0.0.1", 0)) for name in names}
    ports = {name: listener.getsockname()[1] for name, listener in listeners.items()}
    for listener in listeners.values():
        listener.close()
    return ports


def waited(ask: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if ask():
            return True
        time.sleep(0.3)
    return False


def answers(address: str) -> bool:
    try:
        return bool(urlopen(address, timeout=2).status == 200)
    except urllib.error.URLError:
        return False


def listens(port: int) -> bool:
    with socket.socket() as caller:
        return caller.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.slow
def test_the_deployed_commands_index_and_answer(place: Path) -> None:
    ports = free_ports(["6379", "8000", "8080", "9108"])
    services = compose()["services"]
    ray = services["ray-head"]
    environment = {**os.environ, **ray["environment"], "RAY_AUTH_TOKEN_PATH": f"{place}/secrets/ray_token"}
    started: list[subprocess.Popen[bytes]] = []

    def start(words: list[str]) -> None:
        quiet = subprocess.DEVNULL
        started.append(subprocess.Popen(adapted(words, place, ports), env=environment, stdout=quiet, stderr=quiet))

    try:
        start([*ray["command"], "--num-cpus=1", "--include-dashboard=false"])
        assert waited(lambda: listens(ports["6379"]), 60)
        index = adapted(index_command(), place, ports)
        index[index.index("auto")] = f"127.0.0.1:{ports['6379']}"
        index += ["--layers", "_blocks.0", "--batch-size", "4", "--json"]
        done = subprocess.run(index, env=environment, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["images"] == 6
        api = [*entrypoint("api"), *services["api"]["command"]]
        start(api)
        server = f"http://127.0.0.1:{ports['8000']}"
        assert waited(lambda: answers(f"{server}/readyz"), 60)
        question = f"{server}/api/v1/atlases/atlas/layers/_blocks.0/units/3/patches?k=3"
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urlopen(question, timeout=10)
        with urlopen(Request(question, headers={"Authorization": f"Bearer {KEY}"}), timeout=10) as answer:
            assert len(json.load(answer)["rows"]) == 3
    finally:
        children = [child for process in started for child in psutil.Process(process.pid).children(recursive=True)]
        for process in started:
            process.terminate()
            process.wait(timeout=60)
        psutil.wait_procs(children, timeout=20)
