"""Projections, filters, eigen-patches and the sheet of the tiny atlas, asked in every way."""

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

import unitscope
from tests.pictures import recorded_corpora
from tests.services.conftest import ORIGIN
from unitscope_pipelines.derived.visuals import NewPicture, write_visual
from unitscope_pipelines.storage.stores import store_of
from unitscope_pipelines.vision.attribution.conv_filters import ConvFilters
from unitscope_pipelines.vision.attribution.deconvnet import project
from unitscope_pipelines.vision.images.diverging import SHOWN_SHARE
from unitscope_pipelines.vision.images.preprocessing import normalise, prepare
from unitscope_pipelines.vision.models.models import load_model
from unitscope_schemas.answers.visuals import VisualKey
from unitscope_schemas.errors import NotFoundError, UsageError
from unitscope_schemas.geometry import Box, Location, Size
from unitscope_schemas.questions import EigenQuestion, ProjectQuestion, TopQuestion
from unitscope_schemas.units import UnitId
from unitscope_services.atlas.crops import read_image
from unitscope_services.figures.conv_filters import filter_of, filter_page, filter_sheet
from unitscope_services.figures.drawing import page, png, svg
from unitscope_services.figures.eigen import EigenPatches, aligned_patches, eigen_page, eigen_patches, eigen_picture
from unitscope_services.figures.hierarchy import LayerPanels, PanelStyle, chosen_layers, lay_out, unit_panel
from unitscope_services.figures.project import projections
from unitscope_services.queries.exemplars import patches
from unitscope_services.queries.session import Session
from unitscope_services.queries.visuals import visualisations
from unitscope_services.web.app import Settings, create_app

UNIT = UnitId("_blocks.5", 3)


