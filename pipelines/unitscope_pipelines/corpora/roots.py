"""Several corpora as one listing: their pictures beside each other, each file once, no two of one path."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain, count
from pathlib import PurePosixPath
from urllib.parse import urlsplit

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from unitscope_pipelines.corpora.listing import Listing, listed_in
from unitscope_pipelines.storage.filesystem import is_remote
from unitscope_pipelines.storage.long_tables.database import batches_of, spilling_database, take_in
from unitscope_pipelines.storage.long_tables.long_table import LongTable
from unitscope_schemas import tables
from unitscope_schemas.addresses import Address
from unitscope_schemas.entries.corpus import CorpusRoot
from unitscope_schemas.errors import UsageError
from unitscope_schemas.manifest import Manifest


def roots_of(manifest: Manifest) -> tuple[CorpusRoot, ...]:
    """Return every corpus of a version; a manifest of old names one alone."""
    corpus = manifest.corpus
    return corpus.roots or (CorpusRoot(corpus=listed_in(manifest.config["corpus"], corpus.root), root=corpus.root),)


def joined(listings: Sequence[Listing]) -> Listing:
    """Return the listings as one, in order of paths.

    The first keeps its paths and addresses. Pictures of the others have whole addresses, and the name of their folder
    before their paths; a file that an earlier listing has is left out. Raises UsageError for a corpus whose files have
    no whole addresses.
    """
    first, *further = listings
    roots, others = list(first.roots), Counter(first.others)
    refused, notes, repeated_count = [first.refused], list(first.notes), first.repeated_count
    with spilling_database() as database:
        take_in(database, "files", "FROM parts", _with_whole(first))
        for listing in further:
            _check_addressable(listing.root, first.root)
            prefix = _free_prefix(listing.roots[0], database)
            take_in(database, "added", "FROM parts ANTI JOIN files USING (whole)", _with_whole(listing, prefix))
            database.execute("INSERT INTO files FROM added")
            database.execute("DROP TABLE added")
            roots.append(listing.roots[0].model_copy(update={"prefix": prefix}))
            refused.append(listing.refused.set_column(0, tables.SKIPPED.field("path"), _below(prefix, listing.refused)))
            others.update(listing.others)
            notes += [note for note in listing.notes if note not in notes]
            repeated_count += listing.repeated_count
        query = f"SELECT {', '.join(tables.LISTED.names)} FROM files ORDER BY path"
        files = LongTable.written(batches_of(database, query), tables.LISTED)
    return replace(
        first,
        files=files,
        refused=pa.concat_tables(refused).sort_by("path"),
        others=others,
        notes=tuple(notes),
        repeated_count=repeated_count,
        roots=tuple(roots),
    )


def _with_whole(listing: Listing, prefix: str | None = None) -> Iterator[pa.Table]:
    """Yield the files of a listing with their whole addresses; below a folder's name they have no others."""
    for batch in listing.files.batches():
        files = pa.Table.from_batches([batch])
        whole = pa.array(whole_addresses(files["address"], listing.root), pa.string())
        if prefix is not None:
            columns = {"path": _below(prefix, files), "address": whole}
            files = pa.table([columns.get(name, files[name]) for name in files.column_names], files.column_names)
        yield files.cast(tables.LISTED).append_column("whole", whole)


def _below(prefix: str, files: pa.Table) -> pa.ChunkedArray:
    """Return the paths of files below a folder's name."""
    return pc.binary_join_element_wise(prefix, files["path"], "/")


def whole_addresses(addresses: pa.Array | pa.ChunkedArray, root: str) -> list[str]:
    """Return the addresses of pictures as they are without a root, each file by its whole name."""
    base = _plain(root)
    return [str(_whole(Address.parse(address), base)) for address in addresses.to_pylist()]


def _whole(address: Address, base: str) -> Address:
    if is_remote(address.file):
        return replace(address, file=_plain(address.file))
    if is_remote(base):
        return replace(address, file=f"{base}/{address.file}")
    return replace(address, file=str(PurePosixPath(base, address.file)))


def _plain(root: str) -> str:
    """Return an address without what is said of how to ask for it."""
    if not is_remote(root):
        return root
    parts = urlsplit(root)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _check_addressable(root: str, first: str) -> None:
    """Raise UsageError for a folder whose files cannot be named from another one."""
    if root != _plain(root):
        raise UsageError(f"corpus {root!r} says how it is asked for, which cannot be added; set AWS_… variables")
    if is_remote(first) and not is_remote(root):
        raise UsageError(f"corpus {root!r} cannot be added to one in an object store; add what lies at s3://")


def _free_prefix(root: CorpusRoot, database: duckdb.DuckDBPyConnection) -> str:
    """Return the name of a corpus's folder, with a number where other paths begin with it."""
    name = root.prefix or root.root.rstrip("/").rpartition("/")[2] or "corpus"
    taken = "SELECT path FROM files WHERE starts_with(path, ?) LIMIT 1"
    candidates = chain([name], (f"{name}-{number}" for number in count(2)))
    return next(prefix for prefix in candidates if not database.execute(taken, [f"{prefix}/"]).fetchall())
