"""A unit's ranks from the hot database and from its file, beside the plain arrays they were written from."""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from pipelines.exemplars import PEAK, Numbering, group_ends, rank_peaks
from pipelines.storage import parquet_writer
from schemas import tables
from schemas.errors import AtlasError
from services.database import Database
from services.ranks import RankedUnit

COUNT, HOT_RANKS = 150_000, 1_024


@pytest.fixture(scope="module")
def plain() -> pa.Table:
    """A rectified unit of whole numbers, so that ties go from one row group into the next."""
    chance = np.random.default_rng(0)
    peaks = np.zeros(COUNT, PEAK)
    peaks["activation"] = np.maximum(chance.normal(0, 40, COUNT).round(), 0)
    peaks["row"], peaks["col"] = chance.integers(0, 7, (2, COUNT))
    return rank_peaks(5, peaks, Numbering.of(np.arange(COUNT)))


@pytest.fixture(scope="module")
def folder(plain: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranked")
    with parquet_writer(folder / "block.parquet", tables.RANKED) as writer:
        for first, end in pairwise(group_ends(COUNT)):
            writer.write_table(plain.slice(first, end - first))
    first_ranks = plain.slice(0, HOT_RANKS)
    with duckdb.connect(str(folder / "hot.duckdb")) as hot:
        hot.register("ranked", first_ranks)
        hot.execute("CREATE TABLE first_ranks AS SELECT 2 AS layer, * FROM ranked")
    return folder


@pytest.fixture(scope="module")
def database(folder: Path) -> Iterator[Database]:
    opened = Database(folder, "hot.duckdb")
    yield opened
    opened.close()


@pytest.fixture(params=[0, HOT_RANKS], ids=["file", "hot"])
def ranked(folder: Path, database: Database, request: pytest.FixtureRequest) -> RankedUnit:
    return RankedUnit(database, str(folder / "block.parquet"), 2, 5, request.param)


@pytest.mark.parametrize(
    "ranks", [[0], [8, 7, 6], [0, 1023, 1024], [149_999, 16_384, 16_383, 7], list(range(1000, 1050)), []]
)
def test_columns_are_read_at_any_ranks(ranked: RankedUnit, plain: pa.Table, ranks: list[int]) -> None:
    names = ["image", "activation", "row", "col"]
    for asked in (ranks, ranks[:1]):
        for name, column in zip(names, ranked.at(names, np.array(asked, np.int64)), strict=True):
            assert column.tolist() == plain[name].to_numpy()[asked].tolist()


@pytest.mark.parametrize("upwards", [False, True])
def test_images_come_piece_by_piece_from_either_end(ranked: RankedUnit, plain: pa.Table, upwards: bool) -> None:
    pieces = list(ranked.images(500, 147_456, upwards))
    assert len(pieces) > 2
    ranks = np.concatenate([ranks for ranks, _ in pieces])
    assert ranks.tolist() == list(range(500, 147_457))[:: -1 if upwards else 1]
    assert np.array_equal(np.concatenate([images for _, images in pieces]), plain["image"].to_numpy()[ranks])


def test_images_above_an_activation_are_counted(ranked: RankedUnit, plain: pa.Table) -> None:
    values = plain["activation"].to_numpy()
    for activation in (values[0] + 1, values[0], values[1023], 0.5, 3.0, 0.0, -1.0, *range(0, 160, 7)):
        assert ranked.above(float(activation)) == int((values > activation).sum())


def test_the_first_rank_of_an_activation_may_lie_before_the_page(ranked: RankedUnit, plain: pa.Table) -> None:
    values = plain["activation"].to_numpy()
    asked = values[[0, 2000, 30, 149_999, 30]]
    assert ranked.first_equal(asked).tolist() == [int((values > activation).sum()) for activation in asked]


def test_all_activations_are_read_in_order(ranked: RankedUnit, plain: pa.Table) -> None:
    assert np.array_equal(ranked.activations(), plain["activation"].to_numpy())


def test_a_missing_file_is_named(folder: Path, database: Database) -> None:
    with pytest.raises(AtlasError, match=r"ranked/x\.parquet"):
        RankedUnit(database, str(folder / "ranked/x.parquet"), 0, 0, 0).at(["image"], np.array([0]))
