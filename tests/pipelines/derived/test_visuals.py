"""Stored pictures of units: named by what they are of, complete or not there, outliving versions."""

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from tests.pictures import recorded_corpora
from tests.services.conftest import ORIGIN
from unitscope_pipelines.derived.visuals import (
    NewPicture,
    faulty_visuals,
    find_visual,
    list_visuals,
    read_picture,
    read_visual,
    write_visual,
)
from unitscope_pipelines.indexing.sealing.versions import collect
from unitscope_pipelines.indexing.verification.verify import verify
from unitscope_pipelines.storage.stores import store_of
from unitscope_schemas import layout
from unitscope_schemas.answers.visuals import VisualKey
from unitscope_schemas.errors import AtlasError, NotFoundError
from unitscope_schemas.units import UnitId
from unitscope_services.atlas.atlas import Atlas
from unitscope_services.queries.visuals import visualisations
from unitscope_services.web.app import Settings, create_app
from unitscope_services.web.assets import figure

UNIT = UnitId("_blocks.5", 3)
KEY = VisualKey(atlas_key="a", kind="optimised", layer=UNIT.layer, channel=UNIT.channel, method="m", settings={"lr": 1})


def noise(seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8))


@pytest.fixture
def stored(tiny_atlas: Path) -> Iterator[Path]:
    """The tiny atlas with one stored picture, which is gone afterwards."""
    visual = write_visual(store_of(tiny_atlas), KEY, NewPicture(noise(), activation=1e9))
    yield tiny_atlas
    for path in (visual.picture.path, layout.visual(*UNIT, KEY.id)):
        (tiny_atlas / path).unlink(missing_ok=True)


def test_a_picture_comes_back_as_it_was_stored(tmp_path: Path) -> None:
    assert find_visual(store_of(tmp_path), KEY) is None
    made = write_visual(store_of(tmp_path), KEY, NewPicture(noise(), activation=2.5))
    assert find_visual(store_of(tmp_path), KEY) == read_visual(store_of(tmp_path), UNIT, KEY.id) == made
    pixels = np.asarray(Image.open(BytesIO(read_picture(store_of(tmp_path), made))))
    assert np.array_equal(pixels, np.asarray(noise()))
    assert list_visuals(store_of(tmp_path), UNIT) == [made]
    assert list_visuals(store_of(tmp_path), UnitId("_blocks.5", 4)) == []


def test_other_figures_give_another_picture() -> None:
    others = [
        KEY.model_copy(update=update)
        for update in ({"settings": {"lr": 2}}, {"seed": 1}, {"number": 1}, {"atlas_key": "b"}, {"channel": 4})
    ]
    assert len({KEY.id, *(other.id for other in others)}) == len(others) + 1


def test_a_picture_without_its_document_is_not_there(tmp_path: Path) -> None:
    write_visual(store_of(tmp_path), KEY, NewPicture(noise()))
    (tmp_path / layout.visual(*UNIT, KEY.id)).unlink()
    assert list_visuals(store_of(tmp_path), UNIT) == []
    with pytest.raises(NotFoundError, match="list its visualisations"):
        read_visual(store_of(tmp_path), UNIT, KEY.id)
    with pytest.raises(NotFoundError):
        read_visual(store_of(tmp_path), UNIT, "../../../manifest")


def test_a_changed_picture_is_refused_and_found_by_verify(stored: Path) -> None:
    assert faulty_visuals(store_of(stored)) == {}
    visual = read_visual(store_of(stored), UNIT, KEY.id)
    noise(1).save(stored / visual.picture.path, "PNG")
    with pytest.raises(AtlasError, match="not the one that was stored"):
        read_picture(store_of(stored), visual)
    assert [fault.where for fault in verify(stored, sample=1, seed=0).faults] == [layout.visual(*UNIT, KEY.id)]


def test_pictures_stay_when_earlier_versions_go(stored: Path) -> None:
    collect(stored, keep=1)
    assert [visual.key for visual in list_visuals(store_of(stored), UNIT)] == [KEY]


def test_a_picture_is_judged_against_every_peak_of_the_corpus(tiny_atlas: Path) -> None:
    atlas = Atlas(tiny_atlas)
    peaks = atlas.ranked(UNIT).activations()
    for activation in (float(peaks[0]) + 1, float(peaks[0]), float(peaks[7]), float(peaks[-1]) - 1):
        write_visual(store_of(tiny_atlas), KEY, NewPicture(noise(), activation=activation))
        (row,) = visualisations(atlas, UNIT).rows
        assert row.percentile == pytest.approx(np.mean(peaks <= np.float32(activation)))
        assert row.corpus_maximum == pytest.approx(float(peaks[0]))
    (tiny_atlas / layout.visual(*UNIT, KEY.id)).unlink()


@pytest.mark.parametrize("objective", ["-unit", "-channel"])
def test_a_picture_made_to_be_low_is_judged_beside_the_corpus_minimum(stored: Path, objective: str) -> None:
    """In rows of Python, command line and API, and on the unit's page."""
    atlas, key = Atlas(stored), KEY.model_copy(update={"objective": objective, "kind": "optimised", "method": "low"})
    lowest = float(atlas.ranked(UNIT).activations()[-1])
    write_visual(store_of(stored), key, NewPicture(noise(), activation=lowest - 1))
    (row,) = [row for row in visualisations(atlas, UNIT).rows if row.id == key.id]
    assert (row.corpus_maximum, row.percentile) == (None, None)
    assert row.corpus_minimum == pytest.approx(lowest)
    assert "the corpus minimum is the lowest of the images' peaks" in row.note
    with TestClient(create_app(Settings(atlases=(stored,), corpora=recorded_corpora(stored))), ORIGIN) as client:
        page = client.get(f"/a/tiny/layers/{UNIT.layer}/units/{UNIT.channel}").text
    assert f"corpus minimum {figure(lowest)}" in page


def test_the_server_lists_pictures_and_serves_their_bytes_for_good(stored: Path) -> None:
    with TestClient(create_app(Settings(atlases=(stored,), corpora=recorded_corpora(stored))), ORIGIN) as client:
        listed = client.get(f"/api/v1/atlases/tiny/layers/{UNIT.layer}/units/{UNIT.channel}/visualisations").json()
        row = next(row for row in listed["rows"] if row["id"] == KEY.id)
        answer = client.get(row["url"])
        assert answer.content == (stored / row["path"]).read_bytes()
        assert "immutable" in answer.headers["cache-control"]
        again = client.get(row["url"], headers={"If-None-Match": answer.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        assert client.get(row["url"].replace(KEY.id, "0" * 32)).status_code == 404
