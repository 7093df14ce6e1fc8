"""The images of a version, made from finished shards: one row per content, numbered, near duplicates grouped.

What is listed and what shards recorded is joined in a database that goes on in temporary files where its memory ends.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from operator import itemgetter
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from unitscope_pipelines.corpora.listing import Listing
from unitscope_pipelines.indexing.known_ids import KnownIds
from unitscope_pipelines.indexing.sealing.duplicates import duplicate_groups, sketches
from unitscope_pipelines.storage.long_tables.database import (
    batches_of,
    count_of,
    rows_of,
    spilling_database,
    tables_of,
    take_in,
)
from unitscope_pipelines.storage.long_tables.long_table import LongTable
from unitscope_pipelines.storage.parts import read_part
from unitscope_pipelines.storage.stores import Store
from unitscope_schemas import tables
from unitscope_schemas.answers.statements import Statement, disagreement, joined_labels, read_statements
from unitscope_schemas.entries.part import Part
from unitscope_schemas.errors import CorpusError
from unitscope_schemas.manifest import Receipt

_KEY = list(tables.FILE_KEY)
_KEY_SCHEMA = pa.schema([tables.LISTED.field(name) for name in _KEY])
_SHARD = pa.field("shard", pa.int32())
_FIRST_OF_FILE = "QUALIFY row_number() OVER (PARTITION BY listed ORDER BY shard) = 1"
_REFUSED_FIRST = 3


@dataclass(frozen=True)
class VersionImages:
    """The images and skipped files of one version, how many files the images have, and the shards that know of them.

    A shard knows of a file that it read, also of one that is skipped or removed, and of an image that it scanned.
    """

    images: LongTable
    """Table of the images, with the schema `tables.IMAGES`."""
    skipped: pa.Table
    """Table of the skipped files, with the schema `tables.SKIPPED`."""
    file_count: int
    shards: frozenset[str]
    """Names of the shards that know of an image or file."""


def pending_files(listing: Listing, receipts: Iterable[Receipt], store: Store) -> LongTable:
    """Return the listed files that no finished shard has read, or found unusable, in their present state."""
    receipts = list(receipts)
    if not receipts:
        return listing.files
    store.fetch(part for receipt in receipts for part in (receipt.skipped, receipt.files))

    def done() -> Iterator[pa.Table]:
        for receipt in receipts:
            skipped = read_part(store, receipt.skipped)
            final = skipped.filter(pc.invert(pc.starts_with(skipped["reason"], tables.UNREADABLE)))
            yield read_part(store, receipt.files, _KEY).cast(_KEY_SCHEMA)
            yield final.select(_KEY).cast(_KEY_SCHEMA)

    with spilling_database() as database:
        listing.files.show(database, "listing", "listed")
        take_in(database, "done", "FROM parts", done())
        columns = ", ".join(tables.LISTED.names)
        query = f"SELECT {columns} FROM listing ANTI JOIN done USING ({', '.join(_KEY)}) ORDER BY listed"
        return LongTable.written(batches_of(database, query), tables.LISTED)


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

    Memory holds some 90 bytes for each image, of which near duplicates are found, and what a database may use;
    temporary files hold 1.1 KB for each file.
    """
    store.fetch(part for receipt in receipts for part in (receipt.files, receipt.skipped, receipt.scanned))
    with spilling_database() as database:
        catalogue = _Catalogue(database, listing, receipts, store)
        catalogue.take_in_recorded()
        skipped = catalogue.skipped()
        if not count_of(database, "known"):
            first = skipped.slice(0, _REFUSED_FIRST).to_pylist()
            reasons = "; ".join(f"{row['path']}: {row['reason']}" for row in first)
            raise CorpusError(f"none of {len(listing.files)} files is a readable picture ({reasons})")
        if not catalogue.leave_out(tables.REMOVED.empty_table() if removed is None else removed):
            raise CorpusError("every picture of the corpus was removed from this atlas; bring some back with --restore")
        if listing.refused.num_rows:
            skipped = pa.concat_tables([skipped, listing.refused]).sort_by("path")
        shards, file_count = catalogue.knowing(), count_of(database, "files")
        return VersionImages(catalogue.images(), skipped, file_count, shards)


