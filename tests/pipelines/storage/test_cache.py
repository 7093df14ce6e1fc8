"""The cache of parts keeps its bound, what is used, and what is in use; processes share it."""

import hashlib
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import IO

import pytest

from unitscope_pipelines.storage.cache import Cache
from unitscope_schemas.entries.part import Part
from unitscope_schemas.errors import AtlasError, StorageError, UsageError

SIZE = 1000


def content(number: int) -> bytes:
    return bytes([number]) * SIZE


def part(number: int) -> Part:
    digest = hashlib.sha256(content(number)).hexdigest()
    return Part(path=f"peaks/{number}.parquet", rows=1, size_bytes=SIZE, sha256=digest)


def fetch(number: int, log: list[int] | None = None) -> Callable[[IO[bytes]], None]:
    def write(file: IO[bytes]) -> None:
        if log is not None:
            log.append(number)
        file.write(content(number))

    return write


def held_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir() if len(path.name) == 64)


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path, 10 * SIZE)


def test_a_part_is_fetched_once_and_the_one_used_longest_ago_goes_first(cache: Cache) -> None:
    log: list[int] = []
    for number in range(30):
        for wanted in (0, number):
            with cache.hold(part(wanted), fetch(wanted, log)) as file:
                assert file.read_bytes() == content(wanted)
        assert held_bytes(cache.folder) <= cache.limit_bytes
    assert log == list(range(30)), "what is asked for again and again stays"
    with cache.hold(part(29), fetch(29, log)), cache.hold(part(3), fetch(3, log)):
        assert log[30:] == [3]


def test_what_is_in_use_is_never_deleted_and_the_bound_is_kept(cache: Cache) -> None:
    held = [cache.hold(part(number), fetch(number)) for number in range(10)]
    with pytest.raises(StorageError, match=r"has no room for peaks/10\.parquet .* UNITSCOPE_CACHE_GB"):
        cache.hold(part(10), fetch(10))
    assert [one.path.read_bytes() for one in held] == [content(number) for number in range(10)]
    with held.pop(4):
        pass
    with cache.hold(part(10), fetch(10)) as file:
        assert file.read_bytes() == content(10)
    assert not (cache.folder / part(4).sha256).exists()
    assert held_bytes(cache.folder) == 10 * SIZE
    assert all(one.path.exists() for one in held)


def test_parts_that_do_not_fit_together_are_refused_before_they_are_fetched(cache: Cache) -> None:
    cache.check_room([part(number) for number in range(10)])
    with pytest.raises(StorageError, match="UNITSCOPE_CACHE_GB to 1 or more everywhere, and run again to resume"):
        cache.check_room([part(number) for number in range(11)])


def test_what_is_not_held_any_more_lets_go_by_itself(cache: Cache) -> None:
    held = [cache.hold(part(number), fetch(number)) for number in range(10)]
    held.clear()
    assert cache.hold(part(10), fetch(10)).path.exists()


def test_bytes_that_are_not_those_that_were_sealed_are_refused_and_not_kept(cache: Cache) -> None:
    with pytest.raises(AtlasError, match=r"part peaks/1\.parquet is damaged"):
        cache.hold(part(1), fetch(2))
    assert [path.name for path in cache.folder.iterdir()] == ["bytes"]
    assert cache.hold(part(1), fetch(1)).path.read_bytes() == content(1)


def test_a_fetch_that_fails_leaves_nothing_and_can_be_repeated(cache: Cache) -> None:
    def cut(file: IO[bytes]) -> None:
        file.write(b"half")
        raise ConnectionError("cut")

    with pytest.raises(StorageError, match="cut"):
        cache.hold(part(1), cut)
    assert [path.name for path in cache.folder.iterdir()] == ["bytes"]
    assert cache.hold(part(1), fetch(1)).path.read_bytes() == content(1)


def test_leftovers_of_killed_processes_make_room_and_files_of_others_stay(cache: Cache) -> None:
    (cache.folder / f"{part(99).sha256}.arriving").write_bytes(b"x" * 6 * SIZE)
    (cache.folder / f"{'0' * 32}.writing").mkdir()
    (cache.folder / f"{'0' * 32}.writing" / "part").write_bytes(b"x")
    (cache.folder / "holiday.jpg").write_bytes(b"x" * 20 * SIZE)
    with cache.writing() as file:
        file.write_bytes(b"being written")
        for number in range(12):
            with cache.hold(part(number), fetch(number)):
                pass
        assert file.read_bytes() == b"being written"
    left = {path.name for path in cache.folder.iterdir() if len(path.name) != 64}
    assert left == {"bytes", "holiday.jpg"}


def test_a_part_that_was_written_here_need_not_be_fetched(cache: Cache) -> None:
    with cache.writing() as file:
        file.write_bytes(content(5))
        cache.adopt(file, part(5))
    log: list[int] = []
    assert cache.hold(part(5), fetch(5, log)).path.read_bytes() == content(5)
    assert log == []


def ask(folder: Path, seed: int) -> tuple[list[int], int]:
    """In a process of its own: hold and read parts; those that it fetched, and the most bytes that it saw."""
    cache, log, most = Cache(folder, 10 * SIZE), list[int](), 0
    for step in range(60):
        number = (step * 7 + seed) % 25
        with cache.hold(part(number), fetch(number, log)) as file:
            assert file.read_bytes() == content(number)
        most = max(most, seen_bytes(folder))
    return log, most


def seen_bytes(folder: Path) -> int:
    """Bytes of the parts that lay there at one moment; 0 where others came and went while they were counted."""
    before = set(folder.glob("?" * 64))
    try:
        size = sum(one.stat().st_size for one in before)
    except FileNotFoundError:
        return 0
    return size if set(folder.glob("?" * 64)) == before else 0


def test_processes_share_it_within_one_bound(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(3, mp_context=context) as processes:
        found = list(processes.map(ask, [tmp_path] * 3, [0, 9, 17]))
    assert 0 < max(most for _, most in found) <= 10 * SIZE
    assert held_bytes(tmp_path) <= 10 * SIZE


@pytest.mark.parametrize("size", ["much", "0", "-1", "nan", "inf"])
def test_a_bound_that_is_none_is_refused(size: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNITSCOPE_CACHE_GB", size)
    with pytest.raises(UsageError):
        Cache.from_environment()
