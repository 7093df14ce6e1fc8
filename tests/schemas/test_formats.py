"""Tables as files that other programs open."""

import io
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.feather
import pytest

from unitscope_schemas.formats import MEDIA_TYPES, rows_as
from unitscope_schemas.geometry import Box, Location, Size


@dataclass(frozen=True)
class Placed:
    """A row with all that becomes several columns."""

    name: str
    box: Box | None
    share: float


@pytest.mark.parametrize("count", [0, 1, 3])
def test_arrow_is_the_file_format_that_feather_readers_open(count: int) -> None:
    """Entry 25: `read_ipc` of polars and `read_feather` of pandas want a file, not a stream."""
    content = rows_as([Placed("a", Box(1, 2, 3, 4), 0.3)] * count, Placed, "arrow")
    assert content.startswith(b"ARROW1")
    assert "stream" not in MEDIA_TYPES["arrow"]
    table = pa.feather.read_table(io.BytesIO(content))
    assert table.column_names == ["name", "box_top", "box_left", "box_bottom", "box_right", "share"]
    assert table.equals(pa.ipc.open_file(content).read_all())
    assert table.num_rows == count


@pytest.mark.parametrize(
    ("value", "text"), [(Box(0, -5, 7, 8), "0,-5,7,8"), (Location(-1, 3), "-1,3"), (Size(7, 9), "9 × 7")]
)
def test_messages_show_numbers_not_classes(value: object, text: str) -> None:
    assert (str(value), f"{value}", "{}".format(value)) == (text, text, text)  # noqa: UP032
