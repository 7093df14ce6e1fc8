"""Units compared by jobs, and the pages about it: the answers of the commands and of the API, made once."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.kin import PLAIN, TWIN, ZEROED
from tests.pictures import recorded_corpora
from tests.services.conftest import ORIGIN
from tests.services.pages.test_pages import Elements
from tests.services.queries.test_relations import invoke
from tests.services.server.test_jobs import JOBS, ended
from unitscope_schemas.questions import CompareQuestion, CorrelateQuestion
from unitscope_services.queries.compare import SORTS, compare_here, correlate
from unitscope_services.queries.session import Session
from unitscope_services.web.app import Settings, create_app
from unitscope_services.web.assets import figure, percent

API = "/api/v1/atlases/planted"
COMPARE = {"kind": "compare", "atlas": "planted", "other": "permuted", "layer": "conv"}
SIMILAR = {"kind": "similar", "atlas": "planted", "unit": f"conv:{PLAIN}"}
BANDS = ("0.9..0.99", "0.5..0.9", "0.1..0.5", "0..0.1")
NAMES = ("planted", "permuted", "alien")
PARTS = ("bands", "facets", "similar", "eigen")
UNIT = f"/a/planted/layers/conv/units/{PLAIN}"


@pytest.fixture
def folder(kin_folder: Path, tmp_path: Path) -> Path:
    """The atlases, with nothing compared."""
    for name in NAMES:
        shutil.copytree(kin_folder / name, tmp_path / name)
    return tmp_path


@pytest.fixture
def client(folder: Path) -> Iterator[TestClient]:
    """A server over them."""
    yield from served(folder)


@pytest.fixture(scope="module")
def compared(kin_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A server over atlases of which one layer is compared."""
    folder = tmp_path_factory.mktemp("compared")
    for name in NAMES:
        shutil.copytree(kin_folder / name, folder / name)
    for client in served(folder):
        ended(client, client.post(JOBS, json=COMPARE).headers["location"])
        yield client


@pytest.fixture
def address(compared: TestClient) -> str:
    """Where the API answers about the comparison."""
    return f"{API}/comparisons/{compared.get(f'{API}/comparisons').json()['rows'][0]['id']}"


def served(folder: Path, **settings: Any) -> Iterator[TestClient]:
    atlases = tuple(folder / name for name in NAMES)
    app = create_app(Settings(atlases=atlases, corpora=recorded_corpora(*atlases), trust_code=True, **settings))
    with TestClient(app, ORIGIN, raise_server_exceptions=False) as client:
        yield client


def stored_files(folder: Path) -> dict[str, int]:
    """When each table and comparison in the first atlas was written."""
    found = [path for name in ("kin", "comparisons") for path in (folder / "planted" / name).glob("*.*")]
    return {path.name: path.stat().st_mtime_ns for path in found}


def test_a_job_stores_what_the_command_would_and_neither_does_it_twice(client: TestClient, folder: Path) -> None:
    job = ended(client, client.post(JOBS, json=COMPARE).headers["location"])
    assert (job["state"], job["done"], job["total"], job["unit"]) == ("done", 3, 3, "blocks of units")
    found = client.get(job["results"][0]).json()
    before = stored_files(folder)
    words = ["compare", folder / "planted", folder / "permuted", "--layer", "conv", "--progress", "json", "--json"]
    printed = invoke(*words)
    assert json.loads(printed.stdout)["rows"] == found["rows"]
    assert "blocks" not in printed.stderr
    again = ended(client, client.post(JOBS, json=COMPARE).headers["location"])
    assert (again["state"], again["total"], again["results"]) == ("done", 0, job["results"])
    assert stored_files(folder) == before


def test_a_job_computes_co_activation_for_all_units_of_the_layer(client: TestClient, folder: Path) -> None:
    assert client.get(f"{API}/layers/conv/units/{PLAIN}/similar").status_code == 404
    job = ended(client, client.post(JOBS, json=SIMILAR).headers["location"])
    rows = client.get(job["results"][0]).json()["rows"]
    assert (rows[0]["channel"], rows[0]["similarity"]) == (TWIN, 1.0)
    assert client.get(f"{API}/layers/conv/units/7/similar").status_code == 200
    before = stored_files(folder)
    other = {**SIMILAR, "unit": "conv:7"}
    assert ended(client, client.post(JOBS, json=other).headers["location"])["total"] == 0
    assert stored_files(folder) == before


