"""Which units are meant by names, layers and globs."""

from collections.abc import Sequence

from pipelines.vision.globs import matches
from schemas.errors import NotFoundError, listing
from schemas.units import UnitId
from services.opened.atlas import Atlas
from services.opened.database import Row


def chosen_units(atlas: Atlas, names: Sequence[str], top: int | None = None) -> list[UnitId]:
    """Units by `LAYER:UNIT`, or by a layer or glob all of its live units, or the `top` that stand out most.

    Each once, in the order asked; raises NotFoundError for what is not in the atlas.
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
    """All units of the atlas, whatever their status."""
    layers = [entry.spec for entry in atlas.manifest.layers]
    return [UnitId(layer.name, channel) for layer in layers for channel in range(layer.units)]


def _standing_out(atlas: Atlas, layer: str, most: int | None) -> Sequence[UnitId]:
    """A layer's live units in order of channels, or those of them whose maximum stands out most."""
    live = [row for row in atlas.units(layer).to_pylist() if row["status"] == "live"]
    if most is not None:
        live = sorted(sorted(live, key=_deviations, reverse=True)[:most], key=lambda row: int(row["unit"]))
    return [UnitId(layer, row["unit"]) for row in live]


def _deviations(row: Row) -> float:
    return float((row["maximum"] - row["mean"]) / row["std"]) if row["std"] else 0.0
