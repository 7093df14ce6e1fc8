"""The decode stage on the same cores: shards in our own workers, or blocks streamed by Ray Data.

    OMP_NUM_THREADS=1 python -m benchmarks.decode --pictures 1024

Both read, decode and prepare the same pictures into batches, in rounds that take turns, in one Ray session; ratios are
medians over rounds. A worker of ours decodes where its forward would run, so that a picture never leaves its process;
Ray Data's tasks hand decoded blocks through the object store to whoever runs the forward, here this process. Memory is
what all processes of the session hold together, shared pages counted once, above what they held before.
"""

import argparse
import os
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import ray
import ray.data
from numpy.typing import NDArray

from benchmarks.pictures import write_pictures
from benchmarks.report import print_table, save
from unitscope_pipelines.cluster.resources import resources
from unitscope_pipelines.cluster.session import connected
from unitscope_pipelines.cluster.workers import each
from unitscope_pipelines.vision.images.preprocessing import prepare
from unitscope_pipelines.vision.models.models import load_model
from unitscope_schemas.entries.model import DEFAULT_SPEC, Preprocessing

BATCH, SHARD = 32, 64
_SAMPLED_S = 0.25


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=Path("build/bench"))
    asked = parser.parse_args()
    corpus = write_pictures(asked.folder / f"pictures-{asked.pictures}", asked.pictures)
    paths = [str(path.absolute()) for path in sorted(corpus.rglob("*.jpg"))][: asked.pictures]
    looked = load_model(DEFAULT_SPEC, "default", (), False).preprocessing
    contestants: dict[str, Callable[[], int]] = {
        "one process": lambda: decoded(paths, looked),
        "own workers": partial(by_workers, paths, looked),
        "Ray Data": partial(by_ray_data, paths, looked),
    }
    rates: dict[str, list[float]] = {name: [] for name in contestants}
    memory: dict[str, list[int]] = {name: [] for name in contestants}
    with connected(None):
        for turn in range(asked.rounds + 1):
            sums = set()
            for name, run in contestants.items():
                watch = Watch()
                started = time.perf_counter()
                sums.add(run())
                seconds = time.perf_counter() - started
                held = watch.stop()
                if turn:  # the first round starts processes
                    rates[name].append(len(paths) / seconds)
                    memory[name].append(held)
            assert len(sums) == 1, "all make the same pictures"
        cores = resources(None, "cpu").slots
    rows = [
        {"decoding by": name, "images per s": statistics.median(rates[name]), "peak MB": max(memory[name]) / 1e6}
        for name in contestants
    ]
    ratios = {
        "own workers / Ray Data, images per s": _ratio(rates["own workers"], rates["Ray Data"]),
        f"own workers / {cores} × one process": _ratio(rates["own workers"], rates["one process"]) / cores,
        f"Ray Data / {cores} × one process": _ratio(rates["Ray Data"], rates["one process"]) / cores,
        "peak memory, own workers / Ray Data": max(memory["own workers"]) / max(memory["Ray Data"]),
    }
    found = [{"ratio": name, "found": value} for name, value in ratios.items()]
    print_table(f"Decoding {len(paths)} pictures on {cores} cores", rows)
    print_table("Ratios, medians over rounds", found)
    save("decode", {"pictures": len(paths), "used_cores": cores, "rates": rows, "ratios": found})


def decoded(paths: Sequence[str], looked: Preprocessing) -> int:
    """Make batches of some pictures here; the sum of their pixels, so that nobody leaves one out."""
    total = 0
    for first in range(0, len(paths), BATCH):
        total += int(batch(paths[first : first + BATCH], looked).sum(dtype=np.int64))
    return total


def batch(paths: Sequence[str], looked: Preprocessing) -> NDArray[np.uint8]:
    """What a forward takes: image × channel × row × column."""
    return np.stack([prepare(Path(path).read_bytes(), looked).pixels.numpy() for path in paths])


class Decoder:
    """A worker of ours, which a forward would follow."""

    def __init__(self, looked: Preprocessing) -> None:
        self.looked = looked

    def __call__(self, shard: list[str]) -> int:
        return decoded(shard, self.looked)


def by_workers(paths: Sequence[str], looked: Preprocessing) -> int:
    """Shards to as many workers as there are cores."""
    shards = [list(paths[first : first + SHARD]) for first in range(0, len(paths), SHARD)]
    return sum(done.result for done in each(partial(Decoder, looked), shards, resources(None, "cpu")))


def by_ray_data(paths: Sequence[str], looked: Preprocessing) -> int:
    """Blocks of one batch each, in a stream that this process takes in."""
    ray.data.DataContext.get_current().enable_progress_bars = False
    listed = ray.data.from_items([{"path": path} for path in paths], override_num_blocks=-(-len(paths) // BATCH))

    def decode(rows: dict[str, NDArray[Any]]) -> dict[str, NDArray[np.uint8]]:
        return {"pixels": batch(rows["path"].tolist(), looked)}

    stream = listed.map_batches(decode, batch_size=BATCH).iter_batches(batch_size=BATCH, batch_format="numpy")
    return sum(int(taken["pixels"].sum(dtype=np.int64)) for taken in stream)


class Watch:
    """Keeps the peak of what this process and those below it hold together, from now on."""

    def __init__(self) -> None:
        self._before = self._peak = _held_bytes()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def stop(self) -> int:
        """Bytes above those at the start."""
        self._stopped.set()
        self._thread.join()
        return max(self._peak, _held_bytes()) - self._before

    def _look(self) -> None:
        while not self._stopped.wait(_SAMPLED_S):
            self._peak = max(self._peak, _held_bytes())


def _held_bytes() -> int:
    """Of this process and all below it; a page that several share counts once (PSS of Linux)."""
    total = 0
    for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        try:
            total += process.memory_full_info().pss
        except (psutil.Error, OSError):
            continue
    return total


def _ratio(some: Sequence[float], others: Sequence[float]) -> float:
    return statistics.median(one / other for one, other in zip(some, others, strict=True))


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
