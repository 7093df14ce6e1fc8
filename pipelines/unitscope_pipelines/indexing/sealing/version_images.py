"""The images of a version, made from finished shards: one row per content, numbered, near duplicates grouped."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from unitscope_pipelines.corpora.listing import Listing
from unitscope_pipelines.indexing.duplicates import duplicate_names
from unitscope_pipelines.storage.parts import read_part
from unitscope_pipelines.storage.stores import Store
from unitscope_pipelines.storage.tombstones import without
from unitscope_schemas import tables
from unitscope_schemas.answers.statements import Statement, disagreement, joined_labels, read_statements
from unitscope_schemas.entries.part import Part
from unitscope_schemas.errors import CorpusError
from unitscope_schemas.manifest import Receipt

_KEY = list(tables.FILE_KEY)


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


def known_ids(receipts: Iterable[Receipt], store: Store) -> frozenset[str]:
    """Return the ids of all images whose forward has run."""
    return frozenset(
        image_id
        for receipt in receipts
        for image_id in read_part(store, receipt.scanned, ["image_id"])["image_id"].to_pylist()
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
    skipped = refused.filter(pc.invert(pc.is_in(refused["path"], value_set=files["path"].combine_chunks())))
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
    wanted = scanned.filter(pc.is_in(scanned["image_id"], value_set=files["image_id"].combine_chunks()))
    shards = frozenset(name for rows in (files, refused, wanted) for name in pc.unique(rows["shard"]).to_pylist())
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
    return read_part(store, part).append_column("shard", pa.array([receipt.shard] * part.rows, pa.string()))


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
    """Return the images in ascending order of their ids, which numbers them."""
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

    said = _said(files.select(["path", "labels", "metadata", "statements"]).take(order), starts, np.array(ends))
    scanned = scanned.sort_by([("image_id", "ascending"), ("shard", "ascending")])
    seen = scanned.take(pc.index_in(first["image_id"], value_set=scanned["image_id"]))
    columns = {
        "image": pa.array(np.arange(len(starts), dtype=np.int32)),
        "other_paths": others("path"),
        "other_addresses": others("address"),
        "duplicate_group": duplicate_names(
            first["image_id"], seen["gradient_hash"].to_pylist(), seen["tint"].to_pylist()
        ),
        "shard_row": seen["row"],
        **{name: first[name] for name in first.column_names if name in tables.IMAGES.names},
        **said,
    }
    columns |= {name: seen[name] for name in tables.IMAGES.names if name not in columns}
    return pa.table({name: columns[name] for name in tables.IMAGES.names}).cast(tables.IMAGES)


def _said(files: pa.Table, starts: NDArray[np.intp], ends: NDArray[np.intp]) -> dict[str, list[Any]]:
    """Return labels, and what files say that disagree, of each image; its files lie from a start to an end."""
    first = files.take(pa.array(starts))
    labels, statements = first["labels"].to_pylist(), first["statements"].to_pylist()
    for position in np.flatnonzero(ends - starts > 1).tolist():
        rows = files.slice(starts[position], ends[position] - starts[position]).to_pylist()
        said = [
            statement
            for row in rows
            for statement in (
                read_statements(row["statements"]) or [Statement.of(row["path"], row["labels"], row["metadata"])]
            )
        ]
        labels[position], statements[position] = joined_labels(said), disagreement(said)
    return {"label": [some[0] if some else None for some in labels], "labels": labels, "statements": statements}
