"""Where the bytes of a picture are: a whole file, a range of one, or a cell of a Parquet file."""

import re
from dataclasses import dataclass
from urllib.parse import quote, unquote

from unitscope_schemas.errors import AtlasError

_FILE, _RANGE, _CELL = "file", "range", "cell"
_ESCAPED = "escaped-"
"""Beginning of an address whose file has a name that is no UTF-8 text, and is written as `as_text` writes it."""


@dataclass(frozen=True)
class Range:
    """A range of consecutive bytes of a file, as a member of a tar is."""

    offset: int
    size_bytes: int


@dataclass(frozen=True)
class Cell:
    """A row of a Parquet file, by its row group and its number in that, and the column that holds the picture."""

    row_group: int
    row: int
    column: str | None = None
    """Name of the column, None for the one that readers find by themselves."""


@dataclass(frozen=True)
class Address:
    """Where a picture is: a file, below the corpus root unless its name is a whole one, and the part of it."""

    file: str
    part: Range | Cell | None = None

    def __str__(self) -> str:
        """Write `file:NAME`, `range:OFFSET+SIZE:NAME`, `cell:GROUP/ROW:NAME` or `cell:GROUP/ROW/COLUMN:NAME`.

        A file's name may hold any character; a column's is written as in a web address.
        """
        name = as_text(self.file)
        mark = "" if name == self.file else _ESCAPED
        if isinstance(self.part, Range):
            return f"{mark}{_RANGE}:{self.part.offset}+{self.part.size_bytes}:{name}"
        if isinstance(self.part, Cell):
            column = "" if self.part.column is None else f"/{quote(self.part.column, safe='')}"
            return f"{mark}{_CELL}:{self.part.row_group}/{self.part.row}{column}:{name}"
        return f"{mark}{_FILE}:{name}"

    @classmethod
    def parse(cls, text: str) -> "Address":
        """Read the text that `str` wrote; raises AtlasError."""
        if text.startswith(_ESCAPED):
            plain = cls.parse(text.removeprefix(_ESCAPED))
            return cls(_ESCAPE.sub(_character, plain.file), plain.part)
        kind, _, rest = text.partition(":")
        numbers, _, file = rest.partition(":")
        try:
            if kind == _FILE:
                return cls(rest)
            if kind == _RANGE:
                offset, size_bytes = map(_count, numbers.split("+"))
                return cls(file, Range(offset, size_bytes))
            if kind == _CELL:
                row_group, row, *column = numbers.split("/", 2)
                return cls(file, Cell(_count(row_group), _count(row), unquote(column[0]) if column else None))
        except ValueError:
            pass
        raise AtlasError(f"{text!r} is no address of a picture; it begins with {_FILE}:, {_RANGE}: or {_CELL}:")


def _count(digits: str) -> int:
    """Return a count of at most 18 digits; raises ValueError for what is none, such as −1."""
    if not re.fullmatch("[0-9]{1,18}", digits):
        raise ValueError(digits)
    return int(digits)


_ESCAPE = re.compile(r"\\(\\|x[0-9a-f]{2}|u[0-9a-f]{4})")


def as_text(name: str) -> str:
    """Return a name that can be written down as UTF-8: as it is, or with what is no text in it escaped.

    A byte of a file's name that is no UTF-8 becomes `\\xe9`, a surrogate that stands alone `\\ud800`; a backslash in
    such a name is then doubled.
    """
    try:
        name.encode()
    except UnicodeEncodeError:
        return "".join(map(_escape, name))
    return name


def _escape(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # how Python writes a byte that is no UTF-8
        return f"\\x{code - 0xDC00:02x}"
    if 0xD800 <= code <= 0xDFFF:
        return f"\\u{code:04x}"
    return "\\\\" if character == "\\" else character


def _character(escape: re.Match[str]) -> str:
    """Return the character that `_escape` wrote."""
    written = escape[1]
    if written == "\\":
        return written
    code = int(written[1:], 16)
    return chr(code + 0xDC00 if written[0] == "x" else code)
