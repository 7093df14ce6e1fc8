"""Pictures as a listing sees them are rows of an Arrow table, for a million objects would take a gigabyte."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from unitscope_pipelines.storage.filesystem import StoredFile
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
_ROWS_PER_BATCH = 65_536
_ORDER = "order"


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
        self._batches: list[pa.RecordBatch] = []
        self._columns: dict[str, list[object]] = {name: [] for name in tables.LISTED.names}

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
        if len(columns["path"]) == _ROWS_PER_BATCH:
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

    def table(self) -> pa.Table:
        """Return all rows added so far, with the schema `tables.LISTED`, in order of paths.

        Of several rows with one path the first stands, with the labels of all; where they disagree, it says so. Rows
        that lie elsewhere than the first are named as refused.
        """
        self._finish_batch()
        rows = pa.Table.from_batches(self._batches, tables.LISTED)
        rows = rows.append_column(_ORDER, pa.array(np.arange(len(rows))))
        rows = rows.sort_by([("path", "ascending"), (_ORDER, "ascending")]).drop_columns([_ORDER])
        paths = rows["path"].to_numpy()
        first = np.ones(len(paths), bool)
        first[1:] = paths[1:] != paths[:-1]
        if first.all():
            return rows
        rows = self._without_others(rows, first)
        paths = rows["path"].to_numpy()
        first = np.ones(len(paths), bool)
        first[1:] = paths[1:] != paths[:-1]
        self.repeated_count = len(paths) - int(first.sum())
        return _joined(rows, np.flatnonzero(first))

    def _without_others(self, rows: pa.Table, first: NDArray[np.bool_]) -> pa.Table:
        """Return the rows that lie where the first of their path does, and name the others as refused."""
        start, same = 0, np.ones(len(first), bool)
        for number in np.flatnonzero(~first | np.append(~first[1:], False)).tolist():
            start = number if first[number] else start
            if rows["address"][number] != rows["address"][start]:
                same[number] = False
                path, address = rows["path"][number].as_py(), rows["address"][number]
                self.refuse(path, f"another file has the same name as text: {address}")
        return rows.filter(pa.array(same))

    def _finish_batch(self) -> None:
        self._batches.append(pa.RecordBatch.from_pydict(self._columns, tables.LISTED))
        self._columns = {name: [] for name in tables.LISTED.names}


def _joined(rows: pa.Table, starts: Iterable[np.integer]) -> pa.Table:
    """Return the first row of each path, from those that start at some positions, with what all rows say."""
    starts = np.asarray(starts)
    kept = rows.take(pa.array(starts))
    labels, statements = kept["labels"].to_pylist(), kept["statements"].to_pylist()
    ends = np.append(starts[1:], len(rows))
    for position in np.flatnonzero(ends - starts > 1).tolist():
        part = rows.slice(starts[position], ends[position] - starts[position]).select(["path", "labels", "metadata"])
        said = [Statement.of(row["path"], row["labels"], row["metadata"]) for row in part.to_pylist()]
        labels[position], statements[position] = joined_labels(said), disagreement(said)
    joined = {
        "labels": labels,
        "label": [said[0] if said else None for said in labels],
        "statements": statements,
        "metadata": kept["metadata"],
    }
    columns = [joined.get(name, kept[name]) for name in tables.LISTED.names]
    return pa.table(columns, tables.LISTED)


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
