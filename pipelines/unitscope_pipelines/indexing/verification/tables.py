"""The tables of a version, made again from what shards recorded and compared with those that are stored.

A digest tells that a table is the one that was sealed; this tells that it is the one that should have been. Costs about
the ranking of the atlas by one process, and writes nothing into it.
"""

import os
import tempfile
from collections.abc import Collection, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import duckdb
import faiss
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from unitscope_pipelines.indexing.patches.build import EmbeddedLayer, image_vectors
from unitscope_pipelines.indexing.ranking.ranker import Ranker, RankPlan, UnitBlock
from unitscope_pipelines.indexing.ranking.statistics import UnitSummary
from unitscope_pipelines.indexing.sealing.lookup import image_rows, write_database
from unitscope_pipelines.indexing.sealing.removed import conflict_count, label_count
from unitscope_pipelines.indexing.sealing.version_images import VersionImages
from unitscope_pipelines.indexing.sealing.versions import version_name
from unitscope_pipelines.indexing.verification.fault import Fault
from unitscope_pipelines.storage.parts import read_part
from unitscope_pipelines.storage.stores import Store
from unitscope_pipelines.storage.tombstones import present_images
from unitscope_schemas import tables
from unitscope_schemas.manifest import BLOCK_UNITS, LayerEntry, Manifest, Part, Receipt, atlas_key
from unitscope_schemas.progress import Progress, Report

_ROUNDED = ("mean", "std")
"""Statistics that are sums: another machine may add in another order."""
_ROUNDING = 1e-9
_MALFORMED = (ValueError, LookupError, TypeError, OSError, pa.ArrowException, duckdb.Error, RuntimeError)
"""What reading a table raises that has other columns, types, row groups or lengths than its kind."""
_DATABASE = {"labels": "label", "files": "path, image", "first_ranks": "rowid"}
"""Tables of the lookup databases with what orders them."""


