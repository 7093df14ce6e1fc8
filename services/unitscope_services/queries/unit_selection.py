"""Units are selected by names, layers and globs, or because they stand out."""

from collections.abc import Sequence

from unitscope_pipelines.vision.models.globs import matches
from unitscope_schemas.errors import NotFoundError, listing
from unitscope_schemas.questions import TopQuestion
from unitscope_schemas.units import UnitId
from unitscope_services.atlas.atlas import Atlas
from unitscope_services.atlas.statistics import UnitStatistics
from unitscope_services.queries.exemplars import patches


def chosen_units(atlas: Atlas, names: Sequence[str], top: int | None = None) -> list[UnitId]:
    """Return units by `LAYER:UNIT`, or by a layer or glob all of its live units, or the `top` that stand out most.

    Each comes once, in the order of the names; raises NotFoundError for what is not in the atlas.
    """
    layers = [entry.spec.name for entry in atlas.manifest.layers]
    units: dict[UnitId, None] = {}
    for text in names:
        meant = [name for name in layers if name == text or matches(name, text)]
        if not meant and ":" not in text:
            raise NotFoundError(f"no layer {text!r} is in this atlas; it has {listing(layers, most=40)}")
        for layer in meant:
            units |= dict.fromkeys(_standing_out(atlas, layer, top))
        if not meant:
            unit = UnitId.parse(text)
            atlas.unit(unit)
            units[unit] = None
    return list(units)


def every_unit(atlas: Atlas) -> list[UnitId]:
    """Return all units of the atlas, whatever their status."""
    layers = [entry.spec for entry in atlas.manifest.layers]
    return [UnitId(layer.name, channel) for layer in layers for channel in range(layer.units)]


def _standing_out(atlas: Atlas, layer: str, most: int | None) -> Sequence[UnitId]:
    """Return a layer's live units in order of channels, or those of them whose maximum stands out most."""
    live = [statistics for statistics in atlas.unit_statistics(layer) if statistics.status == "live"]
    if most is not None:
        live = sorted(sorted(live, key=_deviations, reverse=True)[:most], key=lambda statistics: statistics.channel)
    return [UnitId(layer, statistics.channel) for statistics in live]


def _deviations(statistics: UnitStatistics) -> float:
    """Return how many standard deviations a unit's maximum lies above its mean; 0 where there are none."""
    maximum, mean, std = statistics.maximum, statistics.mean, statistics.std
    return (maximum - mean) / std if maximum is not None and mean is not None and std else 0.0


_PATCHES = 9
_LOOKED_AT = 24
"""Number of units of a layer whose patches are read: those with the highest ninth-best peak."""


def striking_units(atlas: Atlas, count: int = 6) -> list[UnitId]:
    """Return one unit from each of `count` layers, spread from the first to the last.

    Within a layer it is the unit whose nine patches lie most standard deviations above its mean, times the share of
    distinct labels among them, so that a unit that likes one thing in many pictures wins.
    """
    spread = spread_layers(atlas, count)
    return [unit for name in spread for unit in striking_in(atlas, name, 1)]


def spread_layers(atlas: Atlas, count: int) -> list[str]:
    """Return so many layers at even steps, the first and the last among them."""
    names = [entry.spec.name for entry in atlas.manifest.layers]
    count = min(count, len(names))
    return [names[round(step * (len(names) - 1) / max(1, count - 1))] for step in range(count)]


def striking_in(atlas: Atlas, layer: str, count: int) -> list[UnitId]:
    """Return the most striking units of a layer, best first; fewer where fewer are above their mean."""
    live = [statistics for statistics in atlas.unit_statistics(layer) if statistics.status == "live" and statistics.std]
    live.sort(key=lambda statistics: -_deviations(statistics))
    scores = {}
    for statistics in live[:_LOOKED_AT]:
        unit = UnitId(layer, statistics.channel)
        rows = patches(atlas, unit, TopQuestion(k=_PATCHES)).rows
        mean, std = statistics.mean or 0.0, statistics.std or 1.0
        deviation = sum(row.activation - mean for row in rows) / len(rows) / std
        scores[unit] = deviation * len({row.label for row in rows}) / len(rows)
    striking = [unit for unit in scores if scores[unit] > 0]
    return sorted(striking, key=lambda unit: -scores[unit])[:count]
