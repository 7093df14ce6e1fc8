"""Tables in temporary files: what is read of them is what was written, and a killed process leaves nothing for good."""

import errno
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from unitscope_pipelines.storage.long_tables.database import batches_of, count_of, rows_of, spilling_database, take_in
from unitscope_pipelines.storage.long_tables.long_table import ROWS_AT_ONCE, LongTable, LongTableWriter
from unitscope_schemas.errors import AtlasError, StorageError

COUNT = 2 * ROWS_AT_ONCE + 500
SCHEMA = pa.schema(
    [pa.field("number", pa.int32(), nullable=False), ("name", pa.string()), ("names", pa.list_(pa.string()))]
)


@pytest.fixture(scope="module")
def whole() -> pa.Table:
    names = [None if number % 7 == 0 else f"é{number}" for number in range(COUNT)]
    columns = [range(COUNT), names, [[name] * (number % 3) for number, name in enumerate(names)]]
    return pa.table(dict(zip(SCHEMA.names, columns, strict=True)), schema=SCHEMA)


@pytest.fixture(scope="module")
def table(whole: pa.Table) -> LongTable:
    return LongTable.of(whole)


def test_what_is_read_was_written(table: LongTable, whole: pa.Table) -> None:
    assert (len(table), table.schema) == (COUNT, SCHEMA)
    assert table.read().equals(whole)
    assert table.read(["names", "number"]).equals(whole.select(["names", "number"]))
    assert table["name"].equals(whole["name"])
    assert pa.Table.from_batches(table.reader(["name"])).equals(whole.select(["name"]))
    assert max(batch.num_rows for batch in table.batches()) <= ROWS_AT_ONCE


@pytest.mark.parametrize("size", [1_000, ROWS_AT_ONCE, ROWS_AT_ONCE + 1, COUNT, COUNT + 1])
def test_pieces_have_the_size_that_is_asked_for(table: LongTable, whole: pa.Table, size: int) -> None:
    pieces = list(table.pieces(size))
    assert {len(piece) for piece in pieces[:-1]} <= {size}
    assert pa.concat_tables(pieces).equals(whole)
    assert all(piece.nbytes < 2 * whole.nbytes * size / COUNT for piece in pieces), "a piece carries more than its rows"


def test_rows_are_taken_and_split_in_their_order(table: LongTable, whole: pa.Table) -> None:
    rows = [0, 5, ROWS_AT_ONCE, COUNT - 1]
    assert table.take(rows).equals(whole.take(pa.array(rows)))
    assert table.head(3).read().equals(whole.slice(0, 3))
    assert (len(table.head(0)), len(table.head(2 * COUNT))) == (0, COUNT)
    chosen = np.random.default_rng(0).integers(0, 3, COUNT)
    parts = [np.flatnonzero(chosen == number) for number in (2, 0)]
    for part, own in zip(parts, table.split(parts), strict=True):
        assert own.read().equals(whole.take(pa.array(part)))


def test_a_table_without_rows_is_read_too() -> None:
    nothing = LongTable.of(SCHEMA.empty_table())
    assert nothing.read().equals(SCHEMA.empty_table())
    assert list(nothing.pieces(10)) == []
    assert len(nothing.head(5)) == 0


def test_a_database_reads_and_makes_tables(table: LongTable, whole: pa.Table) -> None:
    with spilling_database() as database:
        table.show(database, "listed", "place")
        assert count_of(database, "listed WHERE place = number") == COUNT
        taken = take_in(
            database,
            "odd",
            "FROM parts WHERE number % 2 = 1",
            (whole.slice(start, 1_000) for start in (0, 1_000, 2_000)),
        )
        assert taken == 1_500
        found = LongTable.written(batches_of(database, "SELECT * FROM odd ORDER BY number DESC"), SCHEMA)
        assert found["number"].to_pylist() == list(range(2_999, 0, -2))
        assert next(rows_of(database, "SELECT number FROM odd ORDER BY number")) == {"number": 1}
        with pytest.raises(ValueError, match="nothing to take into none"):
            take_in(database, "none", "FROM parts", iter(()))


def test_what_reading_parts_raises_is_raised(whole: pa.Table) -> None:
    def parts() -> Iterator[pa.Table]:
        yield whole.slice(0, 10)
        raise AtlasError("part x is damaged")

    with spilling_database() as database, pytest.raises(AtlasError, match="part x is damaged"):
        take_in(database, "taken", "FROM parts", parts())


def test_a_full_disk_is_an_error_that_says_what_would_do(whole: pa.Table, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with LongTableWriter(SCHEMA) as writer:
        with (
            monkeypatch.context() as patch,
            pytest.raises(StorageError, match=r"no room for temporary files in .*TMPDIR"),
        ):
            patch.setattr(writer._file, "write_table", full)
            writer.add(whole.to_batches(ROWS_AT_ONCE)[0])
        writer._kept.clear()
    with pytest.raises(StorageError, match="set TMPDIR"), spilling_database() as database:
        database.execute("SET memory_limit = '1MB'")
        database.execute("CREATE TABLE many AS SELECT range::VARCHAR AS a FROM range(3_000_000) ORDER BY a")


def test_the_file_goes_with_the_table(whole: pa.Table) -> None:
    table = LongTable.of(whole.slice(0, 10))
    file = table._file
    assert file.exists()
    del table
    assert not file.parent.exists()


_LEAVING = """
import sys, time
from unitscope_pipelines.storage.long_tables.scratch import scratch_folder
folder = scratch_folder()
print(folder.name, flush=True)
time.sleep(float(sys.argv[1]))
"""


def _process(seconds: float, folder: Path) -> tuple[subprocess.Popen[str], Path]:
    environment = {**os.environ, "TMPDIR": str(folder)}
    command = [sys.executable, "-c", _LEAVING, str(seconds)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip()).parent


def test_folders_of_killed_processes_go_and_those_of_living_ones_stay(tmp_path: Path) -> None:
    (killed, left), (living, kept) = _process(60, tmp_path), _process(60, tmp_path)
    try:
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        assert (left.exists(), kept.exists()) == (True, True)
        (tmp_path / "unitscope-scratch-empty").mkdir()  # a process that has not locked it yet
        (tmp_path / "unitscope-scratch-link").symlink_to(Path(tempfile.gettempdir()))
        ended, own = _process(0, tmp_path)
        ended.wait()
        names = {path.name for path in tmp_path.iterdir()}
        assert names == {kept.name, "unitscope-scratch-empty", "unitscope-scratch-link"}
        assert not own.exists(), "a process that ends deletes its own"
    finally:
        living.kill()
        living.wait()
