"""What an atlas of first ranks answers is what the full atlas answers, or words for why it cannot."""

from collections.abc import Iterator
from pathlib import Path

import duckdb
import numpy as np
import pytest
from starlette.testclient import TestClient

from tests.conftest import TINY_LAYERS
from tests.pictures import recorded_corpora
from tests.services.conftest import ORIGIN, bearer
from unitscope_pipelines.derived.sql_catalog import write_catalog
from unitscope_pipelines.indexing.config import IndexConfig
from unitscope_pipelines.indexing.index import index
from unitscope_schemas.errors import NotFoundError, UsageError
from unitscope_schemas.questions import (
    BandsQuestion,
    ExplainQuestion,
    FacetsQuestion,
    HistogramQuestion,
    LabelsQuestion,
    SelectivityQuestion,
    SimilarQuestion,
    TopQuestion,
    UnitsQuestion,
)
from unitscope_schemas.units import UnitId
from unitscope_services.queries import labels
from unitscope_services.queries.exemplars import bands, patches
from unitscope_services.queries.facets import facets
from unitscope_services.queries.session import Session
from unitscope_services.queries.similar import similar
from unitscope_services.queries.units import histogram, peak_box, unit_page
from unitscope_services.web.app import Settings, create_app

KEEP = 15
UNIT = UnitId("_blocks.5", 3)
NOTE = "this atlas keeps the first 15 of each unit's 40 images"


HALVES, STORED = HistogramQuestion(bins=32), LabelsQuestion()


@pytest.fixture(scope="module")
def bounded(tiny_corpus: Path, tmp_path_factory: pytest.TempPathFactory, ray_session: None) -> Path:
    atlas = tmp_path_factory.mktemp("atlases") / "bounded"
    settings = {"layers": TINY_LAYERS, "batch_size": 8, "workers": 1, "keep": f"top:{KEEP}"}
    index(IndexConfig(corpus=str(tiny_corpus), atlas=str(atlas), **settings), lambda _: None)
    return atlas


@pytest.fixture(scope="module")
def kept(bounded: Path) -> Session:
    return Session(bounded)


@pytest.fixture(scope="module")
def pages(bounded: Path) -> Iterator[TestClient]:
    with TestClient(
        create_app(Settings(atlases=(bounded,), corpora=recorded_corpora(bounded))),
        ORIGIN,
        raise_server_exceptions=False,
    ) as client:
        yield client


@pytest.mark.parametrize("query", [{}, {"label": "blobs"}, {"duplicates": "expand"}, {"k": 3}])
def test_the_highest_patches_are_those_of_the_full_atlas(
    session: Session, kept: Session, query: dict[str, object]
) -> None:
    query = {"k": 1000, **query}
    page = patches(kept.atlas, UNIT, TopQuestion(**query))
    rows = [row for row in patches(session.atlas, UNIT, TopQuestion(**query)).rows if row.rank < KEEP]
    assert page.rows == rows
    assert page.kept == KEEP
    assert page.note == (None if query["k"] == 3 else NOTE)


def test_a_page_beyond_the_kept_ranks_ends_and_says_so(kept: Session) -> None:
    query = TopQuestion(k=10, duplicates="expand")
    first = patches(kept.atlas, UNIT, query)
    second = patches(kept.atlas, UNIT, query.model_copy(update={"cursor": first.next}))
    assert [len(first.rows), len(second.rows)] == [10, KEEP - 10]
    assert (first.note, second.note, second.next) == (None, NOTE, None)


@pytest.mark.parametrize("order", ["desc", "asc", "random"])
def test_a_band_within_the_kept_ranks_is_that_of_the_full_atlas(session: Session, kept: Session, order: str) -> None:
    query = TopQuestion(k=1000, quantile=(0.65, 0.9), order=order)
    page = patches(kept.atlas, UNIT, query)
    assert page.rows == patches(session.atlas, UNIT, query).rows
    assert page.rows
    assert page.note is None, "nothing is missing"


@pytest.mark.parametrize(
    "query", [{"quantile": (0.5, 0.6)}, {"quantile": (0.62, 1)}, {"order": "asc"}, {"order": "random"}]
)
def test_a_question_beyond_the_kept_ranks_is_refused_in_words(kept: Session, query: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=rf"{NOTE}: ask for the highest, or within the quantiles 0\.65\.\.1"):
        patches(kept.atlas, UNIT, TopQuestion(**query))


def test_what_an_image_excites_is_what_the_model_says_again(session: Session, kept: Session) -> None:
    for path in ("blobs/003.jpg", "stripes/004.jpg"):
        full = session.explain(session.find(path), ExplainQuestion(layer=UNIT.layer, k=1000))
        page = kept.explain(kept.find(path), ExplainQuestion(layer=UNIT.layer, k=1000))
        exact = {row.channel: row for row in full.rows}
        assert page.kept == KEEP
        assert {row.channel for row in page.rows} == exact.keys()
        for row in page.rows:
            truth = exact[row.channel]
            assert (row.activation, row.row, row.col, row.box) == (
                pytest.approx(truth.activation, abs=1e-4),
                *(truth.row, truth.col, truth.box),
            )
            assert row.percentile == pytest.approx(truth.percentile, abs=1.5 / 40), (
                "a rank beside: last bits of another forward"
            )


def test_how_many_peak_above_is_exact_among_the_kept_and_else_no_less_than_true(
    session: Session, kept: Session
) -> None:
    """Each peak of the unit itself, some in between and beyond both ends, beside counting."""
    for channel in range(0, 40, 7):
        unit = UnitId("_blocks.15", channel)
        peaks = session.atlas.ranked(unit).activations()
        values = np.sort(np.concatenate([peaks, (peaks[1:] + peaks[:-1]) / 2, [peaks[0] + 1, peaks[-1] - 1]]))
        true = np.array([(peaks > value).sum() for value in values])
        found = kept.atlas.ranked(unit).above(values.astype(np.float32))
        assert (found[true < KEEP] == true[true < KEEP]).all()
        assert (found >= true).all()
        assert (found <= 40).all()


