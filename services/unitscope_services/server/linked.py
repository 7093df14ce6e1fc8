"""Answers get the addresses that their pictures have at the server."""

from unitscope_schemas.answers.visuals import (
    EigenPage,
    FilterPage,
    LinkedEigenPage,
    LinkedEigenRow,
    LinkedFilterPage,
    LinkedFilterRow,
    LinkedVisualPage,
    LinkedVisualRow,
    VisualPage,
)
from unitscope_schemas.questions import EigenQuestion
from unitscope_schemas.units import Target, UnitId
from unitscope_services.atlas.atlas import Atlas
from unitscope_services.server.links import Links, links_of


def linked_visuals(atlas: Atlas, target: Target, page: VisualPage) -> LinkedVisualPage:
    """Return the stored pictures of a unit or a direction with their addresses."""
    links = links_of(atlas)
    rows = [LinkedVisualRow(**vars(row), url=links.visual(target, row.id)) for row in page.rows]
    return LinkedVisualPage(**{**dict(page), "rows": rows})


def linked_eigen(atlas: Atlas, unit: UnitId, question: EigenQuestion, page: EigenPage) -> LinkedEigenPage:
    """Return a unit's eigen-patches with the addresses of their pictures."""
    links, asks = links_of(atlas), question.model_dump()
    rows = [LinkedEigenRow(**vars(row), url=_eigen(links, unit, row.component, asks)) for row in page.rows]
    return LinkedEigenPage(**{**dict(page), "rows": rows})


def linked_filters(atlas: Atlas, page: FilterPage) -> LinkedFilterPage:
    """Return the filters of a layer with the addresses of their pictures, and of their units where it is recorded."""
    links, recorded = links_of(atlas), atlas.manifest.layer(page.layer) is not None
    rows = [
        LinkedFilterRow(
            **vars(row),
            url=links.api("layers", page.layer, "filters", f"{row.channel}.png"),
            unit_url=links.api("layers", page.layer, "units", row.channel) if recorded else None,
        )
        for row in page.rows
    ]
    return LinkedFilterPage(**{**dict(page), "rows": rows})


def _eigen(links: Links, unit: UnitId, component: int, asks: dict[str, int | None]) -> str:
    return links.api("layers", unit.layer, "units", unit.channel, "eigen", f"{component}.png", **asks)
