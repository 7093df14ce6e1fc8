"""Pictures as a listing sees them are rows of an Arrow table, for a million objects would take a gigabyte."""

import json
import math
from collections import Counter
from collections.abc import Mapping
from datetime import date, datetime, time
from pathlib import PurePosixPath

import numpy as np
import pyarrow as pa

from unitscope_pipelines.storage.filesystem import StoredFile
from unitscope_schemas import tables
from unitscope_schemas.addresses import Address, as_text

_OF_TODAY = """
.jpg .jpeg .jpe .jfif .mpo .png .apng .webp .avif .heic .heif .hif .bmp .dib .gif .tif .tiff .jp2 .j2k .j2c .jpc .jpf
.jpx .pbm .pgm .ppm .pnm .pfm .qoi .psd .ico .cur .icns"""
_OF_OTHER_TIMES_AND_TRADES = """
.tga .icb .vda .vst .pcx .dcx .sgi .rgb .rgba .bw .ras .dds .ftc .ftu .blp .xbm .xpm .msp .im .fit .fits .pcd .pxr .gbr
.fli .flc"""
SUFFIXES = frozenset((_OF_TODAY + _OF_OTHER_TIMES_AND_TRADES).split())
"""Suffixes of files that are read as pictures; what a file is its content says."""
COMPRESSIONS = (".gz", ".bz2", ".xz")
HIDDEN, HIDDEN_FOLDERS, NO_SUFFIX = "hidden", "hidden folders", "without a suffix"
_ROWS_PER_BATCH = 65_536


class ListedRows:
    """A collection of listed pictures; `table` gives them in order of their paths, each path once.

    What is no picture is counted by kind in `others`; what should be one and cannot be read is named.
    """

    def __init__(self) -> None:
        self.others = Counter[str]()
        self.unpacked: dict[str, int] = {}
        """Sizes in bytes of compressed tars, unpacked."""
        self._refused: list[dict[str, object]] = []
        self._batches: list[pa.RecordBatch] = []
        self._columns: dict[str, list[object]] = {name: [] for name in tables.LISTED.names}

    def add(
        self, path: str, address: Address, file: StoredFile, label: str | None = None, metadata: str | None = None
    ) -> None:
        """Add a picture at an address within a file."""
        columns = self._columns
        columns["path"].append(as_text(path))
        columns["label"].append(label and as_text(label))
        columns["metadata"].append(metadata)
        columns["address"].append(str(address))
        columns["file_bytes"].append(file.size_bytes)
        columns["modified_ns"].append(file.modified_ns)
        if len(columns["path"]) == _ROWS_PER_BATCH:
            self._finish_batch()

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
        """Return all rows added so far, with the schema `tables.LISTED`; of several with one path the first.

        Where they lie elsewhere than the first they are named as refused.
        """
        self._finish_batch()
        listed = pa.Table.from_batches(self._batches, tables.LISTED).sort_by("path")
        paths = listed["path"].to_numpy()
        first = np.ones(len(paths), bool)
        first[1:] = paths[1:] != paths[:-1]
        if first.all():
            return listed
        start = 0
        for number in np.flatnonzero(~first | np.append(~first[1:], False)).tolist():
            start = number if first[number] else start
            if listed["address"][number] != listed["address"][start]:
                self.refuse(paths[number], f"another file has the same name as text: {listed['address'][number]}")
        return listed.filter(pa.array(first))

    def _finish_batch(self) -> None:
        self._batches.append(pa.RecordBatch.from_pydict(self._columns, tables.LISTED))
        self._columns = {name: [] for name in tables.LISTED.names}


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


def as_metadata(values: Mapping[str, object]) -> str | None:
    """Write the values that are one number, truth value or text as JSON; dates are text, missing ones are left out.

    None where nothing is left.
    """
    scalars = {as_text(name): scalar for name, value in values.items() if (scalar := _scalar(value)) is not None}
    return json.dumps(scalars, ensure_ascii=False, separators=(",", ":")) if scalars else None


def as_label(value: object) -> str | None:
    """Return a label as text; None where it is missing or empty."""
    return None if value is None or value == "" else as_text(str(value))


def _scalar(value: object) -> bool | int | float | str | None:
    if isinstance(value, bool | int):
        return value
    if isinstance(value, str):
        return as_text(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value.isoformat() if isinstance(value, date | datetime | time) else None
