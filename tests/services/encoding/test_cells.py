"""Cells of a picture: their place, their units, and the map of a unit laid over it."""

import io
import re
from importlib.resources import files
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from tests.pictures import blobs
from tests.services.conftest import UNIT
from unitscope_pipelines.vision.images.preprocessing import place
from unitscope_schemas.answers.patches import ActivationMap
from unitscope_schemas.geometry import Box, Location, Size
from unitscope_services.encoding.cells import CellGrid, map_picture, with_map
from unitscope_services.encoding.heat import UNKNOWN, limits, scale, shares
from unitscope_services.queries.session import Session

API = "/api/v1/atlases/tiny"
SHAPES = {"landscape": Size(300, 500), "portrait": Size(500, 300), "square": Size(96, 96), "pixel": Size(1, 1)}


def file_of(picture: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("shape", SHAPES)
def test_a_cell_lies_around_the_middle_of_what_its_units_see(session: Session, shape: str) -> None:
    spec = session.atlas.layer("_blocks.5").spec
    field, placement = spec.receptive_field, place(SHAPES[shape], session.atlas.manifest.preprocessing)
    grid = CellGrid.of(spec, placement)
    assert (grid.rows, grid.cols) == spec.grid
    inner = [row for row in range(grid.rows) if field.padding_at(Location(row, 7)) == (0, 0, 0, 0)]
    assert len(inner) > 2 and all(one + 1 == two for one, two in pairwise(inner))
    for row in inner:
        box = field.box_at(Location(row, row))
        middle = (box.top + box.bottom) / 2 + placement.crop.row
        top, _ = grid.corner(Location(row, row))
        assert top + grid.height / 2 == pytest.approx(middle * placement.image.height / placement.resized.height)


@pytest.mark.parametrize("layer", ["_blocks.0", "_blocks.5", "_blocks.15"])
def test_the_value_at_the_cell_of_a_peak_is_the_recorded_activation(client: TestClient, layer: str) -> None:
    row = client.get(f"{API}/layers/{layer}/units/3/patches?k=1").json()["rows"][0]
    image = f"{API}/images/{row['image_id']}"
    found = client.get(f"{image}/map?layer={layer}&unit=3").json()
    assert found["values"][row["row"]][row["col"]] == pytest.approx(row["activation"], rel=1e-4)
    cells = client.get(f"{image}/cells?layer={layer}&row={row['row']}&col={row['col']}&k=400").json()["rows"]
    own = next(cell for cell in cells if cell["channel"] == 3)
    assert own["activation"] == pytest.approx(row["activation"], rel=1e-4)
    assert (own["row"], own["col"]) == (row["row"], row["col"])


def test_units_at_a_cell_are_ranked_by_the_percentile_of_their_value_there(client: TestClient) -> None:
    image = client.get(f"{UNIT}/patches?k=1").json()["rows"][0]["image_id"]
    rows = client.get(f"{API}/images/{image}/cells?layer=_blocks.5&row=2&col=9&k=5").json()["rows"]
    for row in rows:
        peaks = client.get(f"{API}/layers/_blocks.5/units/{row['channel']}/patches?k=40&duplicates=expand").json()
        share = np.mean([peak["activation"] <= row["activation"] for peak in peaks["rows"]])
        assert row["percentile"] == pytest.approx(share)
    assert [row["percentile"] for row in rows] == sorted((row["percentile"] for row in rows), reverse=True)
    beyond = client.get(f"{API}/images/{image}/cells?layer=_blocks.5&row=14&col=0")
    assert beyond.status_code == 400
    assert "rows 0 to 13" in beyond.json()["detail"]


def test_uploads_of_every_kind_line_up(client: TestClient) -> None:
    upright = blobs(77, 60, 90)
    turned = upright.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6
    kinds = {
        "upright": file_of(upright, "PNG"),
        "rotated": file_of(turned, "PNG", exif=exif),
        "grey": file_of(upright.convert("L"), "PNG"),
        "cmyk": file_of(upright.convert("CMYK"), "JPEG", quality=95),
        "pixel": file_of(Image.new("RGB", (1, 1), (200, 30, 30)), "PNG"),
    }
    maps = {}
    for name, data in kinds.items():
        made = client.post(f"{API}/uploads", content=data, headers={"Content-Type": "image/png"}).json()
        upload = f"{API}/uploads/{made['id']}"
        maps[name] = client.get(f"{upload}/map?layer=_blocks.5&unit=3").json()
        own = client.get(f"{upload}/cells?layer=_blocks.5&row=4&col=6&k=80").json()["rows"]
        value = next(row["activation"] for row in own if row["channel"] == 3)
        assert value == pytest.approx(maps[name]["values"][4][6])
        laid = client.get(f"{upload}/map.png?layer=_blocks.5&unit=3")
        assert Image.open(io.BytesIO(laid.content)).size == (16, 16)
        page = client.get(f"/a/tiny/uploads/{made['id']}?layer=_blocks.5&cell=4,6&unit=_blocks.5:3")
        assert page.status_code == 200
        assert page.headers["cache-control"] == "private, no-store"
        assert made["size"] == ([1, 1] if name == "pixel" else [60, 90])
    assert maps["rotated"]["values"] == maps["upright"]["values"]
    assert maps["rotated"]["seen_box"] == maps["upright"]["seen_box"]


def laid_map() -> ActivationMap:
    values: list[list[float | None]] = [[-1.0, 0.0, 2.0], [None, 1.0, 0.5]]
    return ActivationMap(unit="a:0", values=values, seen_box=Box(2, 0, 40, 60), maximum=2.0, row=0, col=2)


def test_a_map_has_the_colours_from_its_own_lowest_to_its_highest_and_is_grey_where_it_is_not_finite() -> None:
    laid = np.asarray(map_picture(laid_map()))
    assert set(laid[..., 3].ravel()) == {153}
    expected = [[scale()[0], scale()[85], scale()[255]], [UNKNOWN, scale()[170], scale()[128]]]
    assert laid[1:3, 1:4, :3].tolist() == np.array(expected).tolist()
    assert np.array_equal(laid, np.pad(laid[1:-1, 1:-1], ((1, 1), (1, 1), (0, 0)), mode="edge"))


def test_a_map_lies_where_its_cells_are_and_the_picture_shows_through() -> None:
    grid, seen = CellGrid(2, 3, 5.0, 0.0, 15.0, 20.0), Box(2, 0, 40, 60)
    shown = np.asarray(with_map(Image.new("RGB", (60, 40)), laid_map(), grid, seen))
    for row, col, level in ((2, 0, 0), (19, 19, 0), (5, 59, 255), (20, 20, 170), (34, 40, 128)):
        assert np.abs(shown[row, col] - 0.6 * scale()[level]).max() <= 1, (row, col)
    assert np.abs(shown[39, 0] - 0.6 * np.array(UNKNOWN)).max() <= 1
    assert not shown[0, 0].any()


def test_a_map_that_is_positive_everywhere_still_shows_where_it_is_low() -> None:
    """A veil that counted from zero hid next to nothing of it."""
    values: list[list[float | None]] = [[10.0, 11.0], [12.0, 14.0]]
    found = ActivationMap(unit="a:0", values=values, seen_box=Box(0, 0, 2, 2), maximum=14.0, row=1, col=1)
    assert shares(found).tolist() == [[0.0, 0.25], [0.5, 1.0]]
    assert limits(found) == (10.0, 14.0)


def test_a_map_without_any_finite_activation_is_grey_and_has_no_limits() -> None:
    found = ActivationMap(unit="a:0", values=[[None]], seen_box=Box(0, 0, 2, 2), maximum=None, row=0, col=0)
    assert limits(found) is None
    assert np.asarray(map_picture(found))[0, 0].tolist() == [*UNKNOWN, 153]
    even = ActivationMap(unit="a:0", values=[[3.0, 3.0]], seen_box=Box(0, 0, 2, 2), maximum=3.0, row=0, col=0)
    assert shares(even).tolist() == [[0.0, 0.0]]


def test_colours_grow_lighter_evenly_and_none_is_the_grey_of_the_unknown() -> None:
    linear = np.where(scale() / 255 <= 0.04045, scale() / 255 / 12.92, ((scale() / 255 + 0.055) / 1.055) ** 2.4)
    lightness = np.cbrt(linear @ (0.2126, 0.7152, 0.0722))
    steps = np.diff(lightness)
    assert steps.min() > 0
    assert 116 * (lightness[-1] - lightness[0]) > 75
    assert np.abs(lightness[::51] - np.linspace(lightness[0], lightness[-1], 6)).max() < 0.06
    assert np.ptp(scale().astype(int), axis=1).min() > 40


def test_the_stylesheet_has_the_same_colours() -> None:
    sheet = files("unitscope_services.web").joinpath("static/unitscope.css").read_text()
    (stops,) = re.findall(r"\.heat \.scale .*gradient\(to right, ([^)]*)\)", sheet)
    assert stops.split(", ") == [f"#{bytes(scale()[round(255 * stop / 8)]).hex()}" for stop in range(9)]
