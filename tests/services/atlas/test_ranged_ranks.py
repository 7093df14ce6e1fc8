"""Ranks of an atlas in an object store are read by ranges: what a question asks for, and nothing else of a part."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from unitscope_pipelines.indexing.ranking.ranker import Numbering, rank_peaks
from unitscope_pipelines.storage.cache import Cache
from unitscope_pipelines.storage.object_stores.object_store import ObjectStore
from unitscope_pipelines.storage.object_stores.ranged_object import HeldRanges
from unitscope_pipelines.storage.ranked_file import write_with_footers
from unitscope_schemas.entries.part import Part
from unitscope_schemas.errors import AtlasError
from unitscope_services.atlas.parts import Parts
from unitscope_services.atlas.ranks.ranked_unit import RankedPart, RankedUnit

COUNT = 100_000
NAMES = ["image", "activation", "row", "col"]


class Remote:
    """A ranked part of two units in a store, whose requests for bytes are noted."""

    def __init__(self, bucket: Any, folder: Path) -> None:
        chance = np.random.default_rng(1)
        self.units = [
            rank_peaks(unit, chance.normal(0, 3, COUNT).astype(np.float32), location, Numbering.of(np.arange(COUNT)))
            for unit, location in enumerate(chance.integers(0, 7, (2, COUNT), np.int32))
        ]
        file = folder / "ranked.parquet"
        footers = write_with_footers(file, self.units)
        bucket.upload_file(str(file), "ranges/ranked.parquet")
        part = Part(path="ranked.parquet", rows=2 * COUNT, size_bytes=file.stat().st_size, sha256="0" * 64)
        self.size_bytes = part.size_bytes
        self.store = ObjectStore(f"s3://{bucket.name}/ranges", Cache(folder / "cache", 10**9))
        self.ranked = RankedPart(Parts(self.store), part, [COUNT, COUNT], footers)
        self.asked: list[int] = []

    def unit(self, channel: int) -> RankedUnit:
        return RankedUnit(self.ranked, None, channel)

    def note(self, request: Any, **_: object) -> None:
        first, last = request.headers["Range"].decode().removeprefix("bytes=").split("-")
        self.asked.append(int(last) - int(first) + 1)


@pytest.fixture
def remote(bucket: Any, tmp_path: Path) -> Iterator[Remote]:
    remote = Remote(bucket, tmp_path)
    events = remote.store._client.meta.events
    events.register("before-send.s3.GetObject", remote.note)
    yield remote
    events.unregister("before-send.s3.GetObject", remote.note)


def test_a_deep_page_asks_for_a_footer_and_for_one_row_group(remote: Remote) -> None:
    ranks = np.arange(50_000, 50_050)
    for name, column in zip(NAMES, remote.unit(1).at(NAMES, ranks), strict=True):
        assert column.tolist() == remote.units[1][name].to_numpy()[ranks].tolist()
    assert len(remote.asked) == 2
    assert sum(remote.asked) < remote.size_bytes / 4
    remote.unit(1).at(NAMES, ranks + 100)
    assert len(remote.asked) == 2, "they are held"
    remote.unit(0).at(NAMES, ranks)
    assert len(remote.asked) == 4, "of another unit nothing was read"


def test_how_many_peak_above_a_value_costs_one_column_of_one_row_group(remote: Remote) -> None:
    values = remote.units[0]["activation"].to_numpy()
    assert remote.unit(0).above(values[[70_000]]).tolist() == [int((values > values[70_000]).sum())]
    assert len(remote.asked) == 2
    assert remote.asked[1] < 5 * 32_768


def test_all_activations_of_a_unit_are_one_request(remote: Remote) -> None:
    assert np.array_equal(remote.unit(1).activations(), remote.units[1]["activation"].to_numpy())
    assert len(remote.asked) == 2
    assert sum(remote.asked) < remote.size_bytes * 0.6


def test_an_object_that_is_gone_or_was_cut_off_is_named(remote: Remote, bucket: Any) -> None:
    whole = bucket.Object("ranges/ranked.parquet").get()["Body"].read()
    bucket.put_object(Key="ranges/ranked.parquet", Body=whole[: len(whole) // 4])
    for channel in (0, 1):
        with pytest.raises(AtlasError, match=r"ranked\.parquet.*fewer bytes than were sealed"):
            remote.unit(channel).activations()
    bucket.Object("ranges/ranked.parquet").delete()
    with pytest.raises(AtlasError, match=r"ranked\.parquet.*no such object"):
        remote.unit(0).activations()


def test_ranges_are_held_up_to_a_bound_the_last_ones_longest() -> None:
    held = HeldRanges(100)
    held.take("a", 0, bytes(range(60)))
    held.take("b", 10, b"x" * 40)
    assert held.find("a", 5, 9) == bytes([5, 6, 7, 8])
    assert held.find("a", 50, 61) is None, "not all of it is held"
    held.take("c", 0, b"y" * 30)
    assert held.find("b", 10, 12) is None, "asked for longest ago"
    assert held.find("a", 0, 1) == b"\0"
    held.take("d", 0, b"z" * 101)
    assert held.find("d", 0, 1) is None
