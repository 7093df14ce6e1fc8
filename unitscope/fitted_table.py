"""Tables that fit a terminal: what matters less leaves, texts are shortened, and no number is ever cut."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace

from rich.cells import cell_len, chop_cells

_GAP = 2
"""Spaces between columns."""
_LEAST_TEXT = 14
"""Characters that a shortened text keeps, if it has so many."""
_PROSE = 48
"""Characters from which a text is wrapped at its spaces and not shortened."""
_FIRST = 5
"""Columns that stay whatever the width: the first ones of those that are not among the following."""
_LEAVING = """
duplicate_group; padding; labels; other_paths; seen_box; metadata; notes; digest; effective_box; nonfinite_count;
image_count; mode; format; removed; stale_images; std; median; q99; q90; minimum; lift_low lift_high; own_bytes; kind;
field; effective_field; same_correlation same_overlap; runner_up runner_up_correlation; row col; image_id; size_bytes;
requests; mean; positive_share; created; box; label
"""
"""Columns that leave where there is no room, the first ones first; then others do, the last one first."""


@dataclass(frozen=True)
class Column:
    """A column as text."""

    name: str
    cells: tuple[str, ...]
    at_right: bool
    """Whether it stands at the right, as numbers do."""
    is_whole: bool
    """Whether it is never shortened: numbers, names of units, digests."""
    header: str = ""

    @property
    def natural(self) -> int:
        """Characters of the longest line, wide ones twice."""
        return max(map(cell_len, (*self.header.split("\n"), *self.cells)))

    @property
    def least(self) -> int:
        """Characters that the column takes at least."""
        header = max(map(cell_len, self.header.split("\n")))
        return self.natural if self.is_whole else min(self.natural, max(_LEAST_TEXT, header))


@dataclass(frozen=True)
class Fitted:
    """The columns that a terminal has room for, how wide each is, and the names of those that it has none for."""

    columns: list[Column]
    widths: list[int]
    left_out: list[str]


def fit(columns: Sequence[Column], width: int | None) -> Fitted:
    """Choose the columns for a terminal of so many characters; None: there is no limit.

    First long names of columns are put on several lines, then texts are shortened, then columns leave in the order of
    their importance. The first few are shown even if lines get longer than the terminal.
    """
    shown, left_out = [replace(column, header=column.name) for column in columns], list[str]()
    if width is None or _whole([column.natural for column in shown]) <= width:
        return Fitted(shown, [column.natural for column in shown], left_out)
    shown = [replace(column, header=_folded(column)) for column in shown]
    for names in map(str.split, _LEAVING.split(";")):
        if _whole([column.least for column in shown]) <= width:
            break
        left_out += [column.name for column in shown if column.name in names]
        shown = [column for column in shown if column.name not in names]
    while len(shown) > _FIRST and _whole([column.least for column in shown]) > width:
        left_out.append(shown.pop().name)
    return Fitted(shown, _widened(shown, width), left_out)


def cell_lines(text: str, width: int) -> list[str]:
    """Return a text in lines of at most so many characters: prose is wrapped, the end of a path or name stays."""
    if cell_len(text) <= width:
        return [text]
    if len(text) >= _PROSE and " " in text:
        return [line for piece in textwrap.wrap(text, width) for line in chop_cells(piece, width)]
    first = next(start for start in range(1, len(text) + 1) if cell_len(text[start:]) < width)
    return [f"…{text[first:]}"]


def aligned(text: str, width: int, at_right: bool) -> str:
    """Return a text with as many spaces as fill a column."""
    spaces = " " * (width - cell_len(text))
    return spaces + text if at_right else text + spaces


def _folded(column: Column) -> str:
    """Return a column's name on as many lines as its cells are narrower, cut at its underscores."""
    room = max(map(cell_len, column.cells), default=0)
    lines: list[str] = []
    for word in column.name.split("_"):
        if lines and len(lines[-1]) + 1 + len(word) <= room:
            lines[-1] = f"{lines[-1]}_{word}"
        else:
            lines = [*(f"{line}_" if line == lines[-1] else line for line in lines), word]
    return "\n".join(lines)


def _widened(columns: Sequence[Column], width: int) -> list[int]:
    """Give what room is left to the columns that are shortened, one character at a time to the narrowest."""
    widths = [column.least for column in columns]
    room = width - _whole(widths)
    while room > 0:
        short = [place for place, column in enumerate(columns) if widths[place] < column.natural]
        if not short:
            break
        widths[min(short, key=widths.__getitem__)] += 1
        room -= 1
    return widths


def _whole(widths: Sequence[int]) -> int:
    return sum(widths) + _GAP * (len(widths) - 1)
