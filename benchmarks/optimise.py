"""How far optimised inputs go beyond the corpus: live units of every block, by recipe, judged as they are stored.

    OMP_NUM_THREADS=1 python -m benchmarks.optimise --atlas demo/atlas

The atlas is of a few hundred pictures: `unitscope demo --no-serve` makes one. Pictures are stored in it, so a run that
was stopped goes on where it was; `--sheet` draws what there is, a row for each recipe.
"""

import argparse
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.report import print_table, save
from unitscope_pipelines.derived.optimise import Optimiser, make_plan
from unitscope_pipelines.derived.visuals import read_picture
from unitscope_pipelines.storage.stores import store_of
from unitscope_pipelines.vision.optimisation.optimisation import OptimisationSettings
from unitscope_pipelines.vision.optimisation.recipes import recipe
from unitscope_schemas.answers.visuals import Visual
from unitscope_schemas.units import UnitId
from unitscope_services.atlas.atlas import Atlas

TARGETS = {"olah2017": 0.95, "yosinski2015": 0.80}
"""Least share of live units whose optimised picture excites them more than every picture of the corpus."""
TILE_PX = 112


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--atlas", type=Path, default=Path("demo/atlas"))
    parser.add_argument("--units", type=int, default=3, help="live units of each layer")
    parser.add_argument("--recipes", nargs="+", default=["olah2017", "yosinski2015"])
    parser.add_argument("--few", nargs="*", default=[], help="recipes that one unit of each layer is enough for")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sheet", type=Path)
    asked = parser.parse_args()
    atlas = Atlas(asked.atlas)
    chosen = live_units(atlas, asked.units, asked.seed)
    found: dict[str, list[Visual]] = {}
    for name, least in [*((name, asked.units) for name in asked.recipes), *((name, 1) for name in asked.few)]:
        make = Optimiser(
            make_plan(atlas.manifest, store_of(asked.atlas), OptimisationSettings(recipe(name)), "unit", "cpu")
        )
        found[name] = [make(unit)[0] for units in chosen.values() for unit in units[:least]]
    rows = [row(atlas, visual) for visuals in found.values() for visual in visuals]
    shares = [share(name, [one for one in rows if one["recipe"] == name]) for name in found]
    print_table("Share of live units whose picture beats the corpus maximum, by layer", by_layer(rows))
    print_table("By recipe", shares)
    save("optimise", {"images": atlas.manifest.corpus.image_count, "recipes": shares, "units": rows})
    if asked.sheet:
        sheet(asked.atlas, found).save(asked.sheet)


def live_units(atlas: Atlas, count: int, seed: int) -> dict[str, list[UnitId]]:
    """By layer some of its live units, drawn with the seed; a larger count adds to those of a smaller one."""
    generator, chosen = np.random.default_rng(seed), {}
    for entry in atlas.manifest.layers:
        name = entry.spec.name
        live = [row["unit"] for row in atlas.units(name).to_pylist() if row["status"] == "live"]
        chosen[name] = [UnitId(name, int(channel)) for channel in generator.permutation(live)[:count]]
    return chosen


def row(atlas: Atlas, visual: Visual) -> dict[str, Any]:
    """What a unit reaches beside what it reaches on the corpus."""
    key, unit = visual.key, visual.key.target
    assert isinstance(unit, UnitId) and visual.activation is not None
    maximum = atlas.unit(unit).maximum
    return {
        "recipe": key.method,
        "layer": key.layer,
        "channel": key.channel,
        "corpus_maximum": maximum,
        "activation": visual.activation,
        "beats": visual.activation > maximum,
        "ratio": visual.activation / maximum,
        "steps": key.settings["steps"],
        "seconds": visual.seconds,
    }


def share(name: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "recipe": name,
        "units": len(rows),
        "beat": sum(row["beats"] for row in rows) / len(rows),
        "wanted": TARGETS.get(name, ""),
        "median ratio": float(np.median([row["ratio"] for row in rows])),
        "seconds each": float(np.median([row["seconds"] for row in rows])),
    }


def by_layer(rows: list[dict[str, Any]]) -> list[Mapping[str, Any]]:
    """One line for each layer, with each recipe's units that beat the corpus."""
    recipes = list(dict.fromkeys(row["recipe"] for row in rows))
    table = []
    for layer in dict.fromkeys(row["layer"] for row in rows):
        line: dict[str, Any] = {"layer": layer}
        for name in recipes:
            own = [row for row in rows if row["recipe"] == name and row["layer"] == layer]
            ratio = float(np.median([row["ratio"] for row in own]))
            line[name] = f"{sum(row['beats'] for row in own)}/{len(own)}  ×{ratio:.2f}"
        table.append(line)
    return table


def sheet(atlas: Path, found: Mapping[str, list[Visual]]) -> Image.Image:
    """A row for each recipe, in order of layers; units that see little are cut to twice their field."""
    width = max(map(len, found.values()))
    drawn = Image.new("RGB", (width * TILE_PX, len(found) * TILE_PX), "white")
    for line, visuals in enumerate(found.values()):
        for place, visual in enumerate(visuals):
            picture = Image.open(io.BytesIO(read_picture(store_of(atlas), visual))).convert("RGB")
            if visual.box is not None:
                top, left, bottom, right = visual.box
                down, across = (bottom - top) // 2, (right - left) // 2
                box = max(0, left - across), max(0, top - down), right + across, bottom + down
                picture = picture.crop((*box[:2], min(box[2], picture.width), min(box[3], picture.height)))
            drawn.paste(picture.resize((TILE_PX, TILE_PX), Image.Resampling.BICUBIC), (place * TILE_PX, line * TILE_PX))
    return drawn


if __name__ == "__main__":
    main()
