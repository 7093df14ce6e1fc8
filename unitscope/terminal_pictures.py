"""Pictures in a terminal: as kitty's protocol sends them, or in half blocks of colour, which any terminal shows."""

import base64
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

_COLUMNS, _LINES = 18, 9
"""Size of a picture in characters, each about twice as high as wide."""
_GAP = 1
_PIXELS = 10
"""Pixels of a character's width where real pictures can be sent."""
_CHUNK = 4096
"""Most characters of one message of kitty's protocol."""
_KITTY = ("xterm-kitty", "xterm-ghostty", "ghostty", "WezTerm")


def takes_pictures(environment: Mapping[str, str]) -> bool:
    """Return whether the terminal of these variables speaks kitty's protocol of pictures."""
    names = (environment.get("TERM", ""), environment.get("TERM_PROGRAM", ""))
    return "KITTY_WINDOW_ID" in environment or any(name in _KITTY for name in names)


def picture_rows(pictures: Sequence["Image"], captions: Sequence[str], width: int, as_pictures: bool) -> str:
    """Return pictures side by side with their captions below, as many in a row as fit so many columns."""
    across = max(1, (width + _GAP) // (_COLUMNS + _GAP))
    starts = range(0, len(pictures), across)
    return "".join(_row(pictures[at : at + across], captions[at : at + across], as_pictures) for at in starts)


def _row(pictures: Sequence["Image"], captions: Sequence[str], as_pictures: bool) -> str:
    scale = _PIXELS if as_pictures else 1
    step, side = (_COLUMNS + _GAP) * scale, (_COLUMNS * scale, _LINES * 2 * scale)
    sheet = _side_by_side(pictures, step, side)
    drawn = _kitty(sheet, len(pictures)) if as_pictures else _half_blocks(sheet)
    words = " ".join(text[:_COLUMNS].ljust(_COLUMNS) for text in captions).rstrip()
    return f"{drawn}\n{words}\n\n"


def _side_by_side(pictures: Sequence["Image"], step: int, side: tuple[int, int]) -> "Image":
    """Return pictures in one, each as large as fits; what none covers is clear."""
    from PIL import Image, ImageOps

    sheet = Image.new("RGBA", (step * len(pictures), side[1]))
    for number, picture in enumerate(pictures):
        one = ImageOps.contain(picture.convert("RGB"), side)
        sheet.paste(one, (number * step + (side[0] - one.width) // 2, (side[1] - one.height) // 2))
    return sheet


def _half_blocks(sheet: "Image") -> str:
    """Return a character for each two pixels one above the other: the upper half block in both their colours."""
    pixels = sheet.load()
    assert pixels is not None
    lines = []
    for row in range(0, sheet.height, 2):
        cells = [_cell(pixels[col, row], pixels[col, row + 1]) for col in range(sheet.width)]
        lines.append("".join(cells) + "\x1b[0m")
    return "\n".join(lines)


def _cell(upper: object, lower: object) -> str:
    assert isinstance(upper, tuple) and isinstance(lower, tuple)
    if not upper[3] and not lower[3]:
        return "\x1b[0m "
    above, below = (f"{red};{green};{blue}" for red, green, blue, _ in (upper, lower))
    if not lower[3]:
        return f"\x1b[0m\x1b[38;2;{above}m▀"
    if not upper[3]:
        return f"\x1b[0m\x1b[38;2;{below}m▄"
    return f"\x1b[38;2;{above};48;2;{below}m▀"


def _kitty(sheet: "Image", count: int) -> str:
    """Return the messages that show a PNG in so many pictures' columns, and leave the cursor behind it."""
    content = io.BytesIO()
    sheet.save(content, "PNG")
    data = base64.standard_b64encode(content.getvalue()).decode()
    parts = [data[start : start + _CHUNK] for start in range(0, len(data), _CHUNK)]
    head = f"a=T,f=100,q=2,c={(_COLUMNS + _GAP) * count},r={_LINES},"
    messages = []
    for number, part in enumerate(parts):
        more = int(number < len(parts) - 1)
        messages.append(f"\x1b_G{head if number == 0 else ''}m={more};{part}\x1b\\")
    return "".join(messages)