@pytest.fixture(scope="module")
def own_atlas(tiny_atlas: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy to which pictures may be added."""
    atlas = tmp_path_factory.mktemp("projected") / "tiny"
    shutil.copytree(tiny_atlas, atlas)
    return atlas


@pytest.fixture(scope="module")
def own(own_atlas: Path) -> Session:
    return Session(own_atlas)


def test_projections_are_the_exemplars_seen_from_the_unit(own: Session) -> None:
    """Each in rank order, in the box of its patch, made again here by hand from the file."""
    rows = patches(own.atlas, UNIT, TopQuestion(k=3)).rows
    found = projections(own, UNIT, ProjectQuestion(method="guided", k=3)).rows
    model = load_model()
    spec = own.atlas.layer(UNIT.layer).spec
    for row, projected in zip(rows, found, strict=True):
        assert (projected.image_id, projected.row, projected.col) == (row.image_id, row.row, row.col)
        assert projected.activation == row.activation
        assert projected.percentile == row.percentile
        assert projected.box == row.box
        place = Location(row.row, row.col)
        data = read_image(own.atlas, own.atlas.find_image(row.image_id))
        image = normalise(prepare(data, model.preprocessing).pixels[None], model.preprocessing)
        box = spec.receptive_field.box_at(place)
        whole = project(model.module, spec, UNIT.channel, image, [place], "guided").pixels[0].numpy()
        values = whole[:, box.top : box.bottom, box.left : box.right]
        scale = np.sort(np.abs(values).ravel())[int(np.ceil(SHOWN_SHARE * (values.size - 1)))]
        expected = 128 + 127 * np.clip(values / scale, -1, 1)
        stored = np.asarray(Image.open(own.atlas.root / projected.path)).transpose(2, 0, 1)
        assert np.abs(stored - expected).max() < 3
        assert np.abs(stored - 128.0).max() == 127


def test_what_is_stored_is_not_made_again_and_another_method_is_another_picture(own: Session) -> None:
    first = projections(own, UNIT, ProjectQuestion(method="gradient", k=2)).rows
    files = [own.atlas.root / row.path for row in first]
    written = [file.stat().st_mtime_ns for file in files]
    again = projections(own, UNIT, ProjectQuestion(method="gradient", k=4)).rows
    assert again[:2] == first
    assert [file.stat().st_mtime_ns for file in files] == written
    assert {row.id for row in again}.isdisjoint(
        row.id for row in projections(own, UNIT, ProjectQuestion(method="deconvnet", k=4)).rows
    )


def test_the_default_method_follows_the_network_and_the_note_says_what_is_cut_off(own: Session) -> None:
    """EfficientNet has no max-pooling."""
    (row,) = projections(own, UNIT, ProjectQuestion(k=1)).rows
    assert row.method == "guided"
    assert row.id == projections(own, UNIT, ProjectQuestion(method="guided", k=1)).rows[0].id
    for method, unit in (
        ("deconvnet", "of the network's input"),
        ("gradient", "of the activation for each of the network's input"),
        ("gradient-x-input", "of the activation"),
    ):
        (row,) = projections(own, UNIT, ProjectQuestion(method=method, k=1)).rows
        assert row.method == method
        assert f"in units {unit}, " in row.note
        assert "% of the values are cut off there, the largest of " in row.note


def test_stored_gradients_times_the_input_are_found_again_and_named_truthfully(own: Session) -> None:
    """The key of an atlas made before there was another gradient, word by word."""
    (made,) = projections(own, UNIT, ProjectQuestion(method="gradient-x-input", k=1)).rows
    old = VisualKey(
        atlas_key=own.atlas.manifest.atlas_key,
        kind="projection",
        layer=UNIT.layer,
        channel=UNIT.channel,
        method="gradient",
        settings={"rules": "the gradient of the activation times the input", "shown_share": 0.995},
        image_id=made.image_id,
        location=Location(made.row, made.col),
    )
    assert made.id == old.id
    assert old.shown_method == "gradient-x-input"
    (gradient,) = projections(own, UNIT, ProjectQuestion(method="gradient", k=1)).rows
    assert gradient.id != made.id
    listed = {row.id: row.method for row in visualisations(own.atlas, UNIT).rows}
    assert (listed[made.id], listed[gradient.id]) == ("gradient-x-input", "gradient")


def test_a_deconvnet_without_switches_says_so(own: Session) -> None:
    note = projections(own, UNIT, ProjectQuestion(method="deconvnet", k=1)).rows[0].note
    assert "grey is zero, white " in note
    assert "no max-pooling before this layer" in note
    with pytest.raises(UsageError, match="'gradient' or 'gradient-x-input', not 'lrp'"):
        ProjectQuestion(method="lrp")


def test_api_and_python_list_what_was_projected(own: Session, own_atlas: Path) -> None:
    made = unitscope.open_atlas(str(own_atlas)).project(str(UNIT), method="guided", k=3).to_pylist()
    with TestClient(create_app(Settings(atlases=(own_atlas,), corpora=recorded_corpora(own_atlas))), ORIGIN) as client:
        base = f"/api/v1/atlases/tiny/layers/{UNIT.layer}/units/{UNIT.channel}/visualisations"
        listed = {row["id"]: row for row in client.get(base).json()["rows"]}
        for row in made:
            assert listed[row["id"]]["activation"] == pytest.approx(row["activation"])
            assert client.get(listed[row["id"]]["url"]).content == (own_atlas / row["path"]).read_bytes()


def test_a_job_projects_several_units(own_atlas: Path) -> None:
    with TestClient(create_app(Settings(atlases=(own_atlas,), corpora=recorded_corpora(own_atlas))), ORIGIN) as client:
        query = {
            "kind": "project",
            "atlas": "tiny",
            "units": ["_blocks.15:7", "_blocks.0:2"],
            "method": "guided",
            "k": 2,
        }
        job = client.post("/api/v1/jobs", json=query).json()
        while job["state"] in ("waiting", "running"):
            job = client.get(f"/api/v1/jobs/{job['id']}").json()
        assert (job["state"], job["done"], job["total"]) == ("done", 2, 2)
        assert len(job["results"]) == 4
        assert Image.open(io.BytesIO(client.get(job["results"][0]).content)).format == "PNG"
        unknown = client.post("/api/v1/jobs", json={**query, "units": ["_blocks.0:99"]})
        assert unknown.status_code == 404


def test_filters_are_linked_and_served(client: TestClient, tiny_atlas: Path) -> None:
    rows = client.get("/api/v1/atlases/tiny/layers/first/filters").json()["rows"]
    plain = [{name: value for name, value in row.items() if name not in ("url", "unit_url")} for row in rows]
    assert plain == unitscope.open_atlas(str(tiny_atlas)).filters().to_pylist()
    weights = load_model().module._conv_stem.weight.detach()
    assert [row["unit"] for row in rows] == [f"_conv_stem:{channel}" for channel in range(len(weights))]
    assert rows[4]["minimum"] == pytest.approx(float(weights[4].min()))
    assert rows[4]["unit_url"] is None
    picture = Image.open(io.BytesIO(client.get(rows[4]["url"]).content))
    expected = np.rint(128 + 127 * (weights[4] / weights[4].abs().max()).numpy()).transpose(1, 2, 0)
    assert (np.asarray(picture) == expected).all()
    beyond = client.get("/api/v1/atlases/tiny/layers/first/filters/32.png")
    assert (beyond.status_code, beyond.json()["detail"]) == (404, "layer _conv_stem has filters 0 to 31, not 32")


def test_dead_filters_are_dim_and_named_in_rows_and_on_the_sheet(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype(np.float32)
    weights[1] *= 1e-9
    weights[2] = 0
    weights[3, 0, 0, 0] = np.nan
    planted = ConvFilters("planted", weights)
    monkeypatch.setattr("unitscope_services.figures.conv_filters.filters_of", lambda _session, _layer: planted)
    rows = filter_page(session, "planted").rows
    largest = float(np.nanmax(np.abs(weights)))
    assert [row.note.partition(":")[0] for row in rows] == [
        "",
        "hardly any weights",
        "no weights",
        "1 weights are not finite",
    ]
    assert rows[1].share == pytest.approx(np.abs(weights[1]).max() / largest)
    assert rows[1].scale == rows[2].scale == pytest.approx(0.01 * largest)
    sheet = filter_sheet(session, "planted")
    swings = [int(np.abs(np.asarray(tile.picture).astype(int) - 128).max()) for tile in sheet.tiles]
    assert swings[:3] == [127, 0, 0]
    assert {"1 hardly any weights", "2 no weights"} & {words.text for words in sheet.words}
    with pytest.raises(UsageError, match="1 weights of unit planted:3 are not finite"):
        filter_of(session, "planted", 3)


def test_eigen_components_of_hardly_any_variance_are_dim(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """Patches of one brightness step, of a single odd pixel, and all alike."""

    def found(cut: np.ndarray) -> tuple[EigenPatches, list[int], list[float | None]]:
        monkeypatch.setattr("unitscope_services.figures.eigen.aligned_patches", lambda *_: (cut, 0))
        question = EigenQuestion(k=64, components=2, size=4)
        eigen = eigen_patches(session, UNIT, question)
        monkeypatch.setattr("unitscope_services.figures.eigen.remembered_patches", lambda *_: eigen)
        pictures = [np.asarray(eigen_picture(session, UNIT, question, number)) for number in (1, 2)]
        swings = [int(np.abs(picture.astype(int) - 128).max()) for picture in pictures]
        return eigen, swings, [row.scale for row in eigen_page(session, UNIT, question).rows]

    cut = np.full((64, 4, 4, 3), 90, np.uint8)
    eigen, swings, scales = found(cut)
    assert (eigen.shares.tolist(), swings, scales) == ([0.0, 0.0], [0, 0], [None, None, None])
    cut[:32] += 40
    eigen, swings, scales = found(cut)
    assert eigen.shares[0] == pytest.approx(1)
    assert swings[0] == 127
    assert swings[1] <= 1
    cut[5, 2, 2, 1] += 1
    eigen, swings, _ = found(cut)
    assert eigen.deviations[1] == pytest.approx(1 / 8, rel=0.1)
    assert swings[0] == 127
    assert swings[1] == pytest.approx(127 * eigen.deviations[1] / 0.5, abs=1)


def test_eigen_patches_equal_principal_components_of_the_same_pixels(session: Session) -> None:
    """Against the eigenvectors of the covariance, and scikit-learn on pixels cut here by hand."""
    from sklearn.decomposition import PCA

    found = eigen_patches(session, UNIT, EigenQuestion(k=40, components=4, size=24))
    field, cut = session.atlas.layer(UNIT.layer).spec.receptive_field, []
    for row in patches(session.atlas, UNIT, TopQuestion(k=40)).rows:
        data = read_image(session.atlas, session.atlas.find_image(row.image_id))
        pixels = prepare(data, session.atlas.manifest.preprocessing).pixels.permute(1, 2, 0).numpy()
        y, x = field.centre_at(Location(row.row, row.col))
        if 12 <= y <= 224 - 12 and 12 <= x <= 224 - 12:
            cut.append(pixels[y - 12 : y + 12, x - 12 : x + 12])
    assert (found.used, found.used + found.left_out) == (len(cut), 40 - _duplicates(session))
    flat = np.array(cut, np.float64).reshape(len(cut), -1)
    expected = PCA(4, svd_solver="full").fit(flat)
    np.testing.assert_allclose(found.mean.ravel(), flat.mean(0))
    np.testing.assert_allclose(found.components.reshape(4, -1), expected.components_, atol=1e-9)
    centred = flat - flat.mean(0)
    variances = np.linalg.eigvalsh(centred @ centred.T)[::-1]
    np.testing.assert_allclose(found.shares, (variances / variances.sum())[:4], rtol=1e-6)
    for component, variance in zip(found.components.reshape(4, -1), variances, strict=False):
        np.testing.assert_allclose(centred.T @ (centred @ component), variance * component, atol=1e-6 * variances[0])


def _duplicates(session: Session) -> int:
    return 40 - len(patches(session.atlas, UNIT, TopQuestion(k=40)).rows)


def test_patches_that_never_fit_their_picture_are_refused(session: Session) -> None:
    assert len(aligned_patches(session, UNIT, 5, Size(1, 1))[0]) == 5
    with pytest.raises(UsageError, match=r"0 of 5 patches .* smaller --size"):
        eigen_patches(session, UNIT, EigenQuestion(k=5, size=225))


def test_the_sheet_has_one_drawing_in_three_forms(own: Session) -> None:
    panel = unit_panel(own, UNIT, PanelStyle("guided"), 4)
    drawing = lay_out(own.atlas, [LayerPanels(own.atlas.layer(UNIT.layer).spec, (panel,))])
    assert [len(block.pictures) for block in panel.groups] == [4, 4]
    places = [(tile.left, tile.top, tile.left + tile.side, tile.top + tile.side) for tile in drawing.tiles]
    for number, (left, top, right, bottom) in enumerate(places):
        assert 0 <= left < right <= drawing.width and 0 <= top < bottom <= drawing.height
        assert all(right <= a or c <= left or bottom <= b or d <= top for a, b, c, d in places[:number])
    assert Image.open(io.BytesIO(png(drawing))).size == (2 * drawing.width, 2 * drawing.height)
    text = svg(drawing).decode()
    assert text.count("<image ") == text.count("data:image/png;base64,") == 8
    assert f">{UNIT}</text>" in text
    assert text.strip() in page(drawing).decode()


def test_the_sheet_shows_a_stored_optimised_input_cut_to_what_the_unit_sees(own: Session) -> None:
    key = VisualKey(
        atlas_key=own.atlas.manifest.atlas_key,
        kind="optimised",
        layer=UNIT.layer,
        channel=UNIT.channel,
        method="erhan2009",
        settings={},
        objective="unit",
        start="grey",
        seed=3,
    )
    assert len(unit_panel(own, UNIT, PanelStyle("guided", "erhan2009", 3), 1).groups) == 2
    whole = Image.effect_noise((224, 224), 40)
    write_visual(store_of(own.atlas.root), key, NewPicture(whole, activation=7.5, box=Box(10, 20, 40, 60)))
    assert len(unit_panel(own, UNIT, PanelStyle("guided", "erhan2009", 4), 1).groups) == 2
    block = unit_panel(own, UNIT, PanelStyle("guided", "erhan2009", 3), 1).groups[2]
    assert block.kind == "input optimised by erhan2009"
    ((picture, text),) = block.pictures
    assert text == "activation 7.5"
    assert (np.asarray(picture) == np.asarray(whole)[10:40, 20:60]).all()


def test_layers_of_the_sheet_are_chosen_or_spread(own: Session) -> None:
    assert chosen_layers(own.atlas, (), 2) == ["_blocks.0", "_blocks.15"]
    assert chosen_layers(own.atlas, ("_blocks.1?", "_blocks.0"), 6) == ["_blocks.0", "_blocks.15"]
    with pytest.raises(UsageError, match=r"no layer of this atlas matches 'stem'; it has _blocks.0"):
        chosen_layers(own.atlas, ("stem",), 6)
    with pytest.raises(NotFoundError, match="none of the layers"):
        lay_out(own.atlas, [])
