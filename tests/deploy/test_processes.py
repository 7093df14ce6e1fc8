"""The processes that the images run, as they run them, without containers."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from urllib.request import Request, urlopen

import boto3
import psutil
import pytest
from moto.server import ThreadedMotoServer

from tests.deploy.files import ROOT, compose, entrypoint, index_command
from tests.pictures import write_corpus
from tests.processes import still_running

KEY = "the key of a reader"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """What compose mounts: an empty store of atlases, and secrets."""
    (tmp_path / "atlases").mkdir()
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "ray_token").write_text("0123456789abcdef" * 4)
    digest = subprocess.run(["sha256sum"], input=KEY, capture_output=True, text=True, check=True).stdout.split()[0]
    (tmp_path / "secrets" / "api_keys").write_text(f"reader read {digest}\nmetrics admin {digest}\n")
    (tmp_path / "secrets" / "api_keys").chmod(0o600)
    (tmp_path / "secrets" / "metrics_key").write_text(KEY)
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


@pytest.fixture
def store(tmp_path: Path) -> Iterator[dict[str, str]]:
    """An object store with the bucket `corpus` of six pictures; gives the environment of its users."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    address = "http://{}:{}".format(*server.get_host_and_port())
    environment = {
        "AWS_ENDPOINT_URL": address,
        "AWS_ACCESS_KEY_ID": "someone",
        "AWS_SECRET_ACCESS_KEY": "something",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    client = boto3.client(
        "s3",
        endpoint_url=address,
        aws_access_key_id="someone",
        aws_secret_access_key="something",
        region_name="us-east-1",
    )
    client.create_bucket(Bucket="corpus")
    corpus = write_corpus(tmp_path / "pictures", 6)
    for path in corpus.rglob("*.*"):
        client.upload_file(str(path), "corpus", f"photos/{path.relative_to(corpus)}")
    yield environment
    server.stop()


class Processes:
    """What containers would run: started one after the other, stopped together."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.environment = environment
        self._started: list[subprocess.Popen[bytes]] = []

    def start(self, words: list[str]) -> None:
        quiet = subprocess.DEVNULL
        self._started.append(subprocess.Popen(words, env=self.environment, stdout=quiet, stderr=quiet))

    def stop(self) -> None:
        children = [
            child for process in self._started for child in psutil.Process(process.pid).children(recursive=True)
        ]
        for process in reversed(self._started):
            process.terminate()
            process.wait(timeout=60)
        still_running(children, 20)


@pytest.fixture
def processes(place: Path, store: dict[str, str]) -> Iterator[Processes]:
    ray = compose()["services"]["ray-head"]["environment"]
    token = {"RAY_AUTH_TOKEN_PATH": f"{place}/secrets/ray_token"}
    started = Processes({**os.environ, **store, **ray, **token})
    yield started
    started.stop()


@pytest.mark.long
def test_the_deployed_commands_index_from_an_object_store_answer_and_are_watched(
    place: Path, processes: Processes
) -> None:
    ports = free_ports(["6379", "8000", "8080", "9108", "9090"])
    services = compose()["services"]
    processes.start([*adapted(services["ray-head"]["command"], place, ports), "--num-cpus=0"])
    assert waited(lambda: listens(ports["6379"]), 60)
    for number in (2, 3):
        worker = [word.replace("ray-head", "127.0.0.1") for word in services["ray-worker"]["command"]]
        own = ["--num-cpus=1", f"--node-ip-address=127.0.0.{number}"]
        processes.start([*adapted(worker, place, ports), *own])
        assert waited(partial(has_workers, processes, ports["6379"], number - 1), 90), "a worker did not join"
    watched = shutil.which("prometheus")
    if watched:
        processes.start(prometheus(watched, place, ports))
        assert waited(lambda: listens(ports["9090"]), 60)
    index = adapted(index_command(), place, ports)
    index[index.index("auto")] = f"127.0.0.1:{ports['6379']}"
    index[index.index(f"{place}/corpus")] = "s3://corpus/photos"
    index += ["--layers", "_blocks.0", "--batch-size", "4", "--shard-size", "1", "--json"]
    done = subprocess.run(index, env=processes.environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["images"] == 6
    serve = adapted([*entrypoint("api"), *services["api"]["command"]], place, ports)
    processes.start(["s3://corpus/photos" if word == f"{place}/corpus" else word for word in serve])
    server = f"http://127.0.0.1:{ports['8000']}"
    assert waited(lambda: answers(f"{server}/readyz"), 60)
    question = f"{server}/api/v1/atlases/atlas/layers/_blocks.0/units/3/patches?k=3"
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urlopen(question, timeout=10)
    with urlopen(Request(question, headers={"Authorization": f"Bearer {KEY}"}), timeout=10) as answer:
        rows = json.load(answer)["rows"]
    assert len(rows) == 3
    picture = f"{server}/api/v1/atlases/atlas/images/{rows[0]['image_id']}.jpg"
    with urlopen(Request(picture, headers={"Authorization": f"Bearer {KEY}"}), timeout=10) as answer:
        assert answer.headers["Content-Type"] == "image/jpeg"
    if not watched:
        pytest.skip("prometheus is not installed: all but its scraping was seen")
    for said in ('up{job="unitscope-api"} == 1', "max_over_time(unitscope_index_files_total[10m]) > 0"):
        assert waited(lambda said=said: bool(asked(ports, said)), 30), said  # type: ignore[misc]


def has_workers(processes: Processes, port: int, count: int) -> bool:
    """Whether so many nodes of one processor have joined."""
    code = (
        f"import ray; ray.init('127.0.0.1:{port}', log_to_driver=False); print(ray.cluster_resources().get('CPU', 0))"
    )
    words = [sys.executable, "-c", code]
    found = subprocess.run(words, env=processes.environment, capture_output=True, text=True, check=False)
    return float(found.stdout or 0) == count


def prometheus(program: str, place: Path, ports: dict[str, int]) -> list[str]:
    """How its container starts it, every second here, with the targets of this machine."""
    text = (ROOT / "deploy/prometheus/prometheus.yml").read_text().replace("15s", "1s")
    text = text.replace("/run/secrets", f"{place}/secrets")
    text = re.sub(r'"[a-z-]+:(\d+)"', lambda found: f'"127.0.0.1:{ports[found[1]]}"', text)
    (place / "prometheus.yml").write_text(text)
    options = [f"--config.file={place}/prometheus.yml", f"--storage.tsdb.path={place}/watched"]
    return [program, *options, f"--web.listen-address=127.0.0.1:{ports['9090']}"]


def asked(ports: dict[str, int], question: str) -> list[object]:
    """What Prometheus answers now."""
    address = f"http://127.0.0.1:{ports['9090']}/api/v1/query?{urllib.parse.urlencode({'query': question})}"
    with urlopen(address, timeout=5) as answer:
        found: list[object] = json.load(answer)["data"]["result"]
        return found
