"""The stored pictures of a unit or direction, judged when read: the activation they reach beside the corpus."""

from typing import TypeGuard

import numpy as np

from unitscope_pipelines.derived.visuals import list_visuals, read_picture, read_visual
from unitscope_schemas import ranks
from unitscope_schemas.answers.visuals import Visual, VisualPage, VisualRow
from unitscope_schemas.errors import NotFoundError
from unitscope_schemas.units import Target, UnitId
from unitscope_services.atlas.atlas import Atlas


def visualisations(atlas: Atlas, target: Target) -> VisualPage:
    """Return all pictures that were made of a unit or direction.

    Raises NotFoundError for a unit that the atlas does not have, and for what the atlas does not record if there are no
    pictures of it either.
    """
    if _is_recorded(target, atlas):
        atlas.unit(target)
    visuals = list_visuals(atlas.store, target)
    if not visuals and not _is_recorded(target, atlas):
        raise NotFoundError(f"{target} is no unit that this atlas records, and no picture of it is stored")
    return VisualPage(
        unit=str(target),
        stale_images=atlas.manifest.stale_count,
        rows=[visual_row(atlas, visual) for visual in visuals],
    )


def visual_row(atlas: Atlas, visual: Visual) -> VisualRow:
    """Return a stored picture as answers show it, with the maximum of its unit over the corpus and its percentile
    there; where a low activation was the aim, with the corpus minimum."""
    key, target, notes, low = visual.key, visual.key.target, visual.notes, visual.key.objective.startswith("-")
    maximum, minimum, share = None, None, None
    if not _is_recorded(target, atlas):
        notes = (
            *notes,
            f"the atlas records no peaks of {target}, so there is no corpus {'minimum' if low else 'maximum'}",
        )
    elif low:
        minimum = atlas.unit(target).minimum
        if atlas.layer(target.layer).spec.grid != (1, 1):
            notes = (*notes, "the corpus minimum is the lowest of the images' peaks, this the lowest value on the map")
    else:
        maximum, share = atlas.unit(target).maximum, percentile(atlas, target, visual.activation)
    return VisualRow(
        id=key.id,
        unit=str(target),
        kind=key.kind,
        method=key.shown_method,
        objective=key.objective,
        start=key.start,
        seed=key.seed,
        number=key.number,
        count=key.count,
        activation=visual.activation,
        corpus_maximum=maximum,
        corpus_minimum=minimum,
        percentile=share,
        image_id=key.image_id,
        row=visual.location.row if visual.location else None,
        col=visual.location.col if visual.location else None,
        box=visual.box,
        note="; ".join(notes),
        path=visual.picture.path,
    )


def visual_picture(atlas: Atlas, target: Target, name: str) -> tuple[Visual, bytes]:
    """Return a stored picture with its PNG; raises NotFoundError, and AtlasError if the PNG is not the one that was
    stored."""
    if _is_recorded(target, atlas):
        atlas.unit(target)
    visual = read_visual(atlas.store, target, name)
    return visual, read_picture(atlas.store, visual)


def percentile(atlas: Atlas, unit: UnitId, activation: float | None) -> float | None:
    """Return the share of the unit's ranked images whose peak is at most this activation; None where there are none."""
    count = atlas.unit(unit).image_count
    if activation is None or not count:
        return None
    above = int(atlas.ranked(unit).above(np.array([activation], np.float32))[0])
    return ranks.percentile(above, int(count))


def _is_recorded(target: Target, atlas: Atlas) -> TypeGuard[UnitId]:
    """Return whether it is a unit of a layer that the atlas holds peaks of."""
    return isinstance(target, UnitId) and atlas.manifest.layer(target.layer) is not None
