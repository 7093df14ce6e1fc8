"""Runs whose driver or workers are killed at random moments end with the rows of an undisturbed run."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.conftest import TINY_LAYERS
from tests.nodes import is_worker
from tests.tables import contents, difference
from unitscope_schemas.errors import NotFoundError
from unitscope_services.atlas.atlas import Atlas

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

OFTEN = pytest.mark.parametrize("times", [pytest.param(times, marks=pytest.mark.long) for times in (1, 10)])


def command(corpus: Path, atlas: Path) -> list[str]:
    layers = [option for layer in TINY_LAYERS for option in ("--layers", layer)]
    return [
        *(sys.executable, "-m", "unitscope", "index", str(corpus), "--atlas", str(atlas), *layers),
        *("--batch-size", "8", "--shard-size", "5", "--workers", "2", "--progress", "json"),
    ]


def reaches_scan(process: subprocess.Popen[str]) -> bool:
    """Wait until the run begins to scan; False if it ended before."""
    assert process.stderr is not None
    return any('"scan"' in line for line in process.stderr)


@OFTEN
def test_a_killed_driver_resumes_to_the_same_rows(
    times: int, tiny_corpus: Path, tiny_atlas: Path, tmp_path: Path
) -> None:
    atlas, chance = tmp_path / "atlas", random.Random(11)
    receipts = [0]
    for _ in range(times):
        process = subprocess.Popen(command(tiny_corpus, atlas), stderr=subprocess.PIPE, text=True)
        if reaches_scan(process):
            time.sleep(chance.uniform(1, 30 / times))
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert process.stderr is not None
        process.stderr.close()
        receipts.append(len(list((atlas / "receipts").glob("*.json"))))
        if not (atlas / "manifest.json").exists():
            with pytest.raises(NotFoundError):
                Atlas(atlas)
    assert receipts == sorted(receipts), "a finished shard stays finished"
    subprocess.run(command(tiny_corpus, atlas), check=True)
    assert difference(contents(tiny_atlas), contents(atlas)) == []


@OFTEN
def test_killed_workers_are_replaced_without_a_trace(
    times: int, tiny_corpus: Path, tiny_atlas: Path, tmp_path: Path
) -> None:
    atlas, chance = tmp_path / "atlas", random.Random(12)
    process = subprocess.Popen(command(tiny_corpus, atlas), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert reaches_scan(process)
    killed = 0
    while killed < times and process.poll() is None:
        time.sleep(chance.uniform(0.2, 1.5))
        workers = [child for child in psutil.Process(process.pid).children(recursive=True) if is_worker(child)]
        if workers:
            chance.choice(workers).kill()
            killed += 1
    _, talk = process.communicate(timeout=300)
    assert process.returncode == 0, talk
    assert killed == times
    assert difference(contents(tiny_atlas), contents(atlas)) == []
