"""The tables of a version, made again from what shards recorded and compared with those that are stored.

A digest tells that a table is the one that was sealed; this tells that it is the one that should have been. Costs about
the ranking of the atlas by one process, and writes nothing into it.
"""

import os
from collections.abc import Collection, Iterator
from pathlib import Path

import duckdb
import faiss
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from unitscope_pipelines.indexing.patches.build import image_vectors
from unitscope_pipelines.indexing.ranking.merging import MergePlan, Merger
from unitscope_pipelines.indexing.ranking.ranker import Ranker, UnitBlock
from unitscope_pipelines.indexing.ranking.statistics import UnitSummary
from unitscope_pipelines.indexing.sealing.first_ranks import write_first_ranks
from unitscope_pipelines.indexing.sealing.image_tables import group_rows
from unitscope_pipelines.indexing.sealing.removed import conflict_count, label_count, recorded_groups
from unitscope_pipelines.indexing.sealing.version_images import VersionImages
from unitscope_pipelines.indexing.sealing.versions import version_name
from unitscope_pipelines.indexing.verification.fault import Fault
from unitscope_pipelines.storage.long_tables.long_table import LongTable
from unitscope_pipelines.storage.long_tables.scratch import scratch_folder
from unitscope_pipelines.storage.parts import read_part
from unitscope_pipelines.storage.ranked_file import read_footer
from unitscope_pipelines.storage.segments.images import SegmentImages, version_images
from unitscope_pipelines.storage.segments.lookup import lookup_files, lookup_rows
from unitscope_pipelines.storage.stores import Store
from unitscope_pipelines.storage.tombstones import present_images
from unitscope_schemas import tables
from unitscope_schemas.entries.part import Part, UnitFooter
from unitscope_schemas.entries.segment import RankedLayer, Segment
from unitscope_schemas.manifest import BLOCK_UNITS, LayerEntry, Manifest, Receipt, atlas_key
from unitscope_schemas.progress import Progress, Report

