"""Ranked parts as they are written: one Parquet file of several units.

Where units have many ranks, each has a footer of its own in it. The footer of the whole file tells of every row group
of all units: of ten million images, to read it takes longer, and holds more memory, than what a question asks for.
"""

import hashlib
import io
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from struct import Struct
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from unitscope_pipelines.storage.parts import parquet_writer
from unitscope_schemas import tables
from unitscope_schemas.entries.part import UnitFooter

_STATISTICS = ["unit", "rank", "activation"]
MAGIC = b"PAR1"
"""What a Parquet file begins and ends with."""
_LENGTH = Struct("<I")
_PADDING = bytes(1 << 20)


def write_ranked(file: Path, units: Iterable[pa.Table]) -> None:
    """Write the ranks of units, tables of the schema `tables.RANKED`, one after the other."""
    with parquet_writer(file, tables.RANKED, keep_statistics=_STATISTICS) as writer:
        for ranked in units:
            _write_groups(writer, ranked)


def write_with_footers(file: Path, units: Iterable[pa.Table]) -> list[UnitFooter | None]:
    """Write the ranks of units as `write_ranked` does, and return the footer that each has; None without ranks.

    A unit is written by a writer of its own, that is told to begin where the last one ended: its offsets, and so its
    footer, are those of the whole file. The footers are joined to one at the end, by which others read the file.
    """
    footers: list[UnitFooter | None] = []
    written: list[pq.FileMetaData] = []
    with file.open("w+b") as target:
        for ranked in units:
            footers.append(_write_unit(target, ranked, written) if ranked.num_rows else None)
        if written:
            for other in written[1:]:
                written[0].append_row_groups(other)
            last = pa.BufferOutputStream()
            written[0].write_metadata_file(last)
            target.write(last.getvalue())
    if not written:
        write_ranked(file, ())
    return footers


def _write_unit(target: BinaryIO, ranked: pa.Table, written: list[pq.FileMetaData]) -> UnitFooter:
    """Write a unit behind what is written, and add what its footer says to that of others."""
    start = target.tell()
    sink = pa.PythonFile(_Behind(target), mode="w")
    with parquet_writer(sink, tables.RANKED, keep_statistics=_STATISTICS, footers=written) as writer:
        for place in range(len(MAGIC), start, len(_PADDING)):  # its magic number is written already
            sink.write(_PADDING[: start - place])
        _write_groups(writer, ranked)
    return _last_footer(target)


def _last_footer(file: BinaryIO) -> UnitFooter:
    """Return the footer that a file ends with so far."""
    end = file.tell()
    file.seek(end - _LENGTH.size - len(MAGIC))
    (length,) = _LENGTH.unpack(file.read(_LENGTH.size))
    size_bytes = length + _LENGTH.size + len(MAGIC)
    file.seek(end - size_bytes)
    return UnitFooter(end - size_bytes, size_bytes, hashlib.sha256(file.read(size_bytes)).hexdigest())


def read_footer(file: BinaryIO | pa.NativeFile, footer: UnitFooter) -> bytes | None:
    """Return a unit's footer out of an open ranked part; None where that is not what was sealed."""
    end = file.seek(0, io.SEEK_END)
    if not 0 <= footer.start <= footer.start + footer.size_bytes <= end:
        return None
    file.seek(footer.start)
    stored: bytes = file.read(footer.size_bytes)
    return stored if hashlib.sha256(stored).hexdigest() == footer.sha256 else None


def _write_groups(writer: pq.ParquetWriter, ranked: pa.Table) -> None:
    for first, end in pairwise(tables.group_ends(ranked.num_rows)):
        writer.write_table(ranked.slice(first, end - first), row_group_size=end - first)


class _Behind:
    """What is written to it is appended to a file, but for as many bytes as the file has already."""

    closed = False

    def __init__(self, target: BinaryIO) -> None:
        self._target, self._left_out = target, target.tell()

    def flush(self) -> None:
        """Do nothing: the file is flushed when it is closed."""

    def close(self) -> None:
        """Do nothing: others write behind it."""

    def write(self, data: bytes) -> int:
        """Write what is behind the bytes that are left out."""
        view = memoryview(data)
        left_out = min(len(view), self._left_out)
        self._left_out -= left_out
        self._target.write(view[left_out:])
        return len(view)