class TableCheck:
    """What is not as it follows from the shards, part by part; parts that are broken are left out, and what needs them.

    A bounded atlas has no peaks: of its ranks the order is looked at, and statistics that follow from it.
    """

    def __init__(self, store: Store, manifest: Manifest, broken: Collection[str], report: Report) -> None:
        self.store, self.manifest, self.broken, self.report = store, manifest, broken, report
        self.left_out: set[str] = set()
        """Paths of parts that could not be made again, because others are broken."""

    def faults(self) -> Iterator[Fault]:
        """Look at all tables, and yield what is wrong with each."""
        manifest = self.manifest
        yield from self._key()
        images = read_part(self.store, manifest.images)
        if (reason := _misnumbered(images)) is not None:
            yield Fault("table", manifest.images.path, reason)
            return
        used = tuple(receipt for receipt in manifest.shards if receipt.forward_count)
        looks = {
            manifest.skipped.path: self._names(images),
            manifest.images.path: self._of_shards(images, used),
            "ranks": self._ranks(used),
            manifest.lookup.database.path: self._lookup(images),
            manifest.patches.vectors.path: self._vectors(images, used),
        }
        for where, look in looks.items():
            try:
                yield from look
            except _MALFORMED as error:
                yield Fault("table", where, f"is not as it should be: {type(error).__name__}: {error}")

    def _key(self) -> Iterator[Fault]:
        """The atlas key follows from all that decides recorded values."""
        manifest = self.manifest
        layers = [entry.spec.name for entry in manifest.layers]
        key = atlas_key(manifest.model, manifest.preprocessing, layers, manifest.precision, manifest.batch_size)
        wrong = [receipt.shard for receipt in manifest.shards if receipt.atlas_key != manifest.atlas_key]
        if key != manifest.atlas_key or wrong:
            where = f"shard {wrong[0]}" if wrong else "manifest"
            yield Fault("key", where, "is not that of its weights, preprocessing, layers, precision and batch size")

    def _names(self, images: pa.Table) -> Iterator[Fault]:
        """The version's name and counts follow from its images and skipped files."""
        manifest, corpus = self.manifest, self.manifest.corpus
        if self._is_broken(manifest.skipped):
            return
        skipped = read_part(self.store, manifest.skipped)
        shown = tables.with_labels(images)
        made = VersionImages(shown, skipped, corpus.file_count, frozenset())
        if version_name(manifest.atlas_key, manifest.keep, made) != manifest.built:
            yield Fault("table", manifest.images.path, "paths, labels or metadata are not those that name the version")
        left = present_images(manifest, self.store)
        counts = {
            "skipped_count": skipped.num_rows,
            "label_count": label_count(left),
            "conflict_count": conflict_count(left),
        }
        for name, count in counts.items():
            if getattr(corpus, name) != count:
                yield Fault("manifest", f"corpus.{name}", f"is {getattr(corpus, name)}, its tables have {count}")

    def _of_shards(self, images: pa.Table, receipts: tuple[Receipt, ...]) -> Iterator[Fault]:
        """Each image is at its row of its shard, with the sizes that were recorded there."""
        known = {receipt.shard for receipt in receipts}
        if strangers := set(pc.unique(images["shard"]).to_pylist()) - known:
            yield Fault("table", self.manifest.images.path, f"names shard {min(strangers)}, which the atlas has not")
        sizes = [field.name for field in tables.SCANNED if field.name in images.column_names and field.name != "row"]
        for receipt in receipts:
            if self._is_broken(receipt.scanned, receipt.files):
                continue
            own = images.filter(pc.equal(images["shard"], receipt.shard))
            scanned = tables.completed(read_part(self.store, receipt.scanned), tables.SCANNED)
            order = pc.index_in(own["shard_row"], value_set=scanned["row"].combine_chunks())
            recorded = scanned.take(order).select(sizes)
            if order.null_count or recorded.to_pydict() != own.select(sizes).to_pydict():
                yield Fault("table", receipt.scanned.path, "has other rows than the version's images")
            if receipt.scanned.rows != receipt.forward_count or scanned.num_rows != receipt.forward_count:
                yield Fault("table", receipt.scanned.path, f"has {scanned.num_rows} rows, not one a forward")

    def _ranks(self, receipts: tuple[Receipt, ...]) -> Iterator[Fault]:
        """Ranks and statistics follow from the peaks."""
        manifest = self.manifest
        ranker = Ranker(RankPlan(self.store, manifest.built, manifest.images, receipts, manifest.keep))
        entries = self.manifest.layers
        total, done = sum(len(entry.ranked) for entry in entries), 0
        for entry in entries:
            peaks = [receipt.peaks.get(entry.spec.name) for receipt, _ in ranker.sources]
            have_peaks = self.manifest.keep is None and not self._is_broken(*filter(None, peaks))
            stored = None if self._is_broken(entry.units) else read_part(self.store, entry.units)
            summaries: list[UnitSummary] = []
            for number, part in enumerate(entry.ranked):
                self.report(Progress("ranks", done, total, "blocks of units"))
                done += 1
                if self._is_broken(part):
                    continue
                if have_peaks:
                    yield from self._block(ranker, UnitBlock(entry.spec.name, number), part, summaries)
                else:
                    yield from self._order(entry, number, part)
            if stored is not None and len(summaries) == entry.spec.units:
                yield from self._statistics(entry, summaries, stored)
            elif stored is not None and stored["unit"].to_pylist() != list(range(entry.spec.units)):
                yield Fault("table", entry.units.path, "does not have one row a unit")
        self.report(Progress("ranks", total, total, "blocks of units"))

    def _block(self, ranker: Ranker, block: UnitBlock, part: Part, summaries: list[UnitSummary]) -> Iterator[Fault]:
        """The ranked part of a block is what its peaks give, row for row."""
        rows = 0
        with self.store.hold(part) as path, pq.ParquetFile(path, pre_buffer=False) as file:
            group, wrong = 0, ""
            for ranked, summary in ranker.units(block):
                summaries.append(summary)
                for first, end in pairwise(tables.group_ends(ranked.num_rows)):
                    same = group < file.num_row_groups and file.read_row_group(group, use_threads=False).equals(
                        ranked.slice(first, end - first)
                    )
                    if not (same or wrong):
                        wrong = f"{block.layer}:{summary.unit} is ranked otherwise than its peaks"
                    group += 1
                rows += ranked.num_rows
            if wrong or group != file.num_row_groups or rows != part.rows:
                yield Fault("ranks", part.path, wrong or f"has {part.rows} rows, where its peaks give {rows}")

    def _order(self, entry: LayerEntry, number: int, part: Part) -> Iterator[Fault]:
        """Ranks without peaks are in their order at least."""
        self.left_out |= {part.path}
        ranked = read_part(self.store, part)
        unit, rank, image = (ranked[name].to_numpy().astype(np.int64) for name in ("unit", "rank", "image"))
        activation = ranked["activation"].to_numpy()
        same = unit[1:] == unit[:-1]
        rising = (activation[1:] > activation[:-1]) | ((activation[1:] == activation[:-1]) & (image[1:] <= image[:-1]))
        starts = np.concatenate([[True], ~same]) if len(unit) else np.zeros(0, bool)
        counted = np.arange(len(unit)) - np.maximum.accumulate(np.where(starts, np.arange(len(unit)), 0))
        first = number * BLOCK_UNITS
        if (
            (same & rising).any()
            or not np.array_equal(rank, counted)
            or ((unit < first) | (unit >= min(first + BLOCK_UNITS, entry.spec.units))).any()
            or ((image < 0) | (image >= self.manifest.images.rows)).any()
            or (unit[1:] < unit[:-1]).any()
        ):
            yield Fault("ranks", part.path, "its rows are not in the order of ranks")

    def _statistics(self, entry: LayerEntry, summaries: list[UnitSummary], stored: pa.Table) -> Iterator[Fault]:
        """The statistics of a layer's units are those of its peaks."""
        made = pa.Table.from_pylist([summary.as_row() for summary in summaries], schema=tables.UNITS)
        for name in tables.UNITS.names:
            if name in _ROUNDED:
                a, b = (table[name].to_numpy(zero_copy_only=False).astype(float) for table in (made, stored))
                same = len(a) == len(b) and bool(np.allclose(a, b, _ROUNDING, 0, equal_nan=True))
            else:
                same = made[name].to_pylist() == stored[name].to_pylist()
            if not same:
                yield Fault("statistics", entry.units.path, f"{name} is not that of the peaks")
                return

    def _lookup(self, images: pa.Table) -> Iterator[Fault]:
        """What answers look up is what images and ranks say."""
        lookup, layers, rows = self.manifest.lookup, self.manifest.layers, self.manifest.lookup.images
        if not self._is_broken(rows):
            with self.store.hold(rows) as file, pa.memory_map(os.fspath(file)) as source:
                stored = pa.ipc.open_file(source).read_all()
                if not pa.table(image_rows(images)).equals(stored.select(stored.column_names)):
                    yield Fault("lookup", rows.path, "its rows are not those of the images")
        yield from self._database(lookup.database, self.manifest.images, () if lookup.ranks else layers)
        if lookup.ranks is not None:
            yield from self._database(lookup.ranks, None, layers)

    def _database(self, database: Part, images: Part | None, layers: Sequence[LayerEntry]) -> Iterator[Fault]:
        """A lookup database is what these images and ranks give."""
        if self._is_broken(database, *(part for entry in layers for part in entry.ranked)):
            self.left_out |= {database.path}
            return
        with tempfile.TemporaryDirectory(prefix="unitscope-") as folder, self.store.hold(database) as stored_file:
            made = Path(folder) / "made.duckdb"
            write_database(made, self.store, images, layers)
            if differing := _differing(made, stored_file):
                yield Fault("lookup", database.path, f"its table {differing} is not that of images and ranks")

    def _vectors(self, images: pa.Table, receipts: tuple[Receipt, ...]) -> Iterator[Fault]:
        """Vectors are those that shards embedded; the index holds as many."""
        patches = self.manifest.patches
        count, regions = images.num_rows, len(patches.regions)
        if self._is_broken(patches.vectors, *(receipt.embeddings for receipt in receipts)):
            self.left_out |= {patches.vectors.path}
        else:
            embedded = EmbeddedLayer(patches.layer, patches.width, patches.regions)
            with self.store.hold(patches.vectors) as file:
                stored = np.load(file, mmap_mode="r")
                wrong = stored.shape != (count * regions, patches.width) or any(
                    not np.array_equal(stored[image * regions : (image + 1) * regions], vectors, equal_nan=True)
                    for image, vectors in image_vectors(self.store, receipts, self.manifest.images, embedded)
                )
            if wrong:
                yield Fault("vectors", patches.vectors.path, "its rows are not what the shards embedded")
        if patches.index is not None and not self._is_broken(patches.index):
            with self.store.hold(patches.index) as file:
                index = faiss.read_index(os.fspath(file), faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY)
            if (index.ntotal, index.d) != (count * regions, patches.width):
                yield Fault("vectors", patches.index.path, f"holds {index.ntotal} vectors of {index.d} numbers")

    def _is_broken(self, *parts: Part) -> bool:
        return any(part.path in self.broken for part in parts)


