"""Exports: a folder that appears when all of it is written, and tables of units and exemplars in it."""

import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from unitscope_schemas.answers.patches import PatchRow, UnitRow
from unitscope_schemas.errors import StorageError, UsageError
from unitscope_schemas.formats import as_table, csv_table
from unitscope_schemas.questions import TopQuestion
from unitscope_schemas.units import UnitId
from unitscope_services.atlas.atlas import Atlas
from unitscope_services.queries.exemplars import patches
from unitscope_services.queries.units import unit_row

TableFile = Literal["parquet", "csv", "arrow"]

_ROWS_AT_ONCE = 10_000


@dataclass(frozen=True)
class Written:
    """How much an export holds."""

    units: int
    exemplars: int
    missing: tuple[str, ...] = ()
    """Path and reason of each picture for which a blank stands in."""


class TableWriter(Protocol):
    """A writer of tables: what Arrow's writers of all three formats have in common."""

    def write_table(self, table: pa.Table) -> None:
        """Write a table behind what was written before."""


def write_tables(
    atlas: Atlas, units: Sequence[UnitId], out: Path, file_format: TableFile, k: int = 9, safe: bool = False
) -> Written:
    """Write `units` and `exemplars` into a new folder, a few units at a time.

    Exemplars are the rows of `unitscope top` behind the unit's layer and channel; boxes have one column per side. Every
    row ends with the version it is of, its manifest's digest and the atlas key, so that none is an orphan once copied.
    `safe`: CSV for spreadsheets, in which no text is taken for a formula.
    """
    exemplar_count = 0

    def written(table: pa.Table) -> pa.Table:
        return csv_table(table, safe) if file_format == "csv" else table

    with new_folder(out) as folder:
        statistics = (
            _sealed(atlas, written(as_table([unit_row(unit.layer, atlas.unit(unit))], UnitRow))) for unit in units
        )
        _write(folder / f"units.{file_format}", file_format, statistics)

        def exemplars() -> Iterator[pa.Table]:
            nonlocal exemplar_count
            for unit in units:
                table = as_table(patches(atlas, unit, TopQuestion(k=k)).rows, PatchRow)
                exemplar_count += table.num_rows
                yield _sealed(atlas, written(_of_unit(unit, table)))

        _write(folder / f"exemplars.{file_format}", file_format, exemplars())
    return Written(len(units), exemplar_count)


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Give a folder to fill, which takes the name `out` when the block ends well and is gone when it does not.

    Raises UsageError if `out` holds anything already, StorageError if the disk refuses.
    """
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise UsageError(f"{out} is there already; name another folder, or remove it first")
    folder = out.absolute().with_name(f".{out.name}.{uuid.uuid4().hex}.tmp")
    try:
        folder.mkdir(parents=True)
        yield folder
        folder.replace(out.absolute())
    except OSError as error:
        raise StorageError(
            f"cannot write the export {out}: {error.strerror or error}; nothing of it is kept"
        ) from error
    finally:
        with suppress(OSError):
            shutil.rmtree(folder)


def _write(path: Path, file_format: TableFile, parts: Iterator[pa.Table]) -> None:
    """Write tables of one schema into one file, some thousand rows at a time."""
    first = next(parts)
    with _OPEN[file_format](path, first.schema) as writer:
        waiting, rows = [first], first.num_rows
        for part in parts:
            waiting.append(part)
            rows += part.num_rows
            if rows >= _ROWS_AT_ONCE:
                writer.write_table(pa.concat_tables(waiting))
                waiting, rows = [], 0
        if waiting:
            writer.write_table(pa.concat_tables(waiting))


def _of_unit(unit: UnitId, table: pa.Table) -> pa.Table:
    """Return the rows with the unit they belong to in front."""
    layer = pa.array([unit.layer] * table.num_rows, pa.string())
    channel = pa.array([unit.channel] * table.num_rows, pa.int64())
    return table.add_column(0, "channel", channel).add_column(0, "layer", layer)


def _sealed(atlas: Atlas, table: pa.Table) -> pa.Table:
    """Return the rows with what tells the version they are of behind them."""
    manifest = atlas.manifest
    told = {"version": manifest.version, "digest": manifest.digest or "", "atlas_key": manifest.atlas_key}
    for name, value in told.items():
        table = table.append_column(name, pa.repeat(pa.scalar(value, pa.string()), table.num_rows))
    return table


_OPEN: dict[TableFile, Callable[[Path, pa.Schema], AbstractContextManager[TableWriter]]] = {
    "parquet": lambda path, schema: pa.parquet.ParquetWriter(path, schema, compression="zstd"),
    "csv": lambda path, schema: pa.csv.CSVWriter(os.fspath(path), schema),
    "arrow": lambda path, schema: pa.ipc.new_file(os.fspath(path), schema),
}
