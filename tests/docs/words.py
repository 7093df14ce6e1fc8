"""The pictures beside the README's words, made of the demo: `python -m tests.docs.words demo/atlas`."""

import io
import sys
from pathlib import Path

from PIL import Image
from starlette.testclient import TestClient

from unitscope_schemas.questions import TopQuestion
from unitscope_schemas.units import UnitId
from unitscope_services.atlas.atlas import Atlas
from unitscope_services.figures.tiles import TILE_PX
from unitscope_services.queries.exemplars import patches
from unitscope_services.server.settings import Settings
from unitscope_services.web.app import create_app

FOLDER = Path(__file__).parent.parent.parent / "docs" / "words"
UNIT, OTHERS = UnitId("_blocks.12", 161), "_blocks.15"
RANK = 1
"""The exemplar that is shown, counted from 0: a pagoda, which a reader knows at once."""
_SIDE_PX, _SHOWN_TILES = 160, 5
_INK, _FILL = "#6b7078", "#eceef1"
SEGMENTS = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="160" height="60" role="img" aria-label="Three segments">'
    + "".join(
        f'<rect x="{left}" y="14" width="{width}" height="32" rx="4" fill="{_FILL}" stroke="{_INK}"/>'
        for left, width in ((2, 92), (98, 40), (142, 16))
    )
    + "</svg>\n"
)


def draw(atlas: Path, corpus: Path) -> None:
    """Write every picture."""
    settings = Settings(atlases=(atlas,), corpora=(str(corpus),), preload=True)
    opened = Atlas(atlas)
    rows = patches(opened, UNIT, TopQuestion(k=9)).rows
    with TestClient(create_app(settings), "http://localhost") as client:

        def picture(address: str) -> Image.Image:
            answer = client.get(f"/api/v1/atlases/{opened.name}/{address}")
            assert answer.status_code == 200, answer.text
            return Image.open(io.BytesIO(answer.content)).convert("RGB")

        def patch(image: str, further: str, side_px: int = _SIDE_PX) -> Image.Image:
            return picture(f"patches/{image}.png?unit={UNIT.layer}:{UNIT.channel}&size={side_px}{further}")

        image, tiles = rows[RANK].image_id, _SHOWN_TILES * TILE_PX
        drawn = {
            "unit": side_by_side([patch(row.image_id, "", _SIDE_PX // 3) for row in rows], 3),
            "peak": patch(image, "&overlay=map"),
            "exemplar": picture(f"images/{image}.png?width={_SIDE_PX}"),
            "receptive-field": patch(image, "&overlay=box"),
            "patch": patch(image, ""),
            "atlas": picture(f"layers/{OTHERS}/sprites/patch.png").crop((0, 0, tiles, tiles)).resize((_SIDE_PX,) * 2),
        }
    FOLDER.mkdir(exist_ok=True)
    for name, shown in drawn.items():
        shown.save(FOLDER / f"{name}.jpg", quality=88)
    (FOLDER / "segment.svg").write_text(SEGMENTS)


def side_by_side(pictures: list[Image.Image], columns: int) -> Image.Image:
    side = _SIDE_PX // columns
    sheet = Image.new("RGB", (_SIDE_PX, side * -(-len(pictures) // columns)), _FILL)
    for number, own in enumerate(pictures):
        sheet.paste(own, (number % columns * side, number // columns * side))
    return sheet


if __name__ == "__main__":
    draw(Path(sys.argv[1]), Path(sys.argv[1]).parent / "corpus")
