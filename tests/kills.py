"""Kills, counted: `python -m tests.kills --kills 200`, or `make kills`.

Small runs and servers lose workers, drivers, servers and heads at random moments. After each episode the atlas must
hold the rows and the files of an undisturbed run, with nothing beside them and no process left. What is done is kept in
a file: the same command goes on where it was, and an episode comes from the seed and its number alone.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil

from tests.networks import write_networks
from tests.nodes import Loopback, Nodes, is_worker
from tests.pictures import write_corpus
from tests.processes import still_running
from tests.tables import contents, difference

WEIGHTS = {"worker": 6, "driver": 3, "server": 3, "head": 1}
"""How often an episode of each kind comes; one of workers or of a server holds several kills."""
SHARDS_S, GONE_S, AGENTS_S, ANSWER_S, HEAD_S, RUN_S = 4.0, 30, 90, 60, 30, 300
"""Most time until a kill; until processes leave, and Ray's agents, which try for a minute to tell a head that
is gone; until a server answers, a run without its head ends, and a run ends."""
UNIT = "/api/v1/atlases/whole/layers/conv@0/units/3/patches?k=40"


@dataclass
class Episode:
    """One run or server, what was killed of it, and what was wrong afterwards."""

    number: int
    kind: str
    kills: int = 0
    seconds: float = 0.0
    faults: list[str] = field(default_factory=list)


class Place:
    """The pictures, the network, and the atlas of an undisturbed run."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.corpus, self.whole = folder, folder / "corpus", folder / "whole"
        self.network = write_networks(folder)
        if not self.corpus.exists():
            write_corpus(self.corpus, 24)
        subprocess.run(self.index(self.whole), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.rows, self.files = contents(self.whole), files_of(self.whole)

    def index(self, atlas: Path, *options: str) -> list[str]:
        """The command of a run of one picture to a shard."""
        model = ["--model", f"file:{self.network}:twice", "--weights", "random:0", "--trust-code", "--layers", "conv@*"]
        small = ["--shard-size", "1", "--batch-size", "4", "--field-exemplars", "0", "--progress", "json"]
        own = options or ("--workers", "2")
        words = ["index", str(self.corpus), "--atlas", str(atlas), *model, *small, *own]
        return [sys.executable, "-m", "unitscope", *words]

    def faults(self, atlas: Path) -> list[str]:
        """What an atlas has that an undisturbed one has not, or lacks."""
        found = [f"other rows: {name}" for name in difference(self.rows, contents(atlas))]
        return found + [f"a file too many or too few: {path}" for path in sorted(files_of(atlas) ^ self.files)]


def files_of(atlas: Path) -> set[str]:
    """The files of an atlas, which have the same names in every run."""
    return {str(path.relative_to(atlas)) for path in atlas.rglob("*") if path.is_file()}


def kill_workers(place: Place, atlas: Path, chance: random.Random) -> tuple[int, list[str]]:
    """A run that loses up to six workers and ends as if it had not."""
    wanted, killed = chance.randint(2, 6), 0
    with running(place.index(atlas)) as run:
        while killed < wanted and run.poll() is None:
            time.sleep(chance.uniform(0.1, 0.6))
            workers = [child for child in children(run.pid) if is_worker(child)]
            if workers:
                with suppress(psutil.NoSuchProcess):
                    chance.choice(workers).kill()
                    killed += 1
        faults = ended(run, RUN_S)
    return killed, faults or place.faults(atlas)


def kill_driver(place: Place, atlas: Path, chance: random.Random) -> tuple[int, list[str]]:
    """A run that is killed two times and then resumed; its own processes leave by themselves."""
    faults, agents = list[str](), list[psutil.Process]()
    for _ in range(2):
        with running(place.index(atlas)) as run:
            wait(lambda: bool(list(atlas.glob("receipts/*"))) or run.poll() is not None, RUN_S)
            time.sleep(chance.uniform(0, SHARDS_S))
            own = children(run.pid)
            agents += [child for child in own if "Agent" in words_of(child)]
            run.send_signal(signal.SIGKILL)
            run.wait()
            faults += left([child for child in own if child not in agents], GONE_S)
    faults = faults or resumed(place, atlas)
    return 2, faults + left(agents, AGENTS_S)


def kill_head(place: Place, atlas: Path, chance: random.Random) -> tuple[int, list[str]]:
    """A run whose cluster loses its head: it ends in time, and another one finishes it."""
    (atlas.parent / "nodes").mkdir(exist_ok=True)
    nodes = Nodes(atlas.parent / "nodes", Loopback())
    try:
        nodes.add()
        with running(place.index(atlas, "--address", nodes.address), nodes.environment) as run:
            wait(lambda: bool(list(atlas.glob("receipts/*"))) or run.poll() is not None, RUN_S)
            time.sleep(chance.uniform(0, SHARDS_S / 2))
            nodes.started[0].send(signal.SIGKILL)
            faults = [] if wait(lambda: run.poll() is not None, HEAD_S) else [f"the run goes on {HEAD_S} s later"]
    finally:
        nodes.stop()
    return 1, faults or resumed(place, atlas)


def kill_server(place: Place, atlas: Path, chance: random.Random) -> tuple[int, list[str]]:
    """A server of two processes that loses four of them and then its parent, while it is asked."""
    words = ["serve", str(place.whole), "--corpus", str(place.corpus), "--port", "0", "--workers", "2", "--trust-code"]
    with running([sys.executable, "-m", "unitscope", *words], talk=True) as server:
        assert server.stderr is not None
        root = next(line for line in server.stderr if "serving on" in line).split()[2].rstrip("/")
        right, killed, faults = answer_of(root), 0, list[str]()
        for _ in range(4):
            time.sleep(chance.uniform(0, 1))
            workers = [child for child in children(server.pid) if "spawn_main" in words_of(child)]
            if workers:
                chance.choice(workers).kill()
                killed += 1
            answer = answer_of(root)
            if answer is None:
                faults.append(f"no answer {ANSWER_S} s after a process was killed")
            elif answer != right:
                faults.append("another answer after a process was killed")
        own = children(server.pid)
        server.kill()
        server.wait()
        faults += left(own, GONE_S)
    return killed + 1, faults + place.faults(place.whole)


KINDS: dict[str, Callable[[Place, Path, random.Random], tuple[int, list[str]]]] = {
    "worker": kill_workers,
    "driver": kill_driver,
    "server": kill_server,
    "head": kill_head,
}


@contextmanager
def running(
    words: list[str], environment: dict[str, str] | None = None, talk: bool = False
) -> Iterator[subprocess.Popen[str]]:
    """A command, which is ended with all its processes."""
    quiet = subprocess.DEVNULL
    environment = environment or {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        words, env=environment, stdout=quiet, stderr=subprocess.PIPE if talk else quiet, text=True
    )
    own: list[psutil.Process] = []
    try:
        yield process
    finally:
        own += children(process.pid)
        process.kill()
        process.communicate()
        for child in own:
            with suppress(psutil.NoSuchProcess):
                child.kill()


def children(pid: int) -> list[psutil.Process]:
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).children(recursive=True)
    return []


