"""Lists of pictures: CSV or JSON lines with a column of paths, or text with a path on each line.

Nothing is guessed that changes a value: `values` says what becomes a number. Lists are UTF-8, or UTF-16 with its mark.
"""

import codecs
import csv
import io
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import NamedTuple

from unitscope_pipelines.corpora.columns import LABEL, PATH, USUAL, ColumnChoice, check_once
from unitscope_pipelines.corpora.rows import ListedRows
from unitscope_pipelines.corpora.values import ColumnKind, Json, as_labels, as_metadata, read_json
from unitscope_pipelines.storage.filesystem import Folder
from unitscope_pipelines.storage.stored_file import StoredFile
from unitscope_schemas.addresses import Address
from unitscope_schemas.errors import CorpusError

SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".txt")
_ROWS_PER_BATCH = 65_536
_DELIMITERS = ",;\t|"
_MOST_FIELD_CHARACTERS = 1 << 28
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)

Text = Callable[[], io.TextIOBase]
"""Opens a list's text at its beginning."""


class ListEntry(NamedTuple):
    """A picture that a list names."""

    line: int
    path: object
    """Content of the column of paths, which may be anything."""
    labels: tuple[str, ...] = ()
    metadata: Mapping[str, Json] = {}
    """Values of all other columns, by the columns' names."""


class ListReading(NamedTuple):
    """The entries of a list, in order, and the columns that they were read from; None in a list without columns."""

    entries: Iterator[ListEntry]
    path_column: str | None = None
    label_column: str | None = None
    is_utf8: bool = True

    def note(self, name: str) -> str | None:
        """Return what a person should know: columns of other names than `path` and `label`, text that is no UTF-8."""
        found = {"paths": (self.path_column, PATH), "labels": (self.label_column, LABEL)}
        other = [
            f"{what} are of column {column!r}" for what, (column, own) in found.items() if column not in (own, None)
        ]
        other += [] if self.is_utf8 else ["it is no UTF-8: its other bytes are written like \\xe9; save it as UTF-8"]
        return f"list {name!r}: {', '.join(other)}" if other else None


def list_entries(folder: Folder, name: str, rows: ListedRows, choice: ColumnChoice = USUAL) -> None:
    """Add a list's entries: a column of paths, relative to the list or whole; labels; the rest is metadata.

    An entry whose file is missing is listed too, so that reading it gives the reason. Raises CorpusError for a
    list that cannot be read and for entries with another protocol than s3.
    """
    try:
        data = folder.read(name)
    except OSError as error:
        raise CorpusError(f"list {name!r} cannot be read: {error}") from None
    reading = read_list(name, data, choice)
    if note := reading.note(name):
        rows.note(note)
    while batch := list(islice(reading.entries, _ROWS_PER_BATCH)):
        paths = [_checked(name, entry) for entry in batch]
        for (path, state), entry in zip(_states(folder, paths), batch, strict=True):
            file = state or StoredFile(path, size_bytes=0, modified_ns=0)
            rows.add(path, Address(path), file, entry.labels, as_metadata(entry.metadata))


def read_list(name: str, data: bytes, choice: ColumnChoice) -> ListReading:
    """Return the entries of a list by its name and bytes; raises CorpusError that names the line at fault."""
    what, lower = f"list {name!r}", name.lower()
    text = _text(what, data, may_hold_zeros=lower.endswith(".txt"))
    if lower.endswith(".txt"):
        reading = ListReading(_lines(what, text))
    elif lower.endswith((".csv", ".tsv")):
        reading = _table(what, text, choice, "\t" if lower.endswith(".tsv") else _DELIMITERS)
    else:
        reading = _objects(what, text, choice)
    return reading._replace(is_utf8=_is_utf8(data))


def _text(what: str, data: bytes, may_hold_zeros: bool) -> Text:
    encoding = next((encoding for mark, encoding in _MARKS if data.startswith(mark)), "utf-8")
    zeros = data[:1000].count(0)
    if encoding == "utf-8" and zeros and not (may_hold_zeros and 3 * zeros < len(data[:1000])):
        raise CorpusError(f"{what} holds zero bytes: it is no text, or UTF-16 without its mark; save it as UTF-8")
    errors = "surrogateescape" if encoding.startswith("utf-8") else "strict"
    return lambda: io.TextIOWrapper(io.BytesIO(data), encoding, errors, newline="")


def _is_utf8(data: bytes) -> bool:
    """Tell whether bytes are text in UTF-8, or have a mark of another encoding at their beginning."""
    if any(data.startswith(mark) for mark, _ in _MARKS):
        return True
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _lines(what: str, text: Text) -> Iterator[ListEntry]:
    try:
        for number, line in enumerate(text(), 1):
            path = line.rstrip("\r\n")
            if path.strip():
                yield ListEntry(number, path)
    except UnicodeError as error:
        raise CorpusError(f"{what} is broken: {error}") from None


