"""Lists that lie beside the pictures of a folder and describe them, as Hugging Face's `metadata.csv` does."""

import posixpath
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pyarrow as pa

from unitscope_pipelines.corpora.columns import LABEL, ColumnChoice, NoPathColumnError
from unitscope_pipelines.corpora.lists import ListEntry, ListReading, read_list
from unitscope_pipelines.corpora.parquets import read_table
from unitscope_pipelines.corpora.rows import ListedRows
from unitscope_pipelines.corpora.values import as_labels, as_metadata
from unitscope_pipelines.storage.filesystem import Folder
from unitscope_pipelines.storage.long_tables.long_table import LongTable
from unitscope_schemas import tables
from unitscope_schemas.answers.statements import Statement, disagreement, joined_labels
from unitscope_schemas.errors import CorpusError

_NAMES = frozenset({"metadata.csv", "metadata.tsv", "metadata.jsonl", "metadata.ndjson", "metadata.parquet"})


def is_folder_list(path: str) -> bool:
    """Tell whether a file has a name under which a folder's list is found."""
    return posixpath.basename(path).lower() in _NAMES


def described(folder: Folder, files: LongTable, rows: ListedRows, choice: ColumnChoice) -> LongTable:
    """Return the pictures of a folder with what the lists beside them say; the paths there are relative to the list.

    What a list says of labels stands instead of the folder's name. Lists and pictures that do not fit are noted. Raises
    CorpusError for a list that is broken.
    """
    statements: defaultdict[str, list[Statement]] = defaultdict(list)
    labelled: set[str] = set()
    for path in sorted(rows.folder_lists, key=lambda path: (-path.count("/"), path)):
        reading = _read(folder, path, choice)
        if reading is None:
            rows.note(f"{path} names no picture: it has no column of paths, such as file_name; it is not read")
            rows.pass_over(path)
            continue
        if note := reading.note(path):
            rows.note(note)
        for entry in reading.entries:
            if not isinstance(entry.path, str) or not entry.path.strip():
                raise CorpusError(f"line {entry.line} of {path} has no path; repair the list, or rename it")
            picture = posixpath.normpath(posixpath.join(posixpath.dirname(path), entry.path.strip()))
            statements[picture].append(Statement.of(path, entry.labels, as_metadata(entry.metadata)))
            if reading.label_column is not None:
                labelled.add(picture)
    return _joined(files, statements, labelled, rows) if statements else files


@dataclass
class _Description:
    """What lists say of pictures, put into a listing batch by batch, and what of both does not fit."""

    statements: Mapping[str, list[Statement]]
    labelled: set[str]
    missing: set[str]
    """Names of pictures that lists give and that were not met yet."""
    first_unnamed: str | None = None
    """First path of a picture that no list names."""
    unnamed_count: int = 0

    def described(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return pictures with what the lists say."""
        columns = {name: batch[name].to_pylist() for name in ("label", "labels", "metadata", "statements")}
        for row, path in enumerate(batch["path"].to_pylist()):
            said = self.statements.get(path)
            if said is None:
                self.first_unnamed = self.first_unnamed or path
                self.unnamed_count += 1
                continue
            self.missing.discard(path)
            columns["metadata"][row] = next((as_metadata(each.metadata) for each in said if each.metadata), None)
            columns["statements"][row] = disagreement(said)
            if path in self.labelled:
                labels = joined_labels(said)
                columns["labels"][row], columns["label"][row] = labels, labels[0] if labels else None
        return pa.record_batch([columns.get(name, batch[name]) for name in tables.LISTED.names], schema=tables.LISTED)


def _joined(
    files: LongTable, statements: Mapping[str, list[Statement]], labelled: set[str], rows: ListedRows
) -> LongTable:
    """Return the files with what lists say of them; note what does not fit."""
    description = _Description(statements, labelled, set(statements))
    table = LongTable.written(map(description.described, files.batches()), tables.LISTED)
    lists = ", ".join(sorted(rows.folder_lists))
    if missing := description.missing:
        rows.note(f"{lists} names {len(missing)} pictures that are not there, for example {min(missing)}")
    if count := description.unnamed_count:
        rows.note(f"{lists} does not name {count} of the pictures, for example {description.first_unnamed}")
    return table


def _read(folder: Folder, path: str, choice: ColumnChoice) -> ListReading | None:
    """Return the entries of a list, None where it has no column of paths."""
    try:
        data = folder.read(path)
    except OSError as error:
        raise CorpusError(f"{path} beside the pictures cannot be read: {error}") from None
    try:
        return _read_parquet(path, data, choice) if path.lower().endswith(".parquet") else read_list(path, data, choice)
    except NoPathColumnError:
        return None


def _read_parquet(path: str, data: bytes, choice: ColumnChoice) -> ListReading:
    columns = read_table(f"list {path!r}", data)
    names = list(columns)
    paths, label = choice.path_column(names, f"list {path!r}"), choice.label_column(names, f"list {path!r}")

    def entries() -> Iterator[ListEntry]:
        for row in range(len(columns[paths])):
            metadata = {name: columns[name][row] for name in names if name != paths and not name == label == LABEL}
            labels = as_labels(columns[label][row]) if label is not None else ()
            yield ListEntry(row + 1, columns[paths][row], labels, metadata)

    return ListReading(entries(), paths, label)
