"""Entry 22: a picture that is gone keeps none of the others away; a blank with the reason stands in, and it is said."""

import io
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

import unitscope
from tests.services.conftest import ORIGIN
from unitscope_schemas.errors import UsageError
from unitscope_schemas.questions import TopQuestion
from unitscope_schemas.units import UnitId
from unitscope_services.atlas.atlas import Atlas
from unitscope_services.exports.bundle import write_bundle
from unitscope_services.figures.blanks import blank, missing_pictures, patch_tile
from unitscope_services.figures.sheet import unit_sheet
from unitscope_services.queries.exemplars import patches
from unitscope_services.web.app import Settings, create_app

UNIT = UnitId("_blocks.5", 3)


@pytest.fixture(scope="module")
def moved(tiny_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The corpus at another place, where it is still whole."""
    folder = tmp_path_factory.mktemp("moved") / "corpus"
    shutil.copytree(tiny_corpus, folder)
    return folder


@pytest.fixture
def torn(moved: Path, tiny_atlas: Path, tmp_path: Path) -> Iterator[tuple[Atlas, str, str]]:
    """The atlas over a corpus whose first exemplar is gone and whose second was edited; both paths."""
    folder = tmp_path / "torn"
    shutil.copytree(moved, folder)
    atlas = Atlas(tiny_atlas, corpus=str(folder))
    gone, edited = (row.path for row in patches(atlas, UNIT, TopQuestion(k=2)).rows)
    for name in (gone, *atlas.image_by_path(gone).other_paths):
        (folder / name).unlink()
    for name in (edited, *atlas.image_by_path(edited).other_paths):
        (folder / name).write_bytes(b"another picture")
    yield atlas, gone, edited
    atlas.close()


def test_a_missing_picture_is_a_blank_of_the_same_size_and_the_others_are_there(
    torn: tuple[Atlas, str, str], tiny_atlas: Path
) -> None:
    atlas, gone, edited = torn
    whole = Atlas(tiny_atlas)
    rows = patches(whole, UNIT, TopQuestion(k=9)).rows
    for number, row in enumerate(rows):
        shown, own = patch_tile(atlas, UNIT, row), patch_tile(whole, UNIT, row)
        assert shown.picture.size == own.picture.size
        assert bool(shown.missing) == (number < 2)
        assert (np.asarray(shown.picture) == np.asarray(own.picture)).all() == (number >= 2)
    missing = missing_pictures(atlas, rows)
    assert [text.partition(":")[0] for text in missing] == [gone, edited]
    assert "is gone or was edited" in missing[0]
    sheets = [np.asarray(unit_sheet(each, patches(each, UNIT, TopQuestion(k=9)))) for each in (atlas, whole)]
    assert sheets[0].shape == sheets[1].shape
    assert 0.05 < (sheets[0] != sheets[1]).mean() < 0.3, "two of nine tiles differ"


def test_a_bundle_is_written_with_blanks_and_names_them(torn: tuple[Atlas, str, str], tmp_path: Path) -> None:
    atlas, gone, edited = torn
    written = write_bundle(atlas, [UNIT], tmp_path / "pages", 9)
    assert (written.exemplars, len(written.missing)) == (9, 2)
    assert [text.partition(":")[0] for text in written.missing] == [gone, edited]


@pytest.mark.parametrize("named", [True, False])
def test_a_served_atlas_takes_the_folder_its_pictures_are_in_now(
    named: bool, torn: tuple[Atlas, str, str], tiny_atlas: Path, moved: Path
) -> None:
    row = patches(torn[0], UNIT, TopQuestion(k=1)).rows[0]
    address = f"/api/v1/atlases/tiny/patches/{row.image_id}.png?unit={UNIT}"
    roots = {True: f"tiny={moved}", False: str(moved)}
    with TestClient(create_app(Settings(atlases=(tiny_atlas,), corpora=(roots[named],))), ORIGIN) as client:
        assert client.get(address).status_code == 200
    with TestClient(create_app(Settings(atlases=(tiny_atlas,), corpora=(torn[0].corpus_root,))), ORIGIN) as client:
        problem = client.get(address)
        assert (problem.status_code, problem.headers["content-type"]) == (404, "application/problem+json")
        shown = client.get(address, headers={"Sec-Fetch-Dest": "image"})
        assert (shown.status_code, shown.headers["content-type"]) == (404, "image/png")
        assert shown.headers["cache-control"] == "no-store"
        assert Image.open(io.BytesIO(shown.content)).size == (224, 224)
        sheet = client.get(f"/api/v1/atlases/tiny/sprites/{UNIT.layer}/patch/0.png")
        assert sheet.status_code in (200, 404)


def test_a_folder_that_is_none_is_refused(tiny_atlas: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is no folder"):
        unitscope.open_atlas(str(tiny_atlas), corpus=str(tmp_path / "nowhere"))


@pytest.mark.parametrize("size", [(1, 1), (8, 300), (64, 64), (224, 224)])
def test_a_blank_of_any_size_is_drawn(size: tuple[int, int]) -> None:
    shown = blank(size, "picture 'a/very/long/name/that/is/never/ending.jpg' is gone; " * 4)
    assert shown.size == size
    assert blank((224, 224), "one reason").tobytes() != blank((224, 224), "another").tobytes()
