"""List a corpus of any kind: a folder tree, tar shards, Parquet files or a list, local or in an object store."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path, PurePosixPath

import pyarrow as pa

from unitscope_pipelines.corpora.columns import USUAL, ColumnChoice
from unitscope_pipelines.corpora.folder_lists import described, is_folder_list
from unitscope_pipelines.corpora.lists import SUFFIXES as LIST_SUFFIXES
from unitscope_pipelines.corpora.lists import list_entries
from unitscope_pipelines.corpora.parquets import list_parquet
from unitscope_pipelines.corpora.rows import COMPRESSIONS, HIDDEN_FOLDERS, ListedRows, folder_of, is_picture
from unitscope_pipelines.corpora.tars import list_tar
from unitscope_pipelines.storage.filesystem import Folder, is_remote
from unitscope_pipelines.storage.local_files import HIDDEN_FOLDER, LISTED_FOLDER, NoFile
from unitscope_pipelines.storage.long_tables.long_table import LongTable
from unitscope_pipelines.storage.stored_file import StoredFile
from unitscope_schemas.addresses import Address, Cell, as_text
from unitscope_schemas.entries.corpus import CorpusRoot, others_text
from unitscope_schemas.errors import CorpusError, MissingCorpusError, listing

_TAR, _PARQUET = ".tar", ".parquet"
_LEFT_OUT = {HIDDEN_FOLDER: HIDDEN_FOLDERS, LISTED_FOLDER: "links to folders that are listed already"}
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
    """All pictures of a corpus in order of their paths, and what else was found."""

    root: str
    files: LongTable
    """Table of the pictures, with the schema `tables.LISTED`."""
    refused: pa.Table
    """Table of what should be a picture or hold some and cannot be read, with the schema `tables.SKIPPED`."""
    others: Mapping[str, int]
    """How many other files were passed over of each kind, by suffix."""
    notes: tuple[str, ...] = ()
    """Sentences about the corpus for people, such as what reading it costs."""
    repeated_count: int = 0
    """How many rows of lists name a path that another row names."""
    roots: tuple[CorpusRoot, ...] = ()
    """Every corpus that the pictures come from, the one at `root` first."""

    @property
    def ignored_count(self) -> int:
        """The count of files that were passed over."""
        return sum(self.others.values())


def list_corpus(corpus: str, limit: int | None = None, choice: ColumnChoice = USUAL) -> Listing:
    """List what a corpus holds, by what its path leads to; a folder without pictures may hold tar or Parquet files.

    Hidden files and files of other kinds are counted, not listed. Shards and entries that cannot be read are named and
    the rest is listed. Raises CorpusError if the corpus is missing, without any picture, or of no known kind.
    """
    root, name = _split(corpus)
    folder, rows = Folder(root), ListedRows()
    if _suffix(name) in LIST_SUFFIXES:
        list_entries(folder, name, rows, choice)
    elif name:
        _list_shards(corpus, folder, _files(_matching(folder, name), rows), rows, choice)
    else:
        _list_folder(corpus, folder, rows, choice)
    files = described(folder, rows.table(), rows, choice)
    refused = rows.refused()
    if not len(files):
        found = [f"{row['path']}: {row['reason']}" for row in refused.slice(0, 3).to_pylist()]
        found += [text] if (text := others_text(rows.others.total(), rows.others)) else []
        raise CorpusError(f"corpus {corpus!r} holds no picture ({'; '.join(found) or 'it is empty'}); give {_KINDS}")
    has_lists = _suffix(name) in LIST_SUFFIXES or bool(rows.folder_lists)
    _check_used(corpus, choice, has_lists, is_parquet=isinstance(Address.parse(_first_address(files)).part, Cell))
    files = files if limit is None else files.head(limit)
    origin = CorpusRoot(
        corpus=_joined(root, name),
        root=root,
        path_column=choice.path,
        label_column=choice.label,
        image_column=choice.image,
    )
    notes = (*rows.notes, *_notes(rows))
    return Listing(root, files, refused, rows.others, notes, rows.repeated_count, (origin,))


def _first_address(files: LongTable) -> str:
    batch = next(files.batches(["address"]))
    return str(batch["address"][0].as_py())


def check_there(corpus: str) -> None:
    """Raise CorpusError if a corpus on this machine is missing or of no known kind, as far as its name tells."""
    _split(corpus)


def listed_in(corpus: str, root: str) -> str:
    """Return the whole name of a corpus that was listed by a relative one, from the folder it was found in."""
    plain = corpus.partition("?")[0].rstrip("/")
    name = _parent(plain)[1] if _suffix(plain) or "*" in plain else ""
    return _joined(root, "" if root.partition("?")[0].endswith(f"/{name}") else name)


def _check_used(corpus: str, choice: ColumnChoice, has_lists: bool, is_parquet: bool) -> None:
    """Raise CorpusError if a column is named that this kind of corpus does not have."""
    for option, column, is_used in (
        ("--path-column", choice.path, has_lists),
        ("--label-column", choice.label, has_lists or is_parquet),
        ("--image-column", choice.image, is_parquet),
    ):
        if column is not None and not is_used:
            raise CorpusError(f"corpus {corpus!r} has no columns from which {option} {column!r} could choose")


def _notes(rows: ListedRows) -> tuple[str, ...]:
    if not rows.unpacked:
        return ()
    size, count = sum(rows.unpacked.values()), len(rows.unpacked)
    return (
        f"{count} compressed tar{'s' * (count > 1)} of {size / 1e9:.2g} GB unpacked: every process that reads pictures "
        "unpacks those it needs into temporary files, two at a time; unpack them once to save that",
    )


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
        return _written(Path(folder or ".")), name
    path = Path(corpus)
    if not path.exists():
        raise MissingCorpusError(f"corpus {corpus!r} does not exist; give {_KINDS}")
    if path.is_dir():
        return _written(path), ""
    if _suffix(path.name) is None:
        raise CorpusError(f"corpus {corpus!r} is a file of no known kind; give {_KINDS}")
    return _written(path.parent), path.name


def _written(folder: Path) -> str:
    """Return a folder's whole path for the manifest, links followed where it is text; raises CorpusError."""
    for path in (str(folder.resolve()), str(folder.absolute())):
        if as_text(path) == path:
            return path
    raise CorpusError(
        f"the path {as_text(str(folder))} is no UTF-8 text, so that no atlas could name it; "
        "rename the folder, or give a link to it with a plain name"
    )


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
    path = PurePosixPath(name.lower())
    suffix = path.suffix
    if suffix == ".tgz" or (suffix in COMPRESSIONS and path.stem.endswith(_TAR)):
        return _TAR
    return suffix if suffix in (_TAR, _PARQUET, *LIST_SUFFIXES) else None


