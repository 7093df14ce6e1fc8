"""From finished shards to the images of a version: one row per content, numbered, near duplicates grouped."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.corpus import CorpusFile, Listing
from pipelines.duplicates import duplicate_names
from schemas import tables
from schemas.errors import CorpusError
from schemas.manifest import Part, Receipt

_FILE_KEY = ["path", "size_bytes", "modified_ns"]


@dataclass(frozen=True)
class Catalogue:
    """The images and skipped files of one version, and how many files the images have."""

    images: pa.Table
    skipped: pa.Table
    file_count: int


def pending_files(listing: Listing, receipts: Iterable[Receipt], atlas: Path) -> list[CorpusFile]:
    """The listed files that no finished shard has read, or found unusable, in their present state."""
    done: set[tuple[str, int, int]] = set()
    for receipt in receipts:
        skipped = read_part(atlas, receipt.skipped)
        final = skipped.filter(pc.invert(pc.starts_with(skipped["reason"], tables.UNREADABLE)))
        for table in (read_part(atlas, receipt.files, _FILE_KEY), final.select(_FILE_KEY)):
            done.update(zip(*(column.to_pylist() for column in table.columns), strict=True))
    return [file for file in listing.files if (file.path, file.size_bytes, file.modified_ns) not in done]


def known_ids(receipts: Iterable[Receipt], atlas: Path) -> frozenset[str]:
    """Ids of all images whose forward has run."""
    return frozenset(
        image_id
        for receipt in receipts
        for image_id in read_part(atlas, receipt.scanned, ["image_id"])["image_id"].to_pylist()
    )


def catalogue(
    listing: Listing, receipts: list[Receipt], atlas: Path, removed: frozenset[str] = frozenset()
) -> Catalogue:
    """Join the listed files with what shards found in them; independent of how the corpus was cut into shards.

    An image's path and label are those of its first file in order of paths; images whose ids were `removed` are
    left out. Raises CorpusError if nothing is left.
    """
    listed = pa.table(
        {
            "path": [file.path for file in listing.files],
            "size_bytes": [file.size_bytes for file in listing.files],
            "modified_ns": [file.modified_ns for file in listing.files],
        },
        schema=pa.schema([tables.FILES.field(name) for name in _FILE_KEY]),
    )
    files = _listed_rows(listed, [read_part(atlas, receipt.files) for receipt in receipts])
    refused = _listed_rows(listed, [read_part(atlas, receipt.skipped) for receipt in receipts])
    skipped = refused.filter(pc.invert(pc.is_in(refused["path"], value_set=files["path"].combine_chunks())))
    if files.num_rows == 0:
        reasons = "; ".join(f"{row['path']}: {row['reason']}" for row in skipped.slice(0, 3).to_pylist())
        raise CorpusError(f"none of {len(listing.files)} files is a readable picture ({reasons})")
    if removed:
        files = files.filter(pc.invert(pc.is_in(files["image_id"], value_set=pa.array(sorted(removed)))))
        if files.num_rows == 0:
            raise CorpusError("every picture of the corpus was removed from this atlas; bring some back with --restore")
    scanned = pa.concat_tables(
        read_part(atlas, receipt.scanned).append_column(
            "shard", pa.array([receipt.shard] * receipt.forward_count, pa.string())
        )
        for receipt in receipts
    )
    images = _one_per_content(files, scanned)
    return Catalogue(images, skipped.select(tables.SKIPPED.names).cast(tables.SKIPPED), files.num_rows)


def read_part(atlas: Path, part: Part, columns: list[str] | None = None) -> pa.Table:
    """A Parquet part of the atlas."""
    return pq.read_table(atlas / part.path, columns=columns, partitioning=None)


def _listed_rows(listed: pa.Table, parts: list[pa.Table]) -> pa.Table:
    """Rows about files as they are listed now, one per path, in order of paths."""
    rows = pa.concat_tables(parts).join(listed, keys=_FILE_KEY, join_type="inner").sort_by("path")
    paths = rows["path"].to_numpy()
    first = np.ones(len(paths), dtype=bool)
    first[1:] = paths[1:] != paths[:-1]
    return rows.filter(pa.array(first))


def _one_per_content(files: pa.Table, scanned: pa.Table) -> pa.Table:
    """Images in ascending order of their ids, which numbers them."""
    ids = files["image_id"].to_numpy()
    order = np.argsort(ids, kind="stable")
    starts = np.flatnonzero(np.concatenate([[True], ids[order][1:] != ids[order][:-1]]))
    first = files.take(order[starts])
    paths = files["path"].take(order).to_pylist()
    ends = [*starts[1:], len(paths)]
    others = [paths[start + 1 : end] for start, end in zip(starts, ends, strict=True)]

    scanned = scanned.sort_by([("image_id", "ascending"), ("shard", "ascending")])
    position = pc.index_in(first["image_id"], value_set=scanned["image_id"])
    found = scanned.take(position)
    columns = {
        "image": pa.array(np.arange(len(starts), dtype=np.int32)),
        "other_paths": pa.array(others, pa.list_(pa.string())),
        "duplicate_group": duplicate_names(
            first["image_id"], found["gradient_hash"].to_pylist(), found["tint"].to_pylist()
        ),
        "shard_row": found["row"],
        **{name: first[name] for name in ("image_id", "path", "label", "size_bytes", "modified_ns")},
    }
    columns |= {name: found[name] for name in tables.IMAGES.names if name not in columns}
    return pa.table({name: columns[name] for name in tables.IMAGES.names}).cast(tables.IMAGES)
