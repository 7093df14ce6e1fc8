"""Workers of a cluster: each does its share on the GPU that it holds, and what one leaves undone another does."""

import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from unitscope_pipelines.cluster.resources import Resources, resources
from unitscope_pipelines.cluster.workers import _Crew, each
from unitscope_schemas.errors import UnitscopeError, UsageError

ON_CARDS = """
import json, os, sys, time
from pathlib import Path
import ray
from unitscope_pipelines.cluster.resources import resources
from unitscope_pipelines.cluster.workers import each

def make():
    def work(item):
        time.sleep(0.3)
        return os.getpid(), os.environ["CUDA_VISIBLE_DEVICES"], ray.get_gpu_ids()
    return work

ray.init("local", num_cpus=1, num_gpus=4, include_dashboard=False, log_to_driver=False, logging_level=40)
asked, seen, done = resources(int(sys.argv[1]), "auto"), set(), []

def until_all_have_begun():
    while len(seen) < asked.slots:
        yield 0
    yield from range(30 * asked.slots)

for one in each(make, until_all_have_begun(), asked):
    done = [*done, one.result] if len(seen) == asked.slots else []
    seen.add(one.result[0])
Path(sys.argv[2]).write_text(json.dumps([asked.slots, done]))
"""
"""A process with four pretended cards, which writes what each item saw once all workers had begun."""


def assert_that_cards_are_shared_evenly(count: int, slots: int, cards: int, folder: Path) -> None:
    found = folder / "found.json"
    subprocess.run([sys.executable, "-c", ON_CARDS, str(count), str(found)], timeout=500, check=True)
    asked, done = json.loads(found.read_text())
    assert asked == slots
    of_processes: dict[int, set[str]] = {}
    for process, visible, (card,) in done:
        assert visible == str(card), "the card that Ray gave is the one that torch sees"
        of_processes.setdefault(process, set()).add(visible)
    assert len(of_processes) == slots
    assert all(len(seen) == 1 for seen in of_processes.values()), "a worker keeps its card"
    shares = Counter(visible for _, visible, _ in done)
    assert len(shares) == cards
    assert max(shares.values()) <= 1.1 * len(done) / cards, shares
    assert min(shares.values()) >= 0.9 * len(done) / cards, shares


def test_two_workers_on_each_of_four_cards_do_as_much_on_each(tmp_path: Path) -> None:
    assert_that_cards_are_shared_evenly(8, 8, 4, tmp_path)


@pytest.mark.long
@pytest.mark.parametrize(("count", "slots", "cards"), [(1, 1, 1), (4, 4, 4), (6, 4, 4), (16, 16, 4)])
def test_cards_are_shared_evenly_by_any_count_of_workers(count: int, slots: int, cards: int, tmp_path: Path) -> None:
    assert_that_cards_are_shared_evenly(count, slots, cards, tmp_path)


def make_once(folder: Path, kill: bool) -> Callable[[int], int]:
    """A task that ends its process, or fails, when it meets item 7 for the first time."""

    def work(item: int) -> int:
        (folder / f"{item}-{time.monotonic_ns()}").touch()
        if item == 7 and len(list(folder.glob("7-*"))) == 1:
            if kill:
                os._exit(1)
            raise UnitscopeError("item 7 cannot be done")
        return item

    return work


@pytest.mark.usefixtures("ray_session")
def test_what_a_lost_worker_had_to_do_another_does(tmp_path: Path) -> None:
    done = [one.result for one in each(partial(make_once, tmp_path, True), range(50), Resources(0.5, 0, 2))]
    assert sorted(done) == list(range(50))
    assert len(list(tmp_path.glob("7-*"))) == 2


@pytest.mark.usefixtures("ray_session")
def test_an_error_of_a_task_is_raised_as_it_is_and_later_stages_run(tmp_path: Path) -> None:
    with pytest.raises(UnitscopeError, match="item 7 cannot be done"):
        list(each(partial(make_once, tmp_path, False), range(50), Resources(0.5, 0, 2)))
    assert sorted(one.result for one in each(lambda: abs, range(3), Resources(0.5, 0, 2))) == [0, 1, 2]


@pytest.mark.usefixtures("ray_session")
def test_items_that_no_worker_survives_end_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unitscope_pipelines.cluster.workers._RETRIES", 2)
    with pytest.raises(UnitscopeError, match=r"workers or nodes died 2 times over one item.*--workers"):
        list(each(lambda: os._exit, [3], Resources(1, 0, 1)))


@pytest.mark.usefixtures("ray_session")
def test_many_small_items_are_each_done_once() -> None:
    done = [one.result for one in each(lambda: abs, range(20_000), Resources(1, 0, 1))]
    assert sorted(done) == list(range(20_000))


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize(("seconds", "count"), [(None, 1), (0.0, 64), (0.001, 64), (0.1, 5), (0.4, 1), (9.0, 1)])
def test_small_items_go_several_at_a_time(seconds: float | None, count: int) -> None:
    crew: _Crew[int, int] = _Crew(lambda: abs, Resources(1, 0, 1), overlaps=False)
    crew._item_s = seconds
    assert crew._count == count


@pytest.mark.usefixtures("ray_session")
def test_a_person_is_told_once_what_a_run_waits_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("unitscope_pipelines.cluster.workers._TOLD_AFTER_S", 0.0)
    crew: _Crew[int, int] = _Crew(lambda: abs, Resources(1000, 0, 1), overlaps=False)
    try:
        for _ in range(2):
            crew.give(iter([1]))
            assert list(crew.wait()) == []
    finally:
        crew.end()
    (said,) = [record.getMessage() for record in caplog.records if record.name == "unitscope"]
    assert said.startswith("no worker has started yet: each takes 1000 of ")


@pytest.mark.usefixtures("ray_session")
def test_a_stage_that_is_left_early_leaves_no_work_behind() -> None:
    stage = each(lambda: time.sleep, [0.01] * 1000, Resources(1, 0, 1))
    next(stage)
    stage.close()
    assert [one.result for one in each(lambda: abs, [-3], Resources(1, 0, 1))] == [3]


@pytest.mark.usefixtures("ray_session")
def test_the_processes_of_a_stage_work_on_the_next_one() -> None:
    stages = [[one.result for one in each(lambda: lambda _: os.getpid(), range(30), Resources(1, 0, 1))] for _ in "ab"]
    assert len({*stages[0], *stages[1]}) == 1


def meeting() -> Callable[[int], bool]:
    """A task that waits for another call of itself in its process, and says whether there was one."""
    met = threading.Barrier(2)

    def work(_: int) -> bool:
        try:
            met.wait(timeout=5)
        except threading.BrokenBarrierError:
            return False
        return True

    return work


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize("overlaps", [True, False])
def test_two_calls_of_a_task_run_in_a_worker_at_a_time_where_it_overlaps(overlaps: bool) -> None:
    done = each(meeting, range(2), Resources(1, 0, 1), overlaps)
    assert [one.result for one in done] == [overlaps] * 2


@pytest.mark.usefixtures("ray_session")
def test_a_gpu_that_no_node_has_is_an_error_of_one_line() -> None:
    with pytest.raises(UsageError, match="no node of the cluster has a GPU; use --device cpu"):
        resources(None, "cuda")
    assert resources(None, "auto").gpus == resources(4, "cpu").gpus == 0
