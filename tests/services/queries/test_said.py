"""What a corpus says of its pictures, asked in every way: several labels (18), unknown labels (24), conditions (20)."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from starlette.testclient import TestClient
from typer.testing import CliRunner

import unitscope
from tests import kin
from tests.pictures import recorded_corpora
from tests.services.conftest import ORIGIN
from unitscope.cli import app
from unitscope_pipelines.indexing.config import IndexConfig
from unitscope_pipelines.indexing.index import index
from unitscope_schemas import tables
from unitscope_schemas.errors import NotFoundError, UnitscopeError
from unitscope_schemas.manifest import Manifest
from unitscope_schemas.questions import LabelsQuestion, SelectivityQuestion
from unitscope_schemas.units import UnitId
from unitscope_services.atlas.atlas import Atlas
from unitscope_services.atlas.conditions.image_labels import ImageLabels, SegmentLabels
from unitscope_services.atlas.image_filter import EVERY_IMAGE
from unitscope_services.atlas.segment_numbers import ImagePlaces, SegmentNumbers
from unitscope_services.queries.labels import labels, selectivity
from unitscope_services.web.app import Settings, create_app

UNIT = "conv:2"


def image_labels(lists: list[list[str]]) -> ImageLabels:
    """The labels of images of one segment."""
    kind = tables.LOOKUP_IMAGES.field("labels").type
    numbers = SegmentNumbers(None)
    places = ImagePlaces([(numbers, len(lists))], len(lists))
    return ImageLabels([SegmentLabels.of(pa.array(lists, kind), numbers)], places)


DEAD = f"conv:{kin.ZEROED}"
SAID: dict[str, list[str]] = {
    "p00.png": ["cat", "dog"],  # two rows of the list
    "p01.png": ["cat", "dog"],  # and copy.png, which has the same bytes
    "p02.png": ["bird", "cat"],  # a row with both
    "p03.png": [],
    **{f"p{number:02d}.png": ["dog" if number % 3 else "fish"] for number in range(4, 14)},
}
"""Labels of each picture."""


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory, ray_session: None) -> tuple[Path, Manifest]:
    """An atlas of 14 pictures, listed in 16 rows."""
    folder = tmp_path_factory.mktemp("said")
    for number, name in enumerate(SAID):
        pixels = np.random.default_rng(number).integers(0, 255, (32, 32, 3), np.uint8)
        Image.fromarray(pixels).save(folder / name)
    (folder / "copy.png").write_bytes((folder / "p01.png").read_bytes())
    rows: list[dict[str, Any]] = [{"path": name, "label": own} for name, own in SAID.items()]
    for number, row in enumerate(rows):
        row |= {
            "year": 2000 + number,
            "day": f"2020-01-{number + 1:02d}",
            "id": 2**64 + number,
            "tags": [number, "all"],
        }
    rows[5]["year"] = "unknown"
    rows[0]["label"] = "cat"
    rows[1]["label"] = "cat"
    rows += [{**rows[0], "label": "dog"}, {**rows[1], "path": "copy.png", "label": "dog", "year": 1999}]
    (folder / "list.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    network = kin.write_network(folder)
    atlas = folder / "atlas"
    settings: dict[str, Any] = {"layers": ("conv",), "batch_size": 16, "workers": 1, "trust_code": True}
    config = IndexConfig(
        corpus=str(folder / "list.jsonl"), atlas=str(atlas), model=f"file:{network}:planted", **settings
    )
    return atlas, index(config, lambda _: None)


@pytest.fixture(scope="module")
def root(sealed: tuple[Path, Manifest]) -> Path:
    return sealed[0]


@pytest.fixture(scope="module")
def opened(root: Path) -> Atlas:
    return Atlas(root)


@pytest.fixture(scope="module")
def client(root: Path) -> Iterator[TestClient]:
    with TestClient(
        create_app(Settings(atlases=(root,), corpora=recorded_corpora(root))), ORIGIN, raise_server_exceptions=False
    ) as client:
        yield client


def command(*words: object) -> tuple[int, Any, str]:
    """Exit code, answer and talk of a command."""
    result = CliRunner().invoke(app, [str(word) for word in words])
    if isinstance(result.exception, UnitscopeError):
        return result.exception.exit_code, None, str(result.exception)
    return result.exit_code, json.loads(result.stdout) if result.stdout else None, result.stderr


def paths(rows: Any) -> set[str]:
    return {row["path"] for row in rows}


def having(label: str) -> set[str]:
    first = {"p01.png": "copy.png"}  # the first of its paths
    return {first.get(name, name) for name, own in SAID.items() if label in own}


def test_several_labels_conflicts_and_duplicates_are_counted(sealed: tuple[Path, Manifest]) -> None:
    corpus = sealed[1].corpus
    assert (corpus.image_count, corpus.file_count) == (14, 15)
    assert (corpus.label_count, corpus.conflict_count, corpus.repeated_count) == (4, 2, 1)


def test_several_labels_are_a_list_and_filters_match_any(root: Path, client: TestClient) -> None:
    atlas = unitscope.open_atlas(str(root))
    for label in ("cat", "dog", "bird", "fish"):
        wanted = having(label)
        assert paths(atlas.images(label=label).to_pylist()) == wanted
        assert paths(atlas.top(UNIT, k=100, label=label).to_pylist()) == wanted
        assert paths(command("top", root, UNIT, "-k", 100, "--label", label, "--json")[1]["rows"]) == wanted
        listed = client.get("/api/v1/atlases/atlas/images", params={"label": label}).json()["rows"]
        assert paths(listed) == wanted
    assert all(row["label"] == row["labels"][0] for row in listed)
    both = atlas.images(path="copy.png").to_pylist()[0]
    assert (both["label"], both["labels"], both["other_paths"]) == ("dog", ["dog", "cat"], ["p01.png"])


@pytest.mark.parametrize(
    ("condition", "wanted"),
    [
        ("label in cat,fish", having("cat") | having("fish")),
        ("label=bird", having("bird")),
        ("label!=dog", {"p02.png"} | having("fish")),
        ("label is null", {"p03.png"}),
        ("label^=fi", having("fish")),
        ("path^=copy", {"copy.png"}),
        ("year>=2012", {"p12.png", "p13.png"}),
        ("year=unknown", {"p05.png"}),
        ("day<2020-01-03", {"p00.png", "copy.png"}),
        ("id=18446744073709551617", {"copy.png"}),
        ("id=18446744073709551618", {"p02.png"}),
        ("id>18446744073709551628", {"p13.png"}),
        ("tags=7", {"p07.png"}),
        ("tags is null", set()),
    ],
)
def test_conditions_choose_the_same_images_everywhere(
    condition: str, wanted: set[str], root: Path, client: TestClient
) -> None:
    assert paths(unitscope.open_atlas(str(root)).images(where=(condition,)).to_pylist()) == wanted
    assert paths(command("images", root, "--where", condition, "--json")[1]["rows"]) == wanted
    assert paths(client.get("/api/v1/atlases/atlas/images", params={"where": condition}).json()["rows"]) == wanted


@pytest.mark.parametrize(
    ("condition", "said"),
    [
        ("id>=9223372036854775808", None),
        ("year>=99999999999999999999", None),
        ("year>=many", "'many'"),
        ("yaer=3", "there are day, id, tags, year, label, path"),
        ("year>=" + "9" * 3000, "at most 2000 characters"),
        ("label in cat,dgo", "no image of this atlas has the label 'dgo'; there are dog"),
    ],
)
def test_conditions_out_of_range_are_answered_or_refused(condition: str, said: str | None, client: TestClient) -> None:
    answer = client.get("/api/v1/atlases/atlas/layers/conv/units/2/patches", params={"where": condition})
    assert answer.status_code == (200 if said is None else 404 if "label" in condition else 400), answer.text
    if said is not None:
        assert said in answer.json()["detail"]


def test_conflicts_and_duplicates_are_listed_in_every_way(root: Path, client: TestClient) -> None:
    conflicts, duplicates = {"p00.png", "copy.png"}, {"copy.png"}
    for name, wanted in (("conflicts", conflicts), ("duplicates", duplicates)):
        assert paths(unitscope.open_atlas(str(root)).images(**{name: True}).to_pylist()) == wanted
        assert paths(command("images", root, f"--{name}", "--json")[1]["rows"]) == wanted
        rows = client.get("/api/v1/atlases/atlas/images", params={name: True}).json()["rows"]
        assert paths(rows) == wanted
    said = {row["path"]: row["statements"] for row in client.get("/api/v1/atlases/atlas/images").json()["rows"]}
    assert [(each["path"], each["labels"], each["metadata"]["year"]) for each in said["copy.png"]] == [
        ("copy.png", ["dog"], 1999),
        ("p01.png", ["cat"], 2001),
    ]
    assert [each["labels"] for each in said["p00.png"]] == [["cat"], ["dog"]]
    assert said["p02.png"] == [], "one row that gives two labels does not disagree with itself"
    code, skipped, _ = command("images", root, "--skipped", "--json")
    assert (code, skipped["rows"]) == (0, [])
    assert command("images", root, "--skipped", "--label", "cat")[0] == 2


def test_several_labels_count_each_in_shares_and_lifts(opened: Atlas) -> None:
    images = opened.image_list(EVERY_IMAGE, None, 100)
    wanted = {label: len(having(label)) for label in ("cat", "dog", "bird", "fish")}
    stored = {row.label: row for row in labels(opened, UnitId.parse(UNIT), LabelsQuestion()).rows}
    counted = {row.label: row for row in labels(opened, UnitId.parse(UNIT), LabelsQuestion(ranks=14)).rows}
    for found in (stored, counted):
        assert {label: row.count for label, row in found.items()} == wanted
        assert {label: row.share for label, row in found.items()} == {name: n / 14 for name, n in wanted.items()}
        assert [row.lift for row in found.values()] == pytest.approx([1.0] * 4)
    peaks = {image.path: opened.activations("conv", image)[2] for image in images}
    for row in selectivity(opened, UnitId.parse(UNIT), SelectivityQuestion()).rows:
        inside = having(row.label)
        pairs = [
            (peaks[one] > peaks[other]) + (peaks[one] == peaks[other]) / 2
            for one in inside
            for other in peaks.keys() - inside
        ]
        assert row.images == len(inside)
        assert row.auc == pytest.approx(np.mean(pairs))


@pytest.mark.parametrize("label", ["caat", "CAT", "zebra", "cat ", "\x00", "x" * 3000])
def test_unknown_labels_are_an_error_with_the_nearest(label: str, root: Path, client: TestClient) -> None:
    atlas = unitscope.open_atlas(str(root))
    near = "there are cat" if label.casefold().strip() in ("caat", "cat") else "there are bird, cat, dog, fish"
    asked: list[tuple[str, tuple[Any, ...]]] = [
        *(("top", (unit,)) for unit in (UNIT, DEAD)),
        *(("bands", (unit,)) for unit in (UNIT, DEAD)),
        *((name, ("copy.png",)) for name in ("explain", "neighbors")),
        *((name, ()) for name in ("images", "selective")),
    ]
    for name, about in asked:
        with pytest.raises(NotFoundError, match=near):
            getattr(atlas, name)(*about, label=label)
    if "\x00" not in label:
        for words in (("top", root, UNIT), ("explain", root, "copy.png"), ("units", root, "conv"), ("images", root)):
            code, _, said = command(*words, "--label", label)
            assert (code, near in said) == (5, True), words
    image = atlas.images(path="copy.png")["image_id"][0].as_py()
    for address in (
        *(f"layers/conv/units/{unit}/{what}" for unit in (2, kin.ZEROED) for what in ("patches", "bands")),
        *(f"images/{image}/units", f"images/{image}/neighbors", "images", "selective"),
    ):
        answer = client.get(f"/api/v1/atlases/atlas/{address}", params={"label": label})
        assert (answer.status_code, near in answer.json()["detail"]) == (404, True), address
    assert client.get("/atlases/atlas/layers/conv/units/2", params={"label": label}).status_code == 404


def test_unknown_labels_are_an_error_where_there_is_no_label_at_all() -> None:
    none = image_labels([[], [], []])
    assert none.counts(None).tolist() == []
    assert none.lists(np.arange(3)) == [[], [], []]


def test_several_labels_are_read_from_atlases_that_have_one_alone(sealed: tuple[Path, Manifest]) -> None:
    one = image_labels([["b"], [], ["a"]])
    assert one.lists(np.array([2, 1, 0])) == [["a"], [], ["b"]]
    assert one.counts(np.array([True, True, False])).tolist() == [0, 1]
    assert one.labelled("b").tolist() == [True, False, False]
    path = sealed[0] / sealed[1].segments[0].tables.images.path
    images = pq.read_table(path, partitioning=None).drop_columns(["labels", "statements"])
    renewed = tables.with_labels(images)
    assert renewed["labels"].to_pylist() == [[label] if label else [] for label in images["label"].to_pylist()]
    assert renewed["statements"].null_count == len(images)
