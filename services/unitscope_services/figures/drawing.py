"""A drawing of pictures and words at positions, and its three forms: PNG, SVG with real text, HTML in one file."""

import base64
import html
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from unitscope_schemas.errors import UsageError, listing

INK, QUIET, PAPER, MAT = "#1a1c1f", "#6b7078", "#ffffff", "#eceef1"
PIXELS = 2
"""Pixels of a PNG for each point of the drawing."""
_FONTS = "'Helvetica Neue', Helvetica, Arial, 'Liberation Sans', sans-serif"
_LIGHT_PAGE = "body{margin:0;background:#fff}svg{display:block;margin:0 auto;max-width:100%;height:auto}"


@dataclass(frozen=True)
class Tile:
    """A picture in the middle of a square of `side` points; `about` says in words what it is.

    A `crisp` one shows its pixels as squares.
    """

    picture: Image.Image
    left: int
    top: int
    side: int
    about: str
    crisp: bool = False

    @property
    def place(self) -> tuple[float, float, float, float]:
        """Left, top, width and height of the picture, as large as fits the square."""
        scale = self.side / max(self.picture.size)
        width, height = self.picture.width * scale, self.picture.height * scale
        return self.left + (self.side - width) / 2, self.top + (self.side - height) / 2, width, height


@dataclass(frozen=True)
class Words:
    """A line of text that begins at `left` and stands on `baseline`, in points."""

    text: str
    left: int
    baseline: int
    size: int = 12
    colour: str = INK


@dataclass(frozen=True)
class Drawing:
    """Tiles and words on a sheet of `width` × `height` points."""

    title: str
    width: int
    height: int
    tiles: tuple[Tile, ...]
    words: tuple[Words, ...]


def write_drawing(drawing: Drawing, path: Path) -> None:
    """Write the form that the file's ending names; raises UsageError for another ending."""
    form = _form(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(form(drawing))


def check_ending(path: Path) -> None:
    """Raise UsageError if no drawing can be written to this file."""
    _form(path)


def shortened(text: str, size: int, width: int) -> str:
    """Return the text, cut so that it takes at most `width` points."""
    font = ImageFont.load_default(size)
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text.rstrip(" ·,") + "…"


def png(drawing: Drawing) -> bytes:
    """Return the drawing in pixels."""
    sheet = Image.new("RGB", (PIXELS * drawing.width, PIXELS * drawing.height), PAPER)
    draw = ImageDraw.Draw(sheet)
    for tile in drawing.tiles:
        corner, side = (PIXELS * tile.left, PIXELS * tile.top), PIXELS * tile.side
        draw.rectangle((*corner, corner[0] + side - 1, corner[1] + side - 1), fill=MAT)
        left, top, width, height = (round(PIXELS * value) for value in tile.place)
        sheet.paste(tile.picture.convert("RGB").resize((max(1, width), max(1, height)), _filter(tile)), (left, top))
    for words in drawing.words:
        font = ImageFont.load_default(PIXELS * words.size)
        draw.text((PIXELS * words.left, PIXELS * words.baseline), words.text, words.colour, font, anchor="ls")
    return _png(sheet)


def svg(drawing: Drawing) -> bytes:
    """Return the drawing as SVG: every picture embedded as PNG in its own pixels, every line real text."""
    size = f'viewBox="0 0 {drawing.width} {drawing.height}" width="{drawing.width}" height="{drawing.height}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="{_FONTS}" role="img">',
        f"<title>{html.escape(drawing.title)}</title>",
        f'<rect width="100%" height="100%" fill="{PAPER}"/>',
    ]
    for tile in drawing.tiles:
        left, top, width, height = tile.place
        data = base64.b64encode(_png(tile.picture)).decode()
        parts.append(f'<rect x="{tile.left}" y="{tile.top}" width="{tile.side}" height="{tile.side}" fill="{MAT}"/>')
        rendering = ' image-rendering="pixelated"' if tile.crisp else ""
        parts.append(
            f'<image x="{left:.2f}" y="{top:.2f}" width="{width:.2f}" height="{height:.2f}"{rendering} '
            f'href="data:image/png;base64,{data}"><title>{html.escape(tile.about)}</title></image>'
        )
    for words in drawing.words:
        attributes = f'x="{words.left}" y="{words.baseline}" font-size="{words.size}" fill="{words.colour}"'
        parts.append(f"<text {attributes}>{html.escape(words.text)}</text>")
    return "\n".join([*parts, "</svg>", ""]).encode()


def page(drawing: Drawing) -> bytes:
    """Return the drawing as a page that needs nothing beside it."""
    head = f'<meta charset="utf-8"><title>{html.escape(drawing.title)}</title><style>{_LIGHT_PAGE}</style>'
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{svg(drawing).decode()}</body></html>\n'.encode()


_FORMS: dict[str, Callable[[Drawing], bytes]] = {".png": png, ".svg": svg, ".html": page}


def _form(path: Path) -> Callable[[Drawing], bytes]:
    form = _FORMS.get(path.suffix.lower())
    if form is None:
        raise UsageError(f"a sheet cannot be written as {path.name!r}; its ending is one of {listing(_FORMS)}")
    return form


def _filter(tile: Tile) -> Image.Resampling:
    if tile.crisp:
        return Image.Resampling.NEAREST
    enlarged = PIXELS * tile.side > max(tile.picture.size)
    return Image.Resampling.BICUBIC if enlarged else Image.Resampling.LANCZOS


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=6)
    return buffer.getvalue()
