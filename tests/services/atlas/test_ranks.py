"""A unit's ranks from the lookup database and from its part, beside the plain arrays they were written from."""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from unitscope_pipelines.indexing.ranking.ranker import Numbering, rank_peaks
from unitscope_pipelines.storage.parts import parquet_writer
from unitscope_pipelines.storage.ranked_file import write_ranked, write_with_footers
from unitscope_pipelines.storage.stores import FolderStore
from unitscope_schemas import tables
from unitscope_schemas.entries.part import Part, UnitFooter
from unitscope_schemas.errors import AtlasError
from unitscope_services.atlas.database import Database
from unitscope_services.atlas.parts import Parts
from unitscope_services.atlas.ranks.ranked_unit import FewRanked, FirstRanks, RankedPart, RankedUnit

COUNT = 170_000


def named(path: str) -> Part:
    """A part that is asked for by its path alone."""
    return Part(path=path, rows=COUNT, size_bytes=0, sha256="0" * 64)


@pytest.fixture(scope="module")
def plain() -> pa.Table:
    """A rectified unit of whole numbers, so that ties go from one row group into the next."""
    chance = np.random.default_rng(0)
    activation = np.maximum(chance.normal(0, 40, COUNT).round(), 0).astype(np.float32)
    row, col = chance.integers(0, 7, (2, COUNT), np.int32)
    return rank_peaks(5, activation, row << 16 | col, Numbering.of(np.arange(COUNT)))


