"""Eigen-patches as answers and as a part of the unit's page: shares of the variance, and pictures."""

import shlex
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
from PIL import Image

from unitscope_schemas.answers.served import AtlasRow
from unitscope_schemas.answers.visuals import EigenPage, EigenRow
from unitscope_schemas.errors import NotFoundError, UnitscopeError
from unitscope_schemas.geometry import Size
from unitscope_schemas.units import UnitId
from unitscope_services.atlas.memo import Memo
from unitscope_services.figures.eigen import EigenPatches, eigen_patches
from unitscope_services.pages.links import Links
from unitscope_services.pages.pages import links_of
from unitscope_services.queries.session import Session
from unitscope_services.server.problems import without_paths

PATCHES, COMPONENTS = 64, 9
_REMEMBERED = 4
"""Eigen-patches of an atlas by unit and query: they take a second, each of their pictures is a question, and nine
components of 112 pixels take 3 MB."""
_memos: WeakKeyDictionary[Session, Memo[EigenPatches]] = WeakKeyDictionary()


@dataclass(frozen=True)
class EigenQuery:
    """Of how many first patches so many components, at most, of which side (None: as `eigen_patches` chooses)."""

    k: int = PATCHES
    components: int = COMPONENTS
    size_px: int | None = None


_ON_PAGE = EigenQuery(components=8)
"""With the mean a line of nine, as of patches."""


@dataclass(frozen=True)
class EigenView:
    """`page` is None where there are none, which `note` says."""

    atlas: AtlasRow
    links: Links
    unit: UnitId
    page: EigenPage | None
    note: str | None
    command: str
    rows_api: str


def eigen_page(session: Session, unit: UnitId, query: EigenQuery) -> EigenPage:
    """One row for the mean and for each component; errors as of `eigen_patches`."""
    found, links = _found(session, unit, query), links_of(session.atlas)
    asks = {"k": query.k, "components": query.components, "size": query.size_px}
    shares = [None, *found.shares.tolist()]
    return EigenPage(
        unit=str(unit),
        height=found.size.height,
        width=found.size.width,
        patches=found.used,
        left_out=found.left_out,
        rows=[
            EigenRow(
                component=number,
                share=share,
                scale=None if number == 0 else float(np.abs(found.components[number - 1]).max()),
                url=links.api("layers", unit.layer, "units", unit.channel, "eigen", f"{number}.png", **asks),
            )
            for number, share in enumerate(shares)
        ],
    )


def eigen_picture(session: Session, unit: UnitId, query: EigenQuery, number: int) -> Image.Image:
    """The mean (0), or a component in its own scale, where grey is zero; raises NotFoundError beyond the last."""
    from unitscope_pipelines.vision.images.diverging import diverging_picture

    found = _found(session, unit, query)
    if not 0 <= number <= len(found.components):
        raise NotFoundError(f"unit {unit} has the mean, 0, and components 1 to {len(found.components)}, not {number}")
    if number == 0:
        return Image.fromarray(np.rint(found.mean).astype(np.uint8).squeeze())
    return diverging_picture(found.components[number - 1].transpose(2, 0, 1).astype(np.float32)).picture


def eigen_view(session: Session, unit: UnitId) -> EigenView:
    """Mean and first components, or why there are none."""
    atlas = session.atlas
    links, page, note = links_of(atlas), None, None
    try:
        page = eigen_page(session, unit, _ON_PAGE)
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


def _found(session: Session, unit: UnitId, query: EigenQuery) -> EigenPatches:
    size = None if query.size_px is None else Size(query.size_px, query.size_px)
    memo = _memos.setdefault(session, Memo(_REMEMBERED))
    return memo.get((unit, query), lambda: eigen_patches(session, unit, query.k, query.components, size))
