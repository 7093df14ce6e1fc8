"""Similar units, bands, facets, several peaks and comparisons, in Python, on the command line and over HTTP."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from starlette.testclient import TestClient
from typer.testing import CliRunner, Result

import unitscope
from tests import kin
from tests.kin import PLAIN, TWIN, ZEROED
from tests.pictures import recorded_corpora
from tests.services.conftest import ORIGIN
from unitscope.cli import app
from unitscope.opened_atlas import OpenedAtlas
from unitscope_pipelines.indexing.upkeep import remove
from unitscope_schemas.answers.relations import BandPage, FacetPage, SimilarPage
from unitscope_schemas.errors import NotFoundError, UsageError
from unitscope_schemas.questions import BandsQuestion, FacetsQuestion, SimilarQuestion, TopQuestion
from unitscope_schemas.units import UnitId
from unitscope_services.queries.exemplars import bands, patches
from unitscope_services.queries.facets import facets, group
from unitscope_services.queries.local_maxima import local_maxima, top
from unitscope_services.queries.session import Session
from unitscope_services.queries.similar import similar
from unitscope_services.web.app import Settings, create_app

BASE = "/api/v1/atlases/planted"
PLAIN_UNIT = UnitId("conv", PLAIN)


def invoke(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, ray_session: None) -> Path:
    folder = tmp_path_factory.mktemp("similar")
    network = kin.write_network(folder)
    pictures = kin.write_pictures(folder / "pictures")
    kin.write_atlas(pictures, folder / "permuted", f"file:{network}:permuted")
    return kin.write_atlas(pictures, folder / "planted", f"file:{network}:planted")


@pytest.fixture(scope="module")
def session(root: Path) -> Session:
    return Session(root, trust_code=True)


@pytest.fixture(scope="module")
def notebook(root: Path) -> OpenedAtlas:
    return unitscope.open_atlas(str(root), trust_code=True)


@pytest.fixture(scope="module")
def client(root: Path) -> Iterator[TestClient]:
    settings = Settings(atlases=(root,), corpora=recorded_corpora(root), trust_code=True)
    with TestClient(create_app(settings), ORIGIN, raise_server_exceptions=False) as client:
        yield client


def test_coactivation_that_is_not_computed_names_the_command(session: Session, client: TestClient) -> None:
    with pytest.raises(NotFoundError, match=r"unitscope similar planted head:1 --among conv"):
        similar(session, UnitId("head", 1), SimilarQuestion(among="conv"))
    assert client.get(f"{BASE}/layers/head/units/1/similar?among=conv").status_code == 404


@pytest.mark.parametrize("by", ["coactivation", "exemplars", "weights"])
def test_the_twin_is_the_most_similar_unit_with_one(by: Any, session: Session, notebook: OpenedAtlas) -> None:
    notebook.correlate("conv")
    for unit, twin in ((PLAIN, TWIN), (TWIN, PLAIN)):
        page = similar(session, UnitId("conv", unit), SimilarQuestion(by=by, k=100))
        assert (page.rows[0].channel, page.rows[0].similarity) == (twin, 1.0)
        assert page.rows[1].similarity < 1
        assert unit not in {row.channel for row in page.rows}
        assert ZEROED not in {row.channel for row in page.rows}
        assert len(page.rows) == kin.UNITS - 2
    assert similar(session, UnitId("conv", ZEROED), SimilarQuestion(by=by)).rows == []


def test_shared_exemplars_are_those_of_plain_sets(session: Session) -> None:
    found = {
        row.channel: row.similarity
        for row in similar(session, UnitId("head", 2), SimilarQuestion(by="exemplars", among="conv", k=100)).rows
    }
    own = first_images(session, UnitId("head", 2))
    for channel in set(range(kin.UNITS)) - {ZEROED}:
        other = first_images(session, UnitId("conv", channel))
        assert found[channel] == pytest.approx(len(own & other) / len(own | other))


def first_images(session: Session, unit: UnitId, most: int = 12) -> set[str]:
    """The first images, a tenth of the corpus, without those tied with the next."""
    rows = patches(session.atlas, unit, TopQuestion(k=most + 1, duplicates="expand")).rows
    return {row.image_id for row in rows[:most] if row.activation > rows[most].activation}


def test_the_weights_of_a_layer_are_its_own(session: Session, tiny_atlas: Path) -> None:
    found = {
        row.channel: row.similarity for row in similar(session, PLAIN_UNIT, SimilarQuestion(by="weights", k=100)).rows
    }
    weights = session.encoder.incoming_weights("conv")
    assert weights.shape == (kin.UNITS, 27)
    plain = weights[7] @ weights[PLAIN] / np.linalg.norm(weights[7]) / np.linalg.norm(weights[PLAIN])
    assert found[7] == pytest.approx(float(plain))
    with pytest.raises(UsageError, match="reads 27 weights and one of head 40"):
        similar(session, PLAIN_UNIT, SimilarQuestion(by="weights", among="head"))
    with pytest.raises(UsageError, match=r"no incoming weights of its own.*_blocks.5._depthwise_conv"):
        similar(Session(tiny_atlas), UnitId("_blocks.5", 3), SimilarQuestion(by="weights"))


def test_the_command_computes_what_is_missing_and_the_server_shows_it(
    root: Path, client: TestClient, session: Session, notebook: OpenedAtlas
) -> None:
    printed = invoke("similar", root, "head:3", "--json", "--progress", "none", "--workers", 1)
    assert printed.exit_code == 0, printed.output
    page = SimilarPage.model_validate(client.get(f"{BASE}/layers/head/units/3/similar").json())
    assert (
        page
        == SimilarPage.model_validate(json.loads(printed.stdout))
        == similar(session, UnitId("head", 3), SimilarQuestion())
    )
    assert "over 120 images" in page.note
    content = client.get(f"{BASE}/layers/head/units/3/similar.parquet").content
    assert pq.read_table(io.BytesIO(content)).equals(notebook.similar("head:3"))


def test_bands_hold_every_image_once_and_descend(session: Session, client: TestClient) -> None:
    query = BandsQuestion(bands=7, k=100, order="desc", duplicates="expand")
    page = bands(session.atlas, PLAIN_UNIT, query)
    assert [row.rank for row in page.rows] == list(range(120))
    assert {row.band for row in page.rows} == set(range(1, 8))
    for row in page.rows:
        assert row.low - 1 / 120 <= 1 - row.rank / 120 <= row.high + 1 / 120
    found = BandPage.model_validate(client.get(f"{BASE}/layers/conv/units/{PLAIN}/bands?bands=4&k=2").json())
    assert [row.band for row in found.rows] == [1, 1, 2, 2, 3, 3, 4, 4]
    assert bands(session.atlas, UnitId("conv", ZEROED), query).rows == []
    with pytest.raises(UsageError, match="bands: should be greater than or equal to 1"):
        BandsQuestion(bands=0)
    with pytest.raises(UsageError, match="there is no parameter 'quantile' here"):
        BandsQuestion(quantile=(0, 0.5))


def test_ascending_order_begins_at_the_lowest_peak(session: Session) -> None:
    rows = patches(session.atlas, PLAIN_UNIT, TopQuestion(k=1000, order="asc")).rows
    lowest = session.atlas.unit(PLAIN_UNIT).minimum
    assert rows[0].activation == lowest
    assert [row.activation for row in rows] == sorted(row.activation for row in rows)
    assert patches(session.atlas, UnitId("conv", ZEROED), TopQuestion(order="asc")).rows == []


def test_vectors_of_two_kinds_are_two_facets_and_those_of_one_are_one() -> None:
    chance = np.random.default_rng(0)
    kinds = np.eye(2, 40, dtype=np.float32)[[0, 1, 1, 0, 1, 1, 0, 1, 1, 1, 0, 1]]
    noisy = kinds + chance.normal(0, 0.05, kinds.shape).astype(np.float32)
    found = group(noisy / np.linalg.norm(noisy, axis=1, keepdims=True))
    assert found.facets.tolist() == [1, 0, 0, 1, 0, 0, 1, 0, 0, 0, 1, 0]
    assert found.silhouette is not None and found.silhouette > 0.5
    alike = chance.normal(0, 1, (30, 40)).astype(np.float32)
    one = group(alike / np.linalg.norm(alike, axis=1, keepdims=True))
    assert set(one.facets.tolist()) == {0}
    assert one.silhouette is not None
    assert group(alike[:5]).silhouette is None


def test_facets_hold_every_exemplar_once_the_largest_first(session: Session, client: TestClient) -> None:
    page = facets(session, PLAIN_UNIT, FacetsQuestion())
    exemplars = patches(session.atlas, PLAIN_UNIT, TopQuestion(k=64)).rows
    assert sorted(row.rank for row in page.rows) == [row.rank for row in exemplars]
    sizes = np.bincount([row.facet for row in page.rows])[1:]
    assert len(sizes) == page.facets
    assert sorted(sizes, reverse=True) == sizes.tolist()
    assert [row.share for row in page.rows] == [sizes[row.facet - 1] / 64 for row in page.rows]
    assert FacetPage.model_validate(client.get(f"{BASE}/layers/conv/units/{PLAIN}/facets").json()) == page
    assert facets(session, UnitId("conv", ZEROED), FacetsQuestion()).rows == []


def test_local_maxima_are_those_of_the_plain_formula() -> None:
    grid = np.random.default_rng(0).integers(0, 5, (9, 11)).astype(float)
    plain = []
    for row, col in np.ndindex(*grid.shape):
        near = [
            (grid[r, c], (r, c))
            for r in range(max(0, row - 1), min(9, row + 2))
            for c in range(max(0, col - 1), min(11, col + 2))
        ]
        if grid[row, col] > 0 and max(near, key=lambda one: (one[0], [-side for side in one[1]]))[1] == (row, col):
            plain.append((row, col))
    assert local_maxima(grid) == sorted(plain, key=lambda place: -grid[place])
    assert local_maxima(np.zeros((3, 3))) == []
    assert local_maxima(np.array([[1.0, np.nan, 0.0, 2.0]])) == [(0, 3), (0, 0)]
    assert local_maxima(np.full((2, 2), np.nan)) == []


def test_several_peaks_of_an_image_begin_with_the_stored_one(session: Session, client: TestClient) -> None:
    stored = patches(session.atlas, PLAIN_UNIT, TopQuestion(k=3)).rows
    page = top(session, PLAIN_UNIT, TopQuestion(k=3, per_image=4))
    assert [next(row for row in page.rows if row.rank == one.rank) for one in stored] == stored
    for one in stored:
        own = [row for row in page.rows if row.rank == one.rank]
        assert 1 < len(own) <= 4
        assert len({(row.row, row.col) for row in own}) == len(own)
        values = [row.activation for row in own]
        assert values == sorted(values, reverse=True)
        grid = session.activation_map(session.find(one.image_id), PLAIN_UNIT).values
        assert values == pytest.approx([grid[row.row][row.col] for row in own], abs=1e-5)
        assert own[1].box != own[0].box
        assert own[1].percentile <= own[0].percentile
    assert page.note is not None and "computed now" in page.note
    assert client.get(f"{BASE}/layers/conv/units/{PLAIN}/patches?k=3&per_image=4").json()["rows"] == [
        {**vars(row), **{name: list(getattr(row, name)) for name in ("box", "effective_box", "padding")}}
        for row in page.rows
    ]


def test_a_comparison_is_stored_listed_and_read_page_by_page(
    root: Path, client: TestClient, notebook: OpenedAtlas, tmp_path: Path
) -> None:
    assert client.get(f"{BASE}/comparisons").json() == {"rows": [], "next": None}
    other = root.with_name("permuted")
    words = ["compare", root, other, "--layer", "conv", "--workers", 1, "--progress", "none"]
    printed = invoke(*words, "--json", "--out", tmp_path / "found.parquet")
    assert printed.exit_code == 0, printed.output
    document = json.loads(printed.stdout)
    (row,) = client.get(f"{BASE}/comparisons").json()["rows"]
    assert (row["id"], row["atlas_b"], row["shared_images"], row["units"]) == (document["id"], "permuted", 120, 40)
    pages = [client.get(f"{BASE}/comparisons/{row['id']}?k=30").json()]
    pages.append(client.get(f"{BASE}/comparisons/{row['id']}?k=30&cursor={pages[0]['next']}").json())
    assert pages[0]["rows"] + pages[1]["rows"] == document["rows"]
    assert pages[1]["next"] is None
    assert document["a"]["model"] == "small_network.py:planted"
    table = pq.read_table(tmp_path / "found.parquet")
    assert table.equals(notebook.comparison(row["id"]))
    assert table.equals(notebook.compare(str(other), layer="conv"))
    assert client.get(f"{BASE}/comparisons/nothing").status_code == 404
    assert invoke(*words, "--out", tmp_path / "found.txt").exception is not None


def test_removed_images_are_no_exemplars(root: Path, tmp_path: Path) -> None:
    copy = Path(copytree(root, tmp_path / "copy"))
    gone = patches(Session(copy).atlas, PLAIN_UNIT, TopQuestion(k=12)).rows
    remove(copy, [row.image_id for row in gone])
    left = Session(copy)
    own = first_images(left, PLAIN_UNIT, most=10)
    assert not own & {row.image_id for row in gone}
    for row in similar(left, PLAIN_UNIT, SimilarQuestion(by="exemplars", among="head")).rows:
        other = first_images(left, UnitId("head", row.channel), most=10)
        assert row.similarity == pytest.approx(len(own & other) / len(own | other))


@pytest.mark.parametrize(
    ("words", "columns"),
    [
        (("labels", "ROOT", "conv:0", "--ranks", 20), "label,count,share,lift,lift_low,lift_high"),
        (("labels", "ROOT", "conv:0", "--all"), "label,images,mean,auc,auc_low,auc_high"),
        (("units", "ROOT", "--label", "red"), "layer,channel,status,label,ranks,count,share,lift,lift_low,lift_high"),
        (("facets", "ROOT", "conv:2"), "rank,image_id"),
        (("top", "ROOT", "conv:2", "--bands", 3, "-k", 2), "rank,image_id"),
        (("top", "ROOT", "conv:2", "--per-image", 2, "--trust-code"), "rank,image_id"),
        (("similar", "ROOT", "conv:2", "--by", "exemplars"), "rank,layer,channel,similarity,status,top_label"),
    ],
)
def test_commands_print_their_rows(words: tuple[object, ...], columns: str, root: Path) -> None:
    given = [root if word == "ROOT" else word for word in words]
    printed = invoke(*given, "--format", "csv")
    assert printed.exit_code == 0, printed.output
    assert printed.stdout.replace('"', "").startswith(columns)
    assert len(printed.stdout.splitlines()) > 1
    assert json.loads(invoke(*given, "--json").stdout)["rows"]
