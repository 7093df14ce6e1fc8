"""Eigen-patches as a part of the unit's page: shares of the variance, and pictures."""

import shlex
from dataclasses import dataclass

from unitscope_schemas.addresses import without_paths
from unitscope_schemas.answers.served import AtlasRow
from unitscope_schemas.answers.visuals import LinkedEigenPage
from unitscope_schemas.errors import UnitscopeError
from unitscope_schemas.questions import EigenQuestion
from unitscope_schemas.units import UnitId
from unitscope_services.figures.eigen import eigen_page
from unitscope_services.queries.session import Session
from unitscope_services.server.linked import linked_eigen
from unitscope_services.server.links import Links, links_of

_ON_PAGE = EigenQuestion(components=8)
"""Question of the page: with the mean a line of nine, as of patches."""


@dataclass(frozen=True)
class EigenView:
    """A unit's eigen-patches; `page` is None where there are none, which `note` says."""

    atlas: AtlasRow
    links: Links
    unit: UnitId
    page: LinkedEigenPage | None
    note: str | None
    command: str
    rows_api: str


def eigen_view(session: Session, unit: UnitId) -> EigenView:
    """Return mean and first components, or why there are none."""
    atlas = session.atlas
    links, page, note = links_of(atlas), None, None
    try:
        page = linked_eigen(atlas, unit, _ON_PAGE, eigen_page(session, unit, _ON_PAGE))
    except UnitscopeError as error:
        if error.http_status >= 500 or unit.channel not in range(atlas.layer(unit.layer).spec.units):
            raise
        note = without_paths(str(error))
    return EigenView(
        atlas=atlas.summary(),
        links=links,
        unit=unit,
        page=page,
        note=note,
        command=shlex.join(["unitscope", "eigen", atlas.name, str(unit), "--out", "eigen.png"]),
        rows_api=links.api("layers", unit.layer, "units", unit.channel, "eigen") if page else "",
    )