def left(processes: list[psutil.Process], seconds: float) -> list[str]:
    """The processes that are still there when they should have left."""
    alive = still_running(processes, seconds)
    return [f"a process is left after {seconds} s: {name[:120]}" for name in map(words_of, alive) if name]


def words_of(process: psutil.Process) -> str:
    """The command of a process; empty if it has ended."""
    with suppress(psutil.NoSuchProcess):
        return " ".join(process.cmdline())
    return ""


def wait(true: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def ended(run: subprocess.Popen[str], seconds: float) -> list[str]:
    with suppress(subprocess.TimeoutExpired):
        return [] if run.wait(seconds) == 0 else [f"the run ended with {run.returncode}"]
    return [f"the run did not end in {seconds} s"]


def resumed(place: Place, atlas: Path) -> list[str]:
    with running(place.index(atlas)) as run:
        faults = ended(run, RUN_S)
    return faults or place.faults(atlas)


def answer_of(root: str) -> Any:
    """The rows of a unit from a server that may just start; None if it takes too long."""
    started, answer = time.monotonic(), ask(root)
    while answer is None and time.monotonic() - started < ANSWER_S:
        time.sleep(0.2)
        answer = ask(root)
    return answer


def ask(root: str) -> Any:
    """The rows of a unit, None where the connection is lost: that of a process that was killed."""
    request = urllib.request.Request(root + UNIT, headers={"Connection": "close"})
    with suppress(OSError, ValueError), urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)["rows"]
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200, help="so many in all, with those of runs before")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--folder", type=Path, default=Path("build/kills"))
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    kinds = options.kinds.split(",")
    log = options.folder / f"episodes-{options.seed}.jsonl"
    done = [Episode(**json.loads(line)) for line in log.read_text().splitlines()] if log.exists() else []
    place = Place(options.folder)
    while sum(episode.kills for episode in done) < options.kills:
        number = len(done)
        chance = random.Random(f"{options.seed}-{number}")
        episode = Episode(number, chance.choices(kinds, [WEIGHTS[kind] for kind in kinds])[0])
        atlas, started = options.folder / f"atlas-{number}", time.monotonic()
        shutil.rmtree(atlas, ignore_errors=True)
        episode.kills, episode.faults = KINDS[episode.kind](place, atlas, chance)
        episode.seconds = round(time.monotonic() - started, 1)
        with log.open("a") as file:
            file.write(json.dumps(asdict(episode)) + "\n")
        if not episode.faults:
            shutil.rmtree(atlas, ignore_errors=True)
        done.append(episode)
        sys.stderr.write(f"{asdict(episode)}\n")
    (options.folder / "kills.json").write_text(json.dumps([asdict(episode) for episode in done], indent=1))
    table = summary(done)
    (options.folder / "kills.md").write_text(table)
    sys.stdout.write(table)
    if any(episode.faults for episode in done):
        raise SystemExit(1)


def summary(done: list[Episode]) -> str:
    """A table of the kinds: episodes, kills, the longest, and faults."""
    kills, runs = Counter[str](), Counter[str]()
    for episode in done:
        kills[episode.kind] += episode.kills
        runs[episode.kind] += 1
    lines = ["| killed | runs | kills | longest, s | faults |", "|---|---|---|---|---|"]
    for kind in sorted(runs):
        own = [episode for episode in done if episode.kind == kind]
        longest, faults = max(episode.seconds for episode in own), sum(len(episode.faults) for episode in own)
        lines.append(f"| {kind} | {runs[kind]} | {kills[kind]} | {longest:g} | {faults} |")
    lines.append(f"| all | {len(done)} | {sum(kills.values())} | | {sum(len(episode.faults) for episode in done)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