_ROUNDED = ("mean", "std")
"""Statistics that are sums: another machine may add in another order."""
_ROUNDING = 1e-9
_MALFORMED = (ValueError, LookupError, TypeError, OSError, pa.ArrowException, duckdb.Error, RuntimeError)
"""What reading a table raises that has other columns, types, row groups or lengths than its kind."""


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
        images = version_images(manifest, self.store)
        ids = images["image_id"].to_numpy(zero_copy_only=False)
        if not bool((ids[1:] > ids[:-1]).all()):
            yield Fault("table", self._images, "images are not in order of their ids")
            return
        used = tuple(receipt for receipt in manifest.shards if receipt.forward_count)
        looks = {
            manifest.skipped.path: self._names(images),
            self._images: self._of_shards(images, used),
            "segments": self._numbers(),
            "ranks": self._ranks(used),
            "lookup": self._lookup(),
            "groups": self._groups(images),
            manifest.first_ranks.path: self._first_ranks(),
            "vectors": self._vectors(used),
        }
        for where, look in looks.items():
            try:
                yield from look
            except _MALFORMED as error:
                yield Fault("table", where, f"is not as it should be: {type(error).__name__}: {error}")

    @property
    def _images(self) -> str:
        """The table of images, or what they are called where there are several."""
        segments = self.manifest.segments
        return segments[0].tables.images.path if len(segments) == 1 else "images"

    def _key(self) -> Iterator[Fault]:
        """The atlas key follows from all that decides recorded values."""
        manifest = self.manifest
        layers = [entry.spec.name for entry in manifest.layers]
        arithmetic = manifest.precision, manifest.batch_size, manifest.device
        key = atlas_key(manifest.model, manifest.preprocessing, layers, *arithmetic)
        wrong = [receipt.shard for receipt in manifest.shards if receipt.atlas_key != manifest.atlas_key]
        if key != manifest.atlas_key or wrong:
            where = f"shard {wrong[0]}" if wrong else "manifest"
            yield Fault("key", where, "is not that of its weights, preprocessing, layers, batch size and arithmetic")

    def _names(self, images: pa.Table) -> Iterator[Fault]:
        """The version's name and counts follow from its images and skipped files."""
        manifest, corpus = self.manifest, self.manifest.corpus
        if self._is_broken(manifest.skipped):
            return
        skipped = read_part(self.store, manifest.skipped)
        made = VersionImages(LongTable.of(images), skipped, corpus.file_count, frozenset())
        if version_name(manifest.atlas_key, manifest.keep, made) != manifest.built:
            yield Fault("table", self._images, "paths, labels or metadata are not those that name the version")
        left = present_images(manifest, self.store)
        counts = {
            "skipped_count": skipped.num_rows,
            "label_count": label_count(left.to_batches()),
            "conflict_count": conflict_count(left.to_batches()),
        }
        for name, count in counts.items():
            if getattr(corpus, name) != count:
                yield Fault("manifest", f"corpus.{name}", f"is {getattr(corpus, name)}, its tables have {count}")

    def _of_shards(self, images: pa.Table, receipts: tuple[Receipt, ...]) -> Iterator[Fault]:
        """Each image is at its row of its shard, with the sizes that were recorded there."""
        known = {receipt.shard for receipt in receipts}
        if strangers := set(pc.unique(images["shard"]).to_pylist()) - known:
            yield Fault("table", self._images, f"names shard {min(strangers)}, which the atlas has not")
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

    def _numbers(self) -> Iterator[Fault]:
        """The segments' images are all of the version's, each once, in order of their numbers."""
        found = np.zeros(self.manifest.stored_count, np.int64)
        for segment in self.manifest.segments:
            if segment.numbers is None or self._is_broken(segment.numbers):
                return
            numbers = read_part(self.store, segment.numbers)["image"].to_numpy()
            inside = len(numbers) and numbers[0] >= 0 and numbers[-1] < len(found)
            if not inside or len(numbers) != segment.image_count or (numbers[1:] <= numbers[:-1]).any():
                yield Fault("table", segment.numbers.path, "its numbers are not those of images, in their order")
                return
            found[numbers] += 1
        if (found != 1).any():
            yield Fault("table", "segments", "do not have each image of the version once")

    def _images_of(self, segment: Segment, receipts: tuple[Receipt, ...]) -> SegmentImages:
        return SegmentImages(self.store, segment.name, segment.tables.images, receipts)

    def _ranks(self, receipts: tuple[Receipt, ...]) -> Iterator[Fault]:
        """Ranks and statistics follow from the peaks, segment by segment, and statistics of all from the segments."""
        segments = [one for one in self.manifest.segments if not self._is_broken(*filter(None, [one.numbers]))]
        total, done = sum(len(own.ranked) for one in segments for own in one.layers.values()), 0
        several = len(self.manifest.segments) > 1
        for segment in segments:
            ranker = Ranker(self._images_of(segment, receipts), self.manifest.keep)
            for layer, own in segment.layers.items():
                self.report(Progress("ranks", done, total, "blocks of units"))
                done += len(own.ranked)
                entry = self.manifest.recorded(layer)
                # labels of segments are those that images had when they were ranked
                labelled = entry.units.path == own.units.path
                yield from self._of_layer(ranker, own, LayerEntry(spec=entry.spec, units=own.units), labelled)
        for entry in self.manifest.layers:
            if several or entry.units.path != self.manifest.segments[0].layers[entry.spec.name].units.path:
                yield from self._merged(entry)
        self.report(Progress("ranks", total, total, "blocks of units"))

    def _of_layer(self, ranker: Ranker, own: RankedLayer, entry: LayerEntry, labelled: bool) -> Iterator[Fault]:
        """The ranks of a layer over a segment, and the statistics of its units, are those of its peaks."""
        peaks = [receipt.peaks.get(entry.spec.name) for receipt, _ in ranker.sources]
        have_peaks = self.manifest.keep is None and not self._is_broken(*filter(None, peaks))
        summaries: list[UnitSummary] = []
        for number, part in enumerate(own.ranked):
            if self._is_broken(part):
                continue
            if have_peaks:
                yield from self._block(ranker, UnitBlock(entry.spec.name, number), part, summaries)
            else:
                yield from self._order(entry, number, part, len(ranker.numbering.numbers))
        stored = None if self._is_broken(own.units) else read_part(self.store, own.units)
        if stored is not None:
            yield from self._footers(own, stored)
        if stored is not None and len(summaries) == entry.spec.units:
            yield from self._statistics(entry, summaries, stored, labelled)
        elif stored is not None and stored["unit"].to_pylist() != list(range(entry.spec.units)):
            yield Fault("table", own.units.path, "does not have one row a unit")

    def _merged(self, entry: LayerEntry) -> Iterator[Fault]:
        """The statistics of a layer's units over all segments are those of their ranks."""
        segments, layer = self.manifest.segments, entry.spec.name
        needed = [part for one in segments for part in (one.layers[layer].units, *one.layers[layer].ranked)]
        needed += [one.numbers for one in segments if one.numbers is not None]
        if self.manifest.keep is not None or self._is_broken(entry.units, *needed):
            self.left_out |= {entry.units.path}
            return
        merger = Merger(MergePlan(self.store, tuple(segments)))
        blocks = range(-(-entry.spec.units // BLOCK_UNITS))
        summaries = [unit for number in blocks for unit in merger(UnitBlock(layer, number)).units]
        yield from self._statistics(entry, summaries, read_part(self.store, entry.units), True)

    def _block(self, ranker: Ranker, block: UnitBlock, part: Part, summaries: list[UnitSummary]) -> Iterator[Fault]:
        """The ranked part of a block is what its peaks give, row for row."""
        rows = 0
        with self.store.hold(part) as path, pq.ParquetFile(path, pre_buffer=False) as file:
            group, wrong = 0, ""
            for ranked, summary in ranker.units(block):
                summaries.append(summary)
                first = 0
                while first < ranked.num_rows and group < file.num_row_groups and not wrong:  # as the file groups them
                    own = file.read_row_group(group, use_threads=False)
                    if not own.num_rows or not own.equals(ranked.slice(first, own.num_rows)):
                        wrong = f"{block.layer}:{summary.unit} is ranked otherwise than its peaks"
                    elif first == 0 and own.num_rows != min(tables.FIRST_RANKS, ranked.num_rows):
                        wrong = f"the first row group of {block.layer}:{summary.unit} is not its first ranks"
                    first += own.num_rows
                    group += 1
                rows += ranked.num_rows
            if wrong or group != file.num_row_groups or not rows == part.rows == file.metadata.num_rows:
                yield Fault("ranks", part.path, wrong or f"has {part.rows} rows, where its peaks give {rows}")

    def _footers(self, own: RankedLayer, stored: pa.Table) -> Iterator[Fault]:
        """The footers of units are where the table of units says, in parts that are as they were sealed."""
        footers = stored[tables.FOOTER].to_pylist() if tables.FOOTER in stored.column_names else []
        for number, part in enumerate(own.ranked):
            named = [UnitFooter(**footer) for footer in footers[number * BLOCK_UNITS :][:BLOCK_UNITS] if footer]
            if not named or self._is_broken(part):
                continue
            with self.store.hold(part) as path, path.open("rb") as file:
                if any(read_footer(file, footer) is None for footer in named):
                    yield Fault("table", own.units.path, f"names other footers of units than {part.path} has")

    def _order(self, entry: LayerEntry, number: int, part: Part, image_count: int) -> Iterator[Fault]:
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
            or ((image < 0) | (image >= image_count)).any()
            or (unit[1:] < unit[:-1]).any()
        ):
            yield Fault("ranks", part.path, "its rows are not in the order of ranks")

    def _statistics(
        self, entry: LayerEntry, summaries: list[UnitSummary], stored: pa.Table, labelled: bool
    ) -> Iterator[Fault]:
        """The statistics of a layer's units are those of its peaks; labels count where they are those of all images."""
        made = pa.Table.from_pylist([summary.as_row() for summary in summaries], schema=tables.UNITS)
        for name in tables.UNITS.names:
            if name == "top_labels" and not labelled:
                continue
            if name in _ROUNDED:
                a, b = (table[name].to_numpy(zero_copy_only=False).astype(float) for table in (made, stored))
                same = len(a) == len(b) and bool(np.allclose(a, b, _ROUNDING, 0, equal_nan=True))
            else:
                same = made[name].to_pylist() == stored[name].to_pylist()
            if not same:
                yield Fault("statistics", entry.units.path, f"{name} is not that of the peaks")
                return

    def _lookup(self) -> Iterator[Fault]:
        """What answers look up of a segment's images is what its table of them says."""
        for segment in self.manifest.segments:
            images, rows, files = segment.tables.images, segment.tables.lookup, segment.tables.files
            if rows is None or files is None:
                continue
            said = read_part(self.store, images)
            if not self._is_broken(rows) and not _arrow_rows(self.store, rows).equals(pa.table(lookup_rows(said))):
                yield Fault("lookup", rows.path, "its rows are not those of the images")
            paths = lookup_files(said)
            if not self._is_broken(files) and not _arrow_rows(self.store, files).equals(pa.table(paths)):
                yield Fault("lookup", files.path, "its paths are not those of the images")

    def _groups(self, images: pa.Table) -> Iterator[Fault]:
        """Near duplicates are those that shards recorded as such."""
        stored = self.manifest.groups
        if stored is None or self._is_broken(*(receipt.scanned for receipt in self.manifest.shards)):
            return
        recorded = recorded_groups(images, self.manifest, self.store)
        at = images.schema.get_field_index("duplicate_group")
        made = group_rows(images.set_column(at, images.schema.field(at), recorded).to_batches())
        if not read_part(self.store, stored).equals(made):
            yield Fault("table", stored.path, "its near duplicates are not those that shards recorded")

    def _first_ranks(self) -> Iterator[Fault]:
        """The first ranks are those of the ranked tables."""
        segments, stored = self.manifest.segments, self.manifest.first_ranks
        needed = [part for one in segments for own in one.layers.values() for part in own.ranked]
        if self._is_broken(stored, *needed):
            self.left_out |= {stored.path}
            return
        with scratch_folder() as folder, self.store.hold(stored) as stored_file:
            made = Path(folder) / "made.duckdb"
            write_first_ranks(made, self.store, segments)
            if _differs(made, stored_file):
                yield Fault("lookup", stored.path, "its rows are not those of the ranked tables")

    def _vectors(self, receipts: tuple[Receipt, ...]) -> Iterator[Fault]:
        """Vectors are those that shards embedded; each index holds as many."""
        for segment in self.manifest.segments:
            yield from self._vectors_of(segment, self._images_of(segment, receipts))

    def _vectors_of(self, segment: Segment, images: SegmentImages) -> Iterator[Fault]:
        patches, embedding = segment.patches, self.manifest.embedding
        regions, shape = len(embedding.regions), (patches.vectors.rows, embedding.width)
        shards = (receipt.embeddings for receipt in images.receipts)
        if self._is_broken(patches.vectors, *shards, *filter(None, [segment.numbers])):
            self.left_out |= {patches.vectors.path}
        else:
            with self.store.hold(patches.vectors) as file:
                stored = np.load(file, mmap_mode="r")
                wrong = stored.shape != shape or any(
                    not np.array_equal(stored[image * regions : (image + 1) * regions], vectors, equal_nan=True)
                    for image, vectors in image_vectors(images, embedding)
                )
            if wrong:
                yield Fault("vectors", patches.vectors.path, "its rows are not what the shards embedded")
        if patches.index is not None and not self._is_broken(patches.index):
            with self.store.hold(patches.index) as file:
                index = faiss.read_index(os.fspath(file), faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY)
            if (index.ntotal, index.d) != shape:
                yield Fault("vectors", patches.index.path, f"holds {index.ntotal} vectors of {index.d} numbers")

    def _is_broken(self, *parts: Part) -> bool:
        return any(part.path in self.broken for part in parts)


def _arrow_rows(store: Store, part: Part) -> pa.Table:
    """Return the rows of an Arrow file."""
    with store.hold(part) as file:
        return pa.ipc.open_file(pa.OSFile(os.fspath(file))).read_all()


def _differs(made: Path, stored: Path) -> bool:
    """Tell whether a file of first ranks is not as it was made now."""
    rows = []
    for file in (made, stored):
        with duckdb.connect(os.fspath(file), read_only=True, config={"enable_external_access": False}) as database:
            rows.append(database.sql("FROM first_ranks ORDER BY rowid").to_arrow_table())
    return not rows[0].equals(rows[1])
