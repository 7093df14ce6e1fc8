"""Writing is atomic, and what goes wrong is said."""

import pickle
from pathlib import Path

import pyarrow as pa
import pytest

from unitscope_pipelines.cluster.resources import Resources
from unitscope_pipelines.cluster.workers import each
from unitscope_pipelines.storage.cache import Cache
from unitscope_pipelines.storage.parts import parquet_writer, write_atomically, write_table
from unitscope_pipelines.storage.stores import store_of
from unitscope_schemas import tables
from unitscope_schemas.errors import BusyError, NotFoundError, StorageError


def test_a_failed_write_leaves_neither_part_nor_temporary_file(tmp_path: Path) -> None:
    def write(file: Path) -> None:
        file.write_text("half")
        raise RuntimeError("torn")

    with pytest.raises(RuntimeError, match="torn"):
        write_atomically(store_of(tmp_path), "a/part.txt", write, 1)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("writer", ["text", "parquet"])
def test_a_full_disk_says_what_would_do(tmp_path: Path, writer: str) -> None:
    def write(_file: Path) -> None:
        full = Path("/dev/full")
        if writer == "text":
            full.write_text("x" * 100_000)
        else:
            with parquet_writer(full, tables.FILES) as parquet:
                parquet.write_table(tables.FILES.empty_table())

    with pytest.raises(StorageError, match=r"no space left for part.txt .* finished shards are kept: free space"):
        write_atomically(store_of(tmp_path), "part.txt", write, 1)


def test_a_part_knows_its_rows_size_and_digest(tmp_path: Path) -> None:
    import hashlib

    row = {"path": "a", "file_bytes": 1, "modified_ns": 2, "size_bytes": 1, "reason": "r"}
    table = pa.Table.from_pylist([row], tables.SKIPPED)
    part = write_table(store_of(tmp_path), "skipped/x.parquet", table)
    data = (tmp_path / part.path).read_bytes()
    assert (part.rows, part.size_bytes, part.sha256) == (1, len(data), hashlib.sha256(data).hexdigest())


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    with (
        store_of(tmp_path).locked(),
        pytest.raises(BusyError, match="another index run is writing"),
        store_of(tmp_path).locked(),
    ):
        pass
    with store_of(tmp_path).locked():
        pass


def failing() -> object:
    def task(item: int) -> int:
        if item == 2:
            raise NotFoundError("item 2 is not there")
        return item

    return task


def test_an_error_in_a_worker_arrives_as_itself(ray_session: None) -> None:
    with pytest.raises(NotFoundError, match="item 2 is not there"):
        list(each(failing, [1, 2, 3], Resources(cpus=0.5, gpus=0, worker_count=1)))


def test_a_folder_that_is_sent_to_a_worker_is_the_same_one_wherever_that_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sent = pickle.dumps(store_of("atlas"))
    monkeypatch.chdir("/")
    assert pickle.loads(sent).address == tmp_path / "atlas"  # noqa: S301  (our own bytes)


def test_an_address_that_is_sent_to_a_worker_takes_neither_lock_nor_cache_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = store_of("s3://atlases/sent", Cache(tmp_path / "serve", 1000))
    sent = pickle.dumps(store)
    monkeypatch.setenv("UNITSCOPE_CACHE", str(tmp_path / "worker"))
    opened = pickle.loads(sent)  # noqa: S301  (our own bytes)
    assert (opened.address, opened.scratch) == ("s3://atlases/sent", tmp_path / "worker")
    assert opened is store_of("s3://atlases/sent"), "a process opens an address once, so that its lock is known"
