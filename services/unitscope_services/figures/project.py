"""Units' exemplars projected back to their pixels: made on request, stored, and never made twice.

Command line, notebooks and jobs all ask through here, so that they make one picture.
"""

import io
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TYPE_CHECKING

from PIL import Image

from unitscope_pipelines.derived.visuals import read_picture
from unitscope_schemas.answers.patches import PatchRow
from unitscope_schemas.answers.visuals import Visual, VisualPage, VisualRow
from unitscope_schemas.errors import NotFoundError
from unitscope_schemas.geometry import Location
from unitscope_schemas.questions import ProjectionMethod, ProjectQuestion, TopQuestion
from unitscope_schemas.units import UnitId
from unitscope_services.atlas.atlas import Atlas
from unitscope_services.atlas.crops import original_of
from unitscope_services.queries.exemplars import patches
from unitscope_services.queries.session import Session
from unitscope_services.queries.unit_selection import chosen_units
from unitscope_services.queries.units import input_box_to_show
from unitscope_services.queries.visuals import visual_row

if TYPE_CHECKING:
    from unitscope_pipelines.derived.project import Projector, ProjectPlan, UnitExemplars
    from unitscope_services.encoding.encoder import Encoded


def projections(session: Session, unit: UnitId, question: ProjectQuestion) -> VisualPage:
    """Return the projections of a unit's first `k` patches, in their order; those that are not stored are made.

    Raises NotFoundError for a unit without patches, UsageError for an unknown method.
    """
    (wanted,) = asked_exemplars(session.atlas, [unit], question.k)
    plan = project_plan(session, question.method, [unit.layer])
    made = _projector(session, plan)(wanted)
    return VisualPage(
        unit=str(unit),
        stale_images=session.atlas.manifest.stale_count,
        rows=[visual_row(session.atlas, visual) for visual in made],
    )


def project_units(
    session: Session, names: Sequence[str], question: ProjectQuestion, tell: Callable[[int, int], None]
) -> Iterator[VisualRow]:
    """Give the projections of several units, one unit after the other; `tell` hears how many units are done, of how
    many.

    A unit without patches has none, and is passed over. What `tell` raises stops the work.
    """
    units = chosen_units(session.atlas, names, question.top)
    for number, unit in enumerate(units):
        tell(number, len(units))
        rows = patches(session.atlas, unit, TopQuestion(k=question.k)).rows
        for visual in project_rows(session, unit, rows, question.method) if rows else ():
            yield visual_row(session.atlas, visual)
    tell(len(units), len(units))


def project_rows(
    session: Session, unit: UnitId, rows: Sequence[PatchRow], method: ProjectionMethod | None
) -> list[Visual]:
    """Return one projection for each patch, by the layer's own method unless another is named."""
    return _projector(session, project_plan(session, method, [unit.layer]))(_exemplars(session.atlas, unit, rows))


def project_plan(
    session: Session, method: ProjectionMethod | None, layers: Collection[str], device: str = "cpu"
) -> "ProjectPlan":
    """Return how projections from some layers are made: by one method, or by the one that fits each layer's network."""
    from unitscope_pipelines.derived.project import ProjectPlan

    manifest = session.atlas.manifest
    return ProjectPlan(
        store=session.atlas.store,
        corpus=session.atlas.pictures,
        atlas_key=manifest.atlas_key,
        model=manifest.model,
        preprocessing=manifest.preprocessing,
        layers={entry.spec.name: entry.spec for entry in manifest.layers},
        methods={layer: method or session.encoder.projection_method(layer) for layer in dict.fromkeys(layers)},
        device=device,
        trust_code=session.trust_code,
    )


def asked_exemplars(atlas: Atlas, units: Sequence[UnitId], k: int) -> "list[UnitExemplars]":
    """Return the first `k` patches of each unit that has any, as workers need them to project them.

    Raises NotFoundError if none has.
    """
    pages = {unit: patches(atlas, unit, TopQuestion(k=k)) for unit in units}
    if not any(page.rows for page in pages.values()):
        why = "; ".join(f"unit {unit} has no patches to project: {page.note}" for unit, page in pages.items())
        raise NotFoundError(why or "none of the layers has a live unit")
    return [_exemplars(atlas, unit, page.rows) for unit, page in pages.items() if page.rows]


def picture_of(session: Session, visual: Visual) -> Image.Image:
    """Return the stored picture of a visual."""
    return Image.open(io.BytesIO(read_picture(session.atlas.store, visual)))


def _projector(session: Session, plan: "ProjectPlan") -> "Projector[Encoded]":
    """Return a projector with the model that answers other questions too."""
    from unitscope_pipelines.derived.project import Projector

    return Projector(plan, session.encoder)


def _exemplars(atlas: Atlas, unit: UnitId, rows: Sequence[PatchRow]) -> "UnitExemplars":
    from unitscope_pipelines.derived.project import Exemplar, UnitExemplars

    field = atlas.field(unit)
    exemplars = []
    for row in rows:
        image, location = original_of(atlas.find_image(row.image_id)), Location(row.row, row.col)
        exemplars.append(Exemplar(image, location, row.activation, input_box_to_show(field, location)))
    return UnitExemplars(unit, tuple(exemplars))
