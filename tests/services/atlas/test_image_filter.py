"""Conditions on metadata: one filter for patches in every order, neighbours and images."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tests.corpora import pictures_of, write_tars
from unitscope_pipelines.indexing.config import IndexConfig
from unitscope_pipelines.indexing.index import index
from unitscope_pipelines.storage.segments.lookup import metadata_columns
from unitscope_schemas.answers.served import ImageRow
from unitscope_schemas.errors import UsageError
from unitscope_schemas.formats import rows_as
from unitscope_schemas.geometry import Box
from unitscope_schemas.questions import ExplainQuestion, NeighborsQuestion, TopQuestion
from unitscope_schemas.units import UnitId
from unitscope_services.atlas.image_filter import ImageFilter
from unitscope_services.queries.exemplars import patches
from unitscope_services.queries.session import Session

UNIT = UnitId("_blocks.0", 3)


@pytest.fixture(scope="module")
def dated(tiny_corpus: Path, tmp_path_factory: pytest.TempPathFactory, ray_session: None) -> Session:
    """An atlas of 42 pictures from the years 2000 to 2041."""
    folder = tmp_path_factory.mktemp("dated")
    corpus = write_tars(folder / "corpus", pictures_of(tiny_corpus))
    atlas = folder / "atlas"
    config = IndexConfig(corpus=str(corpus), atlas=str(atlas), layers=(UNIT.layer,), batch_size=8, workers=1)
    index(config, lambda _: None)
    return Session(atlas)


def years(session: Session, ids: list[str]) -> list[int]:
    names = [Path(session.atlas.find_image(image_id).path) for image_id in ids]
    return [2000 + 21 * (name.parent.name == "shard-001.tar") + int(name.stem) for name in names]


@pytest.mark.parametrize("duplicates", ["collapse", "expand"])
@pytest.mark.parametrize("quantile", [None, (0.1, 0.8)])
@pytest.mark.parametrize("order", ["desc", "asc", "random"])
@pytest.mark.parametrize(("first", "end"), [(2010, 2030), (2000, 2004), (2037, 2041), (2041, 2041)])
def test_patches_pass_the_same_filter_in_every_order(
    dated: Session, first: int, end: int, order: str, quantile: tuple[float, float] | None, duplicates: str
) -> None:
    everything = {"k": 100, "duplicates": "expand", "order": order, "quantile": quantile}
    plain = patches(dated.atlas, UNIT, TopQuestion(**everything)).rows
    session = {**everything, "duplicates": duplicates, "where": (f"year>={first}", f"year<{end}")}
    found = patches(dated.atlas, UNIT, TopQuestion(**session)).rows
    wanted = [row for row, year in zip(plain, years(dated, [row.image_id for row in plain]), strict=True)
              if first <= year < end]  # fmt: skip
    assert len(wanted) >= min(2, end - first)
    if duplicates == "collapse":
        lead = min if order == "desc" else max if order == "asc" else None
        groups = {row.duplicate_group for row in wanted if row.duplicate_group}
        if lead is not None:
            best = {group: lead(row.rank for row in wanted if row.duplicate_group == group) for group in groups}
            wanted = [row for row in wanted if best.get(row.duplicate_group, row.rank) == row.rank]
        else:
            assert len(found) == sum(row.duplicate_group is None for row in wanted) + len(groups)
            return
    assert found == wanted


def test_a_random_order_goes_on_where_its_page_ended(dated: Session) -> None:
    whole = patches(dated.atlas, UNIT, TopQuestion(k=12, order="random", seed=5, where=("year>2005",)))
    first = patches(dated.atlas, UNIT, TopQuestion(k=5, order="random", seed=5, where=("year>2005",)))
    second = patches(
        dated.atlas, UNIT, TopQuestion(k=7, order="random", seed=5, where=("year>2005",), cursor=first.next)
    )
    assert [row.rank for row in [*first.rows, *second.rows]] == [row.rank for row in whole.rows]
    other = patches(dated.atlas, UNIT, TopQuestion(k=12, order="random", seed=6, where=("year>2005",)))
    assert other.rows != whole.rows


def test_neighbours_that_pass_are_the_nearest_of_those_and_the_answer_says_how_they_were_found(dated: Session) -> None:
    subject = dated.find(dated.atlas.catalogue.rows([0])[0].image_id)
    plain = dated.neighbors(subject, NeighborsQuestion(k=42))
    found = dated.neighbors(subject, NeighborsQuestion(k=5, where=("year<2012",)))
    old = [row for row, year in zip(plain.rows, years(dated, [r.image_id for r in plain.rows]), strict=True)
           if year < 2012]  # fmt: skip
    assert [(row.image_id, row.box) for row in found.rows] == [(row.image_id, row.box) for row in old[:5]]
    assert found.search.exact
    assert found.search.index == f"exact scan of the {len(old)} images that pass"
    assert isinstance(found.rows[0].box, Box)


@pytest.mark.parametrize("condition", ["year<2003", "year>=2010", "year<2041"])
def test_an_image_is_explained_among_those_that_pass(dated: Session, condition: str) -> None:
    subject = dated.find(dated.atlas.images([5])[5].image_id)
    page = dated.explain(subject, ExplainQuestion(k=16, where=(condition,)))
    passing = np.flatnonzero(dated.atlas.catalogue.chosen(ImageFilter(where=(condition,))))
    images = [dated.atlas.images([number])[number] for number in passing.tolist()]
    peaks = np.array([dated.atlas.activations(UNIT.layer, image) for image in images])
    own = dated.atlas.activations(UNIT.layer, dated.atlas.images([5])[5])
    wanted = (peaks <= own).mean(0)
    assert page.among == len(passing)
    assert len(page.rows) == 16
    assert [row.percentile for row in page.rows] == pytest.approx([wanted[row.channel] for row in page.rows])
    assert [row.percentile for row in page.rows] == sorted((row.percentile for row in page.rows), reverse=True)
    first = dated.explain(subject, ExplainQuestion(k=3, where=(condition,))).rows
    assert first == page.rows[:3]


def test_among_no_image_at_all_nothing_is_unusual(dated: Session) -> None:
    page = dated.explain(dated.find("shard-000.tar/0000.jpg"), ExplainQuestion(where=("year>3000",)))
    assert (page.among, page.rows) == (0, [])


def test_images_are_listed_by_label_and_metadata(dated: Session) -> None:
    rows = dated.atlas.image_list(ImageFilter("stripes", ("year>=2000",)), None, 100)
    assert {row.label for row in rows} == {"stripes"}
    assert len(rows) == 20
    shown = [dated.atlas.image_row(row) for row in rows]
    assert [row.metadata["year"] for row in shown] == years(dated, [row.image_id for row in shown])
    assert b'""year""' in rows_as(shown, ImageRow, "csv")


def test_an_unknown_column_is_refused_with_those_there_are(dated: Session) -> None:
    with pytest.raises(UsageError, match=r"no metadata column 'yaer'; there are year"):
        patches(dated.atlas, UNIT, TopQuestion(where=("yaer=2010",)))


def test_metadata_columns_have_the_narrowest_type_that_holds_all_values() -> None:
    documents = ['{"a":1,"b":1,"c":true,"d":"x"}', None, '{"a":2,"b":0.5,"d":7}']
    found = metadata_columns([pa.array(documents)])
    assert {name: str(column.type) for name, column in found.items()} == {
        "a": "int64", "b": "double", "c": "bool", "d": "large_binary",
    }  # fmt: skip
    assert found["d"].to_pylist() == [b'"x"', None, b"7"]
