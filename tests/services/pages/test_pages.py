"""Pages: the API's numbers, whole links, no script inside them, something for every reader."""

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from PIL import Image
from starlette.testclient import TestClient

from tests.services.conftest import UNIT, bearer
from tests.services.web.test_images import picture_bytes
from unitscope_schemas.answers.patches import PatchPage
from unitscope_services.queries.session import Session
from unitscope_services.web.assets import count, figure, percent

PAGE = "/a/tiny/layers/_blocks.5/units/3"


class Elements(HTMLParser):
    """All elements of a page with their attributes, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def values(self, *names: str) -> set[str]:
        """Values of some attributes."""
        return {value for _, attrs in self.found for name, value in attrs.items() if name in names and value}


def is_labelled(elements: Elements, own: str | None, html: str) -> bool:
    """Whether a label names the input with this id, or holds it."""
    named = any(name == "label" and other.get("for") == own for name, other in elements.found)
    return named or re.search(rf'<label>[^<]*<input id="{own}"', html) is not None


def image_page(client: TestClient) -> str:
    return f"/a/tiny/images/{client.get(f'{UNIT}/patches?k=1').json()['rows'][0]['image_id']}"


def all_pages(client: TestClient) -> list[str]:
    return [
        "/", "/docs", "/a/tiny", "/a/tiny/skipped", "/a/tiny/layers/_blocks.5", PAGE, image_page(client),
        f"{PAGE}?look=whole&order=asc&quantile=0.1..0.9&label=blobs",
        f"{image_page(client)}?layer=_blocks.5&spot=10,10,50,50",
        "/a/tiny/layers/_blocks.5?sort=-mean&status=live",
        f"{image_page(client)}?layer=_blocks.5&cell=3,4&unit=_blocks.5:3&box=10,10,50,50",
        f"{PAGE}?look=activation&quantile=0.5&quantile=0.9",
        "/a/tiny/units?u=_blocks.5:3&u=_blocks.0:1", f"{PAGE}/similar?by=exemplars",
        "/a/tiny/layers/_blocks.0?kind=optimised", "/a/tiny/layers/_blocks.0?kind=filter",
        "/a/tiny/filters", "/a/tiny/find?q=blobs", "/a/tiny/find?q=nothing", f"{PAGE}/eigen",
    ]  # fmt: skip


def test_a_unit_page_shows_the_numbers_of_the_api(client: TestClient) -> None:
    text = Elements(client.get(PAGE).text).text
    rows = PatchPage.model_validate(client.get(f"{UNIT}/patches?k=9").json()).rows
    assert len(rows) == 9
    for row in rows:
        assert figure(row.activation) in text
        assert percent(row.percentile) in text
    unit = client.get(UNIT).json()
    assert figure(unit["mean"]) in text
    assert figure(unit["std"]) in text
    for way in ("unitscope top tiny _blocks.5:3 -k 9", "FROM top_patches('_blocks.5', 3, 9);"):
        assert way in text
    assert re.search(r"curl 'http://[^/ ]+/api/v1/atlases/tiny/layers/_blocks.5/units/3/patches.csv'", text)


@pytest.mark.parametrize("channel", range(12))
def test_a_unit_page_says_which_labels_stand_out(client: TestClient, channel: int) -> None:
    unit = f"/layers/_blocks.5/units/{channel}"
    text = " ".join(Elements(client.get(f"/a/tiny{unit}?quantile=0..0.5").text).text.split())
    said = client.get(f"/api/v1/atlases/tiny{unit}/labels").json()
    standing_out = [row for row in said["rows"] if row["lift_low"] > 1][:3]
    if client.get(f"/api/v1/atlases/tiny{unit}").json()["status"] not in ("live", "rare"):
        assert "among its first" not in text.lower()
    elif standing_out:
        words = [f"{row['label']} {figure(row['lift'], 2)} ×" for row in standing_out]
        assert f"Among its first {said['ranks']} images {' and '.join(words)} as often as in the corpus" in text
    else:
        assert f"No label stands out among its first {said['ranks']} images." in text


def test_units_on_an_image_page_have_their_first_patch(client: TestClient) -> None:
    page = image_page(client)
    api = page.replace("/a/tiny", "/api/v1/atlases/tiny")
    shown = Elements(client.get(page).text).values("src")
    for row in client.get(f"{api}/units?k=12").json()["rows"]:
        unit = f"layers/{row['layer']}/units/{row['channel']}"
        first = client.get(f"/api/v1/atlases/tiny/{unit}/patches?k=1").json()["rows"][0]
        wanted = f"/patches/{first['image_id'][:16]}"
        assert any(wanted in src and f"{row['layer']}:{row['channel']}" in unquote(src) for src in shown)


def test_patches_near_a_part_of_a_picture_stand_beside_it(client: TestClient) -> None:
    page = image_page(client)
    without, asked = client.get(page).text, client.get(f"{page}?box=10,10,50,50").text
    assert without.index('id="nearest"') > without.index("</picture-view>")
    assert asked.index('id="nearest"') < asked.index('id="units"') < asked.index("</picture-view>")
    assert asked.count('id="nearest"') == without.count('id="nearest"') == 1


def test_a_unit_page_follows_the_filters_of_its_address(client: TestClient) -> None:
    query = "order=asc&label=blobs&quantile=0.1..0.9"
    text = Elements(client.get(f"{PAGE}?{query}").text).text
    for row in client.get(f"{UNIT}/patches?{query}").json()["rows"]:
        assert figure(row["activation"]) in text
    assert "--order asc --quantile 0.1..0.9 --label blobs" in text


def test_an_image_page_shows_the_numbers_of_the_api(client: TestClient) -> None:
    page = image_page(client)
    text = Elements(client.get(page).text).text
    api = page.replace("/a/tiny", "/api/v1/atlases/tiny")
    for row in client.get(f"{api}/units?k=12").json()["rows"]:
        assert f"{row['layer']}:{row['channel']}" in text
        assert figure(row["activation"], 3) in text
    for row in client.get(f"{api}/neighbors?k=10").json()["rows"][1:]:
        assert f"{row['score']:.3f}" in text
    assert "exact search" in text


def test_every_link_and_picture_of_every_page_is_there(client: TestClient) -> None:
    seen: set[str] = set()
    for page in all_pages(client):
        elements = Elements(client.get(page).text)
        for address in elements.values("href", "src"):
            if address.startswith("#"):
                continue
            address = address.partition("#")[0]
            assert address.startswith("/"), f"{page} leads outside: {address}"
            seen.add(address)
    assert len(seen) > 100
    for address in seen:
        assert client.get(address).status_code == 200, address


@pytest.mark.parametrize("number", range(18))
def test_pages_hold_no_script_or_style_and_describe_their_pictures(client: TestClient, number: int) -> None:
    answer = client.get(all_pages(client)[number])
    assert answer.status_code == 200
    elements = Elements(answer.text)
    tags = [tag for tag, _ in elements.found]
    scripts = [attrs for tag, attrs in elements.found if tag == "script"]
    assert [attrs["type"] for attrs in scripts] == ["module"]
    assert (scripts[0]["src"] or "").startswith("/static/pages.js?v=")
    assert "style" not in tags
    assert tags.count("h1") == 1
    assert not elements.values("style", "onclick", "onload")
    for tag, attrs in elements.found:
        if tag == "img":
            assert "alt" in attrs
        if tag == "input":
            assert attrs.get("type") == "hidden" or is_labelled(elements, attrs.get("id"), answer.text)
    policy = answer.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy


def test_pictures_of_pages_are_kept_for_good(client: TestClient) -> None:
    sources = [source for source in Elements(client.get(PAGE).text).values("src") if "/patches/" in source]
    assert len(sources) == 9
    for source in sources:
        assert client.get(source).headers["cache-control"].endswith("immutable")


def test_the_layer_page_leads_to_all_units(client: TestClient) -> None:
    html = client.get("/a/tiny/layers/_blocks.5").text
    assert set(re.findall(r"/a/tiny/layers/_blocks\.5/units/(\d+)", html)) == {str(channel) for channel in range(80)}


@pytest.mark.parametrize(
    ("wanted", "target"),
    [
        ("_blocks.5:3", PAGE),
        ("_blocks.5", "/a/tiny/layers/_blocks.5"),
        ("5:3", PAGE),
        ("15:12", "/a/tiny/layers/_blocks.15/units/12"),
        ("", "/a/tiny"),
    ],
)
def test_going_to_a_name_leads_to_its_page(client: TestClient, wanted: str, target: str) -> None:
    answer = client.get("/a/tiny/find", params={"q": wanted}, follow_redirects=False)
    assert answer.status_code == 303
    assert answer.headers["location"] == target


@pytest.mark.parametrize("wanted", ["locks.5:3", "1:3", ":3", "5:x"])
def test_a_name_that_is_not_the_end_of_one_layer_is_looked_for(client: TestClient, wanted: str) -> None:
    assert client.get("/a/tiny/find", params={"q": wanted}, follow_redirects=False).status_code == 200


def test_a_layer_says_how_much_of_the_input_its_units_see(client: TestClient) -> None:
    part = client.get("/a/tiny/layers/_blocks.0").text
    assert "each seeing 7 × 7 of the input’s 224 × 224 pixels." in part
    whole = client.get("/a/tiny/layers/_blocks.15").text
    assert "each seeing the whole input of 224 × 224 pixels: its receptive field is larger, 851 × 851." in whole


def test_a_size_is_width_before_height(client: TestClient, tiny_corpus: Path) -> None:
    image = client.get("/api/v1/atlases/tiny/images?path=stripes/000.jpg").json()["rows"][0]
    width, height = Image.open(tiny_corpus / "stripes/000.jpg").size
    assert width != height
    assert f"{width} × {height} pixels" in client.get(f"/a/tiny/images/{image['image_id']}").text


def test_going_to_a_path_leads_to_the_image_and_to_nothing_to_a_friendly_page(client: TestClient) -> None:
    found = client.get("/a/tiny/find", params={"q": "blobs/001.jpg"})
    assert "blobs/001.jpg" in found.text
    missing = client.get("/a/tiny/find", params={"q": "_blocks.5:99"}, headers={"Accept": "text/html"})
    assert missing.status_code == 404
    assert "0 to 79" in missing.text


def test_a_label_leads_to_the_units_that_like_it_as_the_api_ranks_them(client: TestClient) -> None:
    page = client.get("/a/tiny/find", params={"q": "Blobs"}).text
    rows = client.get("/api/v1/atlases/tiny/selective?label=blobs&k=12").json()["rows"]
    found = re.findall(r'<a class="mono" href="/a/tiny/layers/([^"]+)/units/(\d+)">', page)
    assert found == [(row["layer"], str(row["channel"])) for row in rows]
    strip = client.get(f"/api/v1/atlases/tiny/layers/{found[0][0]}/units/{found[0][1]}/patches?k=1").json()["rows"][0]
    assert f"/patches/{strip['image_id']}.jpg" in page
    assert "unitscope units tiny --label blobs" in page
    assert "blobs/001.jpg" in page  # paths that hold the text


def test_a_part_of_a_path_finds_its_images_and_a_part_of_a_name_layers_and_labels(client: TestClient) -> None:
    page = Elements(client.get("/a/tiny/find", params={"q": "PES/00"}).text)
    paths = [row["path"] for row in client.get("/api/v1/atlases/tiny/images?k=100").json()["rows"]]
    assert [path for path in paths if path in page.text] == [path for path in paths if "pes/00" in path] != []
    names = Elements(client.get("/a/tiny/find", params={"q": "s"}).text).values("href")
    assert {"/a/tiny/layers/_blocks.5", "/a/tiny/find?q=stripes", "/a/tiny/find?q=blobs"} <= names


def test_a_text_that_names_nothing_says_why_and_what_is_near(client: TestClient) -> None:
    page = client.get("/a/tiny/find", params={"q": "blops"})
    assert page.status_code == 200
    assert "no layer, no label and no path" in page.text
    assert 'href="/a/tiny/find?q=blobs"' in page.text


def test_an_uploaded_picture_gets_a_page(client: TestClient, tiny_corpus: Path) -> None:
    outside = client.post("/a/tiny/uploads", files={"file": ("a.png", picture_bytes())})
    assert outside.status_code == 200
    assert "the model ran on it" in outside.text
    assert outside.headers["cache-control"] == "private, no-store"
    for address in Elements(outside.text).values("href", "src"):
        if address.startswith("/"):
            assert client.get(address).status_code == 200, address
    inside = client.post("/a/tiny/uploads", files={"file": ("b.jpg", (tiny_corpus / "blobs/001.jpg").read_bytes())})
    assert "is in the corpus as" in inside.text
    wrong = client.post("/a/tiny/uploads", files={"file": ("c.txt", b"hello")}, headers={"Accept": "text/html"})
    assert wrong.status_code == 422
    assert "JPEG, PNG, WEBP" in wrong.text


def test_the_home_page_without_atlases_says_what_to_do(served: Any) -> None:
    assert "unitscope index" in served(atlases=()).get("/").text


def test_names_from_the_corpus_are_escaped(client: TestClient) -> None:
    answer = client.get("/a/tiny/images/<script>", headers={"Accept": "text/html"})
    assert answer.status_code == 404
    assert "<script>" not in answer.text


def test_an_image_page_shows_the_units_at_a_cell_and_the_patches_nearest_to_a_box(client: TestClient) -> None:
    page = image_page(client)
    api = page.replace("/a/tiny", "/api/v1/atlases/tiny")
    typed = Elements(client.get(f"{page}?layer=_blocks.5&cell=3&cell=4&box=10&box=10&box=50&box=50").text).text
    linked = Elements(client.get(f"{page}?layer=_blocks.5&cell=3,4&box=10,10,50,50").text).text
    assert typed == linked
    for row in client.get(f"{api}/cells?layer=_blocks.5&row=3&col=4&k=8").json()["rows"]:
        assert figure(row["activation"], 3) in linked
        assert percent(row["percentile"]) in linked
    found = client.get(f"{api}/neighbors?k=10&box=10,10,50,50").json()
    assert found["query_box"] == [10, 10, 50, 50]
    own = page.rpartition("/")[2]
    for row in [row for row in found["rows"] if row["image_id"] != own][:9]:
        assert f"{row['score']:.3f}" in linked
    wrong = client.get(f"{page}?layer=_blocks.5&cell=14,0", headers={"Accept": "text/html"})
    assert wrong.status_code == 400
    assert "rows 0 to 13, columns 0 to 13" in wrong.text


def test_readers_who_may_not_compute_are_offered_no_forward(served: Any, key_file: Path) -> None:
    client = served(key_file=key_file, anonymous_read=True)
    page = image_page(client)
    html = client.get(page).text
    assert "data-computes" not in html
    assert "unit=" not in "".join(value for value in Elements(html).values("href") if "/images/" in value)
    assert client.get(f"{page}?box=10,10,50,50").status_code == 401
    assert "look=activation" not in client.get(PAGE).text


def test_only_the_embedded_view_of_a_unit_may_be_framed(client: TestClient, served: Any, key_file: Path) -> None:
    framed = client.get(f"{PAGE}?embed=1")
    assert framed.headers["content-security-policy"].endswith("frame-ancestors *")
    elements = Elements(framed.text)
    assert len([tag for tag, _ in elements.found if tag == "img"]) == 9
    assert not {"form", "button", "input", "script"} & {tag for tag, _ in elements.found}
    assert client.get(PAGE).headers["content-security-policy"].endswith("frame-ancestors 'none'")
    closed = served(key_file=key_file).get(f"{PAGE}?embed=1", headers=bearer("reader"))
    assert closed.headers["content-security-policy"].endswith("frame-ancestors 'none'")


def test_shared_links_have_a_preview_at_a_whole_address(client: TestClient) -> None:
    for page in (PAGE, image_page(client), "/a/tiny/layers/_blocks.5"):
        found = [attrs for tag, attrs in Elements(client.get(page).text).found if attrs.get("property") == "og:image"]
        picture = found[0]["content"] or ""
        assert picture.startswith("http://localhost/")
        assert client.get(picture).headers["content-type"].startswith("image/")


def test_a_band_counts_the_images_whose_percentile_lies_in_it(client: TestClient) -> None:
    rows = client.get(f"{UNIT}/patches?k=40&duplicates=expand").json()["rows"]
    inside = [row for row in rows if 0.25 - 1e-9 <= row["percentile"] <= 0.75 + 1e-9]
    text = Elements(client.get(f"{PAGE}?quantile=0.25..0.75").text).text
    assert f"{len(inside)} images in the band" in text


def test_a_dead_unit_shows_a_sentence_and_no_pictures(served: Any, client: TestClient, session: Session) -> None:
    """A unit whose stored statistics say that it is dead."""
    app_state: Any = client.app.state.app_state  # type: ignore[attr-defined]
    atlas = app_state.atlases.newest("tiny").atlas
    kept = atlas.units("_blocks.0")
    rows = kept.to_pylist()
    rows[4] |= {"status": "dead", "maximum": 0.0, "minimum": 0.0}
    atlas._units["_blocks.0"] = type(kept).from_pylist(rows, schema=kept.schema)
    atlas._statistics.pop("_blocks.0", None)
    try:
        unit = client.get("/a/tiny/layers/_blocks.0/units/4").text
        layer = client.get("/a/tiny/layers/_blocks.0").text
        answer = client.get("/api/v1/atlases/tiny/layers/_blocks.0/units/4/patches").json()
    finally:
        atlas._units["_blocks.0"] = kept
        del atlas._statistics["_blocks.0"]
    assert "never active" in unit
    assert "/patches/" not in "".join(Elements(unit).values("src"))
    assert "og:image" not in unit
    assert layer.count('class="blank"') == 1
    assert answer["rows"] == []
    assert answer["note"].startswith("never active")


@pytest.mark.parametrize(
    ("share", "text"),
    [(1.0, "100 %"), (0.99999, "99.999 %"), (0.9996, "99.96 %"), (0.975, "97.5 %"), (0.0, "0 %"), (None, "–")],
)
def test_percentages_are_never_rounded_up_to_all(share: float | None, text: str) -> None:
    assert percent(share) == text


def test_figures_have_four_digits_and_a_true_minus() -> None:
    assert [figure(value) for value in (0.0, -1.23456, 12345.678, 1e-9, float("nan"), None)] == [
        "0", "−1.235", "12346" if False else "1.235e+04", "1.000e−09", "–", "–",
    ]  # fmt: skip
    assert count(1234567) == "1\u202f234\u202f567"


def test_units_side_by_side_stand_in_the_order_of_the_address_each_with_nine_patches(client: TestClient) -> None:
    page = client.get("/a/tiny/units?u=_blocks.5:3&u=_blocks.0:1&u=_blocks.5:3").text
    assert re.findall(r'<h2 class="mono"><a href="[^"]+">([^<]+)', page) == ["_blocks.5:3", "_blocks.0:1"]
    for unit in ("_blocks.5:3", "_blocks.0:1"):
        assert page.count(f"of unit {unit}, from") == 9
    assert f'href="{UNIT}.json"' in page
    assert client.get(f"{UNIT}.json").json()["channel"] == 3
    assert "leave out" not in page
    assert (
        "u=_blocks.0:1&amp;u=_blocks.5:4" in client.get("/a/tiny/units?u=_blocks.5:3&u=_blocks.0:1&u=_blocks.5:4").text
    )


@pytest.mark.parametrize(
    ("query", "status", "said"),
    [
        ("", 400, "2 to 12 units"),
        ("u=_blocks.5:3", 400, "2 to 12 units stand side by side, not 1"),
        ("&".join(f"u=_blocks.5:{channel}" for channel in range(13)), 400, "not 13"),
        ("u=_blocks.5:3&u=_blocks.5", 400, "_blocks.5"),
        ("u=_blocks.5:3&u=_blocks.5:9999", 404, "9999"),
    ],
)
def test_units_that_cannot_stand_side_by_side_are_told_why(
    client: TestClient, query: str, status: int, said: str
) -> None:
    answer = client.get(f"/a/tiny/units?{query}")
    assert answer.status_code == status
    assert said in Elements(answer.text).text


def test_similar_units_lead_to_a_page_of_them_beside_the_unit(client: TestClient) -> None:
    elements = Elements(client.get(f"{PAGE}/similar?by=exemplars").text)
    forms = [attrs for name, attrs in elements.found if name == "form" and attrs.get("action") == "/a/tiny/units"]
    ticked = [attrs["value"] for name, attrs in elements.found if name == "input" and attrs.get("name") == "u"]
    assert len(forms) == 1
    assert ticked[0] == "_blocks.5:3"
    assert len(ticked) == 10
    assert client.get("/a/tiny/units?" + "&".join(f"u={unit}" for unit in ticked)).status_code == 200
