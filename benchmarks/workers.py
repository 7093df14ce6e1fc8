"""Scans by Ray workers: does memory stay flat while the corpus grows, and do two workers scan twice as fast as one?

python -m benchmarks.workers --pictures 256
"""

import argparse
import os
import shutil
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.pictures import write_pictures
from benchmarks.report import print_table, save
from unitscope_pipelines.indexing.config import IndexConfig
from unitscope_pipelines.indexing.index import index
from unitscope_schemas.progress import Progress

TARGETS = {"memory at 16 × the pictures / at 1 ×": 1.1, "rate of two workers / of one": 1.8}
_SAMPLED_S = 0.2
_SHARD_SIZE = 64


@dataclass(frozen=True)
class Run:
    """One index run: images per second between the first shards and the last, and the largest worker's peak memory."""

    pictures: int
    workers: int
    images_per_s: float
    peak_bytes: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=256)
    parser.add_argument("--folder", type=Path, default=Path("build/bench"))
    asked = parser.parse_args()
    if asked.pictures < 2 * _SHARD_SIZE:
        parser.error(f"--pictures: at least {2 * _SHARD_SIZE}, or the rate is that of too few shards")
    cores = len(os.sched_getaffinity(0))
    growing = [scan(asked.folder, times * asked.pictures, cores) for times in (1, 4, 16)]
    parallel = [scan(asked.folder, 4 * asked.pictures, workers) for workers in (1, 2, *([cores] if cores > 2 else []))]
    found = {
        "memory at 16 × the pictures / at 1 ×": growing[2].peak_bytes / growing[0].peak_bytes,
        "rate of two workers / of one": parallel[1].images_per_s / parallel[0].images_per_s,
    }
    runs = [vars(run) for run in (*growing, *parallel)]
    ratios = [{"ratio": name, "found": value, "wanted": TARGETS[name]} for name, value in found.items()]
    print_table("Index runs", runs)
    print_table("Ratios", ratios)
    save("workers", {"runs": runs, "ratios": ratios})


def scan(folder: Path, pictures: int, workers: int) -> Run:
    """Index from nothing and watch; rates leave out the workers' start."""
    corpus, atlas = write_pictures(folder / f"pictures-{pictures}", pictures), folder / "workers-atlas"
    shutil.rmtree(atlas, ignore_errors=True)
    done: list[tuple[float, int]] = []
    peak, finished = [0], threading.Event()

    def report(progress: Progress) -> None:
        if progress.stage == "scan" and progress.done:
            done.append((time.perf_counter(), progress.done))

    watcher = threading.Thread(target=_watch, args=(peak, finished))
    watcher.start()
    index(IndexConfig(corpus=str(corpus), atlas=str(atlas), workers=workers, shard_size=_SHARD_SIZE), report)
    finished.set()
    watcher.join()
    (started, before), (ended, after) = done[workers - 1], done[-1]
    return Run(pictures, workers, (after - before) / (ended - started), peak[0])


def _watch(peak: list[int], finished: threading.Event) -> None:
    """Keep the largest peak of any worker process."""
    while not finished.wait(_SAMPLED_S):
        for child in psutil.Process().children(recursive=True):
            try:
                if any(word.startswith("ray::") for word in child.cmdline()):
                    status = Path(f"/proc/{child.pid}/status").read_text()
                    peak[0] = max(peak[0], int(status.partition("VmHWM:")[2].split()[0]) * 1024)
            except (psutil.Error, OSError, IndexError):
                continue


if __name__ == "__main__":
    main()
