"""A blank that stands in for a picture that is gone, with the reason, so that one does not keep the others away."""

import textwrap
from collections.abc import Iterable
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

from unitscope_schemas.answers.patches import PatchRow
from unitscope_schemas.errors import NotFoundError, PictureError
from unitscope_schemas.units import UnitId
from unitscope_services.atlas.atlas import Atlas
from unitscope_services.atlas.crops import cut, picture, read_image
from unitscope_services.queries.units import shown_box

_MAT, _LINE, _INK = "#eceef1", "#b4b9c0", "#3a3f45"
_FONT_PX, _LEAST_FOR_WORDS = 13, 96


class PatchTile(NamedTuple):
    """The patch of an exemplar as a picture, or a blank and why there is none."""

    picture: Image.Image
    missing: str = ""
    """Why the original cannot be shown; empty where it can."""


def patch_tile(atlas: Atlas, unit: UnitId, row: PatchRow, side_px: int | None = None) -> PatchTile:
    """Return the patch of one exemplar, cut from the original picture, or a blank in its size with the reason."""
    box = shown_box(atlas.field(unit), row)
    image = atlas.find_image(row.image_id)
    try:
        return PatchTile(cut(picture(atlas, read_image(atlas, image)), box, side_px))
    except (NotFoundError, PictureError) as error:
        scale = 1.0 if side_px is None else side_px / max(box.size)
        size = max(1, round(box.size.width * scale)), max(1, round(box.size.height * scale))
        return PatchTile(blank(size, str(error)), f"{row.path}: {error}")


def missing_pictures(atlas: Atlas, rows: Iterable[PatchRow]) -> list[str]:
    """Return the path and the reason of each exemplar whose original cannot be shown, each image once."""
    missing = {}
    for row in rows:
        try:
            picture(atlas, read_image(atlas, atlas.find_image(row.image_id)))
        except (NotFoundError, PictureError) as error:
            missing[row.image_id] = f"{row.path}: {error}"
    return list(missing.values())


def blank(size: tuple[int, int], reason: str) -> Image.Image:
    """Draw a crossed blank of a width and height, with the reason in words where they fit."""
    shown = Image.new("RGB", size, _MAT)
    draw, (right, bottom) = ImageDraw.Draw(shown), (size[0] - 1, size[1] - 1)
    draw.line((0, 0, right, bottom), _LINE)
    draw.line((0, bottom, right, 0), _LINE)
    draw.rectangle((0, 0, right, bottom), outline=_LINE)
    if min(size) >= _LEAST_FOR_WORDS:
        font = ImageFont.load_default(_FONT_PX)
        lines = textwrap.wrap(reason, max(8, int(2 * (size[0] - 12) / _FONT_PX)))[: (size[1] - 12) // (_FONT_PX + 5)]
        draw.multiline_text((6, 6), "\n".join(lines), _INK, font)
    return shown