def test_what_is_stopped_stores_nothing_of_the_layer_it_was_at(folder: Path) -> None:
    planted, permuted = Session(folder / "planted").atlas, Session(folder / "permuted").atlas

    def stop(done: int, total: int) -> None:
        if done == 2:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        compare_here(planted, CompareQuestion(), stop, permuted)
    with pytest.raises(InterruptedError):
        correlate(planted, "conv", CorrelateQuestion(), stop)
    assert stored_files(folder) == {}


@pytest.mark.parametrize(
    ("query", "status", "words"),
    [
        ({**COMPARE, "other": "nothing"}, 404, "there are alien, permuted, planted"),
        ({**COMPARE, "layer": "cnv"}, 404, "it has conv, head"),
        ({**COMPARE, "layer": None, "layer_b": "conv"}, 400, "give --layer too"),
        ({**COMPARE, "other": "alien"}, 400, "no image in common"),
        ({**COMPARE, "layers": "conv"}, 400, "layers"),
        ({**SIMILAR, "unit": "conv:99"}, 404, "units 0 to 39"),
        ({**SIMILAR, "among": "cnv"}, 404, "conv, head"),
    ],
)
def test_what_cannot_be_compared_is_refused_with_what_would_do(
    compared: TestClient, query: dict[str, Any], status: int, words: str
) -> None:
    answer = compared.post(JOBS, json=query)
    assert (answer.status_code, words in answer.json()["detail"]) == (status, True), answer.text
    assert "/" not in answer.json()["detail"]


def test_the_form_leads_over_a_job_to_the_units_side_by_side(client: TestClient) -> None:
    address = "/compare?a=planted&b=permuted&layer=conv"
    session = client.get(address).text
    assert "Not compared yet" in session
    assert "unitscope compare planted permuted --layer conv" in session
    taken = client.post("/compare", data={"a": "planted", "b": "permuted", "layer": "conv"}, follow_redirects=False)
    assert taken.status_code == 303
    job = ended(client, f"/api/v1{taken.headers['location']}")
    page = f"/a/planted/comparisons/{job['results'][0].rpartition('/')[2]}"
    assert f'href="{page}"' in client.get(taken.headers["location"]).text
    assert client.get(address, follow_redirects=False).headers["location"] == page
    assert client.post("/compare", data={"a": "planted", "b": "permuted", "layer": "conv"}).url.path == page
    assert f'href="{page}"' in client.get("/compare").text


def test_a_comparison_shows_the_numbers_of_the_api_and_whole_links(compared: TestClient, address: str) -> None:
    page = f"/a/planted/comparisons/{address.rpartition('/')[2]}"
    for sort in ("channel", "correlation", "same_correlation"):
        html = compared.get(f"{page}?sort={sort}").text
        elements = Elements(html)
        for row in compared.get(f"{address}?sort={sort}&k=24").json()["rows"]:
            shown = row["same_correlation" if "same" in sort else "correlation"]
            assert f"conv:{row['channel']}" in elements.text
            assert figure(shown, 3) in elements.text
            if "same" not in sort and row["match"] is not None:
                assert f'href="/a/permuted/layers/conv/units/{row["match"]}"' in html
    (layer,) = compared.get(address).json()["layers"]
    assert figure(layer["correlation"], 3) in elements.text and percent(layer["mutual_share"]) in elements.text
    for link in sorted(elements.values("href", "src"))[::8]:
        assert compared.get(link.partition("#")[0] or page).status_code == 200, link


def test_sorted_units_are_those_of_a_plain_sort_and_unknown_ones_come_last(compared: TestClient, address: str) -> None:
    plain = compared.get(address).json()["rows"]
    for name in SORTS[1:]:
        for sign in ("", "-"):
            known = [row[name] for row in plain if row[name] is not None]
            wanted = sorted(known, reverse=sign == "-") + [None] * (len(plain) - len(known))
            rows = compared.get(f"{address}?sort={sign}{name}").json()["rows"]
            assert [row[name] for row in rows] == wanted
            assert "same" in name or rows[-1]["channel"] == ZEROED
    refused = compared.get(f"{address}?sort=beauty")
    assert refused.status_code == 400
    assert "there are channel, correlation" in refused.json()["detail"]


