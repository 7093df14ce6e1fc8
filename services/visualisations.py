"""The stored pictures of a unit, judged when asked: the activation they reach beside the corpus."""

import numpy as np

from pipelines.visuals import list_visuals, read_picture, read_visual
from schemas.units import UnitId
from schemas.visuals import Visual, VisualPage, VisualRow
from services.atlas import Atlas
from services.links import Links


def visualisations(atlas: Atlas, unit: UnitId) -> VisualPage:
    """All pictures that were made of a unit; raises NotFoundError for a unit that the atlas does not have."""
    atlas.unit(unit)
    return VisualPage(
        unit=str(unit),
        stale_images=atlas.manifest.stale_count,
        rows=[visual_row(atlas, visual) for visual in list_visuals(atlas.root, unit)],
    )


def visual_row(atlas: Atlas, visual: Visual) -> VisualRow:
    """A stored picture as answers show it, with the maximum of its unit over the corpus and its percentile there."""
    key, statistics = visual.key, atlas.unit(visual.key.unit)
    name = ("layers", key.layer, "units", key.channel, "visualisations", f"{key.id}.png")
    return VisualRow(
        id=key.id,
        kind=key.kind,
        method=key.method,
        objective=key.objective,
        start=key.start,
        seed=key.seed,
        number=key.number,
        count=key.count,
        activation=visual.activation,
        corpus_maximum=statistics["maximum"],
        percentile=None if key.objective.startswith("-") else percentile(atlas, key.unit, visual.activation),
        image_id=key.image_id,
        row=visual.location.row if visual.location else None,
        col=visual.location.col if visual.location else None,
        box=visual.box,
        note="; ".join(visual.notes),
        path=visual.picture.path,
        url=Links(atlas.name, atlas.version).api(*name),
    )


def visual_picture(atlas: Atlas, unit: UnitId, name: str) -> tuple[Visual, bytes]:
    """A stored picture with its PNG; raises NotFoundError, and AtlasError if it is not the one that was stored."""
    atlas.unit(unit)
    visual = read_visual(atlas.root, unit, name)
    return visual, read_picture(atlas.root, visual)


def percentile(atlas: Atlas, unit: UnitId, activation: float | None) -> float | None:
    """Share of the unit's ranked images whose peak is at most this activation; None where there are none."""
    count = atlas.unit(unit)["image_count"]
    if activation is None or not count:
        return None
    above = int(atlas.ranked(unit).above(np.array([activation], np.float32))[0])
    return 1 - above / int(count)
