"""Ranked parts whose units have footers of their own, beside plain ones of the same units."""

import hashlib
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from unitscope_pipelines.indexing.ranking.ranker import Numbering, rank_peaks
from unitscope_pipelines.storage.ranked_file import write_ranked, write_with_footers
from unitscope_pipelines.storage.stores import FolderStore
from unitscope_schemas import tables
from unitscope_schemas.entries.part import Part
from unitscope_schemas.errors import AtlasError
from unitscope_services.atlas.parts import Parts

COUNTS = (40_000, 0, 700, 70_000, 1)


def ranks(unit: int, count: int) -> pa.Table:
    chance = np.random.default_rng(unit)
    location = chance.integers(0, 7, count, np.int32) << 16 | chance.integers(0, 7, count, np.int32)
    return rank_peaks(unit, chance.normal(0, 3, count).astype(np.float32), location, Numbering.of(np.arange(count)))


def as_part(file: Path, rows: int) -> Part:
    return Part(path=file.name, rows=rows, size_bytes=file.stat().st_size, sha256="0" * 64)


def test_every_reader_reads_a_part_of_footers_as_a_plain_one(tmp_path: Path) -> None:
    units = [ranks(unit, count) for unit, count in enumerate(COUNTS)]
    plain, own = tmp_path / "plain.parquet", tmp_path / "own.parquet"
    write_ranked(plain, units)
    footers = write_with_footers(own, units)
    assert [footer is None for footer in footers] == [count == 0 for count in COUNTS]
    whole = pa.concat_tables(units)
    assert pq.read_table(own).equals(whole)
    with duckdb.connect() as database:
        kinds = ("unit", "rank", "image", "activation", "row", "col")
        read = database.sql(f"SELECT {', '.join(kinds)} FROM read_parquet('{own}')").to_arrow_table()
    assert read.to_pydict() == whole.to_pydict()
    groups = [
        [pq.read_metadata(file).row_group(group).num_rows for group in range(pq.read_metadata(file).num_row_groups)]
        for file in (plain, own)
    ]
    assert groups[0] == groups[1]
    assert own.stat().st_size < plain.stat().st_size * 1.02


def test_a_footer_is_of_one_unit_alone(tmp_path: Path) -> None:
    units = [ranks(unit, count) for unit, count in enumerate(COUNTS)]
    file = tmp_path / "own.parquet"
    footers = write_with_footers(file, units)
    parts, part = Parts(FolderStore(tmp_path)), as_part(file, sum(COUNTS))
    for unit, footer in zip(units, footers, strict=True):
        if footer is not None:
            stored = file.read_bytes()[footer.start : footer.start + footer.size_bytes]
            assert hashlib.sha256(stored).hexdigest() == footer.sha256
            with parts.open_unit(part, footer) as opened:
                assert opened.read().equals(unit)


def test_units_without_ranks_make_a_part_without_rows(tmp_path: Path) -> None:
    file = tmp_path / "own.parquet"
    assert write_with_footers(file, [ranks(0, 0), ranks(1, 0)]) == [None, None]
    assert pq.read_table(file).equals(tables.RANKED.empty_table())


def test_every_flipped_bit_that_is_read_is_refused_or_changes_nothing(tmp_path: Path) -> None:
    """The part is not digested as a whole: pages have checksums, a footer its digest."""
    file = tmp_path / "own.parquet"
    wanted = ranks(1, 40)
    footers = write_with_footers(file, [ranks(0, 100), wanted])
    own, first = footers[1], footers[0]
    assert own is not None and first is not None
    data, part = bytearray(file.read_bytes()), as_part(file, 140)
    begin, refused, harmless = first.start + first.size_bytes, 0, 0
    for bit in range(8 * begin, 8 * (own.start + own.size_bytes)):
        data[bit // 8] ^= 1 << bit % 8
        file.write_bytes(data)
        data[bit // 8] ^= 1 << bit % 8
        try:
            with Parts(FolderStore(tmp_path)).open_unit(part, own) as opened:
                assert opened.read(use_threads=False).equals(wanted), f"bit {bit} changes an answer"
            harmless += 1
        except AtlasError as error:
            assert "own.parquet" in str(error)
            refused += 1
    assert refused > 9 * harmless
    file.write_bytes(data)
    with Parts(FolderStore(tmp_path)).open_unit(part, own) as opened:
        assert opened.read().equals(wanted)


@pytest.mark.parametrize("end", [0, 4, 500])
def test_a_part_that_was_cut_off_is_named(tmp_path: Path, end: int) -> None:
    file = tmp_path / "own.parquet"
    (own,) = write_with_footers(file, [ranks(0, 5_000)])
    assert own is not None
    part = as_part(file, 5_000)
    file.write_bytes(file.read_bytes()[:end])
    with pytest.raises(AtlasError, match=r"own\.parquet"), Parts(FolderStore(tmp_path)).open_unit(part, own):
        pass
    file.unlink()
    with pytest.raises(AtlasError, match=r"own\.parquet"), Parts(FolderStore(tmp_path)).open_unit(part, own):
        pass


def test_a_footer_that_lies_elsewhere_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "own.parquet"
    (own,) = write_with_footers(file, [ranks(0, 5_000)])
    assert own is not None
    part = as_part(file, 5_000)
    for other in (own._replace(start=own.start - 1), own._replace(size_bytes=2**31 - 1), own._replace(start=-5)):
        with pytest.raises(AtlasError), Parts(FolderStore(tmp_path)).open_unit(part, other):
            pass
