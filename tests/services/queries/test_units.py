"""The question of all questions, in all its forms."""

import csv
import io
import json
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from starlette.testclient import TestClient

from tests.services.conftest import UNIT
from unitscope_schemas.answers.patches import Histogram, LabelPage, PatchPage, UnitPage
from unitscope_schemas.answers.served import LayerPage
from unitscope_schemas.questions import TopQuestion
from unitscope_schemas.units import UnitId
from unitscope_services.queries.exemplars import patches
from unitscope_services.queries.session import Session

LAYER = "/api/v1/atlases/tiny/layers/_blocks.5"


def pages(client: TestClient, address: str) -> list[dict[str, Any]]:
    """All pages of a listing, by its cursors."""
    joined = "&" if "?" in address else "?"
    found = [client.get(address).json()]
    while found[-1]["next"]:
        found.append(client.get(f"{address}{joined}cursor={found[-1]['next']}").json())
    return found


def test_the_api_gives_the_same_patches_as_the_library(client: TestClient, session: Session) -> None:
    answer = PatchPage.model_validate(client.get(f"{UNIT}/patches?k=5").json())
    assert answer == patches(session.atlas, UnitId("_blocks.5", 3), TopQuestion(k=5))


def test_all_formats_give_the_same_numbers(client: TestClient) -> None:
    rows = client.get(f"{UNIT}/patches?k=5").json()["rows"]
    lines = client.get(f"{UNIT}/patches.ndjson?k=5").text.splitlines()
    assert [json.loads(line) for line in lines] == rows
    tables = [
        pa.ipc.open_file(client.get(f"{UNIT}/patches.arrow?k=5").content).read_all().to_pylist(),
        pq.read_table(io.BytesIO(client.get(f"{UNIT}/patches.parquet?k=5").content)).to_pylist(),
    ]
    texts = list(csv.DictReader(io.StringIO(client.get(f"{UNIT}/patches.csv?k=5").text)))
    for number, row in enumerate(rows):
        for table in tables:
            assert table[number]["activation"] == row["activation"]
            assert [table[number][f"box_{side}"] for side in ("top", "left", "bottom", "right")] == row["box"]
        assert float(texts[number]["activation"]) == row["activation"]
        assert texts[number]["image_id"] == row["image_id"]


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("text/csv", "text/csv"),
        ("application/vnd.apache.parquet", "application/vnd.apache.parquet"),
        ("text/html,*/*", "application/json"),
    ],
)
def test_accept_chooses_the_format(client: TestClient, accept: str, kind: str) -> None:
    answer = client.get(f"{UNIT}/patches", headers={"Accept": accept})
    assert answer.headers["content-type"].split(";")[0] == kind


def test_the_suffix_wins_over_accept(client: TestClient) -> None:
    answer = client.get(f"{UNIT}/patches.csv", headers={"Accept": "application/json"})
    assert answer.headers["content-type"].startswith("text/csv")


@pytest.mark.parametrize("limit", [1, 7, 1000])
def test_following_next_gives_every_image_once_in_order(client: TestClient, limit: int) -> None:
    listed = pages(client, f"{UNIT}/patches?duplicates=expand&k={limit}")
    assert all(len(page["rows"]) <= limit for page in listed)
    rows = [row for page in listed for row in page["rows"]]
    assert [row["rank"] for row in rows] == list(range(40))
    assert len({row["image_id"] for row in rows}) == 40
    activations = [row["activation"] for row in rows]
    assert activations == sorted(activations, reverse=True)


@pytest.mark.parametrize("order", ["asc", "random&seed=5"])
def test_every_order_gives_every_image_once(client: TestClient, order: str) -> None:
    rows = [row for page in pages(client, f"{UNIT}/patches?order={order}&k=7") for row in page["rows"]]
    assert len({row["image_id"] for row in rows}) == len(rows) == 40
    if order == "asc":
        assert [row["rank"] for row in rows] == list(range(39, -1, -1))


def test_filters_hold_on_every_page(client: TestClient) -> None:
    rows = [row for page in pages(client, f"{UNIT}/patches?label=blobs&k=3") for row in page["rows"]]
    assert len(rows) == 20
    assert {row["label"] for row in rows} == {"blobs"}
    band = client.get(f"{UNIT}/patches?quantile=0.5..0.75&k=1000").json()["rows"]
    assert [row["rank"] for row in band] == list(range(10, 21))


def test_the_lower_half_is_paged_from_below(client: TestClient) -> None:
    listed = pages(client, f"{UNIT}/patches?quantile=0..0.5&order=asc&duplicates=expand&k=6")
    assert [row["rank"] for page in listed for row in page["rows"]] == list(range(39, 19, -1))


def test_a_cursor_belongs_to_its_question(client: TestClient) -> None:
    cursor = client.get(f"{UNIT}/patches?k=3").json()["next"]
    for other in (f"{UNIT}/patches?k=3&label=blobs", f"{LAYER}/units/4/patches?k=3"):
        answer = client.get(f"{other}&cursor={cursor}")
        assert answer.status_code == 400
        assert "another question" in answer.json()["detail"]
    assert client.get(f"{UNIT}/patches?cursor=nonsense").status_code == 400
    longer = client.get(f"{UNIT}/patches?k=5&cursor={cursor}").json()["rows"]
    assert [row["rank"] for row in longer] == [3, 4, 5, 6, 7]


