"""Sheets of tiles: 256 units of a layer in one picture, so that a layer of 2,048 takes eight requests."""

import io
from dataclasses import dataclass
from typing import Any, Literal

from PIL import Image, ImageDraw

from unitscope_schemas.errors import NotFoundError
from unitscope_services.figures.tiles import TILE_PX, SpriteKind, Turn, tiles, unit_count
from unitscope_services.queries.session import Session

SheetFormat = Literal["webp", "png"]

COLUMNS = 16
SHEET_TILES = COLUMNS * COLUMNS
SHEET_PX = COLUMNS * TILE_PX
MOST_BYTES = 288 * 1024
"""Most bytes of a sheet as WebP: eight of them, with the page of 2,048 tiles, stay below 3 MiB."""
_QUALITIES = (90, 85, 75, 60, 40, 20, 10, 0)
_GONE = (128, 128, 128, 255)


@dataclass(frozen=True)
class Sprite:
    """The position of a unit's tile: its sheet, and its left and top there."""

    sheet: int
    left: int
    top: int

    @classmethod
    def of(cls, channel: int) -> "Sprite":
        """Return the position of a unit's tile."""
        sheet, position = divmod(channel, SHEET_TILES)
        row, col = divmod(position, COLUMNS)
        return cls(sheet, col * TILE_PX, row * TILE_PX)


@dataclass(frozen=True)
class SheetAddress:
    """The address of a sheet: which one of a layer, of which kind of pictures, in which `state` of them."""

    layer: str
    kind: SpriteKind
    number: int
    state: str = ""


def sheet_file(session: Session, address: SheetAddress, file_format: SheetFormat, turn: Turn) -> bytes:
    """Return a sheet as a file, each of its pictures decoded within a `turn`; raises NotFoundError if it has no units.

    PNG holds the very pixels of the single pictures. So does WebP of filters where that is small; otherwise it is
    lossy, of the best quality with which a sheet has at most 288 KiB.
    """
    sheet = make_sheet(session, address, turn)
    return _png(sheet) if file_format == "png" else webp(sheet, address.kind == "filter")


def make_sheet(session: Session, address: SheetAddress, turn: Turn) -> Image.Image:
    """Draw the tiles of units 256 · number and following, in rows of 16, each picture in the middle of its tile.

    A unit without a picture has an empty tile; one whose picture is gone from the corpus a crossed one.
    """
    count = unit_count(session, address.layer, address.kind)
    first = address.number * SHEET_TILES
    if not 0 <= first < count:
        last = (count - 1) // SHEET_TILES
        raise NotFoundError(f"layer {address.layer} has sheets 0 to {last}, no sheet {address.number}")
    channels = range(first, min(first + SHEET_TILES, count))
    sheet = Image.new("RGBA", (SHEET_PX, -(-len(channels) // COLUMNS) * TILE_PX))
    for channel, picture in tiles(session, address.layer, address.kind, channels, turn):
        _paste(sheet, Sprite.of(channel), picture)
    return sheet


def _paste(sheet: Image.Image, sprite: Sprite, picture: Image.Image | None) -> None:
    if picture is not None:
        left, top = (TILE_PX - picture.width) // 2, (TILE_PX - picture.height) // 2
        sheet.paste(picture, (sprite.left + left, sprite.top + top))
        return
    draw, far = ImageDraw.Draw(sheet), TILE_PX - 1
    for start, end in (((0, 0), (far, far)), ((0, far), (far, 0))):
        corners = [(sprite.left + x, sprite.top + y) for x, y in (start, end)]
        draw.line(corners, _GONE, 1)


def _png(sheet: Image.Image) -> bytes:
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG", compress_level=6)
    return buffer.getvalue()


def webp(sheet: Image.Image, flat: bool) -> bytes:
    """Return a sheet of at most `MOST_BYTES`, in the best quality that gives it.

    A sheet of squares of one colour (`flat`) comes without loss if that does.
    """
    ways: list[dict[str, Any]] = [{"lossless": True}] if flat else []
    content = b""
    for way in [*ways, *({"quality": quality} for quality in _QUALITIES)]:
        buffer = io.BytesIO()
        sheet.save(buffer, "WEBP", method=4, **way)
        content = buffer.getvalue()
        if len(content) <= MOST_BYTES:
            break
    return content
