"""A few units worth looking at first: far above their mean on pictures of several labels."""

from schemas.units import UnitId
from schemas.web import PatchQuery
from services.atlas import Atlas
from services.units import patches

_PATCHES = 9
_LOOKED_AT = 24
"""Units of a layer whose patches are read: those with the highest ninth-best peak."""


def striking_units(atlas: Atlas, count: int = 6) -> list[UnitId]:
    """One unit from each of `count` layers, spread from the first to the last.

    Within a layer: the unit whose nine patches lie most standard deviations above its mean, times the share of
    distinct labels among them, so that a unit that likes one thing in many pictures wins.
    """
    names = [entry.spec.name for entry in atlas.manifest.layers]
    count = min(count, len(names))
    spread = [names[round(step * (len(names) - 1) / max(1, count - 1))] for step in range(count)]
    found = (_most_striking(atlas, name) for name in spread)
    return [unit for unit in found if unit is not None]


def _most_striking(atlas: Atlas, layer: str) -> UnitId | None:
    live = [row for row in atlas.units(layer).to_pylist() if row["status"] == "live" and row["std"]]
    live.sort(key=lambda row: (row["mean"] - row["maximum"]) / row["std"])
    best, best_score = None, 0.0
    for statistics in live[:_LOOKED_AT]:
        unit = UnitId(layer, statistics["unit"])
        rows = patches(atlas, unit, PatchQuery(limit=_PATCHES)).rows
        deviation = sum(row.activation - statistics["mean"] for row in rows) / len(rows) / statistics["std"]
        score = deviation * len({row.label for row in rows}) / len(rows)
        if score > best_score:
            best, best_score = unit, score
    return best
