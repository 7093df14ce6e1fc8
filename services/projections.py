"""A unit's exemplars projected back to their pixels: made on request, stored, and never made twice."""

import io
import time
from collections.abc import Callable, Iterator, Sequence
from typing import get_args

from PIL import Image

from pipelines.visuals import Made, find_visual, read_picture, write_visual
from schemas.errors import NotFoundError, UsageError, listing
from schemas.geometry import Location
from schemas.units import UnitId
from schemas.visuals import ProjectionMethod, ProjectQuery, Visual, VisualKey, VisualPage, VisualRow
from schemas.web import PatchQuery, PatchRow
from services.crops import read_image
from services.subjects import Asked
from services.units import input_box_to_show, patches
from services.visualisations import visual_row

AT_ONCE = 9
"""Images in one forward and backward."""
_CLOSE = 1e-3
"""Of a recorded activation: how far the forward that is projected may be from it before that is said."""


def projections(asked: Asked, unit: UnitId, method: str = "deconvnet", k: int = 9) -> VisualPage:
    """The projections of a unit's first `k` patches, in their order; those that are not stored are made and stored.

    Raises NotFoundError for a unit without patches, UsageError for an unknown method.
    """
    rows = _exemplars(asked, unit, k)
    made = project_rows(asked, unit, rows, checked_method(method))
    return VisualPage(
        unit=str(unit),
        stale_images=asked.atlas.manifest.stale_count,
        rows=[visual_row(asked.atlas, visual) for visual in made],
    )


def project_units(asked: Asked, query: ProjectQuery, tell: Callable[[int, int], None]) -> Iterator[VisualRow]:
    """The projections of several units, one unit after the other; `tell` hears how many units are done, of how many.

    A unit without patches has none, and is passed over. What `tell` raises stops the work.
    """
    for number, text in enumerate(query.units):
        tell(number, len(query.units))
        unit = UnitId.parse(text)
        rows = patches(asked.atlas, unit, PatchQuery(limit=query.k)).rows
        for visual in project_rows(asked, unit, rows, query.method):
            yield visual_row(asked.atlas, visual)
    tell(len(query.units), len(query.units))


def project_rows(asked: Asked, unit: UnitId, rows: Sequence[PatchRow], method: ProjectionMethod) -> list[Visual]:
    """One projection for each patch."""
    keys = [_key(asked, unit, row, method) for row in rows]
    found = {key.id: find_visual(asked.atlas.root, key) for key in keys}
    missing = [(key, row) for key, row in zip(keys, rows, strict=True) if found[key.id] is None]
    for first in range(0, len(missing), AT_ONCE):
        part = missing[first : first + AT_ONCE]
        for key, made in _made(asked, unit, part, method):
            found[key.id] = write_visual(asked.atlas.root, key, made)
    return [visual for key in keys if (visual := found[key.id]) is not None]


def picture_of(asked: Asked, visual: Visual) -> Image.Image:
    """The stored picture."""
    return Image.open(io.BytesIO(read_picture(asked.atlas.root, visual)))


def checked_method(name: str) -> ProjectionMethod:
    """The method of this name; raises UsageError that names those there are."""
    for method in get_args(ProjectionMethod):
        if method == name:
            return method  # type: ignore[no-any-return]
    raise UsageError(f"there is no method {name!r} to project by; there are {listing(get_args(ProjectionMethod))}")


def _exemplars(asked: Asked, unit: UnitId, k: int) -> list[PatchRow]:
    page = patches(asked.atlas, unit, PatchQuery(limit=k))
    if not page.rows:
        raise NotFoundError(f"unit {unit} has no patches to project: {page.note}")
    return page.rows


def _key(asked: Asked, unit: UnitId, row: PatchRow, method: ProjectionMethod) -> VisualKey:
    from pipelines.vision.deconvnet import METHODS
    from pipelines.vision.signed import SHOWN_SHARE

    return VisualKey(
        atlas_key=asked.atlas.manifest.atlas_key,
        kind="projection",
        layer=unit.layer,
        channel=unit.channel,
        method=method,
        settings={"rules": METHODS[method], "shown_share": SHOWN_SHARE},
        image_id=row.image_id,
        location=Location(row.row, row.col),
    )


def _made(
    asked: Asked, unit: UnitId, part: Sequence[tuple[VisualKey, PatchRow]], method: ProjectionMethod
) -> Iterator[tuple[VisualKey, Made]]:
    """Projections of a few images at once, each cut to the box that its patch shows."""
    from pipelines.vision.signed import SHOWN_SHARE, signed_picture

    started, atlas = time.perf_counter(), asked.atlas
    spec = atlas.layer(unit.layer).spec
    pictures = [asked.encoder.read(read_image(atlas, atlas.find_image(row.image_id))) for _, row in part]
    locations = [Location(row.row, row.col) for _, row in part]
    found = asked.encoder.project(pictures, unit, locations, method)
    seconds = (time.perf_counter() - started) / len(part)
    for number, (key, row) in enumerate(part):
        seen = input_box_to_show(spec, locations[number])
        pixels = found.pixels[number, :, seen.top : seen.bottom, seen.left : seen.right].numpy()
        shown = signed_picture(pixels, SHOWN_SHARE)
        scale = f"grey is zero, white {shown.scale:.4g} and black {-shown.scale:.4g} in units of the network's input"
        drift = _drift(row.activation, float(found.activation[number]))
        yield (
            key,
            Made(
                picture=shown.picture,
                activation=row.activation,
                location=locations[number],
                box=pictures[number].placement.to_image(seen),
                notes=(scale, *drift, *found.notes),
                seconds=seconds,
            ),
        )


def _drift(recorded: float, again: float) -> tuple[str, ...]:
    """What to say where the forward in float32 does not reach the recorded activation, as in an atlas of bf16."""
    if abs(again - recorded) <= _CLOSE * abs(recorded):
        return ()
    return (f"recorded is an activation of {recorded:.4g}, projected in float32 is {again:.4g}",)
