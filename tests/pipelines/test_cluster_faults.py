"""Ten random faults of each kind, on three nodes: the sealed tables are those of an undisturbed run on one."""

import random
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.nodes import Loopback, Namespaces, Node, Nodes, finished, wait_for
from tests.tables import contents, difference

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]

TIMES = 10


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    network = Namespaces() if Namespaces.allowed() else Loopback()
    started = Nodes(tmp_path_factory.mktemp("nodes"), network)
    yield started
    started.stop()


@pytest.fixture(scope="module")
def pair(nodes: Nodes) -> list[Node]:
    """The two nodes that work; one that is lost is replaced."""
    return [nodes.add(), nodes.add()]


def disturbed(nodes: Nodes, pair: list[Node], corpus: Path, atlas: Path, fault: Callable[[Node], None]) -> None:
    """Run, lose one node at a random moment, and go on with one that joins."""
    chance = random.Random(str(atlas))
    run = nodes.index(corpus, atlas)
    enough = chance.randint(1, 25)
    wait_for(partial(reached, atlas, enough), run)
    time.sleep(chance.uniform(0, 0.5))
    lost = chance.randrange(2)
    fault(pair[lost])
    before = finished(atlas)
    gone, pair[lost] = pair[lost], nodes.add()
    _, talk = run.communicate(timeout=300)
    assert run.returncode == 0, talk
    assert before < finished(atlas), "the fault came after the last shard"
    gone.send(signal.SIGCONT)
    gone.send(signal.SIGKILL)
    gone.process.wait()
    assert not list(atlas.rglob("*.tmp"))


@pytest.mark.parametrize("time_", range(TIMES))
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "paused"])
def test_a_node_is_lost(
    nodes: Nodes,
    pair: list[Node],
    number: signal.Signals,
    time_: int,
    tiny_corpus: Path,
    tiny_atlas: Path,
    tmp_path: Path,
) -> None:
    disturbed(nodes, pair, tiny_corpus, tmp_path / "atlas", lambda node: node.send(number))
    assert difference(contents(tiny_atlas), contents(tmp_path / "atlas")) == []


@pytest.mark.skipif(not Namespaces.allowed(), reason="this machine lets its user make no network namespaces")
@pytest.mark.parametrize("time_", range(TIMES))
def test_a_network_is_cut(
    nodes: Nodes, pair: list[Node], time_: int, tiny_corpus: Path, tiny_atlas: Path, tmp_path: Path
) -> None:
    network = nodes.network
    assert isinstance(network, Namespaces)
    disturbed(nodes, pair, tiny_corpus, tmp_path / "atlas", lambda node: network.cut(node.number))
    assert difference(contents(tiny_atlas), contents(tmp_path / "atlas")) == []


def test_the_driver_is_killed_ten_times(
    nodes: Nodes, pair: list[Node], tiny_corpus: Path, tiny_atlas: Path, tmp_path: Path
) -> None:
    atlas, chance = tmp_path / "atlas", random.Random(14)
    done = [0]
    for _ in range(TIMES):
        run = nodes.index(tiny_corpus, atlas)
        enough = min(38, done[-1] + chance.randint(1, 4))
        wait_for(partial(reached, atlas, enough), run)
        run.kill()
        run.communicate()
        assert not (atlas / "manifest.json").exists()
        end = time.monotonic() + 60
        while any(node.workers() for node in pair):
            assert time.monotonic() < end, "a worker outlived its driver"
            time.sleep(0.2)
        done.append(finished(atlas))
    assert done == sorted(done), "a finished shard stays finished"
    run = nodes.index(tiny_corpus, atlas)
    _, talk = run.communicate(timeout=300)
    assert run.returncode == 0, talk
    assert difference(contents(tiny_atlas), contents(atlas)) == []
    assert not list(atlas.rglob("*.tmp"))


def reached(atlas: Path, count: int) -> bool:
    return finished(atlas) >= count
