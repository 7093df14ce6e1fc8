"""The images of a version, made from finished shards: one row per content, numbered, near duplicates grouped."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from unitscope_pipelines.corpora.listing import Listing
from unitscope_pipelines.indexing.duplicates import duplicate_names
from unitscope_pipelines.indexing.known_ids import KnownIds
from unitscope_pipelines.storage.parts import read_part
from unitscope_pipelines.storage.stores import Store
from unitscope_pipelines.storage.tombstones import without
from unitscope_schemas import tables
from unitscope_schemas.answers.statements import Statement, disagreement, joined_labels, read_statements
from unitscope_schemas.entries.part import Part
from unitscope_schemas.errors import CorpusError
from unitscope_schemas.manifest import Receipt

_KEY = list(tables.FILE_KEY)
_TOLD = ["path", "labels", "metadata", "statements"]


@dataclass(frozen=True)
class VersionImages:
    """The images and skipped files of one version, how many files the images have, and the shards that know of them.

    A shard knows of a file that it read, also of one that is skipped or removed, and of an image that it scanned.
    """

    images: pa.Table
    """Table of the images, with the schema `tables.IMAGES`."""
    skipped: pa.Table
    """Table of the skipped files, with the schema `tables.SKIPPED`."""
    file_count: int
    shards: frozenset[str]
    """Names of the shards that know of an image or file."""


def pending_files(listing: Listing, receipts: Iterable[Receipt], store: Store) -> pa.Table:
    """Return the listed files that no finished shard has read, or found unusable, in their present state."""
    done, receipts = [_key_schema().empty_table()], list(receipts)
    store.fetch(part for receipt in receipts for part in (receipt.skipped, receipt.files))
    for receipt in receipts:
        skipped = read_part(store, receipt.skipped)
        final = skipped.filter(pc.invert(pc.starts_with(skipped["reason"], tables.UNREADABLE)))
        done += [read_part(store, receipt.files, _KEY), final.select(_KEY)]
    listed = _numbered(listing)
    left = listed.join(pa.concat_tables(done), keys=_KEY, join_type="left anti")
    return listing.files.take(left["listed"].sort())


def known_ids(receipts: Iterable[Receipt], store: Store) -> KnownIds:
    """Return the ids of all images whose forward has run; raises AtlasError where a shard holds other than ids."""
    return KnownIds.of(
        (receipt.scanned.path, read_part(store, receipt.scanned, ["image_id"])["image_id"]) for receipt in receipts
    )


def version_images(
    listing: Listing, receipts: Sequence[Receipt], store: Store, removed: pa.Table | None = None
) -> VersionImages:
    """Join the listed files with what shards recorded of them; independent of how the corpus was cut into shards.

    An image's path and metadata are those of its first file in order of paths, as the listing has them now; its labels
    are those of all its files, and what files say that disagree is kept. Images that were `removed` are left out.
    Raises CorpusError if nothing is left.
    """
    listed = _numbered(listing)
    store.fetch(part for receipt in receipts for part in (receipt.files, receipt.skipped, receipt.scanned))
    files = _listed_rows(listed, [_shard_rows(store, receipt.files, receipt) for receipt in receipts])
    refused = _listed_rows(listed, [_shard_rows(store, receipt.skipped, receipt) for receipt in receipts])
    skipped = refused.filter(pc.invert(pc.is_in(refused["path"], value_set=files["path"])))
    if files.num_rows == 0:
        reasons = "; ".join(f"{row['path']}: {row['reason']}" for row in skipped.slice(0, 3).to_pylist())
        raise CorpusError(f"none of {len(listing.files)} files is a readable picture ({reasons})")
    skipped = skipped.select(tables.SKIPPED.names).cast(tables.SKIPPED)
    if listing.refused.num_rows:
        skipped = pa.concat_tables([skipped, listing.refused]).sort_by("path")
    scanned = pa.concat_tables(
        tables.completed(_shard_rows(store, receipt.scanned, receipt), tables.SCANNED).select(
            [*tables.SCANNED.names, "shard"]
        )
        for receipt in receipts
    )
    wanted = scanned["shard"].filter(pc.is_in(scanned["image_id"], value_set=files["image_id"]))
    knowing = (files["shard"], refused["shard"], wanted)
    shards = frozenset(name for names in knowing for name in pc.unique(names).to_pylist())
    files = files.drop_columns(["shard"])
    if removed is not None:
        files = without(files, removed)
        if files.num_rows == 0:
            raise CorpusError("every picture of the corpus was removed from this atlas; bring some back with --restore")
    described = listing.files.select(["labels", "metadata", "statements", "address"]).take(files["listed"])
    for name in described.column_names:
        files = files.append_column(name, described[name])
    return VersionImages(
        images=_one_per_content(files, scanned),
        skipped=skipped,
        file_count=files.num_rows,
        shards=shards,
    )


def _shard_rows(store: Store, part: Part, receipt: Receipt) -> pa.Table:
    """Read a part of a shard, and add the shard's name to each row."""
    return read_part(store, part).append_column("shard", pa.repeat(pa.scalar(receipt.shard), part.rows))


