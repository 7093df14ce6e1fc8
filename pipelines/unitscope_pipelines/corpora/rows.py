"""Pictures as a listing sees them are rows of a table in a temporary file: memory holds none of a million of them."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, groupby
from operator import itemgetter, lt
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa

from unitscope_pipelines.storage.long_tables.database import batches_of, rows_of, spilling_database, tables_of, take_in
from unitscope_pipelines.storage.long_tables.long_table import ROWS_AT_ONCE, LongTable, LongTableWriter
from unitscope_pipelines.storage.stored_file import StoredFile
from unitscope_schemas import tables
from unitscope_schemas.addresses import Address, as_text
from unitscope_schemas.answers.statements import Statement, disagreement, joined_labels

_OF_TODAY = """
.jpg .jpeg .jpe .jfif .mpo .png .apng .webp .avif .avifs .heic .heif .hif .bmp .dib .gif .tif .tiff .jp2 .j2k .j2c .jpc
.jpf .jpx .pbm .pgm .ppm .pnm .pfm .qoi .psd .ico .cur .icns .npy"""
_OF_OTHER_TIMES_AND_TRADES = """
.tga .icb .vda .vst .pcx .dcx .sgi .rgb .rgba .bw .ras .dds .ftc .ftu .blp .xbm .xpm .msp .im .fit .fits .pcd .pxr .gbr
.fli .flc .p7 .imt .im1 .im8 .im24 .im32 .spider .spi .ara"""
SUFFIXES = frozenset((_OF_TODAY + _OF_OTHER_TIMES_AND_TRADES).split())
"""Suffixes of files that are read as pictures; what a file is its content says."""
COMPRESSIONS = (".gz", ".bz2", ".xz")
HIDDEN, HIDDEN_FOLDERS, NO_SUFFIX = "hidden", "hidden folders", "without a suffix"


class ListedRows:
    """A collection of listed pictures; `table` gives them in order of their paths, each path once.

    What is no picture is counted by kind in `others`; what should be one and cannot be read is named. What a person
    should know of the reading is in `notes`; `repeated_count` says how many rows name a path again.
    """

    def __init__(self) -> None:
        self.others = Counter[str]()
        self.unpacked: dict[str, int] = {}
        """Sizes in bytes of compressed tars, unpacked."""
        self.notes: list[str] = []
        self.folder_lists: list[str] = []
        """Paths of lists that lie beside pictures and may describe them."""
        self.repeated_count = 0
        self._refused: list[dict[str, object]] = []
        self._writer, self._is_ordered, self._last_path = LongTableWriter(tables.LISTED), True, ""
        self._columns: dict[str, list[Any]] = {name: [] for name in tables.LISTED.names}

    def add(
        self,
        path: str,
        address: Address,
        file: StoredFile,
        label: str | Sequence[str] | None = None,
        metadata: str | None = None,
    ) -> None:
        """Add a picture at an address within a file, with its label, its labels, or none."""
        labels = list(map(as_text, [label] if isinstance(label, str) else label or ()))
        columns = self._columns
        columns["path"].append(as_text(path))
        columns["label"].append(labels[0] if labels else None)
        columns["labels"].append(labels)
        columns["metadata"].append(metadata)
        columns["statements"].append(None)
        columns["address"].append(str(address))
        columns["file_bytes"].append(file.size_bytes)
        columns["modified_ns"].append(file.modified_ns)
        if len(columns["path"]) == ROWS_AT_ONCE:
            self._finish_batch()

    def note(self, text: str) -> None:
        """Note what a person should know, once."""
        if text not in self.notes:
            self.notes.append(text)

    def pass_over(self, path: str) -> None:
        """Count a file that is no picture, by the kind that its name says."""
        self.others[kind_of(path)] += 1

    def refuse(self, path: str, reason: str, file: StoredFile | None = None) -> None:
        """Name what cannot be read, and why; `file` is the one that it is or is within."""
        size_bytes, modified_ns = (file.size_bytes, file.modified_ns) if file else (0, 0)
        row = {"path": as_text(path), "file_bytes": size_bytes, "modified_ns": modified_ns, "size_bytes": 0}
        self._refused.append({**row, "reason": as_text(reason)})

    def refused(self) -> pa.Table:
        """Return what was named as refused, in order of paths, with the schema `tables.SKIPPED`."""
        return pa.Table.from_pylist(self._refused, tables.SKIPPED).sort_by(
            [("path", "ascending"), ("reason", "ascending")]
        )

    def table(self) -> LongTable:
        """Return all rows added so far, with the schema `tables.LISTED`, in order of paths; nothing is added after it.

        Of several rows with one path the first stands, with the labels of all; where they disagree, it says so. Rows
        that lie elsewhere than the first are named as refused.
        """
        self._finish_batch()
        added = self._writer.finish()
        if self._is_ordered:
            return added
        with spilling_database() as database, database.cursor() as writer:
            added.show(database, "rows", "number")
            database.execute("CREATE TABLE repeated AS SELECT path FROM rows GROUP BY path HAVING count(*) > 1")
            joined = self._joined(rows_of(database, _REPEATED))
            take_in(writer, "joined", "FROM parts", tables_of(joined, tables.LISTED))
            return LongTable.written(batches_of(database, _EACH_ONCE), tables.LISTED)

    def _joined(self, repeated: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Yield one row for each path, of rows in order of paths that several have; name those that lie elsewhere."""
        for path, (first, *further) in ((path, list(rows)) for path, rows in groupby(repeated, itemgetter("path"))):
            said = [Statement.of(path, first["labels"], first["metadata"])]
            for row in further:
                if row["address"] != first["address"]:
                    self.refuse(path, f"another file has the same name as text: {row['address']}")
                else:
                    said.append(Statement.of(path, row["labels"], row["metadata"]))
            if len(said) > 1:
                self.repeated_count += len(said) - 1
                labels = joined_labels(said)
                first |= {"labels": labels, "label": next(iter(labels), None), "statements": disagreement(said)}
            yield first

    def _finish_batch(self) -> None:
        paths = self._columns["path"]
        ordered = all(map(lt, chain([self._last_path], paths), paths))
        self._is_ordered, self._last_path = self._is_ordered and ordered, paths[-1] if paths else self._last_path
        self._writer.add(pa.RecordBatch.from_pydict(self._columns, tables.LISTED))
        self._columns = {name: [] for name in tables.LISTED.names}


_LISTED = ", ".join(tables.LISTED.names)
_REPEATED = f"SELECT {_LISTED} FROM rows SEMI JOIN repeated USING (path) ORDER BY path, number"
_EACH_ONCE = f"""
SELECT {_LISTED} FROM rows ANTI JOIN repeated USING (path) UNION ALL SELECT {_LISTED} FROM joined ORDER BY path"""


def is_picture(path: str) -> bool:
    """Tell whether a file's name says that it is a picture, and not a hidden one."""
    name = path.rpartition("/")[2]
    return PurePosixPath(name).suffix.lower() in SUFFIXES and not name.startswith(".")


def kind_of(path: str) -> str:
    """Return the kind of a file that is no picture: its suffix in lower case, or that it has none or is hidden."""
    name = path.rpartition("/")[2]
    if name.startswith("."):
        return HIDDEN
    suffixes = PurePosixPath(name.lower()).suffixes[-2:]
    compressed = len(suffixes) == 2 and suffixes[0] == ".tar"
    return as_text("".join(suffixes if compressed else suffixes[-1:])) or NO_SUFFIX


def folder_of(path: str) -> str | None:
    """Return the folder of a file below the corpus root, None for a file of the root itself."""
    return path.rpartition("/")[0] or None
