"""Units whose behaviour is known come back with the right status, values and places."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests import planted
from tests.pictures import marked
from tests.tables import manifest_of
from unitscope_pipelines.indexing.config import IndexConfig
from unitscope_pipelines.indexing.index import index
from unitscope_schemas.questions import ExplainQuestion, TopQuestion
from unitscope_schemas.units import UnitId
from unitscope_services.atlas.atlas import Atlas
from unitscope_services.queries.exemplars import patches
from unitscope_services.queries.session import Session

MARK = (200, 300, 208, 308)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return planted.planted_weights(tmp_path_factory.mktemp("weights") / "planted.pt")


@pytest.fixture(scope="module")
def atlas(weights: Path, tmp_path_factory: pytest.TempPathFactory, ray_session: None) -> Atlas:
    folder = tmp_path_factory.mktemp("planted")
    corpus = planted.planted_corpus(folder / "corpus")
    run(corpus, folder / "atlas", weights, planted.LAYERS)
    return Atlas(folder / "atlas")


@pytest.fixture(scope="module")
def marks(weights: Path, tmp_path_factory: pytest.TempPathFactory, ray_session: None) -> Atlas:
    """One photograph with a small red mark, in every shape and encoding that moves or recolours pixels."""
    folder = tmp_path_factory.mktemp("marks")
    corpus = folder / "corpus"
    corpus.mkdir()
    landscape = marked(427, 640, MARK)
    landscape.save(corpus / "landscape.png")
    marked(640, 427, (300, 200, 308, 208)).save(corpus / "portrait.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    landscape.transpose(Image.Transpose.ROTATE_90).save(corpus / "rotated.jpg", exif=exif, quality=98, subsampling=0)
    landscape.convert("CMYK").save(corpus / "cmyk.jpg", quality=98)
    landscape.convert("P", palette=Image.Palette.ADAPTIVE).save(corpus / "palette.png")
    grey = np.full((427, 640), 60, np.uint8)
    grey[MARK[0] : MARK[2], MARK[1] : MARK[3]] = 255
    Image.fromarray(grey).save(corpus / "grey.png")
    run(corpus, folder / "atlas", weights, ("features.0",))
    return Atlas(folder / "atlas")


def run(corpus: Path, atlas: Path, weights: Path, layers: tuple[str, ...]) -> None:
    config = IndexConfig(
        corpus=str(corpus),
        atlas=str(atlas),
        model="torchvision:alexnet",
        weights=str(weights),
        layers=layers,
        batch_size=8,
        workers=1,
    )
    index(config, lambda _: None)


def unit(number: int) -> UnitId:
    return UnitId("features.0", number)


@pytest.mark.parametrize(
    ("number", "status"),
    [
        (planted.RED, "live"),
        (planted.ZEROED, "dead"),
        (planted.NEGATIVE, "negative-only"),
        (planted.CONSTANT, "dead"),
        (planted.OVERFLOWING, "non-finite"),
        (planted.PLAIN, "live"),
    ],
)
def test_planted_units_have_their_status(atlas: Atlas, number: int, status: str) -> None:
    assert atlas.unit(unit(number)).status == status


def test_a_dead_unit_has_no_patches_and_says_so(atlas: Atlas) -> None:
    page = patches(atlas, unit(planted.ZEROED), TopQuestion())
    assert page.rows == []
    assert page.note is not None and page.note.startswith("never active")
    constant = patches(atlas, unit(planted.CONSTANT), TopQuestion())
    assert constant.rows == []
    assert constant.note is not None and "2" in constant.note


def test_a_negative_unit_ranks_its_least_negative_images(atlas: Atlas) -> None:
    rows = patches(atlas, unit(planted.NEGATIVE), TopQuestion(k=21)).rows
    activations = [row.activation for row in rows]
    assert len(activations) == 21
    assert max(activations) < 0
    assert activations == sorted(activations, reverse=True)


def test_a_nonfinite_activation_is_named_and_never_ranked(atlas: Atlas) -> None:
    white = atlas.find_image("white.png").image_id
    assert atlas.unit(unit(planted.OVERFLOWING)).nonfinite_count == 1
    assert atlas.units("features.0")["nonfinite_images"][planted.OVERFLOWING].as_py() == [white]
    rows = patches(atlas, unit(planted.OVERFLOWING), TopQuestion(k=100)).rows
    assert len(rows) == 20
    assert white not in {row.image_id for row in rows}


def test_a_duplicate_channel_answers_like_its_twin(atlas: Atlas) -> None:
    plain, twin = (patches(atlas, unit(number), TopQuestion(k=21)).rows for number in (planted.PLAIN, planted.TWIN))
    assert plain == twin


def test_a_convolution_before_an_inplace_relu_shows_negative_values(atlas: Atlas) -> None:
    assert min(row["minimum"] for row in atlas.units("features.10").to_pylist()) < 0


def test_a_fully_connected_unit_sees_the_whole_input_at_one_place(atlas: Atlas) -> None:
    row = patches(atlas, UnitId("classifier.6", 3), TopQuestion()).rows[0]
    image = atlas.find_image(row.image_id)
    assert (row.row, row.col) == (0, 0)
    assert row.box == atlas.placement(image).seen


@pytest.mark.parametrize("name", ["landscape.png", "portrait.png", "rotated.jpg", "cmyk.jpg", "palette.png"])
def test_the_mark_lies_in_the_box_of_the_red_unit(marks: Atlas, name: str) -> None:
    mark = (300, 200, 308, 208) if name == "portrait.png" else MARK
    assert_inside(mark, box_of(marks, planted.RED, name))


def test_the_mark_in_a_grey_picture_lies_in_the_box_of_the_bright_unit(marks: Atlas) -> None:
    assert_inside(MARK, box_of(marks, planted.BRIGHT, "grey.png"))


def test_an_outside_picture_is_explained_like_its_copy_in_the_corpus(marks: Atlas, tmp_path: Path) -> None:
    session = Session(marks.root)
    stored = session.find("portrait.png")
    again = tmp_path / "again.bmp"
    marked(640, 427, (300, 200, 308, 208)).save(again)
    outside = session.find(str(again))
    assert outside.image is None
    inside_rows = {(row.layer, row.channel): row for row in session.explain(stored, ExplainQuestion(k=64)).rows}
    for row in session.explain(outside, ExplainQuestion(k=64)).rows:
        twin = inside_rows[row.layer, row.channel]
        assert row.activation == pytest.approx(twin.activation, rel=1e-4, abs=1e-4)
        assert row.box == twin.box


def box_of(atlas: Atlas, number: int, name: str) -> tuple[int, int, int, int]:
    rows = patches(atlas, unit(number), TopQuestion(k=100, duplicates="expand")).rows
    return next(row.box for row in rows if row.path == name)


def assert_inside(mark: tuple[int, int, int, int], box: tuple[int, int, int, int]) -> None:
    assert box[0] <= mark[0] + 1
    assert box[1] <= mark[1] + 1
    assert box[2] >= mark[2] - 1
    assert box[3] >= mark[3] - 1
    assert max(box[2] - box[0], box[3] - box[1]) <= 24, "the field is 11 input pixels, 19 of the picture"


def test_the_manifest_names_the_weights_file(atlas: Atlas) -> None:
    assert manifest_of(atlas.root).model.weights.endswith("planted.pt")
