"""What was made of a unit, for its page: optimised inputs and projections, each with what it shows."""

from dataclasses import dataclass

from unitscope_schemas.answers.visuals import LinkedVisualRow
from unitscope_schemas.units import UnitId
from unitscope_services.atlas.atlas import Atlas
from unitscope_services.queries.visuals import visualisations
from unitscope_services.server.linked import linked_visuals
from unitscope_services.server.links import links_of

_SHOWN = 12
"""Pictures of a kind on the page; all are in the list that the page links."""


@dataclass(frozen=True)
class UnitVisuals:
    """The stored pictures of a unit.

    `asks` is where a form asks for an optimised input, None where the reader may not have one made.
    """

    optimised: list[LinkedVisualRow]
    projections: list[LinkedVisualRow]
    asks: str | None
    rows_api: str


def unit_visuals(atlas: Atlas, unit: UnitId, computes: bool) -> UnitVisuals:
    """Return the stored pictures of a unit; nothing is made here."""
    links, rows = links_of(atlas), linked_visuals(atlas, unit, visualisations(atlas, unit)).rows
    return UnitVisuals(
        optimised=[row for row in rows if row.kind == "optimised"][:_SHOWN],
        projections=sorted((row for row in rows if row.kind == "projection"), key=_projection_order)[:_SHOWN],
        asks=f"{links.unit(*unit)}/optimised" if computes else None,
        rows_api=links.api("layers", unit.layer, "units", unit.channel, "visualisations"),
    )


def _projection_order(row: LinkedVisualRow) -> tuple[str, float]:
    """Return the order of projections: by method, the highest activation first, as its patches stand above."""
    return row.method, -(row.activation or 0.0)
