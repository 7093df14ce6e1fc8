"""A unit's ranks over several segments beside those of one segment of all images."""

from pathlib import Path

import duckdb
import numpy as np
import pytest

from unitscope_pipelines.indexing.ranking.ranker import Numbering, rank_peaks
from unitscope_pipelines.storage.ranked_file import write_ranked, write_with_footers
from unitscope_pipelines.storage.stores import FolderStore
from unitscope_schemas import tables
from unitscope_schemas.entries.part import Part
from unitscope_services.atlas.database import Database
from unitscope_services.atlas.parts import Parts
from unitscope_services.atlas.ranks.merged_unit import MergedUnit
from unitscope_services.atlas.ranks.ranked_unit import FewRanked, FirstRanks, RankedPart

COUNT = 170_000
NAMES = ["image", "activation", "row", "col"]


def named(path: str, rows: int) -> Part:
    return Part(path=path, rows=rows, size_bytes=0, sha256="0" * 64)


class Planted:
    """A rectified unit: half of its images are tied at zero, others in whole numbers, over segments of these sizes."""

    def __init__(self, folder: Path, sizes: list[int]) -> None:
        chance = np.random.default_rng(len(sizes))
        activation = np.maximum(chance.normal(0, 40, COUNT).round(), 0).astype(np.float32)
        location = chance.integers(0, 7, COUNT, np.int32) << 16 | chance.integers(0, 7, COUNT, np.int32)
        self.plain = rank_peaks(5, activation, location, Numbering.of(np.arange(COUNT)))
        owner = chance.permutation(np.repeat(np.arange(len(sizes)), sizes))
        self.parts = []
        for segment, size in enumerate(sizes):
            numbers = np.flatnonzero(owner == segment).astype(np.int32)
            ranked = rank_peaks(5, activation[numbers], location[numbers], Numbering.of(np.arange(size)))
            path = folder / f"{segment}.parquet"
            footers = []
            if segment % 2:  # one with footers of units, one without
                footers = write_with_footers(path, [ranked.slice(0, 0)] * 5 + [ranked])
            else:
                write_ranked(path, [ranked])
            counts = [0, 0, 0, 0, 0, size]
            part = RankedPart(Parts(FolderStore(folder)), named(path.name, size), counts, footers)
            self.parts.append((part, numbers))
        first_ranks = self.plain.slice(0, tables.FIRST_RANKS)
        with duckdb.connect(str(folder / "hot.duckdb")) as hot:
            hot.register("ranked", first_ranks)
            hot.execute("CREATE TABLE first_ranks AS SELECT 2 AS layer, * FROM ranked")
        self.database = Database(FolderStore(folder), named("hot.duckdb", COUNT))

    def unit(self) -> MergedUnit:
        return MergedUnit(self.parts, FirstRanks(self.database, 2, np.array([0, 0, 0, 0, 0, COUNT])), 5)

    def column(self, name: str) -> np.ndarray:
        column: np.ndarray = self.plain[name].to_numpy()
        return column


@pytest.fixture(scope="module", params=[[100_000, 70_000], [120_000, 30_000, 15_000, 4_000, 900, 99, 1]])
def planted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Planted:
    made = Planted(tmp_path_factory.mktemp("segments"), request.param)
    request.addfinalizer(made.database.close)
    return made


@pytest.mark.parametrize(
    "ranks",
    [
        [0],
        [8, 7, 6],
        [0, 1_023, 1_024],
        [169_999, 32_768, 32_767, 7],
        list(range(1_000, 1_050)),
        list(range(120_000, 120_060)),
        [5, 5, 100_000, 5],
        [],
    ],
)
def test_columns_are_those_at_the_ranks_among_all_images(planted: Planted, ranks: list[int]) -> None:
    for name, column in zip(NAMES, planted.unit().at(NAMES, np.array(ranks, np.int64)), strict=True):
        assert column.tolist() == planted.column(name)[ranks].tolist(), name


def test_every_rank_is_found_by_itself(planted: Planted) -> None:
    chance = np.random.default_rng(1)
    for rank in [*chance.integers(0, COUNT, 60).tolist(), COUNT - 1]:
        image, activation = planted.unit().at(["image", "activation"], np.array([rank]))
        assert (image[0], activation[0]) == (planted.column("image")[rank], planted.column("activation")[rank])


@pytest.mark.parametrize("upwards", [False, True])
def test_images_come_in_rank_order_from_either_end(planted: Planted, upwards: bool) -> None:
    pieces = list(planted.unit().images(500, 163_000, upwards))
    ranks = np.concatenate([ranks for ranks, _ in pieces])
    assert ranks.tolist() == list(range(500, 163_001))[:: -1 if upwards else 1]
    assert np.array_equal(np.concatenate([images for _, images in pieces]), planted.column("image")[ranks])


def test_images_above_an_activation_are_counted_over_all_segments(planted: Planted) -> None:
    values, unit = planted.column("activation"), planted.unit()
    asked = np.array([values[0] + 1, values[0], values[1_023], values[32_768], 0.5, 3, 0, -1, *range(0, 160, 7)])
    for some in (asked, asked[:1], asked[::-3]):
        assert unit.above(some.astype(np.float32)).tolist() == [int((values > one).sum()) for one in some]


@pytest.mark.parametrize("ranks", [[0], [500, 3, 169_999], [1_023, 1_024, 1_025], list(range(0, COUNT, 3_997))])
def test_an_image_is_found_by_its_peak_also_among_ties_of_several_segments(planted: Planted, ranks: list[int]) -> None:
    images, values = (planted.column(name)[ranks] for name in ("image", "activation"))
    few = FewRanked(planted.unit(), images, {"activation": values})
    found = [(rank, image) for among in few.images(0, COUNT) for rank, image in zip(*among, strict=True)]
    assert found == [(rank, planted.plain["image"][rank].as_py()) for rank in sorted(ranks)]


def test_all_activations_come_in_descending_order(planted: Planted) -> None:
    assert np.array_equal(planted.unit().activations(), planted.column("activation"))