@dataclass(frozen=True)
class _Catalogue:
    """What is listed and what shards recorded, as tables of a database.

    Its steps are taken in their order here; a result is read by the connection, and written by a cursor.
    """

    database: duckdb.DuckDBPyConnection
    listing: Listing
    receipts: Sequence[Receipt]
    store: Store

    def take_in_recorded(self) -> None:
        """Read what shards recorded of the listed files: of several that know of a file the first one counts."""
        names = self._shards
        numbers = pa.array(range(len(names)), pa.int32())
        self.database.register("shards", pa.table({"number": numbers, "name": pa.array(names, pa.string())}))
        self.listing.files.show(self.database, "listing", "listed")
        take_in(self.database, "all_known", _LISTED_ONES, self._recorded(tables.FILES, lambda one: one.files))
        take_in(self.database, "all_refused", _LISTED_ONES, self._recorded(tables.SKIPPED, lambda one: one.skipped))
        take_in(self.database, "scanned", "FROM parts", self._recorded(tables.SCANNED, lambda one: one.scanned))
        for name in ("known", "refused"):
            self.database.execute(f"CREATE TABLE {name} AS FROM all_{name} {_FIRST_OF_FILE}")
            self.database.execute(f"DROP TABLE all_{name}")

    def skipped(self) -> pa.Table:
        """Return the refused files that no shard has read, in order of the listing."""
        columns = ", ".join(tables.SKIPPED.names)
        query = f"SELECT {columns} FROM refused ANTI JOIN known USING (path) ORDER BY listed"
        return self.database.sql(query).to_arrow_table().cast(tables.SKIPPED)

    def leave_out(self, removed: pa.Table) -> int:
        """Leave out the files of removed images, and return how many files are left."""
        self.database.register("removed", removed.select(["image_id"]))
        self.database.execute("CREATE TABLE files AS FROM known ANTI JOIN removed USING (image_id)")
        return count_of(self.database, "files")

    def knowing(self) -> frozenset[str]:
        """Return the names of the shards that know of a listed file or of its image."""
        return frozenset(name for (name,) in self.database.execute(_KNOWING).fetchall())

    def images(self) -> LongTable:
        """Return the images of the files, in order of ids."""
        for query in (_CONTENTS, _SEEN, _PLACED, "DROP TABLE scanned", "DROP TABLE seen", _FURTHER):
            self.database.execute(query)
        with self.database.cursor() as writer:
            take_in(writer, "said", "FROM parts", tables_of(self._said(), _SAID))
            take_in(writer, "groups", "FROM parts", self._groups())
        self.database.execute(_NAMED)
        return LongTable.written(batches_of(self.database, _IMAGES), tables.IMAGES)

    @cached_property
    def _shards(self) -> list[str]:
        """The names of the shards in their order, by which others tell them."""
        return sorted({receipt.shard for receipt in self.receipts})

    def _recorded(self, schema: pa.Schema, part: Callable[[Receipt], Part]) -> Iterator[pa.Table]:
        """Yield a part of every shard, with the shard's number."""
        numbers = {name: number for number, name in enumerate(self._shards)}
        yield schema.append(_SHARD).empty_table()
        for receipt in self.receipts:
            own = tables.completed(read_part(self.store, part(receipt)), schema).select(schema.names).cast(schema)
            yield own.append_column(_SHARD, pa.repeat(pa.scalar(numbers[receipt.shard], _SHARD.type), own.num_rows))

    def _said(self) -> Iterator[dict[str, Any]]:
        """Yield labels, and what files say that disagree, of the images that have several files."""
        for image, files in groupby(rows_of(self.database, _TOLD), itemgetter("image")):
            own = [
                statement
                for row in files
                for statement in (
                    read_statements(row["statements"]) or [Statement.of(row["path"], row["labels"], row["metadata"])]
                )
            ]
            yield {"image": image, "labels": joined_labels(own), "statements": disagreement(own)}

    def _groups(self) -> Iterator[pa.Table]:
        """Yield the images that have near duplicates, each with the first of its group."""
        groups = duplicate_groups(*sketches(batches_of(self.database, _SKETCHES), count_of(self.database, "contents")))
        members = np.flatnonzero(np.bincount(groups, minlength=len(groups))[groups] > 1)
        yield pa.table([pa.array(members, pa.int32()), pa.array(groups[members], pa.int32())], schema=_GROUPS)