@pytest.fixture(scope="module")
def folder(plain: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranked")
    write_ranked(folder / "block.parquet", [plain])
    first_ranks = plain.slice(0, tables.FIRST_RANKS)
    with duckdb.connect(str(folder / "hot.duckdb")) as hot:
        hot.register("ranked", first_ranks)
        hot.execute("CREATE TABLE first_ranks AS SELECT 2 AS layer, * FROM ranked")
    return folder


@pytest.fixture(scope="module")
def database(folder: Path) -> Iterator[Database]:
    opened = Database(FolderStore(folder), named("hot.duckdb"))
    yield opened
    opened.close()


@pytest.fixture(scope="module", params=[False, True], ids=["one footer", "own footers"])
def footers(request: pytest.FixtureRequest, plain: pa.Table, folder: Path) -> list[UnitFooter | None]:
    """The footers of the units of the part `own.parquet`; none where `block.parquet` is to be read."""
    units = [plain.slice(0, 0)] * 5 + [plain]
    return write_with_footers(folder / "own.parquet", units) if request.param else []


@pytest.fixture
def ranked(folder: Path, database: Database, footers: list[UnitFooter | None]) -> RankedUnit:
    counts = [0, 0, 0, 0, 0, COUNT]
    name = "own.parquet" if footers else "block.parquet"
    part = RankedPart(Parts(FolderStore(folder)), named(name), counts, footers)
    return RankedUnit(part, FirstRanks(database, 2, np.array(counts)), 5)


@pytest.mark.parametrize(
    "ranks", [[0], [8, 7, 6], [0, 1023, 1024], [169_999, 32_768, 32_767, 7], list(range(1000, 1050)), []]
)
def test_columns_are_read_at_any_ranks(ranked: RankedUnit, plain: pa.Table, ranks: list[int]) -> None:
    names = ["image", "activation", "row", "col"]
    for name, column in zip(names, ranked.at(names, np.array(ranks, np.int64)), strict=True):
        assert column.tolist() == plain[name].to_numpy()[ranks].tolist()


@pytest.mark.parametrize("upwards", [False, True])
def test_images_come_piece_by_piece_from_either_end(ranked: RankedUnit, plain: pa.Table, upwards: bool) -> None:
    pieces = list(ranked.images(500, 163_000, upwards))
    assert len(pieces) > 2
    ranks = np.concatenate([ranks for ranks, _ in pieces])
    assert ranks.tolist() == list(range(500, 163_001))[:: -1 if upwards else 1]
    assert np.array_equal(np.concatenate([images for _, images in pieces]), plain["image"].to_numpy()[ranks])


def test_images_above_activations_are_counted_also_where_ties_go_over_the_end_of_a_row_group(
    ranked: RankedUnit, plain: pa.Table
) -> None:
    values = plain["activation"].to_numpy()
    assert values[tables.FIRST_RANKS - 1] == values[tables.FIRST_RANKS]
    asked = np.array([values[0] + 1, values[0], values[1023], values[32_768], 0.5, 3, 0, -1, *range(0, 160, 7)])
    for some in (asked, asked[:1], asked[::-3]):
        assert ranked.above(some.astype(np.float32)).tolist() == [int((values > one).sum()) for one in some]


@pytest.mark.parametrize("ranks", [[0], [500, 3, 169_999], [1023, 1024, 1025], list(range(0, 170_000, 997)), []])
def test_an_image_is_found_by_its_peak_also_among_ties(ranked: RankedUnit, plain: pa.Table, ranks: list[int]) -> None:
    images, values = (plain[name].to_numpy()[ranks] for name in ("image", "activation"))
    few = FewRanked(ranked, images, {"activation": values, "row": plain["row"].to_numpy()[ranks]})
    found = [(rank, image) for among in few.images(0, COUNT) for rank, image in zip(*among, strict=True)]
    assert found == [(rank, plain["image"][rank].as_py()) for rank in sorted(ranks)]
    assert few.at(["row"], np.array(ranks, np.int64))[0].tolist() == plain["row"].to_numpy()[ranks].tolist()


def test_all_activations_are_read_in_order(ranked: RankedUnit, plain: pa.Table) -> None:
    assert np.array_equal(ranked.activations(), plain["activation"].to_numpy())


def test_a_missing_part_is_named(folder: Path) -> None:
    with pytest.raises(AtlasError, match=r"ranked/x\.parquet"):
        RankedPart(Parts(FolderStore(folder)), named("ranked/x.parquet"), [1]).maxima(0)


def test_ranks_are_read_however_a_file_groups_them_behind_the_first(plain: pa.Table, tmp_path: Path) -> None:
    with parquet_writer(tmp_path / "block.parquet", tables.RANKED) as writer:
        for first, end in pairwise([0, tables.FIRST_RANKS, 100_000, 100_001, COUNT]):
            writer.write_table(plain.slice(first, end - first))
    part = RankedPart(Parts(FolderStore(tmp_path)), named("block.parquet"), [0, 0, 0, 0, 0, COUNT])
    unit, ranks = RankedUnit(part, None, 5), np.array([0, 99_999, 100_000, 100_001, COUNT - 1])
    assert unit.at(["image"], ranks)[0].tolist() == plain["image"].to_numpy()[ranks].tolist()
    images, activation = (plain[name].to_numpy()[ranks] for name in ("image", "activation"))
    assert unit.ranks(images, activation).tolist() == ranks.tolist()


@pytest.mark.parametrize(
    "ends", [[0, 500, COUNT], [0, 500, tables.FIRST_RANKS, COUNT], [0, tables.FIRST_RANKS, COUNT - 1], [0, COUNT]]
)
def test_row_groups_that_are_not_those_of_units_are_refused(plain: pa.Table, tmp_path: Path, ends: list[int]) -> None:
    with parquet_writer(tmp_path / "ranked.parquet", tables.RANKED) as writer:
        for first, end in pairwise(ends):
            writer.write_table(plain.slice(first, end - first))
    lacking = Part(path="ranked.parquet", rows=ends[-1], size_bytes=0, sha256="0" * 64)
    part = RankedPart(Parts(FolderStore(tmp_path)), lacking, [0, 0, 0, 0, 0, COUNT])
    with pytest.raises(AtlasError, match="its row groups are not those of its units"):
        RankedUnit(part, None, 5).above(np.zeros(1, np.float32))
