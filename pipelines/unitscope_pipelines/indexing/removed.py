"""Images that were taken out by hand: which they are, and what an atlas is without them."""

import hashlib
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from unitscope_pipelines.indexing.catalogue import Catalogue
from unitscope_pipelines.indexing.duplicates import duplicate_names
from unitscope_pipelines.storage.parts import read_part, write_table
from unitscope_pipelines.storage.stores import Root, store_of
from unitscope_pipelines.storage.tombstones import present_images, without
from unitscope_schemas import layout, tables
from unitscope_schemas.manifest import CorpusEntry, Manifest, Part


def once_removed(atlas: Root) -> pa.Table:
    """Every image that some table of removed ones names, for an atlas whose manifest is gone: which of the tables was
    the last nobody knows then, and an image that was taken out must not come back by itself."""
    store = store_of(atlas)
    texts = store.read_all(sorted(file.path for file in store.walk(layout.REMOVED)))
    found = pa.concat_tables([tables.REMOVED.empty_table(), *(pq.read_table(pa.BufferReader(text)) for text in texts)])
    found = found.sort_by([("image_id", "ascending"), ("removed", "ascending")])
    ids = found["image_id"].to_numpy()
    first = np.ones(len(ids), bool)
    first[1:] = ids[1:] != ids[:-1]
    return found.filter(pa.array(first))


def present(manifest: Manifest, atlas: Root) -> Catalogue:
    """What an index run over the remaining files would find: images numbered and grouped anew.

    Reads the images table and what shards hold about theirs, some 400 bytes of memory an image; no picture.
    """
    images = present_images(manifest, atlas)
    store_of(atlas).fetch(receipt.scanned for receipt in manifest.shards)
    sketches = pa.concat_tables(
        read_part(atlas, receipt.scanned, ["row", "gradient_hash", "tint"]).append_column(
            "shard", pa.array([receipt.shard] * receipt.forward_count, pa.string())
        )
        for receipt in manifest.shards
    )
    where = images.select(["image", "shard", "shard_row"])
    found = where.join(sketches, keys=["shard", "shard_row"], right_keys=["shard", "row"]).sort_by("image")
    renewed = {
        "image": pa.array(np.arange(images.num_rows, dtype=np.int32)),
        "duplicate_group": duplicate_names(
            images["image_id"], found["gradient_hash"].to_pylist(), found["tint"].to_pylist()
        ),
    }
    columns = [renewed.get(name, images[name]) for name in tables.IMAGES.names]
    return Catalogue(
        pa.table(columns, names=tables.IMAGES.names).cast(tables.IMAGES),
        read_part(atlas, manifest.skipped),
        file_count(images),
        frozenset(receipt.shard for receipt in manifest.shards),
    )


def file_count(images: pa.Table) -> int:
    """How many files of the corpus the images have."""
    return int(images.num_rows) + len(pc.list_flatten(images["other_paths"]))


@dataclass(frozen=True)
class Outline:
    """What of a manifest changes when other images are out."""

    version: str
    corpus: CorpusEntry
    stale: int


def outlined(manifest: Manifest, atlas: Root, removed: pa.Table) -> Outline:
    """How a version that reads the same tables counts if these images are out.

    Without tombstones it has the name of the version whose tables it reads.
    """
    images = read_part(atlas, manifest.images, ["image_id", "other_paths", "label"])
    left = without(images, removed)
    held = pc.is_in(removed["image_id"], value_set=images["image_id"].combine_chunks())
    stale = removed.filter(held)["image_id"].to_pylist()
    counts = {
        "image_count": left.num_rows,
        "file_count": file_count(left),
        "label_count": len(pc.unique(left["label"].drop_null())),
    }
    version = _digest(manifest.built, *stale) if stale else manifest.built
    return Outline(version, manifest.corpus.model_copy(update=counts), len(stale))


def write_removed(atlas: Root, removed: pa.Table) -> Part:
    """Write the table of removed images; the same images have the same path."""
    return write_table(atlas, layout.removed(_digest(*removed["image_id"].to_pylist())), removed)


def _digest(*names: str) -> str:
    return hashlib.sha256(" ".join(names).encode()).hexdigest()[:16]
