"""From finished shards to the images of a version: one row per content, numbered, near duplicates grouped."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from unitscope_pipelines.corpora.listing import Listing
from unitscope_pipelines.indexing.duplicates import duplicate_names
from unitscope_pipelines.storage.parts import read_part
from unitscope_pipelines.storage.stores import Root, store_of
from unitscope_schemas import tables
from unitscope_schemas.errors import CorpusError
from unitscope_schemas.manifest import Part, Receipt

_KEY = list(tables.FILE_KEY)


@dataclass(frozen=True)
class Catalogue:
    """The images and skipped files of one version, how many files the images have, and the shards that know of them.

    A shard knows of a file that it read, also of one that is skipped or removed, and of an image that it scanned.
    """

    images: pa.Table
    skipped: pa.Table
    file_count: int
    shards: frozenset[str]


def pending_files(listing: Listing, receipts: Iterable[Receipt], atlas: Root) -> pa.Table:
    """The listed files that no finished shard has read, or found unusable, in their present state."""
    done, receipts = [_key_schema().empty_table()], list(receipts)
    store_of(atlas).fetch(part for receipt in receipts for part in (receipt.skipped, receipt.files))
    for receipt in receipts:
        skipped = read_part(atlas, receipt.skipped)
        final = skipped.filter(pc.invert(pc.starts_with(skipped["reason"], tables.UNREADABLE)))
        done += [read_part(atlas, receipt.files, _KEY), final.select(_KEY)]
    listed = _numbered(listing)
    left = listed.join(pa.concat_tables(done), keys=_KEY, join_type="left anti")
    return listing.files.take(left["listed"].sort())


def known_ids(receipts: Iterable[Receipt], atlas: Root) -> frozenset[str]:
    """Ids of all images whose forward has run."""
    return frozenset(
        image_id
        for receipt in receipts
        for image_id in read_part(atlas, receipt.scanned, ["image_id"])["image_id"].to_pylist()
    )


def catalogue(
    listing: Listing, receipts: list[Receipt], atlas: Root, removed: frozenset[str] = frozenset()
) -> Catalogue:
    """Join the listed files with what shards found in them; independent of how the corpus was cut into shards.

    An image's path, label and metadata are those of its first file in order of paths, as the listing has them now;
    images whose ids were `removed` are left out. Raises CorpusError if nothing is left.
    """
    listed = _numbered(listing)
    store_of(atlas).fetch(part for receipt in receipts for part in (receipt.files, receipt.skipped, receipt.scanned))
    files = _listed_rows(listed, [_of_shard(atlas, receipt.files, receipt) for receipt in receipts])
    refused = _listed_rows(listed, [_of_shard(atlas, receipt.skipped, receipt) for receipt in receipts])
    skipped = refused.filter(pc.invert(pc.is_in(refused["path"], value_set=files["path"].combine_chunks())))
    if files.num_rows == 0:
        reasons = "; ".join(f"{row['path']}: {row['reason']}" for row in skipped.slice(0, 3).to_pylist())
        raise CorpusError(f"none of {len(listing.files)} files is a readable picture ({reasons})")
    scanned = pa.concat_tables(_of_shard(atlas, receipt.scanned, receipt) for receipt in receipts)
    wanted = scanned.filter(pc.is_in(scanned["image_id"], value_set=files["image_id"].combine_chunks()))
    shards = frozenset(name for rows in (files, refused, wanted) for name in pc.unique(rows["shard"]).to_pylist())
    files = files.drop_columns(["shard"])
    if removed:
        files = files.filter(pc.invert(pc.is_in(files["image_id"], value_set=pa.array(sorted(removed)))))
        if files.num_rows == 0:
            raise CorpusError("every picture of the corpus was removed from this atlas; bring some back with --restore")
    described = listing.files.select(["label", "metadata", "address"]).take(files["listed"])
    for name in described.column_names:
        files = files.append_column(name, described[name])
    images = _one_per_content(files, scanned)
    return Catalogue(images, skipped.select(tables.SKIPPED.names).cast(tables.SKIPPED), files.num_rows, shards)


def _of_shard(atlas: Root, part: Part, receipt: Receipt) -> pa.Table:
    """A part of a shard, with the shard's name."""
    return read_part(atlas, part).append_column("shard", pa.array([receipt.shard] * part.rows, pa.string()))


def _listed_rows(listed: pa.Table, parts: list[pa.Table]) -> pa.Table:
    """Rows about files as they are listed now, one per path, in order of paths; `listed` is the place there."""
    rows = pa.concat_tables(parts).join(listed, keys=_KEY, join_type="inner").sort_by("listed")
    places = rows["listed"].to_numpy()
    first = np.ones(len(places), dtype=bool)
    first[1:] = places[1:] != places[:-1]
    return rows.filter(pa.array(first))


def _key_schema() -> pa.Schema:
    return pa.schema([tables.LISTED.field(name) for name in _KEY])


def _numbered(listing: Listing) -> pa.Table:
    """The files' keys with their places in the listing."""
    return listing.files.select(_KEY).append_column("listed", pa.array(np.arange(len(listing.files))))


def _one_per_content(files: pa.Table, scanned: pa.Table) -> pa.Table:
    """Images in ascending order of their ids, which numbers them."""
    ids = files["image_id"].to_numpy()
    order = np.argsort(ids, kind="stable")
    starts = np.flatnonzero(np.concatenate([[True], ids[order][1:] != ids[order][:-1]]))
    first = files.take(order[starts])
    ends = [*starts[1:], len(ids)]

    def others(name: str) -> pa.Array:
        values = files[name].take(order).to_pylist()
        return pa.array(
            [values[start + 1 : end] for start, end in zip(starts, ends, strict=True)], pa.list_(pa.string())
        )

    scanned = scanned.sort_by([("image_id", "ascending"), ("shard", "ascending")])
    position = pc.index_in(first["image_id"], value_set=scanned["image_id"])
    found = scanned.take(position)
    columns = {
        "image": pa.array(np.arange(len(starts), dtype=np.int32)),
        "other_paths": others("path"),
        "other_addresses": others("address"),
        "duplicate_group": duplicate_names(
            first["image_id"], found["gradient_hash"].to_pylist(), found["tint"].to_pylist()
        ),
        "shard_row": found["row"],
        **{name: first[name] for name in first.column_names if name in tables.IMAGES.names},
    }
    columns |= {name: found[name] for name in tables.IMAGES.names if name not in columns}
    return pa.table({name: columns[name] for name in tables.IMAGES.names}).cast(tables.IMAGES)
