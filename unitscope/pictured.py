"""Rows of an answer with a picture each, as a notebook shows them: HTML that needs no server and no script."""

import base64
import html
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pyarrow as pa

if TYPE_CHECKING:
    from PIL.Image import Image

_SIDE_PX, _GAP_PX = 112, 6
_COLUMNS = 9
_FIGURE = "display:inline-block;margin:0 6px 10px 0;vertical-align:top;width:{}px;font:12px sans-serif"
_PICTURE = "width:{0}px;height:{0}px;object-fit:contain;background:#8883"


@dataclass(frozen=True)
class Thumbnail:
    """A picture (JPEG or PNG) with its caption; None where it is gone."""

    picture: bytes | None
    caption: str
    title: str = ""
    """Words that show where a pointer rests."""


class Pictured:
    """Rows of an answer, each with a picture: `table` in Arrow, and `tiles`, which are drawn when first shown."""

    def __init__(self, heading: str, table: pa.Table, draw: Callable[[dict[str, Any]], Thumbnail]) -> None:
        self.heading, self.table, self._draw = heading, table, draw

    @cached_property
    def tiles(self) -> list[Thumbnail]:
        """The pictures of the rows, in their order."""
        return [self._draw(row) for row in self.table.to_pylist()]

    def picture(self, columns: int = _COLUMNS, side_px: int = _SIDE_PX) -> "Image":
        """Return all pictures side by side, for a file or a figure: a Pillow image."""
        from PIL import Image, ImageOps

        count = max(1, len(self.tiles))
        across, down = min(columns, count), -(-count // columns)
        step = side_px + _GAP_PX
        sheet = Image.new("RGB", (across * step - _GAP_PX, down * step - _GAP_PX), "white")
        for number, tile in enumerate(self.tiles):
            if tile.picture is not None:
                one = ImageOps.contain(Image.open(io.BytesIO(tile.picture)).convert("RGB"), (side_px, side_px))
                sheet.paste(one, (number % columns * step, number // columns * step))
        return sheet

    def __len__(self) -> int:
        count: int = self.table.num_rows
        return count

    def __repr__(self) -> str:
        return f"<{self.heading}: {len(self)} rows>"

    def _repr_html_(self) -> str:
        return as_page(self.heading, [] if len(self) else ["there are none"], self.tiles)


@dataclass(frozen=True)
class PageFrame:
    """A page of a server inside another page: as text, and in a notebook, an HTML iframe."""

    address: str
    title: str
    height_px: int

    def __str__(self) -> str:
        address, title = html.escape(self.address), html.escape(self.title)
        style = f"width:100%;height:{self.height_px}px;border:0"
        return f'<iframe src="{address}" title="{title}" loading="lazy" style="{style}"></iframe>'

    _repr_html_ = __str__


def as_page(heading: str, lines: Sequence[str], tiles: Sequence[Thumbnail]) -> str:
    """Return a heading, lines of text and pictures as HTML, with the pictures in it."""
    words = "".join(f"<div>{html.escape(line)}</div>" for line in lines)
    return f"<div><strong>{html.escape(heading)}</strong>{words}<div>{''.join(map(_figure, tiles))}</div></div>"


def _figure(tile: Thumbnail) -> str:
    style, caption = _PICTURE.format(_SIDE_PX), html.escape(tile.caption)
    shown = f'<div style="{style}"></div>'
    if tile.picture is not None:
        kind = "png" if tile.picture.startswith(b"\x89PNG") else "jpeg"
        data = base64.b64encode(tile.picture).decode()
        shown = f'<img alt="{caption}" style="{style}" src="data:image/{kind};base64,{data}">'
    frame = f'title="{html.escape(tile.title)}" style="{_FIGURE.format(_SIDE_PX)}"'
    return f"<figure {frame}>{shown}<figcaption>{caption}</figcaption></figure>"
