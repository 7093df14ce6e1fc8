"""Contact sheets: a unit's patches with activation, percentile and label, fit for a paper."""

import math
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from unitscope_schemas.answers.patches import PatchPage, PatchRow
from unitscope_schemas.answers.relations import BandPage
from unitscope_schemas.errors import NotFoundError
from unitscope_schemas.units import UnitId
from unitscope_services.atlas.atlas import Atlas
from unitscope_services.figures.blanks import patch_tile

_TILE, _GAP, _MARGIN, _CAPTION, _HEAD = 224, 14, 32, 50, 84
_PAPER, _INK, _QUIET, _MAT = "#ffffff", "#1a1c1f", "#6b7078", "#eceef1"


def unit_sheet(atlas: Atlas, page: PatchPage | BandPage) -> Image.Image:
    """Draw one unit: its patches in a square grid under its name; raises NotFoundError if it has none.

    A blank with the reason stands in for a picture that is gone.
    """
    if not page.rows:
        raise NotFoundError(f"unit {page.unit} has no patches to show: {page.note or 'nothing passes the filter'}")
    columns = min(len(page.rows), max(3, math.ceil(math.sqrt(len(page.rows)))))
    lines = math.ceil(len(page.rows) / columns)
    sheet = Image.new("RGB", _sheet_size(columns, lines), _PAPER)
    draw = ImageDraw.Draw(sheet)
    summary = atlas.summary()
    draw.text((_MARGIN, 24), page.unit, _INK, _font(26))
    about = f"{summary.model} · {summary.images:,} images · {page.note or page.status}"
    draw.text((_MARGIN, 58), _shortened(about, _font(15), sheet.width - 2 * _MARGIN), _QUIET, _font(15))
    for number, row in enumerate(page.rows):
        line, column = divmod(number, columns)
        left = _MARGIN + column * (_TILE + _GAP)
        top = _HEAD + _GAP + line * (_TILE + _CAPTION + _GAP)
        _paste(sheet, atlas, UnitId.parse(page.unit), row, (left, top))
    return sheet


def units_sheet(atlas: Atlas, pages: Sequence[PatchPage]) -> Image.Image:
    """Draw several units, one line each: name above, patches from left to right.

    Raises NotFoundError if none has patches.
    """
    shown = [page for page in pages if page.rows]
    if not shown:
        raise NotFoundError("none of the units has patches to show")
    columns = max(len(page.rows) for page in shown)
    height = _TILE + _CAPTION + 44
    sheet = Image.new("RGB", (_sheet_size(columns, 1)[0], len(shown) * height + 2 * _MARGIN), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for line, page in enumerate(shown):
        top = _MARGIN + line * height
        draw.text((_MARGIN, top), page.unit, _INK, _font(20))
        for column, row in enumerate(page.rows):
            _paste(sheet, atlas, UnitId.parse(page.unit), row, (_MARGIN + column * (_TILE + _GAP), top + 32))
    return sheet


def _paste(sheet: Image.Image, atlas: Atlas, unit: UnitId, row: PatchRow, corner: tuple[int, int]) -> None:
    left, top = corner
    patch = patch_tile(atlas, unit, row, _TILE).picture
    draw = ImageDraw.Draw(sheet)
    draw.rectangle((left, top, left + _TILE - 1, top + _TILE - 1), fill=_MAT)
    sheet.paste(patch, (left + (_TILE - patch.width) // 2, top + (_TILE - patch.height) // 2))
    figures = f"{row.activation:.3g} · {100 * row.percentile:.4g} %"
    draw.text((left, top + _TILE + 7), figures, _INK, _font(16))
    name = ", ".join(row.labels) or row.path.rpartition("/")[2]
    draw.text((left, top + _TILE + 28), _shortened(name, _font(14), _TILE), _QUIET, _font(14))


def _sheet_size(columns: int, lines: int) -> tuple[int, int]:
    width = 2 * _MARGIN + columns * _TILE + (columns - 1) * _GAP
    return width, _HEAD + lines * (_TILE + _CAPTION + _GAP) + _MARGIN


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _shortened(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"
