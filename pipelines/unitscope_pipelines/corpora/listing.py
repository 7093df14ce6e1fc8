"""List a corpus of any kind: a folder tree, tar shards, Parquet files or a list, local or in an object store."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path, PurePosixPath

import pyarrow as pa

from unitscope_pipelines.corpora.lists import SUFFIXES as LIST_SUFFIXES
from unitscope_pipelines.corpora.lists import list_entries
from unitscope_pipelines.corpora.parquets import list_parquet
from unitscope_pipelines.corpora.rows import ListedRows, folder_of, is_picture
from unitscope_pipelines.corpora.tars import list_tar
from unitscope_pipelines.storage.filesystem import Folder, StoredFile, is_remote
from unitscope_schemas.addresses import Address
from unitscope_schemas.errors import CorpusError, listing
from unitscope_schemas.manifest import CorpusRoot

_TAR, _PARQUET = ".tar", ".parquet"
_KINDS = "a folder of pictures, .tar or .parquet files, one such file, a glob of them, or a .csv, .jsonl or .txt list"


@dataclass(frozen=True)
class CorpusFile:
    """A picture of the corpus, as the listing saw it."""

    path: str
    address: str
    """Address of the picture's bytes, as `Address` writes it."""
    file_bytes: int
    """Size of the file that the picture is, or is within, in bytes."""
    modified_ns: int
    """Modification time of that file in nanoseconds since 1970."""


@dataclass(frozen=True)
class Listing:
    """All pictures of a corpus in order of their paths, and how many other files were passed over."""

    root: str
    files: pa.Table
    """Table of the pictures, with the schema `tables.LISTED`."""
    ignored_count: int
    roots: tuple[CorpusRoot, ...] = ()
    """Every corpus that the pictures come from, the one at `root` first."""


def list_corpus(corpus: str, limit: int | None = None) -> Listing:
    """List what a corpus holds, by what its path leads to; a folder without pictures may hold tar or Parquet files.

    Hidden files and files of other kinds are counted, not listed. Raises CorpusError if the corpus is missing,
    broken, empty, or of no known kind.
    """
    root, name = _split(corpus)
    folder, rows = Folder(root), ListedRows()
    if _suffix(name) in LIST_SUFFIXES:
        list_entries(folder, name, rows)
        ignored_count = 0
    elif name:
        ignored_count = _list_shards(corpus, folder, _matching(folder, name), rows)
    else:
        ignored_count = _list_folder(corpus, folder, rows)
    files = rows.table()
    if not len(files):
        raise CorpusError(
            f"corpus {corpus!r} holds no picture ({ignored_count} other files); "
            "readable are JPEG, PNG, WebP, BMP, GIF and TIFF"
        )
    origin = CorpusRoot(corpus=_joined(root, name), root=root)
    return Listing(root, files if limit is None else files.slice(0, limit), ignored_count, (origin,))


def listed_in(corpus: str, root: str) -> str:
    """Return the whole name of a corpus that was listed by a relative one, from the folder it was found in."""
    plain = corpus.partition("?")[0].rstrip("/")
    name = _parent(plain)[1] if _suffix(plain) or "*" in plain else ""
    return _joined(root, "" if root.partition("?")[0].endswith(f"/{name}") else name)


def corpus_files(files: pa.Table) -> list[CorpusFile]:
    """Return some rows of a listing as objects."""
    names = [field.name for field in fields(CorpusFile)]
    return [CorpusFile(**row) for row in files.select(names).to_pylist()]


def _split(corpus: str) -> tuple[str, str]:
    """Return the folder of a corpus, and the file or glob within it, if it is one; folders are absolute."""
    if is_remote(corpus):
        address, mark, query = corpus.partition("?")
        address = address.rstrip("/")
        folder, name = _parent(address) if _suffix(address) or "*" in address else (address, "")
        return f"{folder}{mark}{query}", name
    if "*" in corpus and not Path(corpus).exists():
        folder, name = _parent(corpus)
        return str(Path(folder or ".").resolve()), name
    path = Path(corpus)
    if not path.exists():
        raise CorpusError(f"corpus {corpus!r} does not exist; give {_KINDS}")
    if path.is_dir():
        return str(path.resolve()), ""
    if _suffix(path.name) is None:
        raise CorpusError(f"corpus {corpus!r} is a file of no known kind; give {_KINDS}")
    return str(path.parent.resolve()), path.name


def _joined(root: str, name: str) -> str:
    """Return the whole name of a file or glob in a folder, or of the folder itself."""
    address, mark, query = root.partition("?")
    return f"{address}/{name}{mark}{query}" if name else root


def _parent(path: str) -> tuple[str, str]:
    """Cut a path before its last part, or before the first with a star."""
    parts = path.split("/")
    first = next((position for position, part in enumerate(parts) if "*" in part), len(parts) - 1)
    return "/".join(parts[:first]), "/".join(parts[first:])


def _suffix(name: str) -> str | None:
    suffix = PurePosixPath(name).suffix.lower()
    return suffix if suffix in (_TAR, _PARQUET, *LIST_SUFFIXES) else None


def _matching(folder: Folder, name: str) -> Iterator[StoredFile]:
    """List the files that a name or glob means; a star stays within its part of the path."""
    if "*" not in name:
        yield from (file for file in folder.sizes([name]) if file is not None)
        return
    depth = name.count("/")
    for file in folder.walk():
        if file.path.count("/") == depth and PurePosixPath(file.path).match(name):
            yield file


def _list_folder(corpus: str, folder: Folder, rows: ListedRows) -> int:
    shards: list[StoredFile] = []
    picture_count = ignored_count = 0
    for file in folder.walk():
        if is_picture(file.path):
            rows.add(file.path, Address(file.path), file, folder_of(file.path))
            picture_count += 1
        elif _suffix(file.path) in (_TAR, _PARQUET):
            shards.append(file)
        else:
            ignored_count += 1
    if picture_count or not shards:
        return ignored_count + len(shards)
    return ignored_count + _list_shards(corpus, folder, iter(shards), rows)


def _list_shards(corpus: str, folder: Folder, files: Iterator[StoredFile], rows: ListedRows) -> int:
    """List tar or Parquet files in order of their paths, and count the members that are no pictures."""
    shards = sorted(file for file in files if not os.path.basename(file.path).startswith("."))  # noqa: PTH119
    kinds = {_suffix(file.path) for file in shards}
    if not shards:
        raise CorpusError(f"corpus {corpus!r} does not exist; give {_KINDS}")
    if len(kinds) > 1 or not kinds <= {_TAR, _PARQUET}:
        some = listing((file.path for file in shards), most=3)
        raise CorpusError(f"corpus {corpus!r} holds files of several kinds ({some}); give a glob such as '*.tar'")
    if kinds == {_TAR}:
        return sum(list_tar(folder, shard, rows) for shard in shards)
    for shard in shards:
        list_parquet(folder, shard, rows)
    return 0
