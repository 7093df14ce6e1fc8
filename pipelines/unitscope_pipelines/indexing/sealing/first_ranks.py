"""The DuckDB file of every unit's first ranks, which most answers are made of."""

import os
from collections.abc import Sequence
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa

from unitscope_pipelines.storage.parts import write_atomically
from unitscope_pipelines.storage.segments.ranked_rows import Columns, RankedRows
from unitscope_pipelines.storage.stores import Store
from unitscope_schemas import layout, tables
from unitscope_schemas.entries.part import Part
from unitscope_schemas.entries.segment import Segment

_RANKED = ("image", "activation", "row", "col")


def build_first_ranks(store: Store, version: str, segments: Sequence[Segment]) -> Part:
    """Write the first ranks of a version's units; rebuildable from the ranked tables at any time."""
    rows = sum(ranked.units.rows for ranked in segments[0].layers.values())
    path = layout.first_ranks(version)
    return write_atomically(store, path, lambda file: write_first_ranks(file, store, segments), rows)


def write_first_ranks(file: Path, store: Store, segments: Sequence[Segment]) -> None:
    """Write them layer by layer, unit by unit, in rank order: answers find a unit's by the numbers of rows."""
    with duckdb.connect(os.fspath(file)) as database:
        database.execute(
            "CREATE TABLE first_ranks (layer INTEGER, unit INTEGER, rank INTEGER, image INTEGER, "
            "activation FLOAT, row SMALLINT, col SMALLINT)"
        )
        for position, layer in enumerate(segments[0].layers):
            rows = RankedRows.of(store, layer, segments)
            for block in rows.blocks:
                units = [_first_rows(position, *unit) for unit in rows.units(block, _RANKED, tables.FIRST_RANKS)]
                if units:
                    _insert(database, pa.concat_tables(units))
        database.execute("CHECKPOINT")


def _first_rows(layer: int, unit: int, columns: Columns) -> pa.Table:
    """Return the first rows of a unit as they are stored."""
    count = len(columns["image"])
    own = {"layer": layer, "unit": unit}
    fixed = {name: pa.array(np.full(count, value, np.int32)) for name, value in own.items()}
    return pa.table(fixed | {"rank": pa.array(np.arange(count, dtype=np.int32))} | columns)


def _insert(database: duckdb.DuckDBPyConnection, rows: pa.Table) -> None:
    database.register("rows", rows)
    database.execute("INSERT INTO first_ranks SELECT * FROM rows")
    database.unregister("rows")