def test_the_link_header_leads_to_the_next_page(client: TestClient) -> None:
    first = client.get(f"{UNIT}/patches.csv?k=7")
    following = first.links["next"]["url"]
    assert following.startswith(f"{UNIT}/patches.csv?")
    ranks = [int(row["rank"]) for row in csv.DictReader(io.StringIO(client.get(following).text))]
    assert ranks == [7, 8, 9, 10, 11, 12, 13]


@pytest.mark.parametrize("order", ["desc", "asc", "random"])
def test_patches_of_at_least_an_activation_are_those_and_no_others(client: TestClient, order: str) -> None:
    everything = client.get(f"{UNIT}/patches?k=1000&duplicates=expand").json()["rows"]
    for least in (everything[4]["activation"], everything[4]["activation"] + 1e-3, everything[0]["activation"] + 1):
        asked = f"{UNIT}/patches?k=1000&duplicates=expand&order={order}&min_activation={least!r}"
        ids = {row["image_id"] for row in client.get(asked).json()["rows"]}
        assert ids == {row["image_id"] for row in everything if row["activation"] >= least}


def test_the_number_of_rows_has_one_name(client: TestClient) -> None:
    assert len(client.get(f"{UNIT}/patches?k=4").json()["rows"]) == 4
    refused = client.get(f"{UNIT}/patches?limit=4")
    assert refused.status_code == 400
    assert "there is no parameter 'limit' here; there are" in refused.json()["detail"]


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("k=1001", "less than or equal to 1000"),
        ("k=0", "greater than or equal to 1"),
        ("per_image=0", "greater than or equal to 1"),
        ("quantile=0.9", "a..b"),
        ("quantile=0.9..0.1", "a <= b"),
        ("order=best", "'desc', 'asc' or 'random'"),
        ("duplicates=drop", "'collapse' or 'expand'"),
        ("lable=5", "did you mean label"),
    ],
)
def test_a_wrong_parameter_is_told_what_would_be_right(client: TestClient, query: str, said: str) -> None:
    answer = client.get(f"{UNIT}/patches?{query}")
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    assert said in answer.json()["detail"]


def test_units_are_sorted_and_paged(client: TestClient) -> None:
    rows = [
        row for page in pages(client, f"{LAYER}/units?sort=-maximum&k=30") for row in UnitPage.model_validate(page).rows
    ]
    assert sorted(row.channel for row in rows) == list(range(80))
    maxima = [row.maximum or 0.0 for row in rows]
    assert maxima == sorted(maxima, reverse=True)
    assert client.get(f"{LAYER}/units?sort=beauty").status_code == 400


def test_units_are_filtered_by_status(client: TestClient) -> None:
    live = client.get(f"{LAYER}/units?status=live&k=1000").json()["rows"]
    layer = client.get(LAYER).json()
    assert len(live) == layer["live"]
    assert {row["status"] for row in live} == {"live"}
    assert client.get(f"{LAYER}/units?status=happy").status_code == 400


def test_one_unit_is_the_row_of_the_list(client: TestClient) -> None:
    assert client.get(UNIT).json() == client.get(f"{LAYER}/units").json()["rows"][3]


def test_layers_are_listed_in_order_of_the_forward(client: TestClient) -> None:
    page = LayerPage.model_validate(client.get("/api/v1/atlases/tiny/layers").json())
    assert [layer.name for layer in page.rows] == ["_blocks.0", "_blocks.5", "_blocks.15"]
    assert client.get("/api/v1/atlases/tiny/layers.csv").text.startswith('"name"')


@pytest.mark.parametrize("bins", [1, 7, 64, 200])
def test_a_histogram_counts_every_image_once(client: TestClient, bins: int) -> None:
    histogram = Histogram.model_validate(client.get(f"{UNIT}/histogram?bins={bins}").json())
    assert sum(histogram.counts) == 40
    assert len(histogram.counts) == bins
    assert len(histogram.edges) == bins + 1


def test_labels_come_with_their_lift(client: TestClient) -> None:
    page = LabelPage.model_validate(client.get(f"{UNIT}/labels").json())
    assert {row.label for row in page.rows} == {"blobs", "copies", "stripes"}
    assert sum(row.count for row in page.rows) == 41, "one image lies in two folders"


@pytest.mark.parametrize("band", [(0.0, 1.0), (0.25, 0.75), (0.9, 0.95)])
def test_labels_of_a_band_are_those_of_its_images(client: TestClient, band: tuple[float, float]) -> None:
    low, high = band
    peaks = client.get(f"{UNIT}/patches?k=40&duplicates=expand").json()["rows"]
    within = [row for row in peaks if low - 1e-9 <= row["percentile"] <= high + 1e-9]
    labels = [label for row in within for label in row["labels"]]
    everywhere = [label for row in peaks for label in row["labels"]]
    page = client.get(f"{UNIT}/labels?quantile={low}..{high}").json()
    assert page["ranks"] == len(within)
    assert {row["label"]: row["count"] for row in page["rows"]} == {name: labels.count(name) for name in set(labels)}
    for row in page["rows"]:
        assert row["share"] == pytest.approx(row["count"] / len(within))
        assert row["lift"] == pytest.approx(row["share"] / (everywhere.count(row["label"]) / 40))
