"""Sheets of every kind: tiles that equal the single pictures, few bytes, addresses that follow what is stored."""

import io
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from tests.pictures import recorded_corpora
from tests.services.conftest import ORIGIN
from unitscope_pipelines.derived.visuals import NewPicture, write_visual
from unitscope_pipelines.indexing.config import IndexConfig
from unitscope_pipelines.indexing.index import index
from unitscope_pipelines.storage.stores import store_of
from unitscope_pipelines.vision.images.pictures import open_picture, upright
from unitscope_schemas.answers.visuals import VisualKey
from unitscope_schemas.geometry import Box, Location
from unitscope_services.atlas.crops import cut, fitted, thumbnails
from unitscope_services.figures.sprites import MOST_BYTES, SHEET_PX, SHEET_TILES, SheetFormat, Sprite, webp
from unitscope_services.figures.tiles import TILE_PX
from unitscope_services.web.app import Settings, create_app
from unitscope_services.web.assets import figure

API, PAGE = "/api/v1/atlases/grown", "/a/grown/layers/_blocks.15"
SEEN = Box(40, 60, 168, 156)


@pytest.fixture(scope="module")
def grown(tiny_atlas: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny atlas with pictures of two units: two optimised, three projections."""
    atlas = shutil.copytree(tiny_atlas, tmp_path_factory.mktemp("grown") / "grown")
    for number, (channel, activation) in enumerate(((7, 3.0), (7, 5.0), (300, 1.0))):
        store(atlas, channel, activation, kind="optimised", seed=number)
    for method, activation in (("deconvnet", 9.0), ("guided", 9.0), ("guided", 2.0)):
        store(atlas, 7, activation, kind="projection", method=method)
    return atlas


def store(atlas: Path, channel: int, activation: float, **key: Any) -> None:
    """A picture of noise that no other equals."""
    made = VisualKey(
        atlas_key="k",
        layer="_blocks.15",
        channel=channel,
        settings={"activation": activation},
        **{"method": "olah2017", "objective": "unit" if key["kind"] == "optimised" else ""} | key,
    )
    chance = np.random.default_rng([channel, int(activation), len(made.method)])
    picture = Image.fromarray(chance.integers(0, 256, (224, 224, 3), np.uint8))
    write_visual(store_of(atlas), made, NewPicture(picture, activation, Location(3, 3), SEEN))


@pytest.fixture(scope="module")
def client(grown: Path) -> Iterator[TestClient]:
    with TestClient(
        create_app(Settings(atlases=(grown,), corpora=recorded_corpora(grown))), ORIGIN, raise_server_exceptions=False
    ) as client:
        yield client


def sheet(client: TestClient, kind: str, number: int = 0, file_format: SheetFormat = "png", **more: Any) -> Image.Image:
    layer = more.get("layer", "_blocks.15")
    answer = client.get(f"{API}/layers/{layer}/sprites/{kind}.{file_format}?sheet={number}")
    assert answer.status_code == 200, answer.text
    return Image.open(io.BytesIO(answer.content))


def tile(sheet: Image.Image, channel: int) -> Image.Image:
    sprite = Sprite.of(channel)
    return sheet.crop((sprite.left, sprite.top, sprite.left + TILE_PX, sprite.top + TILE_PX))


def middle(tile: Image.Image, single: Image.Image) -> np.ndarray:  # type: ignore[type-arg]
    """The pixels of a tile where a smaller picture lies in its middle; around it there is nothing."""
    left, top = (TILE_PX - single.width) // 2, (TILE_PX - single.height) // 2
    pixels = np.asarray(tile)
    assert pixels[..., 3].sum() == 255 * single.width * single.height
    return pixels[top : top + single.height, left : left + single.width, :3]


def stored(client: TestClient, channel: int, kind: str) -> list[tuple[dict[str, Any], Image.Image]]:
    """All stored pictures of a unit with their rows."""
    rows = client.get(f"{API}/layers/_blocks.15/units/{channel}/visualisations").json()["rows"]
    return [(row, Image.open(io.BytesIO(client.get(row["url"]).content))) for row in rows if row["kind"] == kind]


def test_an_optimised_tile_is_the_best_stored_picture_cut_to_what_the_unit_sees(client: TestClient) -> None:
    row, best = max(stored(client, 7, "optimised"), key=lambda one: one[0]["activation"])
    assert row["activation"] == 5
    single = fitted(best.crop((SEEN.left, SEEN.top, SEEN.right, SEEN.bottom)), TILE_PX)
    found = sheet(client, "optimised")
    assert np.array_equal(middle(tile(found, 7), single), np.asarray(single))
    assert not np.asarray(tile(found, 8)).any()
    assert np.asarray(tile(sheet(client, "optimised", 1), 300 % SHEET_TILES)).any()


def test_a_projected_tile_is_the_whole_projection_of_the_highest_activation_guided_before_others(
    client: TestClient,
) -> None:
    found = [
        picture
        for row, picture in stored(client, 7, "projection")
        if (row["activation"], row["method"]) == (9, "guided")
    ]
    single = fitted(found[0], TILE_PX)
    assert np.array_equal(middle(tile(sheet(client, "projection"), 7), single), np.asarray(single))


@pytest.mark.parametrize("channel", [0, 31])
def test_a_tile_of_filters_shows_each_weight_as_a_square_also_without_png(client: TestClient, channel: int) -> None:
    answer = client.get(f"{API}/layers/_conv_stem/filters/{channel}.png")
    weights = np.asarray(Image.open(io.BytesIO(answer.content)))
    times = TILE_PX // len(weights)
    plain = np.array([[weights[row // times, col // times] for col in range(3 * times)] for row in range(3 * times)])
    for file_format in ("png", "webp"):
        found = sheet(client, "filter", 0, file_format, layer="_conv_stem").convert("RGBA")
        assert np.array_equal(middle(tile(found, channel), Image.fromarray(plain)), plain)


def test_a_sheet_of_any_pictures_has_a_bounded_size_and_is_close_to_its_pixels() -> None:
    chance = np.random.default_rng(0)
    noise = Image.fromarray(chance.integers(0, 256, (SHEET_PX, SHEET_PX, 3), np.uint8))
    assert len(webp(noise, flat=False)) <= MOST_BYTES
    assert 8 * MOST_BYTES < 3 * 2**20
    rows, cols = np.mgrid[:SHEET_PX, :SHEET_PX]
    smooth = np.stack([127 + 120 * np.sin(rows / 9), 127 + 120 * np.cos(cols / 7), rows / 4], axis=2).astype(np.uint8)
    again = np.asarray(Image.open(io.BytesIO(webp(Image.fromarray(smooth), flat=False))).convert("RGB"))
    assert np.abs(again.astype(int) - smooth).mean() < 3


def test_a_sheet_of_chosen_units_has_the_tiles_of_the_whole_sheets_in_the_order_asked_for(client: TestClient) -> None:
    address = f"{API}/layers/_blocks.15/sprites/patch"
    chosen = Image.open(io.BytesIO(client.get(f"{address}.png?channels=300,2,17,2").content))
    assert chosen.size == (SHEET_PX, TILE_PX)
    for position, channel in enumerate((300, 2, 17)):
        whole = sheet(client, "patch", channel // SHEET_TILES)
        assert np.array_equal(np.asarray(tile(chosen, position)), np.asarray(tile(whole, channel)))
    assert len(client.get(f"{address}.webp?channels=300,2,17").content) <= MOST_BYTES // 8


@pytest.mark.parametrize(
    ("query", "status", "said"),
    [
        ("channels=3,,5", 400, "3,17,5"),
        ("channels=-1", 400, "3,17,5"),
        ("channels=" + ",".join(map(str, range(33))), 400, "at most 32"),
        ("channels=3&sheet=1", 400, "either sheet or channels"),
        ("channels=320", 404, "channels 0 to 319"),
    ],
)
def test_chosen_units_that_make_no_sheet_are_told_why(client: TestClient, query: str, status: int, said: str) -> None:
    answer = client.get(f"{API}/layers/_blocks.15/sprites/patch.webp?{query}")
    assert answer.status_code == status
    assert said in answer.json()["detail"]


def test_a_thumbnail_of_a_large_jpeg_is_close_to_the_exact_patch_whichever_way_it_is_turned() -> None:
    rows, cols = np.mgrid[:600, :800]
    pixels = np.stack([rows * 255 // 600, cols * 255 // 800, (rows // 50 + cols // 50) % 2 * 255], axis=2)
    boxes = [Box(100, 40, 420, 360), Box(0, 0, 600, 600), Box(20, 300, 250, 590)]
    for orientation in (1, 3, 6, 8):
        exif = Image.Exif()
        exif[0x0112] = orientation
        buffer = io.BytesIO()
        Image.fromarray(pixels.astype(np.uint8)).save(buffer, "JPEG", quality=95, exif=exif)
        whole = upright(open_picture(buffer.getvalue()))
        for box, thumbnail in zip(boxes, thumbnails(buffer.getvalue(), boxes, TILE_PX), strict=True):
            exact = cut(whole, box, TILE_PX)
            assert thumbnail.size == exact.size
            assert np.abs(np.asarray(thumbnail).astype(int) - np.asarray(exact)).mean() < 4


def test_a_layers_page_shows_each_kind_and_says_which_units_have_none(client: TestClient) -> None:
    page = client.get(f"{PAGE}?kind=optimised&sort=-maximum").text
    assert page.count('class="blank">none made') == 318
    assert max(page.index(f'/units/{channel}"') for channel in (7, 300)) < page.index("none made")
    assert re.findall(r'<image href="[^"]+channels=([^"&]+)', page) == ["300,7", "300,7"]
    assert "optimised&amp;sort=-mean" in page
    address = re.findall(r'<image href="([^"]+)"', page)[0].replace("&amp;", "&")
    assert client.get(address).headers["cache-control"].endswith("immutable")


def test_a_layer_without_such_pictures_says_which_command_makes_them(client: TestClient) -> None:
    for kind, command in (
        ("optimised", "unitscope optimise grown _blocks.5"),
        ("projection", "unitscope project grown _blocks.5:0"),
    ):
        page = client.get(f"/a/grown/layers/_blocks.5?kind={kind}").text
        assert command in page
        assert "<svg" not in page
    behind = client.get("/a/grown/layers/_blocks.0?kind=filter").text
    assert "first layer with weights, _conv_stem" in behind
    assert "/a/grown/filters" in behind


def test_a_new_picture_gives_page_and_sheet_other_tags_and_addresses(grown: Path, client: TestClient) -> None:
    address = f"{API}/layers/_blocks.5/sprites/optimised.png"
    page = "/a/grown/layers/_blocks.5?kind=optimised"
    before = [client.get(one).headers["etag"] for one in (address, page, "/a/grown/layers/_blocks.5")]
    key = VisualKey(
        atlas_key="k", layer="_blocks.5", channel=3, kind="optimised", method="m", objective="unit", settings={}
    )
    write_visual(store_of(grown), key, NewPicture(Image.new("RGB", (224, 224), "red"), 1.0))
    time.sleep(0.5)  # a listing is believed for ten times as long as it took
    after = [
        client.get(one, headers={"If-None-Match": tag})
        for one, tag in zip((address, page, "/a/grown/layers/_blocks.5"), before, strict=True)
    ]
    assert [answer.status_code for answer in after] == [200, 200, 304]
    shown = Image.open(io.BytesIO(after[0].content))
    assert (np.asarray(tile(shown, 3))[..., :3] == (255, 0, 0)).all()


def test_the_filters_page_shows_the_rows_of_the_api_and_how_to_have_them(client: TestClient) -> None:
    page = client.get("/a/grown/filters").text
    rows = client.get(f"{API}/layers/first/filters").json()["rows"]
    assert page.count("<svg class=") == len(rows) == 32
    for row in rows:
        assert f'href="{row["url"]}"' in page
        assert figure(row["scale"], 2) in page
    assert "unitscope filters grown --out filters.png" in page
    assert "1 input channel." in client.get("/a/grown/filters?layer=_blocks.0._depthwise_conv").text
    for address in ("/a/grown", "/a/grown/layers/_blocks.0"):
        assert 'href="/a/grown/filters"' in client.get(address).text
    assert client.get(f"{API}/layers/first/filters/sheet.png").headers["content-type"] == "image/png"
    assert client.get(f"{API}/layers/first/filters/sheet.svg").text.count("<image") == 32


def test_filters_of_a_recorded_layer_lead_to_its_units(tiny_corpus: Path, tmp_path: Path, ray_session: None) -> None:
    atlas, layer = tmp_path / "stem", "_conv_stem"
    few = IndexConfig(corpus=str(tiny_corpus), atlas=str(atlas), layers=(layer,), batch_size=2, limit=2, workers=1)
    index(few, lambda _: None)
    with TestClient(create_app(Settings(atlases=(atlas,), corpora=recorded_corpora(atlas))), ORIGIN) as client:
        assert client.get("/a/stem/filters").text.count(f'href="/a/stem/layers/{layer}/units/') == 32
        page = client.get(f"/a/stem/layers/{layer}?kind=filter").text
        assert page.count("sprites/filter.webp") >= 32
