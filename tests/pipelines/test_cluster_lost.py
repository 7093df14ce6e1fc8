"""A run's cluster is lost, by its head or on this machine: the run says so in time and goes on when started again."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.nodes import finished, is_worker, wait_for
from tests.processes import still_running
from tests.tables import contents, difference

pytestmark = [pytest.mark.long, pytest.mark.timeout(1200)]


def run_of(corpus: Path, atlas: Path) -> subprocess.Popen[str]:
    """A run of 40 shards of a second each: workers go on without a head, and a short run would be done before it is
    missed."""
    words = ["index", str(corpus), "--atlas", str(atlas), "--layers", "_blocks.0", "--batch-size", "64"]
    options = ["--shard-size", "1", "--workers", "1", "--progress", "json"]
    return subprocess.Popen([sys.executable, "-m", "unitscope", *words, *options], stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize(
    ("name", "words"),
    [("gcs_server", "the head of the Ray cluster"), ("raylet", "Ray's own process on this machine, the raylet")],
)
def test_a_run_that_loses_its_cluster_says_how_to_resume_within_half_a_minute(
    name: str, words: str, tiny_corpus: Path, tmp_path: Path
) -> None:
    atlas = tmp_path / "atlas"
    run = run_of(tiny_corpus, atlas)
    wait_for(lambda: finished(atlas) >= 1, run)
    children = psutil.Process(run.pid).children(recursive=True)
    workers = [child for child in children if is_worker(child)]
    (lost_process,) = (child for child in children if child.name() == name)
    lost_process.send_signal(signal.SIGKILL)
    lost = time.monotonic()
    _, talk = run.communicate(timeout=120)
    assert time.monotonic() - lost < 30
    assert run.returncode == 1
    assert words in talk
    assert "Resume with: unitscope index" in talk
    assert "Traceback" not in talk
    assert still_running(workers, 30) == []
    before = finished(atlas)
    again = run_of(tiny_corpus, atlas)
    _, talk = again.communicate(timeout=600)
    assert again.returncode == 0, talk
    assert before >= 1
    assert not list(atlas.rglob("*.tmp"))
    whole = run_of(tiny_corpus, tmp_path / "whole")
    whole.communicate(timeout=600)
    assert difference(contents(tmp_path / "whole"), contents(atlas)) == []


def test_workers_whose_run_is_killed_leave_quietly(tiny_corpus: Path, tmp_path: Path) -> None:
    atlas = tmp_path / "atlas"
    run = run_of(tiny_corpus, atlas)
    wait_for(lambda: finished(atlas) >= 1, run)
    children = psutil.Process(run.pid).children(recursive=True)
    agents = [child for child in children if "Agent" in " ".join(child.cmdline())]
    run.kill()
    _, talk = run.communicate(timeout=120)
    assert still_running([child for child in children if child not in agents], 30) == []
    assert still_running(agents, 120) == [], "Ray's own try for a minute to tell the head that is gone"
    assert "Traceback" not in talk
    assert "*** SIG" not in talk
