"""Pictures: the pixels of the original, at the place that the numbers name."""

import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from tests.services.conftest import UNIT
from unitscope_services.encoding.heat import scale
from unitscope_services.figures.legend import legend_height
from unitscope_services.figures.sprites import SHEET_PX, TILE_PX, Sprite
from unitscope_services.web.assets import figure

API = "/api/v1/atlases/tiny"


def pixels(content: bytes) -> np.ndarray:  # type: ignore[type-arg]
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


@pytest.mark.parametrize("number", range(5))
def test_a_patch_shows_exactly_the_pixels_of_its_box(client: TestClient, tiny_corpus: Path, number: int) -> None:
    row = client.get(f"{UNIT}/patches?k=5").json()["rows"][number]
    shown = client.get(f"{API}/patches/{row['image_id']}.png?unit=_blocks.5:3")
    top, left, bottom, right = row["box"]
    original = np.asarray(Image.open(tiny_corpus / row["path"]).convert("RGB"))
    assert shown.headers["content-type"] == "image/png"
    assert np.array_equal(pixels(shown.content), original[top:bottom, left:right])
    same = client.get(f"{API}/patches/{row['image_id']}.png?box={top},{left},{bottom},{right}")
    assert same.content == shown.content


def test_a_unit_that_sees_everything_is_shown_by_its_effective_field(client: TestClient) -> None:
    rows = client.get(f"{API}/layers/_blocks.15/units/7/patches?k=1").json()["rows"]
    image = client.get(f"{API}/images/{rows[0]['image_id']}").json()
    assert rows[0]["box"] == image["seen_box"]
    shown = pixels(client.get(f"{API}/patches/{rows[0]['image_id']}.png?unit=_blocks.15:7").content)
    top, left, bottom, right = rows[0]["effective_box"]
    assert shown.shape[:2] == (bottom - top, right - left)


def test_size_and_context_change_the_picture_as_they_say(client: TestClient) -> None:
    row = client.get(f"{UNIT}/patches?k=1").json()["rows"][0]
    address = f"{API}/patches/{row['image_id']}.jpg?unit=_blocks.5:3"
    assert max(pixels(client.get(f"{address}&size=200").content).shape) == 200
    plain, wide = pixels(client.get(address).content), pixels(client.get(f"{address}&context=1").content)
    assert wide.shape[0] * wide.shape[1] > plain.shape[0] * plain.shape[1]


def test_the_overlay_is_the_whole_picture_with_a_frame_around_the_box(client: TestClient, tiny_corpus: Path) -> None:
    row = client.get("/api/v1/atlases/tiny/images?path=blobs/001.jpg").json()["rows"][0]
    shown = pixels(client.get(f"{API}/patches/{row['image_id']}.png?box=20,30,60,70&overlay=box").content)
    original = np.asarray(Image.open(tiny_corpus / "blobs/001.jpg").convert("RGB"))
    assert shown.shape == original.shape
    changed = (shown != original).any(axis=2)
    assert changed[20, 30:70].all()
    assert not changed[:15].any()
    assert not changed[24:56, 34:66].any()