def test_the_choice_says_what_is_missing_and_not_where_things_lie(compared: TestClient) -> None:
    assert "no image in common" in compared.get("/compare?a=planted&b=alien").text
    assert "choose two of its layers" in compared.get("/compare?a=planted&b=planted").text
    assert "file:/" not in compared.get("/").text + compared.get("/a/planted").text + compared.get("/compare").text
    friendly = compared.get("/compare?a=planted&b=nowhere", headers={"Accept": "text/html"})
    assert (friendly.status_code, "there are alien" in friendly.text) == (404, True)


def test_similar_units_offer_the_job_until_it_is_done(client: TestClient) -> None:
    page = client.get(f"{UNIT}/similar?by=coactivation").text
    assert "Not computed yet" in page and f"unitscope similar planted conv:{PLAIN}" in page
    taken = client.post(f"{UNIT}/similar", follow_redirects=False).headers["location"]
    ended(client, f"/api/v1{taken}")
    assert f'href="{UNIT}#similar"' in client.get(taken).text
    for by in ("coactivation", "exemplars", "weights"):
        elements = Elements(client.get(f"{UNIT}/similar?by={by}").text)
        rows = client.get(f"{API}/layers/conv/units/{PLAIN}/similar?by={by}").json()["rows"]
        assert len(rows) == 9
        for row in rows:
            assert f"{row['similarity']:.3f}" in elements.text
            assert f"/a/planted/layers/conv/units/{row['channel']}" in elements.values("href")
        assert "exact: every unit of conv was compared" in elements.text
    assert "weights" in client.get(f"{UNIT}/similar?by=weights&among=head").text


def test_facets_and_bands_show_the_rows_of_the_api(compared: TestClient) -> None:
    page = Elements(compared.get(f"{UNIT}/facets").text)
    found = compared.get(f"{API}/layers/conv/units/{PLAIN}/facets").json()
    for facet in range(1, found["facets"] + 1):
        held = [row for row in found["rows"] if row["facet"] == facet]
        assert percent(held[0]["share"]) in page.text
        assert any(held[0]["image_id"] in source for source in page.values("src"))
    page = Elements(compared.get(f"{UNIT}/bands").text)
    sources = [source for tag, attrs in page.found if tag == "img" and (source := attrs.get("src")) and "jpg" in source]
    wanted: list[str] = []
    for query in ("k=6", *(f"k=6&order=random&quantile={band}" for band in BANDS), "k=6&order=asc"):
        rows = compared.get(f"{API}/layers/conv/units/{PLAIN}/patches?{query}").json()["rows"]
        wanted += [row["image_id"] for row in rows]
    assert [source.rpartition("/")[2].partition(".")[0] for source in sources] == wanted
    assert "never active" in compared.get(f"/a/planted/layers/conv/units/{ZEROED}/bands").text


def test_the_page_of_a_unit_leads_to_its_parts_and_holds_none_of_them(compared: TestClient) -> None:
    elements = Elements(compared.get(UNIT).text)
    parts = {attrs["src"] for tag, attrs in elements.found if tag == "lazy-part"}
    assert parts == {f"{UNIT}/{name}" for name in PARTS}
    assert parts <= elements.values("href")
    for part in parts:
        assert "data-part" in compared.get(str(part)).text


@pytest.mark.parametrize("page", ["/compare?a=planted&b=permuted", *(f"{UNIT}/{name}" for name in PARTS)])
def test_pages_hold_one_heading_labelled_fields_and_no_script_or_style(compared: TestClient, page: str) -> None:
    answer = compared.get(page)
    elements = Elements(answer.text)
    tags = [tag for tag, _ in elements.found]
    assert (tags.count("h1"), tags.count("script"), tags.count("style")) == (1, 1, 0)
    assert not elements.values("style", "onclick", "onload")
    for tag, attrs in elements.found:
        assert tag != "img" or "alt" in attrs
        assert tag != "select" or f'<label for="{attrs["id"]}">' in answer.text
    assert "unsafe" not in answer.headers["content-security-policy"]


def test_readers_who_may_not_compute_are_offered_neither_jobs_nor_weights(folder: Path, key_file: Path) -> None:
    for client in served(folder, key_file=key_file, anonymous_read=True):
        assert "<button>Compare</button>" not in client.get("/compare?a=planted&b=permuted").text
        assert client.post("/compare", data={"a": "planted", "b": "permuted"}).status_code == 401
        page = client.get(f"{UNIT}/similar?by=coactivation").text
        assert "Not computed yet" in page
        assert "Compute co-activation" not in page and "by=weights" not in page
        assert client.get(f"{UNIT}/similar?by=weights").status_code == 401
        assert client.post(f"{UNIT}/similar").status_code == 401