def test_statistics_are_those_of_all_images(session: Session, kept: Session) -> None:
    assert histogram(kept.atlas, UNIT, HALVES) == histogram(session.atlas, UNIT, HALVES)
    assert (
        unit_page(kept.atlas, UNIT.layer, UnitsQuestion()).rows
        == unit_page(session.atlas, UNIT.layer, UnitsQuestion()).rows
    )
    assert labels.labels(kept.atlas, UNIT, STORED).rows == labels.labels(session.atlas, UNIT, STORED).rows
    first = labels.labels(kept.atlas, UNIT, LabelsQuestion(ranks=KEEP))
    assert first == labels.labels(session.atlas, UNIT, LabelsQuestion(ranks=KEEP))


def test_similar_units_and_facets_take_the_kept_ranks(session: Session, kept: Session) -> None:
    question, first = SimilarQuestion(by="exemplars"), FacetsQuestion(k=KEEP)
    assert similar(kept, UNIT, question).rows == similar(session, UNIT, question).rows
    assert facets(kept, UNIT, first).rows == facets(session, UNIT, first).rows


def test_what_takes_all_ranks_is_refused_in_words(kept: Session) -> None:
    questions = (
        lambda: histogram(kept.atlas, UNIT, HistogramQuestion(bins=48)),
        lambda: bands(kept.atlas, UNIT, BandsQuestion(bands=4)),
        lambda: labels.selectivity(kept.atlas, UNIT, SelectivityQuestion()),
        lambda: similar(kept, UNIT, SimilarQuestion()),
    )
    for question in questions:
        with pytest.raises(UsageError, match=rf"takes all ranks of a unit, but {NOTE}: index with --keep all"):
            question()
    with pytest.raises(UsageError, match=rf"that takes rank 15, but {NOTE}"):
        labels.labels(kept.atlas, UNIT, LabelsQuestion(ranks=KEEP + 1))
    with pytest.raises(UsageError, match=NOTE):
        labels.labels(kept.atlas, UNIT, LabelsQuestion(quantile=(0.1, 0.2)))


def test_a_patch_is_cut_where_a_kept_rank_says_and_nowhere_else(session: Session, kept: Session) -> None:
    rows = patches(session.atlas, UNIT, TopQuestion(k=1000, duplicates="expand")).rows
    first, last = (kept.atlas.find_image(row.image_id) for row in (rows[KEEP - 1], rows[KEEP]))
    assert peak_box(kept.atlas, UNIT, first) == peak_box(session.atlas, UNIT, first)
    with pytest.raises(NotFoundError, match=f"is not stored: {NOTE}"):
        peak_box(kept.atlas, UNIT, last)


def test_a_catalog_gives_the_same_percentiles(kept: Session, bounded: Path, tmp_path: Path) -> None:
    write_catalog([bounded], tmp_path / "catalog.duckdb")
    with duckdb.connect(str(tmp_path / "catalog.duckdb"), read_only=True) as catalog:
        found = catalog.execute("SELECT image_id, percentile FROM top_patches('_blocks.5', 3, 99)").fetchall()
    rows = patches(kept.atlas, UNIT, TopQuestion(k=99)).rows
    assert found == [(row.image_id, pytest.approx(row.percentile)) for row in rows]


def test_pages_and_the_api_say_what_is_kept(pages: TestClient, kept: Session) -> None:
    image = patches(kept.atlas, UNIT, TopQuestion(k=1)).rows[0].image_id
    for page in ("", "/layers/_blocks.5", "/layers/_blocks.5/units/3", f"/images/{image}"):
        assert pages.get(f"/a/bounded{page}").status_code == 200, page
    assert NOTE in pages.get("/a/bounded/layers/_blocks.5/units/3?label=blobs").text.replace("&#39;", "'")
    refused = pages.get("/a/bounded/layers/_blocks.5/units/3?order=asc")
    assert (refused.status_code, NOTE in refused.text.replace("&#39;", "'")) == (400, True)
    api = "/api/v1/atlases/bounded"
    assert pages.get(api).json()["kept"] == KEEP
    answer = pages.get(f"{api}/layers/_blocks.5/units/3/patches?k=1000").json()
    assert (answer["kept"], answer["note"]) == (KEEP, NOTE)
    assert pages.get(f"{api}/images/{image}/units").json()["kept"] == KEEP
    among = pages.get(f"{api}/images/{image}/units?label=blobs")
    assert (among.status_code, "take every peak" in among.json()["detail"]) == (400, True)
    problem = pages.get(f"{api}/layers/_blocks.5/units/3/patches?quantile=0.1..0.2")
    assert (problem.status_code, NOTE in problem.json()["detail"]) == (400, True)


def test_what_an_image_excites_takes_the_right_to_run_the_model(bounded: Path, kept: Session, key_file: Path) -> None:
    image = kept.atlas.find_image("blobs/003.jpg").image_id
    settings = Settings(atlases=(bounded,), corpora=recorded_corpora(bounded), key_file=key_file)
    with TestClient(create_app(settings), ORIGIN, raise_server_exceptions=False) as client:
        for path in (f"/api/v1/atlases/bounded/images/{image}/units", f"/a/bounded/images/{image}"):
            statuses = [client.get(path, headers=bearer(name)).status_code for name in ("reader", "worker")]
            assert statuses == [403, 200]