def test_a_map_over_a_picture_has_a_legend_below_within_the_size_asked_for(client: TestClient) -> None:
    row = client.get("/api/v1/atlases/tiny/images?path=blobs/001.jpg").json()["rows"][0]
    address = f"{API}/patches/{row['image_id']}.png?unit=_blocks.5:3&overlay=map"
    answer = client.get(f"{address}&size=200")
    shown, small = pixels(answer.content), pixels(client.get(f"{address}&size=64").content)
    assert max(shown.shape) == 200
    assert max(small.shape) == 64
    legend = shown[-legend_height(200) :]
    known = {tuple(colour) for colour in scale().tolist()}
    line = [tuple(pixel) in known for pixel in legend[legend.shape[0] // 2].tolist()]
    assert sum(line) > shown.shape[1] / 3
    assert (legend[0] == 255).all()
    again = client.get(f"{address}&size=200", headers={"If-None-Match": answer.headers["etag"]})
    assert again.status_code == 304


def test_a_picture_page_names_the_lowest_and_the_highest_of_the_map_that_it_shows(client: TestClient) -> None:
    image = client.get(f"{API}/images?path=blobs/001.jpg").json()["rows"][0]["image_id"]
    values = client.get(f"{API}/images/{image}/map?layer=_blocks.5&unit=3").json()["values"]
    low, high = min(map(min, values)), max(map(max, values))
    page = client.get(f"/a/tiny/images/{image}?unit=_blocks.5:3").text
    (legend,) = re.findall(r'<p class="heat".*</p>', page)
    assert f"<span>{figure(low)}</span>" in legend
    assert f"<span>{figure(high)}</span>" in legend


def test_an_image_comes_whole_or_narrower_but_never_enlarged(client: TestClient, tiny_corpus: Path) -> None:
    row = client.get(f"{API}/images?path=stripes/000.jpg").json()["rows"][0]
    whole = pixels(client.get(f"{API}/images/{row['image_id']}.png").content)
    assert np.array_equal(whole, np.asarray(Image.open(tiny_corpus / "stripes/000.jpg").convert("RGB")))
    assert pixels(client.get(f"{API}/images/{row['image_id']}.webp?width=64").content).shape[:2] == (48, 64)
    wide = pixels(client.get(f"{API}/images/{row['image_id']}.png?width=4000").content)
    assert np.array_equal(wide, whole)


def test_the_beginning_of_an_id_names_its_image(client: TestClient) -> None:
    row = client.get(f"{API}/images?k=1").json()["rows"][0]
    assert client.get(f"{API}/images/{row['image_id'][:12]}").json() == row


def test_the_same_address_gives_the_same_bytes(client: TestClient) -> None:
    row = client.get(f"{UNIT}/patches?k=1").json()["rows"][0]
    address = f"{API}/patches/{row['image_id']}.jpg?unit=_blocks.5:3&size=128"
    assert client.get(address).content == client.get(address).content


@pytest.mark.parametrize(
    ("address", "status", "said"),
    [
        ("patches/{id}.gif?unit=_blocks.5:3", 400, "'jpg', 'png' or 'webp'"),
        ("patches/{id}.jpg", 400, "either unit"),
        ("patches/{id}.jpg?unit=_blocks.5:3&box=0,0,5,5", 400, "either unit"),
        ("patches/{id}.jpg?unit=_blocks.5:80", 404, "0 to 79"),
        ("patches/{id}.jpg?box=0,0,500,5", 400, "not within"),
        ("patches/{id}.jpg?box=0,0,5", 400, "four whole numbers"),
        ("patches/{id}.jpg?unit=_blocks.5:3&size=5000", 400, "2048"),
        ("patches/ffffffffffff.jpg?unit=_blocks.5:3", 404, "not among"),
        ("images/{id}.jpg?width=1", 400, "16"),
    ],
)
def test_a_wrong_picture_address_says_what_would_be_right(
    client: TestClient, address: str, status: int, said: str
) -> None:
    image = client.get(f"{API}/images?k=1").json()["rows"][0]["image_id"]
    answer = client.get(f"{API}/{address.format(id=image)}")
    assert answer.status_code == status
    assert said in answer.json()["detail"]


def test_a_tile_of_a_sheet_equals_the_single_patch_pixel_for_pixel(client: TestClient) -> None:
    sheet = Image.open(io.BytesIO(client.get(f"{API}/layers/_blocks.15/sprites/patch.png?sheet=1").content))
    assert sheet.size == (SHEET_PX, 4 * TILE_PX)  # units 256 to 319
    for channel in (256, 257, 300, 319):
        row = client.get(f"{API}/layers/_blocks.15/units/{channel}/patches?k=1").json()["rows"][0]
        single = Image.open(
            io.BytesIO(
                client.get(f"{API}/patches/{row['image_id']}.png?unit=_blocks.15:{channel}&size={TILE_PX}").content
            )
        )
        sprite = Sprite.of(channel)
        left = sprite.left + (TILE_PX - single.width) // 2
        top = sprite.top + (TILE_PX - single.height) // 2
        tile = sheet.crop((left, top, left + single.width, top + single.height))
        assert np.array_equal(np.asarray(tile)[..., :3], np.asarray(single.convert("RGB")))
        assert (np.asarray(tile)[..., 3] == 255).all()
    beyond = client.get(f"{API}/layers/_blocks.15/sprites/patch.webp?sheet=2")
    assert beyond.status_code == 404
    assert "sheets 0 to 1" in beyond.json()["detail"]


def test_a_layer_takes_a_sheet_for_every_256_units_and_one_of_the_first_alone(client: TestClient) -> None:
    sheets = set(re.findall(r'<image href="([^"]+)"', client.get("/a/tiny/layers/_blocks.15").text))
    assert len(sheets) == 3
    for address in sheets:
        answer = client.get(address.replace("&amp;", "&"))
        assert answer.headers["cache-control"].endswith("immutable")
        assert len(answer.content) < 3 * 2**20 / 8
