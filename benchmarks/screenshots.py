"""The pictures of pages in README: `python -m benchmarks.screenshots --atlas demo/atlas`.

The atlas must hold optimised inputs and projections of the unit: `unitscope optimise`, `unitscope project`.
"""

import argparse
from pathlib import Path

from playwright.sync_api import sync_playwright

from benchmarks.pages import chromium
from benchmarks.questions import served
from unitscope_schemas.questions import TopQuestion
from unitscope_schemas.units import UnitId
from unitscope_services.atlas.atlas import Atlas
from unitscope_services.queries.exemplars import patches

WIDTH_PX, HEIGHT_PX, QUALITY = 1200, 900, 75


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--atlas", type=Path, required=True)
    parser.add_argument("--unit", type=UnitId.parse, default=UnitId("_blocks.12", 161))
    parser.add_argument("--rank", type=int, default=0, help="of the unit's image that the image page shows")
    parser.add_argument("--out", type=Path, default=Path("docs"))
    asked = parser.parse_args()
    atlas = Atlas(asked.atlas.absolute())
    row = patches(atlas, asked.unit, TopQuestion(k=asked.rank + 1)).rows[asked.rank]
    box = ",".join(map(str, row.effective_box))
    start, unit = f"/a/{atlas.name}", asked.unit
    pages = {
        "unit.jpg": f"{start}/layers/{unit.layer}/units/{unit.channel}",
        "image.jpg": f"{start}/images/{row.image_id[:16]}?layer={unit.layer}&unit={unit}&box={box}",
    }
    with served(asked.atlas) as port, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        # without scripts a list does not go on where its end is seen, so the page has one height
        size = {"width": WIDTH_PX, "height": HEIGHT_PX}
        page = browser.new_page(viewport=size, java_script_enabled=False)
        for name, address in pages.items():
            page.goto(f"http://127.0.0.1:{port}{address}", timeout=300_000)
            page.wait_for_load_state("networkidle")
            page.screenshot(path=asked.out / name, type="jpeg", quality=QUALITY, full_page=True)
        browser.close()


if __name__ == "__main__":
    main()
