"""The picture of each unit on a sheet of tiles: its first patch, or what was made of it."""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

from unitscope_schemas.answers.visuals import Visual, VisualKind
from unitscope_schemas.errors import NotFoundError, PictureError
from unitscope_schemas.geometry import Box
from unitscope_schemas.units import UnitId
from unitscope_services.atlas.atlas import Atlas
from unitscope_services.atlas.crops import cut, fitted, is_plain, picture, read_image, thumbnails
from unitscope_services.atlas.deadlines import check_time
from unitscope_services.atlas.rows import ImageEntry
from unitscope_services.figures.conv_filters import filters_of, tile_of_filter
from unitscope_services.figures.project import picture_of
from unitscope_services.queries.session import Session
from unitscope_services.queries.units import box_to_show

SpriteKind = Literal["patch", "optimised", "projection", "filter"]
"""Kind of picture: the first patch, the stored input that excites the unit most, a projection of its highest
activation, its weights."""
Turn = Callable[[], AbstractContextManager[None]]
ChannelPicture = tuple[int, Image.Image | None]
"""A channel with its picture, None where that is gone from the corpus."""

TILE_PX = 64


@dataclass(frozen=True)
class TileWork:
    """How tiles are made: what takes long within a `turn`; `exact` as the single pictures, or else of JPEG files
    decoded at a reduced size where they are much larger than a tile."""

    turn: Turn
    exact: bool = True


def unit_count(session: Session, layer: str, kind: SpriteKind) -> int:
    """Return how many tiles a layer has; filters also those of layers that are not recorded."""
    return len(filters_of(session, layer).weights) if kind == "filter" else session.atlas.layer(layer).spec.units


def channels_with(session: Session, layer: str, kind: SpriteKind) -> Collection[int]:
    """Return the units that have a picture of the kind; empty if none has."""
    if kind == "patch":
        return set(np.flatnonzero(session.atlas.statistics(layer).ranked).tolist())
    if kind == "filter":
        return range(unit_count(session, layer, kind))
    return session.gallery.pictures(layer, kind).visuals.keys()


def state_of(session: Session, layer: str, kind: SpriteKind) -> str:
    """Return what the tiles are decided by besides the atlas's version: the pictures that are stored."""
    return session.gallery.pictures(layer, kind).state if kind in ("optimised", "projection") else ""


def tiles(
    session: Session, layer: str, kind: SpriteKind, channels: Sequence[int], work: TileWork
) -> Iterator[ChannelPicture]:
    """Give the pictures of some units that have one of the kind, at most 64 pixels high and wide, in any order."""
    if kind == "patch":
        return _patches(session.atlas, layer, channels, work)
    if kind == "filter":
        return _filters(session, layer, channels)
    return _visuals(session, layer, kind, channels, work.turn)


def visual_tile(session: Session, visual: Visual) -> Image.Image:
    """Return a stored picture as a tile, an optimised one cut to what its unit sees."""
    shown, box = picture_of(session, visual).convert("RGB"), visual.box
    if visual.key.kind == "optimised" and box is not None:
        shown = shown.crop((box.left, box.top, box.right, box.bottom))
    return fitted(shown, TILE_PX)


def filter_tile(filter_picture: Image.Image) -> Image.Image:
    """Return a filter with each weight as a square of as many whole pixels as fit."""
    times = TILE_PX // max(filter_picture.size)
    shown = filter_picture.convert("RGB")
    return (
        fitted(shown, TILE_PX)
        if times == 0
        else shown.resize((shown.width * times, shown.height * times), Image.Resampling.NEAREST)
    )


def _patches(atlas: Atlas, layer: str, channels: Sequence[int], work: TileWork) -> Iterator[ChannelPicture]:
    ranked = atlas.statistics(layer).ranked
    for image, boxes in _by_image(atlas, layer, [channel for channel in channels if ranked[channel]]):
        check_time()
        with work.turn():
            try:
                data = read_image(atlas, image)
                if work.exact or not is_plain(atlas, data):
                    whole = picture(atlas, data)
                    cuts = [cut(whole, box, TILE_PX) for box in boxes.values()]
                else:
                    cuts = thumbnails(data, list(boxes.values()), TILE_PX)
            except (NotFoundError, PictureError):
                yield from ((channel, None) for channel in boxes)
                continue
        yield from zip(boxes, cuts, strict=True)


def _by_image(atlas: Atlas, layer: str, channels: list[int]) -> Iterator[tuple[ImageEntry, dict[int, Box]]]:
    """Give each image that is a unit's first, once, with the boxes of all units whose first it is."""
    images: dict[str, ImageEntry] = {}
    boxes: dict[str, dict[int, Box]] = {}
    for channel, (image, location) in atlas.first_peaks(layer, channels).items():
        images[image.image_id] = image
        box = box_to_show(atlas.field(UnitId(layer, channel)), atlas.placement(image), location)
        boxes.setdefault(image.image_id, {})[channel] = box
    for image_id, image in images.items():
        yield image, boxes[image_id]


def _visuals(
    session: Session, layer: str, kind: VisualKind, channels: Sequence[int], turn: Turn
) -> Iterator[ChannelPicture]:
    shown = session.gallery.pictures(layer, kind).visuals
    for channel in channels:
        if channel in shown:
            check_time()
            with turn():
                tile = visual_tile(session, shown[channel])
            yield channel, tile


def _filters(session: Session, layer: str, channels: Sequence[int]) -> Iterator[ChannelPicture]:
    layer_filters = filters_of(session, layer)
    for channel in channels:
        check_time()
        yield channel, filter_tile(tile_of_filter(layer_filters, channel))