_SAID = pa.schema([("image", pa.int32()), ("labels", pa.list_(pa.string())), ("statements", pa.string())])
_GROUPS = pa.schema([("image", pa.int32()), ("first", pa.int32())])
_LISTED_ONES = f"SELECT parts.*, listed FROM parts JOIN listing USING ({', '.join(_KEY)})"
"""Rows about files that are listed in the state in which a shard knew them."""
_KNOWING = """
SELECT DISTINCT name FROM shards JOIN (
    SELECT shard FROM known
    UNION SELECT shard FROM refused
    UNION SELECT shard FROM scanned SEMI JOIN known USING (image_id)
) ON shard = number"""
_CONTENTS = """
CREATE TABLE contents AS
SELECT (row_number() OVER (ORDER BY image_id) - 1)::INTEGER AS image, *
FROM (
    SELECT image_id, min(listed) AS listed, arg_min(size_bytes, listed) AS size_bytes, count(*) AS file_count
    FROM files GROUP BY image_id
)"""
"""Every image: its number, its first file and how many it has."""
_SEEN = """
CREATE TABLE seen AS
SELECT image_id, min(shard) AS shard FROM scanned SEMI JOIN contents USING (image_id) GROUP BY image_id"""
"""The first shard, in order of names, that scanned an image."""
_PLACED = """
CREATE TABLE placed AS
SELECT contents.*, scanned.* EXCLUDE (image_id) FROM contents JOIN (scanned SEMI JOIN seen USING (image_id, shard))
USING (image_id)"""
"""Every image with what its shard recorded of it."""
_TOLD = """
SELECT image, listing.path, labels, metadata, statements
FROM contents JOIN files USING (image_id) JOIN listing ON listing.listed = files.listed
WHERE file_count > 1 ORDER BY image, files.listed"""
_FURTHER = """
CREATE TABLE further AS
SELECT image, list(listing.path ORDER BY listing.listed) AS paths,
    list(listing.address ORDER BY listing.listed) AS addresses
FROM contents JOIN files USING (image_id) JOIN listing ON listing.listed = files.listed
WHERE file_count > 1 AND files.listed <> contents.listed GROUP BY image"""
_SKETCHES = "SELECT gradient_hash, tint FROM placed ORDER BY image"
_NAMED = """
CREATE TABLE named AS
SELECT groups.image, contents.image_id AS duplicate_group FROM groups JOIN contents ON contents.image = groups.first"""
_EVERY_LABEL = "CASE WHEN file_count > 1 THEN said.labels ELSE listing.labels END"
_COLUMNS = {
    "path": "listing.path",
    "other_paths": "coalesce(further.paths, [])",
    "address": "listing.address",
    "other_addresses": "coalesce(further.addresses, [])",
    "label": f"({_EVERY_LABEL})[1]",
    "metadata": "listing.metadata",
    "modified_ns": "listing.modified_ns",
    "duplicate_group": "named.duplicate_group",
    "shard": "shards.name",
    "shard_row": "placed.row",
    "labels": _EVERY_LABEL,
    "statements": "CASE WHEN file_count > 1 THEN said.statements ELSE listing.statements END",
}
"""Where the columns of an image come from, that `placed` does not have."""
_IMAGES = f"""
SELECT {", ".join(f"{_COLUMNS.get(name, f'placed.{name}')} AS {name}" for name in tables.IMAGES.names)}
FROM placed
JOIN shards ON number = placed.shard
JOIN listing USING (listed)
LEFT JOIN further ON further.image = placed.image
LEFT JOIN said ON said.image = placed.image
LEFT JOIN named ON named.image = placed.image
ORDER BY placed.image"""