def _matching(folder: Folder, name: str) -> Iterator[StoredFile | NoFile]:
    """List the files that a name or glob means; a star stays within its part of the path."""
    if "*" not in name:
        yield from (file for file in folder.sizes([name]) if file is not None)
        return
    depth = name.count("/")
    for file in folder.walk():
        if file.path.count("/") == depth and PurePosixPath(file.path).match(name):
            yield file


def _files(entries: Iterator[StoredFile | NoFile], rows: ListedRows) -> Iterator[StoredFile]:
    """Give the files among the entries of a folder; count and name what is none."""
    for entry in entries:
        if isinstance(entry, StoredFile):
            yield entry
        elif entry.what in _LEFT_OUT:
            rows.others[_LEFT_OUT[entry.what]] += 1
        else:
            rows.refuse(entry.path, f"{entry.what}; it was not opened")


def _list_folder(corpus: str, folder: Folder, rows: ListedRows, choice: ColumnChoice) -> None:
    shards: list[StoredFile] = []
    picture_count = 0
    for file in _files(folder.walk(), rows):
        if is_picture(file.path):
            rows.add(file.path, Address(file.path), file, folder_of(file.path))
            picture_count += 1
        elif is_folder_list(file.path):
            rows.folder_lists.append(file.path)
        elif _suffix(file.path) in (_TAR, _PARQUET):
            shards.append(file)
        else:
            rows.pass_over(file.path)
    if shards and not picture_count:
        _list_shards(corpus, folder, iter(shards), rows, choice)
    else:
        for shard in shards:
            rows.pass_over(shard.path)


def _list_shards(
    corpus: str, folder: Folder, files: Iterator[StoredFile], rows: ListedRows, choice: ColumnChoice
) -> None:
    """List tar or Parquet files in order of their paths, and name those that cannot be read."""
    shards = list[StoredFile]()
    for file in sorted(files):
        if os.path.basename(file.path).startswith("."):  # noqa: PTH119
            rows.pass_over(file.path)
        else:
            shards.append(file)
    kinds = {_suffix(file.path) for file in shards}
    if not shards:
        raise MissingCorpusError(f"corpus {corpus!r} does not exist; give {_KINDS}")
    if len(kinds) > 1 or not kinds <= {_TAR, _PARQUET}:
        some = listing((file.path for file in shards), most=3)
        raise CorpusError(f"corpus {corpus!r} holds files of several kinds ({some}); give a glob such as '*.tar'")
    for shard in shards:
        try:
            if kinds == {_TAR}:
                list_tar(folder, shard, rows)
            else:
                list_parquet(folder, shard, rows, choice)
        except CorpusError as error:
            rows.refuse(shard.path, str(error), shard)
