"""Sheets of tiles: 256 units of a layer in one picture, so that a layer of 2,048 takes eight requests, or a few
units that are wanted first."""

import io
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from PIL import Image, ImageDraw

from unitscope_schemas.errors import NotFoundError, UsageError
from unitscope_services.figures.tiles import TILE_PX, SpriteKind, TileWork, Turn, tiles, unit_count
from unitscope_services.queries.session import Session

SheetFormat = Literal["webp", "png"]

COLUMNS = 16
SHEET_TILES = COLUMNS * COLUMNS
SHEET_PX = COLUMNS * TILE_PX
FIRST_TILES = 32
"""Most tiles of a sheet of chosen units: a page has its first tiles for the price of so many pictures, not of 256."""
MOST_BYTES = 288 * 1024
"""Most bytes of a sheet as WebP: eight of them, with the page of 2,048 tiles, stay below 3 MiB."""
_QUALITIES = (90, 85, 75, 60, 40, 20, 10, 0)
_LEAST_BYTES = 16 * 1024
_GONE = (128, 128, 128, 255)


@dataclass(frozen=True)
class Sprite:
    """The position of a unit's tile: its sheet, and its left and top there."""

    sheet: int
    left: int
    top: int

    @classmethod
    def of(cls, channel: int) -> "Sprite":
        """Return the position of a unit's tile on the sheets of its layer; for the place of a chosen unit on a sheet of
        such, its position there."""
        sheet, position = divmod(channel, SHEET_TILES)
        row, col = divmod(position, COLUMNS)
        return cls(sheet, col * TILE_PX, row * TILE_PX)


@dataclass(frozen=True)
class SheetAddress:
    """The address of a sheet: which one of a layer, of which kind of pictures, in which `state` of them.

    With `channels` it has the tiles of these units, in this order, whatever its number.
    """

    layer: str
    kind: SpriteKind
    number: int
    state: str = ""
    channels: tuple[int, ...] = ()


def read_channels(text: str | None) -> tuple[int, ...]:
    """Return the units that an address chooses as `3,17,5`; raises UsageError for anything else, or too many."""
    words = text.split(",") if text else []
    if not all(word.isascii() and word.isdecimal() and len(word) < 10 for word in words):
        raise UsageError(f"channels={text!r} is no list of channels such as 3,17,5")
    if len(words) > FIRST_TILES:
        raise UsageError(f"channels: {len(words)} are too many for one sheet, which has at most {FIRST_TILES}")
    return tuple(map(int, words))


def sheet_file(session: Session, address: SheetAddress, file_format: SheetFormat, turn: Turn) -> bytes:
    """Return a sheet as a file, each of its pictures decoded within a `turn`; raises NotFoundError if it has no units.

    PNG holds the very pixels of the single pictures. So does WebP of filters where that is small; otherwise it is
    lossy, of about the best quality with which a sheet has at most 288 KiB, and large JPEG files are decoded at a
    reduced size.
    """
    if file_format == "png":
        return _png(make_sheet(session, address, turn))
    sheet = make_sheet(session, address, turn, exact=False)
    most_bytes = MOST_BYTES * len(address.channels) // SHEET_TILES if address.channels else MOST_BYTES
    return webp(sheet, address.kind == "filter", max(most_bytes, _LEAST_BYTES))


def make_sheet(session: Session, address: SheetAddress, turn: Turn, exact: bool = True) -> Image.Image:
    """Draw the tiles of units 256 · number and following, or of chosen ones, in rows of 16, each picture in the middle
    of its tile.

    A unit without a picture has an empty tile; one whose picture is gone from the corpus a crossed one. Without `exact`
    large JPEG files are decoded at a reduced size, which differs by some two shades on average.
    """
    channels = _channels(session, address)
    positions = {channel: position for position, channel in enumerate(channels)}
    sheet = Image.new("RGBA", (SHEET_PX, -(-len(channels) // COLUMNS) * TILE_PX))
    for channel, picture in tiles(session, address.layer, address.kind, channels, TileWork(turn, exact)):
        _paste(sheet, Sprite.of(positions[channel]), picture)
    return sheet


def _channels(session: Session, address: SheetAddress) -> Sequence[int]:
    """Return the units of a sheet, in the order of their tiles."""
    count, layer = unit_count(session, address.layer, address.kind), address.layer
    if address.channels:
        beyond = max(address.channels)
        if beyond >= count:
            raise NotFoundError(f"layer {layer} has channels 0 to {count - 1}, no channel {beyond}")
        return list(dict.fromkeys(address.channels))
    first = address.number * SHEET_TILES
    if not 0 <= first < count:
        last = (count - 1) // SHEET_TILES
        raise NotFoundError(f"layer {layer} has sheets 0 to {last}, no sheet {address.number}")
    return range(first, min(first + SHEET_TILES, count))


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


def webp(sheet: Image.Image, flat: bool, most_bytes: int = MOST_BYTES) -> bytes:
    """Return a sheet of at most `most_bytes`, in about the best quality that gives it, or else in the least.

    A sheet of squares of one colour (`flat`) comes without loss if that does.
    """
    if flat:
        content = _encoded(sheet, lossless=True)
        if len(content) <= most_bytes:
            return content
    sample = _sample(sheet)
    sample_bytes = most_bytes * sample.height // sheet.height
    best = bisect_left(_QUALITIES, True, key=lambda quality: len(_encoded(sample, quality=quality)) <= sample_bytes)
    content = b""
    for quality in _QUALITIES[min(best, len(_QUALITIES) - 1) :]:
        content = _encoded(sheet, quality=quality)
        if len(content) <= most_bytes:
            break
    return content


def _sample(sheet: Image.Image) -> Image.Image:
    """Return every fourth row of tiles of a sheet: the quality that fits is sought on these, for encoding a whole sheet
    takes longer than all that is drawn on it."""
    rows = range(0, sheet.height, 4 * TILE_PX)
    sample = Image.new(sheet.mode, (sheet.width, len(rows) * TILE_PX))
    for position, top in enumerate(rows):
        sample.paste(sheet.crop((0, top, sheet.width, top + TILE_PX)), (0, position * TILE_PX))
    return sample


def _encoded(sheet: Image.Image, **way: Any) -> bytes:
    buffer = io.BytesIO()
    sheet.save(buffer, "WEBP", method=2, **way)
    return buffer.getvalue()
