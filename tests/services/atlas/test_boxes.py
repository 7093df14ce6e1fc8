"""Boxes of many peaks at once, each beside what geometry says of one."""

import numpy as np
import pytest

from unitscope_schemas.geometry import Box, Location, Placement, ReceptiveField, Size
from unitscope_schemas.units import LayerSpec
from unitscope_services.atlas.boxes import FieldBoxes, as_boxes, to_image
from unitscope_services.queries.session import Session


def tokens() -> LayerSpec:
    """A layer of tokens: one class token, then a grid of 2 × 3."""
    spans = tuple((start, start + 8) for start in (0, 8, 16))
    field = ReceptiveField(
        input=Size(16, 24), kind="whole", size=None, stride=None, start=None, rows=spans[:2], cols=spans,
        effective=Size(6, 10),
    )  # fmt: skip
    return LayerSpec(name="tokens", kind="tokens", units=4, grid=Size(2, 3), prefix_tokens=1, receptive_field=field)


def locations(spec: LayerSpec) -> list[Location]:
    return [spec.location(index) for index in range(spec.prefix_tokens + spec.grid.height * spec.grid.width)]


@pytest.mark.parametrize("layer", ["_blocks.0", "_blocks.5", "_blocks.15", "tokens"])
def test_boxes_are_those_of_every_single_location(session: Session, layer: str) -> None:
    spec = tokens() if layer == "tokens" else session.atlas.layer(layer).spec
    places, field = locations(spec), spec.receptive_field
    rows, cols = np.array(places, np.int16).T
    theoretical, effective, padding = FieldBoxes(field, spec.grid).at(rows, cols)
    assert as_boxes(theoretical) == [field.box_at(place) for place in places]
    assert as_boxes(effective) == [field.effective_box_at(place) for place in places]
    assert padding == [field.padding_at(place) for place in places]


def test_boxes_in_the_original_picture_are_those_of_every_single_placement() -> None:
    chance = np.random.default_rng(0)
    boxes = np.sort(chance.integers(-40, 260, (500, 2, 2)), axis=1).reshape(500, 4)
    names = ("height_px", "width_px", "resized_height_px", "resized_width_px", "crop_row", "crop_col")
    placed = {name: chance.integers(1, 600, 500) for name in names}
    for number, box in enumerate(to_image(boxes, placed).tolist()):
        height, width, resized_height, resized_width, row, col = (int(placed[name][number]) for name in names)
        placement = Placement(
            image=Size(height, width),
            resized=Size(resized_height, resized_width),
            crop=Location(row, col),
            input=Size(224, 224),
        )
        assert Box(*box) == placement.to_image(Box(*boxes[number].tolist()))
