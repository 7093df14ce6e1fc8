"""What an image excites: its units by percentile."""

import numpy as np
import pyarrow as pa

from schemas import tables
from schemas.geometry import Location, Placement
from schemas.web import ExplainPage, ExplainRow
from services.atlas import Atlas

Cells = dict[str, pa.Table]
"""By layer, in order of channels: activation, row and col of every unit's peak on one picture."""


def explain(atlas: Atlas, cells: Cells, placement: Placement, layer: str | None = None, limit: int = 20) -> ExplainPage:
    """The units that a picture excites most unusually, by exact percentile over the corpus.

    Raw activations of different units cannot be compared, so units are ranked by the share of images whose peak
    is at most the picture's; equal shares by standard deviations above the unit's mean. Dead units and
    non-finite activations are left out.
    """
    names = [atlas.layer(layer).spec.name] if layer else list(cells)
    candidates = [row for name in names for row in _bounded(atlas, name, cells[name])]
    lowest = sorted((row["at_least"] for row in candidates), reverse=True)[:limit]
    near = [row for row in candidates if row["at_most"] >= (lowest[-1] if lowest else 0)]
    for name in names:
        own = [row for row in near if row["layer"] == name]
        if own:
            above = atlas.counts_above(name, [row["unit"] for row in own], [row["activation"] for row in own])
            for row in own:
                row["percentile"] = 1 - above[row["unit"]] / row["count"]
    order = {name: position for position, name in enumerate(names)}
    near.sort(key=lambda row: (-row["percentile"], -row["deviation"], order[row["layer"]], row["unit"]))
    return ExplainPage(rows=[_explain_row(atlas, placement, row) for row in near[:limit]])


def _bounded(atlas: Atlas, layer: str, cells: pa.Table) -> list[dict]:  # type: ignore[type-arg]
    """Each unit's activation with bounds of its percentile, from the stored quantile knots."""
    shares = np.array(tables.KNOT_SHARES)
    rows = []
    for statistics, cell in zip(atlas.units(layer).to_pylist(), cells.to_pylist(), strict=True):
        activation, count = cell["activation"], statistics["image_count"]
        if statistics["status"] == "dead" or not count or not np.isfinite(activation):
            continue
        passed = int(np.searchsorted(np.array(statistics["knots"]), activation, side="right"))
        at_least = 0.0 if passed == 0 else min(1.0, (np.floor(shares[passed - 1] * count) + 1) / count)
        at_most = 1.0 if passed == len(shares) else np.floor(shares[passed] * count) / count
        deviation = (activation - statistics["mean"]) / (statistics["std"] or 1.0)
        rows.append(
            {**cell, "layer": layer, "count": count, "at_least": at_least, "at_most": at_most, "deviation": deviation}
        )
    return rows


def _explain_row(atlas: Atlas, placement: Placement, row: dict) -> ExplainRow:  # type: ignore[type-arg]
    location = Location(row["row"], row["col"])
    field = atlas.layer(row["layer"]).spec.receptive_field
    return ExplainRow(
        layer=row["layer"],
        channel=row["unit"],
        activation=row["activation"],
        percentile=row["percentile"],
        row=location.row,
        col=location.col,
        box=placement.to_image(field.box_at(location)),
    )
