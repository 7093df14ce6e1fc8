"""A folder of pictures: index it, find the unit that is excited most, and save the patches that excite it.

    python examples/folder_of_pictures.py ~/Pictures atlas patches.png

A sub-folder is a label. Run it again with more pictures in the folder: only those are scanned.
"""

import argparse
from pathlib import Path

from PIL import Image

import unitscope
from unitscope_pipelines.indexing.config import IndexConfig
from unitscope_pipelines.indexing.index import index

LAYER = "_blocks.5"
TILE_PX = 160


def main(pictures: str, atlas: str, out: str) -> None:
    """Index `pictures` into `atlas`, print the top patches of its most excited unit, and write them to `out`."""
    index(IndexConfig(corpus=pictures, atlas=atlas, layers=(LAYER,)), lambda progress: None)
    opened = unitscope.open_atlas(atlas)
    unit = f"{LAYER}:{opened.units(LAYER, sort='-maximum')['channel'][0]}"
    rows = opened.top(unit, k=9).to_pylist()
    for row in rows:
        print(f"{row['activation']:8.3f}  {row['percentile']:.1%}  {row['label'] or '':12}  {row['path']}")
    sheet = Image.new("RGB", (TILE_PX * len(rows), TILE_PX), "white")
    for position, row in enumerate(rows):
        # boxes are half-open, in pixels of the upright original
        sides = (row[f"effective_box_{side}"] for side in ("left", "top", "right", "bottom"))
        with Image.open(Path(pictures) / row["path"]) as picture:
            patch = picture.convert("RGB").crop(tuple(sides)).resize((TILE_PX, TILE_PX))
        sheet.paste(patch, (TILE_PX * position, 0))
    sheet.save(out)
    print(f"the patches of {unit} are in {out}")


if __name__ == "__main__":
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("pictures", help="folder of pictures")
    words.add_argument("atlas", help="folder to write the atlas to")
    words.add_argument("out", help="picture file to write the patches to")
    main(**vars(words.parse_args()))
