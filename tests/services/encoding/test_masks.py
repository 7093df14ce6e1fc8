"""The mask of a patch: a map upsampled by the plain formula, and the picture darkened outside."""

import io
import math

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from tests.services.conftest import UNIT
from unitscope_schemas.answers.patches import ActivationMap
from unitscope_schemas.geometry import Box, Location
from unitscope_services.encoding.cells import CellGrid
from unitscope_services.encoding.masks import mask, masked
from unitscope_services.queries.session import Session

API = "/api/v1/atlases/tiny"


def shown(values: list[list[float | None]]) -> ActivationMap:
    return ActivationMap(unit="l:0", values=values, seen_box=Box(0, 0, 1, 1), maximum=None, row=0, col=0)


def plain(values: list[list[float | None]], grid: CellGrid, row: int, col: int) -> bool:
    """The formula for one pixel: the four cells around it, each by how near its middle is."""
    finite = [value for line in values for value in line if value is not None]
    low = 0.0 if max(finite) > 0 else min(finite)
    known = [[low if value is None else value for value in line] for line in values]
    down = min(max((row + 0.5 - grid.top) / grid.height - 0.5, 0), grid.rows - 1)
    across = min(max((col + 0.5 - grid.left) / grid.width - 0.5, 0), grid.cols - 1)
    top, left = math.floor(down), math.floor(across)
    bottom, right = min(top + 1, grid.rows - 1), min(left + 1, grid.cols - 1)
    above = known[top][left] * (1 - across + left) + known[top][right] * (across - left)
    below = known[bottom][left] * (1 - across + left) + known[bottom][right] * (across - left)
    value = above * (1 - down + top) + below * (down - top)
    return value >= low + 0.5 * (max(finite) - low) - 1e-9


@pytest.mark.parametrize("sign", [1, -1])
def test_the_mask_equals_the_formula_pixel_by_pixel(sign: int) -> None:
    chance = np.random.default_rng(0)
    values: list[list[float | None]] = (sign * chance.random((4, 5))).tolist()
    values[2][3] = None
    grid, box = CellGrid(rows=4, cols=5, top=-3.5, left=2.25, height=7.1, width=6.4), Box(0, 4, 30, 33)
    found = mask(shown(values), grid, box)
    wanted = [[plain(values, grid, row, col) for col in range(4, 33)] for row in range(30)]
    assert np.array_equal(found, np.array(wanted))
    assert 0 < found.mean() < 1


def test_a_map_without_finite_values_shows_nothing_and_an_even_one_everything() -> None:
    grid, box = CellGrid(2, 2, 0, 0, 5, 5), Box(0, 0, 10, 10)
    assert not mask(shown([[None, None], [None, None]]), grid, box).any()
    assert mask(shown([[2.0, 2.0], [2.0, 2.0]]), grid, box).all()
    assert mask(shown([[-2.0, -2.0], [-2.0, -2.0]]), grid, box).all()


def test_outside_the_mask_a_picture_is_darkened_and_inside_it_is_itself() -> None:
    inside = np.array([[True, False]])
    assert np.asarray(masked(Image.new("RGB", (2, 1), (200, 100, 3)), inside)).tolist() == [
        [[200, 100, 3], [40, 20, 1]]
    ]


@pytest.mark.parametrize("size", [None, 90])
def test_a_masked_patch_is_the_patch_with_the_units_map_above_half_its_peak(
    client: TestClient, session: Session, size: int | None
) -> None:
    row = client.get(f"{UNIT}/patches?k=1").json()["rows"][0]
    address = f"{API}/patches/{row['image_id']}.png?unit=_blocks.5:3" + (f"&size={size}" if size else "")
    patch = np.asarray(Image.open(io.BytesIO(client.get(address).content)).convert("RGB"))
    found = np.asarray(Image.open(io.BytesIO(client.get(f"{address}&overlay=mask").content)))
    inside = (found == patch).all(axis=2)
    assert 0.02 < inside.mean() < 0.98
    assert np.array_equal(found[~inside], np.rint(patch[~inside] * 0.2).astype(np.uint8))
    image = session.atlas.find_image(row["image_id"])
    grid = CellGrid.of(session.atlas.layer("_blocks.5").spec, session.atlas.placement(image))
    down, across = grid.corner(Location(row["row"], row["col"]))
    top, left, bottom, right = row["box"]
    place = (down + grid.height / 2 - top) / (bottom - top), (across + grid.width / 2 - left) / (right - left)
    assert inside[int(place[0] * len(inside)), int(place[1] * len(inside[0]))]


def test_a_mask_needs_a_unit_and_what_lies_below_is_told(client: TestClient) -> None:
    image = client.get(f"{API}/images?k=1").json()["rows"][0]["image_id"]
    answer = client.get(f"{API}/patches/{image}.jpg?box=0,0,5,5&overlay=mask")
    assert answer.status_code == 400
    assert "overlay=mask shows a unit's activation: give unit=LAYER:UNIT" in answer.json()["detail"]
    assert "look=masked" in client.get("/a/tiny/layers/_blocks.5/units/3").text