def _misnumbered(images: pa.Table) -> str | None:
    """Return why images are not numbered by their ids, None if they are."""
    ids = images["image_id"].to_numpy(zero_copy_only=False)
    if not np.array_equal(images["image"].to_numpy(), np.arange(images.num_rows)):
        return "its images are not numbered from 0 on"
    return None if bool((ids[1:] > ids[:-1]).all()) else "its images are not in order of their ids"


def _differing(made: Path, stored: Path) -> str | None:
    """Return the first table of the lookup database that is not as it was made now, None if all are."""
    with duckdb.connect(":memory:") as database:
        for name, file in (("made", made), ("stored", stored)):
            quoted = os.fspath(file).replace("'", "''")
            database.execute(f"ATTACH '{quoted}' AS {name} (READ_ONLY)")
        database.execute("SET enable_external_access = false")
        known = "SELECT table_name FROM duckdb_tables() WHERE database_name = ? ORDER BY 1"
        names = {name: [row[0] for row in database.execute(known, [name]).fetchall()] for name in ("made", "stored")}
        if names["made"] != names["stored"]:
            return " or ".join(sorted(set(names["made"]) ^ set(names["stored"])))
        for table, order in ((table, order) for table, order in _DATABASE.items() if table in names["made"]):
            ordered = f".{table} ORDER BY {order}"
            made_rows: pa.Table = database.sql(f"SELECT * FROM made{ordered}").to_arrow_table()
            stored_rows: pa.Table = database.sql(f"SELECT * FROM stored{ordered}").to_arrow_table()
            if not made_rows.equals(stored_rows):
                return table
    return None
