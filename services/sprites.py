"""Sheets of small patches: 256 units of a layer in one picture, so that a layer of 2,048 takes eight requests."""

import threading
from collections import OrderedDict
from collections.abc import Hashable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal

from PIL import Image, ImageDraw

from schemas.errors import NotFoundError
from schemas.geometry import Box
from services.atlas import Atlas
from services.crops import cut, encoded, picture, read_image
from services.database import Row
from services.units import box_to_show

SpriteKind = Literal["patch"]
SheetFormat = Literal["webp", "png"]

TILE_PX, COLUMNS = 64, 16
SHEET_TILES = COLUMNS * COLUMNS
SHEET_PX = COLUMNS * TILE_PX
_KEPT_BYTES = 64_000_000
_GONE = (128, 128, 128, 255)


@dataclass(frozen=True)
class Sprite:
    """One unit's tile: its sheet, and its left and top there."""

    sheet: int
    left: int
    top: int

    @classmethod
    def of(cls, channel: int) -> "Sprite":
        sheet, place = divmod(channel, SHEET_TILES)
        row, col = divmod(place, COLUMNS)
        return cls(sheet, col * TILE_PX, row * TILE_PX)


class Sheets:
    """Encoded sheets, the latest of them kept: making one decodes up to 256 originals."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Hashable, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def read(
        self, atlas: Atlas, layer: str, number: int, file_format: SheetFormat, turn: AbstractContextManager[object]
    ) -> bytes:
        """A sheet as a file, each of its originals decoded within a `turn`; raises NotFoundError if it has no units.

        WebP is lossy; PNG holds the very pixels of the single patches.
        """
        key = atlas.root, atlas.version, layer, number, file_format
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        content = encoded(patch_sheet(atlas, layer, number, turn), file_format)
        with self._lock:
            self._kept[key] = content
            while len(self._kept) > 1 and sum(map(len, self._kept.values())) > _KEPT_BYTES:
                self._kept.popitem(last=False)
        return content


def patch_sheet(atlas: Atlas, layer: str, number: int, turn: AbstractContextManager[object]) -> Image.Image:
    """The first patches of units 256 · number and following, in rows of 16, each in the middle of its tile.

    A unit without patches has an empty tile; one whose picture is gone from the corpus a crossed one.
    """
    count = atlas.layer(layer).spec.units
    first = number * SHEET_TILES
    if not 0 <= first < count:
        raise NotFoundError(f"layer {layer} has sheets 0 to {(count - 1) // SHEET_TILES}, no sheet {number}")
    ranked = atlas.statistics(layer).ranked
    channels = [channel for channel in range(first, min(first + SHEET_TILES, count)) if ranked[channel]]
    lines = -(-(min(first + SHEET_TILES, count) - first) // COLUMNS)
    sheet = Image.new("RGBA", (SHEET_PX, lines * TILE_PX))
    for image, boxes in _by_image(atlas, layer, channels):
        with turn:
            try:
                whole = picture(read_image(atlas, image))
            except NotFoundError:
                whole = None
            for channel, box in boxes.items():
                _paste(sheet, Sprite.of(channel), None if whole is None else cut(whole, box, TILE_PX))
    return sheet


def _by_image(atlas: Atlas, layer: str, channels: list[int]) -> Iterator[tuple[Row, dict[int, Box]]]:
    """Each image that is a unit's first, once, with the boxes of all units whose first it is."""
    spec = atlas.layer(layer).spec
    images: dict[str, Row] = {}
    boxes: dict[str, dict[int, Box]] = {}
    for channel, (image, location) in atlas.first_peaks(layer, channels).items():
        images[image["image_id"]] = image
        box = box_to_show(spec, atlas.placement(image), location)
        boxes.setdefault(image["image_id"], {})[channel] = box
    for image_id, image in images.items():
        yield image, boxes[image_id]


def _paste(sheet: Image.Image, sprite: Sprite, patch: Image.Image | None) -> None:
    if patch is not None:
        left, top = (TILE_PX - patch.width) // 2, (TILE_PX - patch.height) // 2
        sheet.paste(patch, (sprite.left + left, sprite.top + top))
        return
    draw, far = ImageDraw.Draw(sheet), TILE_PX - 1
    for start, end in (((0, 0), (far, far)), ((0, far), (far, 0))):
        corners = [(sprite.left + x, sprite.top + y) for x, y in (start, end)]
        draw.line(corners, _GONE, 1)
