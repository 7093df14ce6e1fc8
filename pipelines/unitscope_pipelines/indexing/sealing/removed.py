"""Images that were taken out by hand: which they are, and what an atlas is without them."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from unitscope_pipelines.indexing.sealing.duplicates import duplicate_names
from unitscope_pipelines.indexing.sealing.version_images import VersionImages
from unitscope_pipelines.storage.long_tables.long_table import LongTable
from unitscope_pipelines.storage.parts import read_part, write_table
from unitscope_pipelines.storage.segments.images import version_images
from unitscope_pipelines.storage.stores import Store
from unitscope_pipelines.storage.tombstones import present_images, without
from unitscope_schemas import layout, tables
from unitscope_schemas.answers.statements import labels_differ, read_statements
from unitscope_schemas.entries.corpus import CorpusEntry
from unitscope_schemas.entries.part import Part
from unitscope_schemas.manifest import Manifest


def once_removed(store: Store) -> pa.Table:
    """Read every image that some table of removed ones names, for an atlas whose manifest is gone.

    Which of the tables was the last nobody knows then, and an image that was taken out must not come back by itself.
    """
    texts = store.read_all(sorted(file.path for file in store.walk(layout.REMOVED)))
    rows = pa.concat_tables([tables.REMOVED.empty_table(), *(pq.read_table(pa.BufferReader(text)) for text in texts)])
    rows = rows.sort_by([("image_id", "ascending"), ("removed", "ascending")])
    ids = rows["image_id"].to_numpy()
    first = np.ones(len(ids), bool)
    first[1:] = ids[1:] != ids[:-1]
    return rows.filter(pa.array(first))


def remaining_images(manifest: Manifest, store: Store) -> VersionImages:
    """Return what an index run over the remaining files would find: images numbered and grouped anew.

    Reads the images table and what shards hold about theirs, some 400 bytes of memory an image; no picture.
    """
    images = present_images(manifest, store)
    renewed = {
        "image": pa.array(np.arange(images.num_rows, dtype=np.int32)),
        "duplicate_group": recorded_groups(images, manifest, store),
    }
    columns = [renewed.get(name, images[name]) for name in tables.IMAGES.names]
    return VersionImages(
        images=LongTable.of(pa.table(columns, names=tables.IMAGES.names).cast(tables.IMAGES)),
        skipped=read_part(store, manifest.skipped),
        file_count=file_count(images),
        shards=frozenset(receipt.shard for receipt in manifest.shards),
    )


def recorded_groups(images: pa.Table, manifest: Manifest, store: Store) -> pa.Array:
    """Return the group of near duplicates of each of some images of a version, by what shards recorded of them.

    `images` has `tables.IMAGES`, in order of numbers.
    """
    store.fetch(receipt.scanned for receipt in manifest.shards)
    sketches = pa.concat_tables(
        read_part(store, receipt.scanned, ["row", "gradient_hash", "tint"]).append_column(
            "shard", pa.array([receipt.shard] * receipt.forward_count, pa.string())
        )
        for receipt in manifest.shards
    )
    positions = images.select(["image", "shard", "shard_row"])
    seen = positions.join(sketches, keys=["shard", "shard_row"], right_keys=["shard", "row"]).sort_by("image")
    return duplicate_names(images["image_id"], seen)


def file_count(images: pa.Table) -> int:
    """Count the files of the corpus that the images have."""
    return int(images.num_rows) + len(pc.list_flatten(images["other_paths"]))


def label_count(images: Iterable[pa.RecordBatch]) -> int:
    """Count the different labels of images."""
    labels = pa.array([], pa.string())
    for batch in images:
        labels = pc.unique(pa.concat_arrays([labels, pc.unique(pc.list_flatten(batch["labels"]))]))
    return len(labels)


def conflict_count(images: Iterable[pa.RecordBatch]) -> int:
    """Count the images to which files or rows of lists give different labels."""
    statements = (text for batch in images for text in batch["statements"].drop_null().to_pylist())
    return sum(map(labels_differ, map(read_statements, statements)))


@dataclass(frozen=True)
class Outline:
    """What of a manifest changes when other images are out."""

    version: str
    corpus: CorpusEntry
    stale: int
    """Count of the removed images that the tables still hold."""


def outline(manifest: Manifest, store: Store, removed: pa.Table) -> Outline:
    """Return how a version that reads the same tables counts if these images are out.

    Without tombstones it has the name of the version whose tables it reads.
    """
    images = version_images(manifest, store, ["image_id", "other_paths", "labels", "statements"])
    left = without(images, removed)
    is_stale = pc.is_in(removed["image_id"], value_set=images["image_id"].combine_chunks())
    stale = removed.filter(is_stale)["image_id"].to_pylist()
    counts = {
        "image_count": left.num_rows,
        "file_count": file_count(left),
        "label_count": label_count(left.to_batches()),
        "conflict_count": conflict_count(left.to_batches()),
    }
    version = _digest(manifest.built, *stale) if stale else manifest.built
    return Outline(version, manifest.corpus.model_copy(update=counts), len(stale))


def write_removed(store: Store, removed: pa.Table) -> Part:
    """Write the table of removed images; equal tables have one path."""
    return write_table(store, layout.removed(_digest(*removed["image_id"].to_pylist())), removed)


def _digest(*names: str) -> str:
    return hashlib.sha256(" ".join(names).encode()).hexdigest()[:16]