def _listed_rows(listed: pa.Table, parts: list[pa.Table]) -> pa.Table:
    """Return rows about files as they are listed now, one per path, in order of paths; `listed` is the row there."""
    rows = pa.concat_tables(parts).join(listed, keys=_KEY, join_type="inner").sort_by("listed")
    numbers = rows["listed"].to_numpy()
    first = np.ones(len(numbers), dtype=bool)
    first[1:] = numbers[1:] != numbers[:-1]
    return rows.filter(pa.array(first))


def _key_schema() -> pa.Schema:
    return pa.schema([tables.LISTED.field(name) for name in _KEY])


def _numbered(listing: Listing) -> pa.Table:
    """Return the files' keys with their row numbers in the listing."""
    return listing.files.select(_KEY).append_column("listed", pa.array(np.arange(len(listing.files))))


def _one_per_content(files: pa.Table, scanned: pa.Table) -> pa.Table:
    """Return the images in ascending order of their ids, which numbers them; `files` are in order of paths."""
    order = pc.sort_indices(  # files alone are in order of paths: their places tell equal ids apart
        files.select(["image_id"]).append_column("place", pa.array(np.arange(files.num_rows))),
        [("image_id", "ascending"), ("place", "ascending")],
    ).to_numpy()
    ids = files["image_id"].take(pa.array(order))
    is_first = np.ones(len(ids), bool)
    is_first[1:] = pc.not_equal(ids.slice(1), ids.slice(0, len(ids) - 1)).to_numpy()
    starts = np.flatnonzero(is_first)
    counts = np.diff(starts, append=len(ids))
    first = files.take(pa.array(order[starts]))
    seen = scanned.take(_first_seen(first["image_id"], scanned))
    further = files.select(["path", "address"]).take(pa.array(order[~is_first]))
    alike = np.repeat(counts > 1, counts)
    columns = {
        "image": pa.array(np.arange(len(starts), dtype=np.int32)),
        "other_paths": _lists(further["path"], counts - 1),
        "other_addresses": _lists(further["address"], counts - 1),
        "duplicate_group": duplicate_names(first["image_id"], seen["gradient_hash"], seen["tint"]),
        "shard_row": seen["row"],
        **{name: first[name] for name in first.column_names if name in tables.IMAGES.names},
        **_said(first, counts, files.select(_TOLD).take(pa.array(order[alike]))),
    }
    columns |= {name: seen[name] for name in tables.IMAGES.names if name not in columns}
    return pa.table({name: columns[name] for name in tables.IMAGES.names}).cast(tables.IMAGES)


def _lists(values: pa.ChunkedArray, counts: NDArray[np.int64]) -> pa.Array:
    """Return lists of so many of some values each, one after the other."""
    return pa.ListArray.from_arrays(pa.array(np.append(0, np.cumsum(counts)), pa.int32()), values.combine_chunks())


def _first_seen(ids: pa.ChunkedArray, scanned: pa.Table) -> pa.Array:
    """Return the row of each image in the first shard, in order of names, that scanned it."""
    order = pc.sort_indices(scanned.select(["image_id", "shard"]), [("image_id", "ascending"), ("shard", "ascending")])
    return order.take(pc.index_in(ids, value_set=scanned["image_id"].take(order)))


def _said(first: pa.Table, counts: NDArray[np.int64], files: pa.Table) -> dict[str, Any]:
    """Return labels, and what files say that disagree, of each image.

    `first` has the first file of each image, `files` all of those that have several, which are so many.
    """
    several = np.flatnonzero(counts > 1)
    ends = np.cumsum(counts[several]).tolist()
    labels, statements = [], []
    for start, end in pairwise([0, *ends]):
        rows = files.slice(start, end - start).to_pylist()
        said = [
            statement
            for row in rows
            for statement in (
                read_statements(row["statements"]) or [Statement.of(row["path"], row["labels"], row["metadata"])]
            )
        ]
        labels.append(joined_labels(said))
        statements.append(disagreement(said))
    every = _replaced(first["labels"], several, labels)
    return {
        "label": pa.chunked_array([*map(_firsts, every.chunks)], pa.string()),
        "labels": every,
        "statements": _replaced(first["statements"], several, statements),
    }


def _replaced(column: pa.ChunkedArray, positions: NDArray[np.intp], values: list[Any]) -> pa.ChunkedArray:
    """Return a column with other values at some positions."""
    if not values:
        return column
    places = np.arange(len(column))
    places[positions] = len(column) + np.arange(len(values))
    return pa.chunked_array([*column.chunks, pa.array(values, column.type)]).take(pa.array(places))


def _firsts(lists: pa.ListArray) -> pa.Array:
    """Return the first value of each list, null of an empty one."""
    offsets = lists.offsets.to_numpy()
    return lists.values.take(pa.array(offsets[:-1], mask=offsets[1:] == offsets[:-1]))
