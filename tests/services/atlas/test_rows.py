"""Rows as typed objects, beside the plain dictionaries that Arrow makes of them."""

import shutil
from dataclasses import asdict
from itertools import repeat
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pytest

from tests.tables import resealed
from unitscope_pipelines.indexing.sealing.versions import present_version
from unitscope_pipelines.storage.parts import write_atomically, write_model
from unitscope_pipelines.storage.stores import store_of
from unitscope_schemas import tables
from unitscope_services.atlas.rows import rows_of
from unitscope_services.atlas.statistics import UnitStatistics
from unitscope_services.queries.session import Session


class Pair(NamedTuple):
    left: int
    right: str


def test_fields_are_filled_by_name_whatever_the_order_of_the_columns() -> None:
    assert rows_of(Pair, {"right": ["a", "b"], "unused": [0, 0], "left": [1, 2]}) == [Pair(1, "a"), Pair(2, "b")]
    assert rows_of(Pair, {"left": repeat(1), "right": ["a", "b"]}) == [Pair(1, "a"), Pair(1, "b")]
    assert rows_of(Pair, {"left": [], "right": []}) == []


def test_images_are_the_rows_of_their_table(session: Session) -> None:
    catalogue = session.atlas.catalogue
    columns = catalogue.columns(np.arange(catalogue.count), tables.IMAGES.names)
    for number, entry in enumerate(catalogue.rows(range(catalogue.count))):
        assert entry._asdict() == {name: columns[name][number] for name in entry._fields}


@pytest.mark.parametrize("first", [0, 5])
def test_unit_statistics_are_the_rows_of_their_table_read_one_by_one_or_together(session: Session, first: int) -> None:
    units = session.atlas.units("_blocks.5")
    together = UnitStatistics.rows(units.slice(first, 3))
    assert UnitStatistics.rows(units.slice(0, 0)) == []
    for offset, row in enumerate(units.slice(first, 3).to_pylist()):
        for statistics in (together[offset], UnitStatistics.at(units, first + offset)):
            assert statistics.channel == row["unit"] == first + offset
            assert [asdict(label) for label in statistics.top_labels] == row["top_labels"]
            for name in ("status", "image_count", "positive_count", "minimum", "maximum", "mean", "std"):
                assert getattr(statistics, name) == row[name]
            for name in ("knots", "histogram"):
                assert getattr(statistics, name).tolist() == row[name]
            assert statistics.quantile(0.5) == row["knots"][tables.KNOT_SHARES.index(0.5)]


def test_an_atlas_made_before_pictures_had_notes_is_read(tiny_atlas: Path, tmp_path: Path) -> None:
    old = tmp_path / "old"
    shutil.copytree(tiny_atlas, old)
    manifest = present_version(old)
    (segment,) = manifest.segments
    assert segment.tables.lookup is not None
    with pa.ipc.open_file(tiny_atlas / segment.tables.lookup.path) as source:
        rows = source.get_batch(0).drop_columns(["notes"])

    def write(file: Path) -> None:
        with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, rows.schema) as writer:
            writer.write_batch(rows)

    part = write_atomically(store_of(old), segment.tables.lookup.path, write, rows.num_rows)
    write_model(store_of(old), "manifest.json", resealed(manifest, part))
    catalogue = Session(old).atlas.catalogue
    assert {entry.notes for entry in catalogue.rows(range(catalogue.count))} == {None}
    older = pa.table({"image_id": ["a"]})
    assert tables.completed(older, tables.IMAGES)["notes"].to_pylist() == [None]
