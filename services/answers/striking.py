"""A few units worth looking at first: far above their mean on pictures of several labels."""

from schemas.answers import PatchQuery
from schemas.units import UnitId
from services.answers.units import patches
from services.opened.atlas import Atlas

_PATCHES = 9
_LOOKED_AT = 24
"""Units of a layer whose patches are read: those with the highest ninth-best peak."""


def striking_units(atlas: Atlas, count: int = 6) -> list[UnitId]:
    """One unit from each of `count` layers, spread from the first to the last.

    Within a layer: the unit whose nine patches lie most standard deviations above its mean, times the share of
    distinct labels among them, so that a unit that likes one thing in many pictures wins.
    """
    spread = spread_layers(atlas, count)
    return [unit for name in spread for unit in striking_in(atlas, name, 1)]


def spread_layers(atlas: Atlas, count: int) -> list[str]:
    """So many layers at even steps, the first and the last among them."""
    names = [entry.spec.name for entry in atlas.manifest.layers]
    count = min(count, len(names))
    return [names[round(step * (len(names) - 1) / max(1, count - 1))] for step in range(count)]


def striking_in(atlas: Atlas, layer: str, count: int) -> list[UnitId]:
    """The most striking units of a layer, the first of them first; fewer where fewer are above their mean."""
    live = [row for row in atlas.units(layer).to_pylist() if row["status"] == "live" and row["std"]]
    live.sort(key=lambda row: (row["mean"] - row["maximum"]) / row["std"])
    scores = {}
    for statistics in live[:_LOOKED_AT]:
        unit = UnitId(layer, statistics["unit"])
        rows = patches(atlas, unit, PatchQuery(limit=_PATCHES)).rows
        deviation = sum(row.activation - statistics["mean"] for row in rows) / len(rows) / statistics["std"]
        scores[unit] = deviation * len({row.label for row in rows}) / len(rows)
    found = [unit for unit in scores if scores[unit] > 0]
    return sorted(found, key=lambda unit: -scores[unit])[:count]
