"""What a notebook shows: units, patches and atlases with their pictures, opened here or asked of a server."""

import base64
import io
import re
import shutil
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import pytest
from PIL import Image

import unitscope
from tests.unitscope.test_client import address, client, notebook  # noqa: F401
from unitscope.client import Client
from unitscope.opened_atlas import OpenedAtlas
from unitscope.pictured import Thumbnail, as_page
from unitscope_schemas.errors import NotFoundError, UsageError

UNIT = "_blocks.5:3"


@pytest.fixture(params=["notebook", "client"])
def atlas(request: pytest.FixtureRequest) -> OpenedAtlas | Client:
    found: OpenedAtlas | Client = request.getfixturevalue(request.param)
    return found


def pictures_in(page: str) -> list[Image.Image]:
    found = re.findall(r'src="data:image/(?:jpeg|png);base64,([^"]+)"', page)
    return [Image.open(io.BytesIO(base64.b64decode(data))) for data in found]


def test_a_patch_is_the_same_wherever_it_is_asked_for(notebook: OpenedAtlas, client: Client) -> None:  # noqa: F811
    first = notebook.top(UNIT, k=1).to_pylist()[0]
    whole = notebook.patch(UNIT, image=first["image_id"])
    box = [first[f"box_{side}"] for side in ("top", "left", "bottom", "right")]
    effective = [first[f"effective_box_{side}"] for side in ("top", "left", "bottom", "right")]
    sizes = [(right - left, bottom - top) for top, left, bottom, right in (box, effective)]
    assert Image.open(io.BytesIO(whole)).size in sizes
    assert client.patch(UNIT, image=first["image_id"]) == whole
    assert client.patch(UNIT, image=first["path"], size=64) == notebook.patch(UNIT, image=first["path"], size=64)


def test_a_unit_shows_its_patches_in_the_order_of_top(atlas: OpenedAtlas | Client) -> None:
    unit = atlas.unit(UNIT)
    patches = unit.patches(k=4, label="blobs")
    assert patches.table.equals(atlas.top(UNIT, k=4, label="blobs"))
    assert [tile.picture for tile in patches.tiles] == [
        atlas.patch(UNIT, image=row["image_id"], size=160) for row in patches.table.to_pylist()
    ]
    page = patches._repr_html_()
    assert len(pictures_in(page)) == 4
    assert f"{patches.table['activation'][0].as_py():.4g}" in page
    assert len(patches) == 4 and repr(patches) == f"<{UNIT}: patches: 4 rows>"


def test_a_unit_shows_labels_and_nine_patches(atlas: OpenedAtlas | Client) -> None:
    page = atlas.unit(UNIT)._repr_html_()
    assert page.startswith(f"<div><strong>{UNIT}</strong>")
    standing_out = [row for row in atlas.labels(UNIT).to_pylist() if row["lift_low"] > 1]
    words = [f"{row['label']}: {row['count']} of its first" for row in standing_out[:3]]
    assert all(line in page for line in words or ["no label stands out among its first"])
    assert len(pictures_in(page)) >= 9
    assert repr(atlas.unit(UNIT)).startswith(f"<unit {UNIT} of <atlas ")


def test_similar_units_have_a_patch_each(atlas: OpenedAtlas | Client) -> None:
    similar = atlas.unit(UNIT).similar(k=3)
    assert similar.table.equals(atlas.similar(UNIT, by="exemplars", k=3))
    assert len(pictures_in(similar._repr_html_())) == 3
    assert similar.tiles[0].caption.startswith("_blocks.5:")


def test_an_atlas_shows_its_layers_and_some_units(atlas: OpenedAtlas | Client) -> None:
    page = atlas._repr_html_()
    for row in atlas.layers().to_pylist():
        assert f"{row['name']} ({row['units']} units)" in page
    assert len(pictures_in(page)) == 6


def test_pictures_side_by_side_are_one_picture(notebook: OpenedAtlas) -> None:  # noqa: F811
    patches = notebook.unit(UNIT).patches(k=5)
    sheet = patches.picture(columns=3, side_px=50)
    assert sheet.size == (3 * 56 - 6, 2 * 56 - 6)
    assert np.asarray(sheet)[56:, 112:].min() == 255, "the sixth place is empty"
    assert np.asarray(sheet)[:50, :50].min() < 255


def test_a_picture_that_is_gone_is_told_and_the_others_show(
    tiny_atlas: Path, tiny_corpus: Path, tmp_path: Path
) -> None:
    corpus = shutil.copytree(tiny_corpus, tmp_path / "corpus")
    atlas = unitscope.open_atlas(str(tiny_atlas), corpus=str(corpus))
    first = atlas.top(UNIT, k=3).to_pylist()[0]
    (corpus / first["path"]).unlink()
    with pytest.raises(NotFoundError):
        atlas.patch(UNIT, image=first["image_id"])
    patches = atlas.unit(UNIT).patches(k=3)
    assert len(pictures_in(patches._repr_html_())) == 2
    assert first["path"] in patches.tiles[0].caption


def test_what_was_made_of_a_unit_shows_beside_its_patches(tiny_atlas: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(tiny_atlas, tmp_path / "atlas")
    corpus = unitscope.open_atlas(str(tiny_atlas)).manifest.corpus.root
    atlas = unitscope.open_atlas(str(copy), corpus=corpus)
    before = len(atlas.unit("_blocks.0:3").optimised)
    atlas.optimise("_blocks.0:3", steps=2, seed=41)
    made = atlas.unit("_blocks.0:3").optimised
    assert len(made) == before + 1
    assert len(pictures_in(made._repr_html_())) == before + 1


@pytest.mark.parametrize("size", [0, 15, 4096])
def test_sizes_that_no_server_sends_are_refused(atlas: OpenedAtlas | Client, size: int) -> None:
    with pytest.raises(UsageError, match=f"size {size} is not between 16 and 2048"):
        atlas.patch(UNIT, image="blobs/001.jpg", size=size)


def test_a_picture_from_outside_has_no_stored_peak(notebook: OpenedAtlas, tmp_path: Path) -> None:  # noqa: F811
    Image.new("RGB", (50, 40)).save(tmp_path / "mine.png")
    with pytest.raises(UsageError, match=r"is no image of the corpus"):
        notebook.patch(UNIT, image=str(tmp_path / "mine.png"))


def test_words_of_a_corpus_are_no_markup() -> None:
    page = as_page("<b>", ["<script>"], [Thumbnail(None, '"><img src=x>', "<i>")])
    assert "<script>" not in page and "<img" not in page and "<b>" not in page


def test_a_unit_is_framed_from_its_server_alone(notebook: OpenedAtlas, client: Client) -> None:  # noqa: F811
    frame = client.unit(UNIT).embed(height_px=300)
    source = re.findall(r'src="([^"]+)"', str(frame))[0]
    with urlopen(source) as answer:
        page = answer.read().decode()
        assert "frame-ancestors *" in answer.headers["Content-Security-Policy"]
    assert UNIT in page
    assert frame._repr_html_() == str(frame)
    with pytest.raises(UsageError, match="serve it"):
        notebook.unit(UNIT).embed()
