"""Lists that lie beside the pictures of a folder and describe them, as Hugging Face's `metadata.csv` does."""

import posixpath
from collections import defaultdict
from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from unitscope_pipelines.corpora.columns import LABEL, ColumnChoice, NoPathColumnError
from unitscope_pipelines.corpora.lists import ListEntry, ListReading, read_list
from unitscope_pipelines.corpora.parquets import read_table
from unitscope_pipelines.corpora.rows import ListedRows
from unitscope_pipelines.corpora.values import as_labels, as_metadata
from unitscope_pipelines.storage.filesystem import Folder
from unitscope_schemas import tables
from unitscope_schemas.answers.statements import Statement, disagreement, joined_labels
from unitscope_schemas.errors import CorpusError

_NAMES = frozenset({"metadata.csv", "metadata.tsv", "metadata.jsonl", "metadata.ndjson", "metadata.parquet"})


def is_folder_list(path: str) -> bool:
    """Tell whether a file has a name under which a folder's list is found."""
    return posixpath.basename(path).lower() in _NAMES


def described(folder: Folder, files: pa.Table, rows: ListedRows, choice: ColumnChoice) -> pa.Table:
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


def _joined(files: pa.Table, statements: dict[str, list[Statement]], labelled: set[str], rows: ListedRows) -> pa.Table:
    paths = files["path"].to_pylist()
    columns = {name: files[name].to_pylist() for name in ("label", "labels", "metadata", "statements")}
    named = np.zeros(len(paths), bool)
    for row, path in enumerate(paths):
        said = statements.get(path)
        if said is None:
            continue
        named[row] = True
        columns["metadata"][row] = next((as_metadata(each.metadata) for each in said if each.metadata), None)
        columns["statements"][row] = disagreement(said)
        if path in labelled:
            labels = joined_labels(said)
            columns["labels"][row], columns["label"][row] = labels, labels[0] if labels else None
    lists = ", ".join(sorted(rows.folder_lists))
    missing = sorted(statements.keys() - set(paths))
    if missing:
        rows.note(f"{lists} names {len(missing)} pictures that are not there, for example {missing[0]}")
    if not named.all():
        rows.note(f"{lists} does not name {(~named).sum()} of the pictures, for example {paths[int(named.argmin())]}")
    return pa.table([columns.get(name, files[name]) for name in tables.LISTED.names], schema=tables.LISTED)


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
