"""Where the bytes of a picture are: a whole file, a range of one, or a cell of a Parquet file."""

from dataclasses import dataclass

from unitscope_schemas.errors import AtlasError

_FILE, _RANGE, _CELL = "file", "range", "cell"


@dataclass(frozen=True)
class Range:
    """A range of consecutive bytes of a file, as a member of a tar is."""

    offset: int
    size_bytes: int


@dataclass(frozen=True)
class Cell:
    """A row of a Parquet file, by its row group and its number in that."""

    row_group: int
    row: int


@dataclass(frozen=True)
class Address:
    """Where a picture is: a file, below the corpus root unless its name is a whole one, and the part of it."""

    file: str
    part: Range | Cell | None = None

    def __str__(self) -> str:
        """Write `file:NAME`, `range:OFFSET+SIZE:NAME` or `cell:GROUP/ROW:NAME`; a name may hold any character."""
        if isinstance(self.part, Range):
            return f"{_RANGE}:{self.part.offset}+{self.part.size_bytes}:{self.file}"
        if isinstance(self.part, Cell):
            return f"{_CELL}:{self.part.row_group}/{self.part.row}:{self.file}"
        return f"{_FILE}:{self.file}"

    @classmethod
    def parse(cls, text: str) -> "Address":
        """Read the text that `str` wrote; raises AtlasError."""
        kind, _, rest = text.partition(":")
        numbers, _, file = rest.partition(":")
        try:
            if kind == _FILE:
                return cls(rest)
            if kind == _RANGE:
                offset, size_bytes = map(int, numbers.split("+"))
                return cls(file, Range(offset, size_bytes))
            if kind == _CELL:
                row_group, row = map(int, numbers.split("/"))
                return cls(file, Cell(row_group, row))
        except ValueError:
            pass
        raise AtlasError(f"{text!r} is no address of a picture; it begins with {_FILE}:, {_RANGE}: or {_CELL}:")
