"""A server under everything at once: `python -m benchmarks.soak --minutes 10 --clients 50`, or `make soak`.

Clients ask for rows, pages, pictures, searches, uploads and jobs while the atlas grows and `gc` sweeps behind it, all
on this machine. Each answer with rows is compared with that of its version, which is opened beside the server. Wanted:
no 5xx, no wrong row, memory and descriptors within 5 % after the warm-up. It exits with 1 where that fails.
"""

import argparse
import json
import random
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import psutil

import unitscope
from benchmarks.report import print_table, save
from tests.networks import write_networks
from tests.pictures import blobs, write_corpus

UNITS, LAYER, K = 8, "conv@0", 20
API, PAGES = "/api/v1/atlases/grown", "/a/grown"
WARM_SHARE = 0.3
"""Share of the time after which memory and descriptors are expected to stay."""
GROW_EVERY_S, LOOK_EVERY_S, PICTURES_AT_ONCE = 20.0, 2.0, 4
FLAT = 0.05


class Growth:
    """The atlas that grows, with what each of its versions answers."""

    def __init__(self, folder: Path) -> None:
        self.corpus, self.atlas = folder / "corpus", folder / "grown"
        write_corpus(self.corpus, 40)
        self._network = write_networks(folder)
        self._count = 0
        self.right: dict[str, dict[int, list[tuple[str, float]]]] = {}
        self.grow()

    def grow(self) -> None:
        """Add pictures, seal a version, and note what it answers; the two newest stay."""
        for _ in range(PICTURES_AT_ONCE * bool(self._count)):
            self._count += 1
            blobs(1000 + self._count).save(self.corpus / "blobs" / f"new-{self._count:05d}.png")
        model = ["--model", f"file:{self._network}:twice", "--weights", "random:0", "--trust-code", "--workers", "1"]
        options = ["--layers", "conv@*", "--batch-size", "4", "--shard-size", "16", "--field-exemplars", "0"]
        self._run("index", str(self.corpus), "--atlas", str(self.atlas), *model, *options, "--progress", "none")
        self._count = self._count or 1
        opened = unitscope.open_atlas(str(self.atlas))
        self.right[opened.manifest.version] = {
            unit: [(row["image_id"], row["activation"]) for row in opened.top(f"{LAYER}:{unit}", k=K).to_pylist()]
            for unit in range(UNITS)
        }
        self._run("gc", str(self.atlas), "--keep", "2")

    def _run(self, *words: str) -> None:
        done = subprocess.run([sys.executable, "-m", "unitscope", *words], capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(done.stderr[-2000:])


class Tally:
    """What clients were answered; safe from any number of threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.statuses: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.rows: list[tuple[str, int, list[tuple[str, float]]]] = []
        self.slowest_s: dict[str, float] = {}

    def add(self, kind: str, status: int, seconds: float, body: bytes) -> None:
        """Count an answer; one of the server's own faults is kept in its words."""
        with self._lock:
            self.statuses[f"{kind} {status}"] += 1
            self.slowest_s[kind] = max(seconds, self.slowest_s.get(kind, 0.0))
            if status >= 500:
                self.faults[f"{kind} {status} {body[:200].decode(errors='replace')}"] += 1

    def fault(self, text: str) -> None:
        """Count what went wrong besides statuses."""
        with self._lock:
            self.faults[text] += 1

    def check_later(self, version: str, unit: int, rows: list[tuple[str, float]]) -> None:
        """Keep rows until their version's own are known."""
        with self._lock:
            self.rows.append((version, unit, rows))

    def wrong(self, right: dict[str, dict[int, list[tuple[str, float]]]]) -> tuple[int, int]:
        """Return how many answers with rows were checked, and how many were wrong."""
        checked = [(version, unit, rows) for version, unit, rows in self.rows if version in right]
        return len(checked), sum(right[version][unit] != rows for version, unit, rows in checked)


class Client:
    """One of the clients: it asks what chance says, on a connection of its own."""

    def __init__(self, port: int, tally: Tally, seed: int, picture: bytes) -> None:
        self.port, self.tally, self.chance, self.picture = port, tally, random.Random(seed), picture
        self.connection = HTTPConnection("127.0.0.1", port, timeout=120)
        self.images: list[str] = []

    def ask(self, kind: str, path: str, method: str = "GET", body: bytes | None = None, **headers: str) -> Any:
        """Return status, location and body of an answer."""
        started = time.monotonic()
        try:
            self.connection.request(
                method, path, body, {name.replace("_", "-"): text for name, text in headers.items()}
            )
            answer = self.connection.getresponse()
            content = answer.read()
        except (OSError, HTTPException) as error:
            self.tally.fault(f"{kind}: {type(error).__name__}")
            self.connection.close()
            return 0, "", b""
        self.tally.add(kind, answer.status, time.monotonic() - started, content)
        return answer.status, answer.headers.get("Location", ""), content

    def rows(self) -> None:
        """Ask for rows; they count for a version that was the newest before and after."""
        unit = self.chance.randrange(UNITS)
        versions, found = [], {}
        for path in (API, f"{API}/layers/{LAYER}/units/{unit}/patches?k={K}", API):
            status, _, body = self.ask("rows", path)
            if status != 200:
                return
            found = json.loads(body)
            if "rows" in found:
                rows = [(row["image_id"], row["activation"]) for row in found["rows"]]
            else:
                versions.append(found["version"])
        self.images = [image for image, _ in rows]
        if versions[0] == versions[1]:
            self.tally.check_later(versions[0], unit, rows)

    def pages(self) -> None:
        """Open a page of each kind."""
        unit = self.chance.randrange(UNITS)
        for path in ("/", PAGES, f"{PAGES}/layers/{LAYER}", f"{PAGES}/layers/{LAYER}/units/{unit}"):
            self.ask("page", path, Accept="text/html")

    def pictures(self) -> None:
        """Fetch pictures of images, patches and tiles."""
        for image in self.chance.sample(self.images, min(3, len(self.images))):
            self.ask("picture", f"{API}/images/{image}.jpg?width=64")
            self.ask("picture", f"{API}/patches/{image}.png?unit={LAYER}:{self.chance.randrange(UNITS)}")
        self.ask("picture", f"{API}/layers/{LAYER}/sprites/patch.webp")

    def questions(self) -> None:
        """Ask what a picture of the corpus excites, and what is near to it."""
        for image in self.images[:1]:
            for what in ("units", "neighbors", f"map?layer={LAYER}&unit=1"):
                self.ask("question", f"{API}/images/{image}/{what}")
        self.ask("question", f"{API}/layers/{LAYER}/units/{self.chance.randrange(UNITS)}/eigen?size=8&components=2")

    def uploads(self) -> None:
        """Send a picture, ask about it, and take it back."""
        status, place, _ = self.ask("upload", f"{API}/uploads", "POST", self.picture, Content_Type="image/png")
        if status == 201:
            self.ask("upload", f"{place}/units")
            self.ask("upload", f"{place}/neighbors")
            self.ask("upload", place, "DELETE")

    def jobs(self) -> None:
        """Start a job and look at it once."""
        units = [f"{LAYER}:{self.chance.randrange(UNITS)}"]
        query = {"kind": "project", "atlas": "grown", "units": units, "k": 1, "method": "gradient"}
        content = json.dumps(query).encode()
        status, place, _ = self.ask("job", "/api/v1/jobs", "POST", content, Content_Type="application/json")
        if status == 202:
            self.ask("job", place)

    def run(self, ends: float) -> None:
        """Ask until the time is over."""
        kinds: list[tuple[Callable[[], None], int]] = [
            (self.rows, 8), (self.pages, 3), (self.pictures, 4), (self.questions, 2), (self.uploads, 2), (self.jobs, 1)
        ]  # fmt: skip
        names, weights = zip(*kinds, strict=True)
        while time.monotonic() < ends:
            self.chance.choices(names, weights)[0]()


@contextmanager
def served(growth: Growth) -> Any:
    """A server of the atlas in a process of its own; gives the process and its port."""
    words = ["serve", str(growth.atlas), "--corpus", str(growth.corpus), "--port", "0", "--trust-code", "--preload"]
    log = growth.atlas.parent / "server.log"
    with log.open("w") as said, subprocess.Popen([sys.executable, "-m", "unitscope", *words], stderr=said) as server:
        while "serving on" not in log.read_text():
            time.sleep(0.1)
            if server.poll() is not None:
                raise RuntimeError(log.read_text())
        try:
            yield server, int(log.read_text().partition("127.0.0.1:")[2].partition("/")[0])
        finally:
            server.terminate()


def watch(process: psutil.Process, ends: float, samples: list[tuple[float, float, int]]) -> None:
    """Note time, megabytes and descriptors of the server until the time is over."""
    while time.monotonic() < ends:
        with suppress(psutil.Error):
            samples.append((time.monotonic(), process.memory_info().rss / 1e6, process.num_fds()))
        time.sleep(LOOK_EVERY_S)


def drift(values: list[float]) -> float:
    """Return by which share the last third of some values lies above the first, by medians."""
    third = max(1, len(values) // 3)
    first, last = sorted(values[:third])[third // 2], sorted(values[-third:])[third // 2]
    return last / first - 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=Path("build/soak"))
    options = parser.parse_args()
    shutil.rmtree(options.folder, ignore_errors=True)
    options.folder.mkdir(parents=True)
    growth, tally, samples = Growth(options.folder), Tally(), list[tuple[float, float, int]]()
    picture = options.folder / "upload.png"
    blobs(7).save(picture)
    with served(growth) as (server, port):
        started = time.monotonic()
        ends = started + 60 * options.minutes
        clients = [
            Client(port, tally, options.seed + number, picture.read_bytes()) for number in range(options.clients)
        ]
        threads = [threading.Thread(target=client.run, args=[ends]) for client in clients]
        threads.append(threading.Thread(target=watch, args=[psutil.Process(server.pid), ends, samples]))
        for thread in threads:
            thread.start()
        while time.monotonic() + GROW_EVERY_S < ends:
            time.sleep(GROW_EVERY_S)
            growth.grow()
        for thread in threads:
            thread.join()
    warm = [sample for sample in samples if sample[0] > started + WARM_SHARE * (ends - started)]
    checked, wrong = tally.wrong(growth.right)
    figures = {
        "minutes": options.minutes,
        "clients": options.clients,
        "answers": sum(tally.statuses.values()),
        "versions": len(growth.right),
        "answers with rows that were checked": checked,
        "wrong": wrong,
        "faults": sum(tally.faults.values()),
        "memory, MB": round(warm[-1][1], 1),
        "memory drift": round(drift([memory for _, memory, _ in warm]), 3),
        "descriptors": warm[-1][2],
        "descriptors drift": round(drift([float(count) for _, _, count in warm]), 3),
    }
    statuses = [{"answer": name, "count": count} for name, count in sorted(tally.statuses.items())]
    print_table("answers", statuses)
    print_table("slowest, s", [tally.slowest_s])
    print_table("soak", [{"figure": name, "value": value} for name, value in figures.items()])
    for fault, count in tally.faults.most_common(20):
        sys.stdout.write(f"{count} × {fault}\n")
    save("soak", {**figures, "statuses": dict(tally.statuses), "slowest_s": tally.slowest_s})
    is_flat = all(abs(float(figures[f"{what} drift"])) <= FLAT for what in ("memory", "descriptors"))
    if wrong or tally.faults or not checked or not is_flat:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
