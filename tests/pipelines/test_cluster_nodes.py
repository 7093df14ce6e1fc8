"""A running cluster of several nodes: killed, paused and joining ones while an index run goes on."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.nodes import Loopback, Nodes, finished, wait_for
from tests.tables import contents, difference

pytestmark = pytest.mark.long


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes]:
    started = Nodes(tmp_path, Loopback())
    yield started
    started.stop()


def test_a_run_survives_a_killed_and_a_paused_node_and_goes_on_with_one_that_joins(
    nodes: Nodes, tiny_corpus: Path, tiny_atlas: Path, tmp_path: Path
) -> None:
    atlas = tmp_path / "atlas"
    killed, paused = nodes.add(), nodes.add()
    run = nodes.index(tiny_corpus, atlas)
    wait_for(lambda: finished(atlas) >= 3, run)
    killed.send(signal.SIGKILL)
    paused.send(signal.SIGSTOP)
    before = finished(atlas)
    nodes.add()
    _, talk = run.communicate(timeout=240)
    assert run.returncode == 0, talk
    assert before < finished(atlas), "nothing was left for the node that joined"
    workers = [json.loads(line)["nodes"] for line in talk.splitlines() if '"scan"' in line][-1]
    assert sum(workers.values()) == 42
    assert len(workers) >= 2, workers
    assert difference(contents(tiny_atlas), contents(atlas)) == []
    assert not list(atlas.rglob("*.tmp"))