def _table(what: str, text: Text, choice: ColumnChoice, delimiters: str) -> ListReading:
    """Read a CSV; its delimiter is the one by which its first row names most columns, a column of paths among them."""
    csv.field_size_limit(_MOST_FIELD_CHARACTERS)
    headers = {delimiter: _header(what, text, delimiter) for delimiter in delimiters}

    def fitness(delimiter: str) -> tuple[bool, int]:
        try:
            return bool(choice.path_column(headers[delimiter], what)), len(headers[delimiter])
        except CorpusError:
            return False, len(headers[delimiter])

    delimiter = max(delimiters, key=fitness)
    spaced = any(name.startswith(" ") for name in headers[delimiter][1:])
    names = [name.strip() or f"column {number}" for number, name in enumerate(headers[delimiter], 1)]
    path, label = choice.path_column(names, what), choice.label_column(names, what)
    check_once([name for name in names if name != label], what)

    def rows() -> Iterator[tuple[int, list[str]]]:
        return _csv_rows(what, text, len(names), delimiter=delimiter, skipinitialspace=spaced)

    kinds = [ColumnKind() for _ in names]
    for _, row in rows():
        for kind, cell in zip(kinds, row, strict=True):
            kind.see(cell)
    return ListReading(_table_entries(rows(), names, kinds, path, label), path, label)


def _table_entries(
    rows: Iterator[tuple[int, list[str]]], names: list[str], kinds: list[ColumnKind], path: str, label: str | None
) -> Iterator[ListEntry]:
    of_labels = [number for number, name in enumerate(names) if name == label]
    of_metadata = [number for number, name in enumerate(names) if name != path and not name == label == LABEL]
    path_number = names.index(path)
    for line, row in rows:
        labels = as_labels([row[number] for number in of_labels])
        metadata = {names[number]: kinds[number].value(row[number]) for number in of_metadata}
        yield ListEntry(line, row[path_number], labels, metadata)


def _header(what: str, text: Text, delimiter: str) -> list[str]:
    try:
        row = next((row for row in csv.reader(text(), delimiter=delimiter) if row), None)
    except (csv.Error, UnicodeError) as error:
        raise CorpusError(f"{what} is broken in its first line: {error}") from None
    if row is None:
        raise CorpusError(f"{what} is empty")
    return row


def _csv_rows(
    what: str, text: Text, width: int, delimiter: str, skipinitialspace: bool
) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows behind the first with the numbers of their last lines; blank lines are none."""
    reader = csv.reader(text(), delimiter=delimiter, skipinitialspace=skipinitialspace, strict=True)
    is_header = True
    try:
        for row in reader:
            if not row or (len(row) == 1 != width and not row[0].strip()):
                continue
            if not is_header:
                if len(row) != width:
                    raise CorpusError(f"{what} has {len(row)} values in line {reader.line_num}, and {width} columns")
                yield reader.line_num, row
            is_header = False
    except (csv.Error, UnicodeError) as error:
        raise CorpusError(f"{what} is broken in line {reader.line_num}: {error}") from None


def _objects(what: str, text: Text, choice: ColumnChoice) -> ListReading:
    names: dict[str, None] = {}
    for _, values in _json_rows(what, text):
        names.update(dict.fromkeys(values))
    if not names:
        raise CorpusError(f"{what} is empty")
    path, label = choice.path_column(list(names), what), choice.label_column(list(names), what)
    return ListReading(_object_entries(_json_rows(what, text), path, label), path, label)


def _object_entries(rows: Iterator[tuple[int, dict[str, Json]]], path: str, label: str | None) -> Iterator[ListEntry]:
    for line, values in rows:
        labels = as_labels(values.get(label)) if label is not None else ()
        metadata = {name: value for name, value in values.items() if name != path and not name == label == LABEL}
        yield ListEntry(line, values.get(path), labels, metadata)


def _json_rows(what: str, text: Text) -> Iterator[tuple[int, dict[str, Json]]]:
    try:
        for number, line in enumerate(text(), 1):
            if not line.strip():
                continue
            try:
                values = read_json(line)
            except ValueError as error:
                raise CorpusError(f"{what} is broken in line {number}: {error}") from None
            if not isinstance(values, dict):
                raise CorpusError(f"{what} has no object in line {number}: each line is one, with a column of paths")
            yield number, values
    except UnicodeError as error:
        raise CorpusError(f"{what} is broken: {error}") from None


def _checked(name: str, entry: ListEntry) -> str:
    """Return the path of an entry of a list; raises CorpusError where it is missing or cannot be read."""
    path = entry.path
    if not isinstance(path, str) or not path.strip():
        raise CorpusError(f"line {entry.line} of list {name!r} has no path")
    scheme, colon, _ = path.partition("://")
    if colon and scheme.strip() != "s3":
        raise CorpusError(
            f"line {entry.line} of list {name!r} is {path!r}: download it first; read are files and s3://"
        )
    return path


def _states(folder: Folder, paths: list[str]) -> list[tuple[str, StoredFile | None]]:
    """Return each path with the state of its file; blanks around a path count only where a file has such a name."""
    states = dict(zip(paths, folder.sizes(paths), strict=True))
    padded = [path for path, state in states.items() if state is None and path != path.strip()]
    stripped = dict(zip(padded, folder.sizes([path.strip() for path in padded]), strict=True))
    return [(path.strip(), stripped[path]) if path in stripped else (path, states[path]) for path in paths]
