"""New pictures make a segment of their own, and answers are those of a fresh index of all pictures."""

import json
import re
import shutil
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pytest

import unitscope
from tests.conftest import TINY_LAYERS
from tests.pictures import blobs
from tests.tables import contents, difference, give_unit_footers, manifest_of, move_root, turn_into_version_2
from unitscope_pipelines.derived.coactivation import InProcess, LayerPair, SealedAtlas, find_coactivation
from unitscope_pipelines.derived.sql_catalog import write_catalog
from unitscope_pipelines.indexing.compaction import compact
from unitscope_pipelines.indexing.config import IndexConfig
from unitscope_pipelines.indexing.index import index
from unitscope_pipelines.indexing.sealing.versions import collect
from unitscope_pipelines.indexing.upkeep import remove
from unitscope_pipelines.indexing.verification.verify import verify
from unitscope_pipelines.storage.parts import read_part
from unitscope_pipelines.storage.stores import store_of
from unitscope_schemas import tables
from unitscope_schemas.errors import AtlasError
from unitscope_schemas.manifest import Manifest
from unitscope_schemas.units import UnitId
from unitscope_services.atlas.atlas import Atlas

UNITS = ("_blocks.0:3", "_blocks.5:3", "_blocks.15:7")


def run(corpus: Path, atlas: Path, **settings: object) -> Manifest:
    settings = {"layers": TINY_LAYERS, "batch_size": 8, "workers": 1, **settings}
    return index(IndexConfig(corpus=str(corpus), atlas=str(atlas), **settings), lambda _: None)


def sizes(atlas: Path) -> list[int]:
    return [segment.image_count for segment in manifest_of(atlas).segments]


def files(atlas: Path) -> dict[str, int]:
    return {path.relative_to(atlas).as_posix(): path.stat().st_mtime_ns for path in atlas.rglob("*") if path.is_file()}


def answers(atlas: Path, label: str = "blobs") -> dict[str, object]:
    """What people ask, as plain rows; of the runs' times and names nothing."""
    opened = unitscope.open_atlas(str(atlas))
    image = str(opened.images(k=12)["image_id"][11])
    sealed = SealedAtlas.present(atlas)
    find_coactivation(sealed, sealed, [LayerPair("_blocks.5", "_blocks.5")], InProcess(lambda *_: None))
    found: dict[str, pa.Table] = {
        "similar by co-activation": opened.similar("_blocks.5:3", k=30),
        "units": opened.units("_blocks.5"),
        "images": opened.images(k=100),
        "explain": opened.explain(image, k=40),
        "neighbors": opened.neighbors(image, k=20),
        "exact neighbors": opened.neighbors(image, k=20, exact=True),
        "neighbors of a label": opened.neighbors(image, k=20, where=(f"label = {label}",)),
        "selective": opened.selective(label=label),
    }
    for unit in UNITS:
        found |= {
            f"top of {unit}": opened.top(unit, k=100),
            f"lowest of {unit}": opened.top(unit, k=100, order="asc"),
            f"top of {unit} of a label": opened.top(unit, k=100, label=label),
            f"top of {unit} in a band": opened.top(unit, k=100, quantile="0.2..0.7"),
            f"bands of {unit}": opened.bands(unit),
            f"histogram of {unit}": opened.histogram(unit, bins=17),
            f"labels of {unit}": opened.labels(unit),
            f"selectivity of {unit}": opened.selectivity(unit),
            f"similar to {unit}": opened.similar(unit, by="exemplars"),
            f"trace of {unit}": opened.trace(unit, image=image).select(["link", "state"]),
        }
    return {name: json.loads(json.dumps(table.to_pylist(), default=str)) for name, table in found.items()}


def assert_answers_are_those_of(fresh: Path, atlas: Path) -> None:
    assert difference(contents(fresh), contents(atlas)) == []
    one, other = answers(fresh), answers(atlas)
    assert [name for name in one if one[name] != other[name]] == []


@pytest.fixture(scope="module")
def grown(tiny_corpus: Path, tmp_path_factory: pytest.TempPathFactory, ray_session: None) -> Path:
    """A folder with a corpus, and an atlas of it that has grown twice: 28 images, then 8, then 3 more."""
    folder = tmp_path_factory.mktemp("grown")
    corpus, later = shutil.copytree(tiny_corpus, folder / "corpus"), folder / "later"
    pictures = sorted(corpus.rglob("*.jpg"))
    batches = [[path for path in pictures[1::5] if path not in pictures[2::14]], pictures[2::14]]
    for path in [path for batch in batches for path in batch]:
        (later / path.relative_to(corpus)).parent.mkdir(parents=True, exist_ok=True)
        path.rename(later / path.relative_to(corpus))
    run(corpus, folder / "atlas")
    for batch in batches:
        for path in batch:
            (later / path.relative_to(corpus)).rename(path)
        run(corpus, folder / "atlas")
    run(corpus, folder / "fresh")
    return folder


@pytest.fixture
def folder(grown: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    copied = shutil.copytree(grown, tmp_path / "grown")
    move_root(copied / "atlas", copied / "corpus")
    return copied


def test_new_pictures_make_a_segment_and_what_is_there_stays(grown: Path) -> None:
    assert len(sizes(grown / "atlas")) == 3
    assert sizes(grown / "atlas") == sorted(sizes(grown / "atlas"), reverse=True)
    assert sum(sizes(grown / "atlas")) == sum(sizes(grown / "fresh")) == manifest_of(grown / "fresh").stored_count
    assert len(sizes(grown / "fresh")) == 1


@pytest.mark.parametrize("kind", ["one segment", "several segments"])
def test_answers_are_the_same_where_units_have_footers_of_their_own(
    kind: str, tiny_atlas: Path, grown: Path, tmp_path: Path
) -> None:
    atlas = shutil.copytree(tiny_atlas if kind == "one segment" else grown / "atlas", tmp_path / "atlas")
    collect(atlas, keep=1)  # earlier versions name the parts that are written anew
    before, rows = answers(atlas), contents(atlas)
    give_unit_footers(atlas)
    with_footers = contents(atlas)
    for table in with_footers.values():
        table.pop(tables.FOOTER, None)
    assert difference(rows, with_footers) == []
    after = answers(atlas)
    assert [name for name in before if before[name] != after[name]] == []
    assert verify(atlas, sample=1, seed=0).faults == []
    segment = manifest_of(atlas).segments[0]
    part = segment.layers["_blocks.5"].ranked[0]
    data = bytearray((atlas / part.path).read_bytes())
    footer = read_part(store_of(atlas), segment.layers["_blocks.5"].units)[tables.FOOTER][3].as_py()
    data[footer["start"] + 9] ^= 1
    (atlas / part.path).write_bytes(data)
    opened = unitscope.open_atlas(str(atlas))
    with pytest.raises(AtlasError, match=part.path):
        opened.histogram("_blocks.5:3", bins=17)
    opened.histogram("_blocks.5:4", bins=17)  # of another unit nothing is damaged
    assert {fault.where for fault in verify(atlas, sample=0, seed=0).faults} >= {part.path}


def test_answers_over_segments_are_those_of_a_fresh_index(grown: Path) -> None:
    assert_answers_are_those_of(grown / "fresh", grown / "atlas")


def test_nothing_is_wrong_with_segments(grown: Path) -> None:
    assert verify(grown / "atlas", sample=2, seed=0).faults == []


def test_sql_over_segments_gives_the_ranks_of_all(grown: Path, tmp_path: Path) -> None:
    found = []
    for name in ("atlas", "fresh"):
        write_catalog([grown / name], tmp_path / f"of-{name}.duckdb")
        with duckdb.connect(str(tmp_path / f"of-{name}.duckdb"), read_only=True) as views:
            rows = views.execute("SELECT * FROM ranked WHERE layer = '_blocks.5' AND unit = 3 ORDER BY rank").fetchall()
            top = views.execute("SELECT * FROM top_patches('_blocks.5', 3, 20)").fetchall()
            (picture,) = views.execute("SELECT image_id FROM images LIMIT 1").fetchone() or (None,)
            found.append((rows, top, views.execute(f"SELECT * FROM explain('_blocks.5', '{picture}', 9)").fetchall()))
    assert found[0] == found[1]
    assert len(found[0][0]) == manifest_of(grown / "atlas").stored_count


def test_adding_pictures_writes_what_is_new_and_tables_of_images(folder: Path) -> None:
    before = files(folder / "atlas")
    blobs(977).save(folder / "corpus" / "blobs" / "one-more.jpg")
    run(folder / "corpus", folder / "atlas")
    after = files(folder / "atlas")
    kept = {name for name in before if name.startswith(("ranked/", "patches/", "peaks/", "embeddings/"))}
    assert kept and all(after[name] == before[name] for name in kept)
    new = [name for name in after if name not in before and name.startswith(("ranked/", "patches/"))]
    (segment,) = {name.rpartition("-")[2].partition(".")[0] for name in new}
    assert manifest_of(folder / "atlas").segments[-1].name == segment


@pytest.mark.long
def test_segments_merge_when_a_new_one_is_as_large(folder: Path) -> None:
    """The smallest has three images: three new pictures take them in, six more take in those and the eight before."""
    smallest = sizes(folder / "atlas")[-1]
    for number in range(smallest):
        blobs(500 + number).save(folder / "corpus" / "blobs" / f"new-{number}.jpg")
    before = sizes(folder / "atlas")
    run(folder / "corpus", folder / "atlas")
    assert sizes(folder / "atlas") == [*before[:-1], 2 * smallest]
    run(folder / "corpus", folder / "other")
    assert_answers_are_those_of(folder / "other", folder / "atlas")


@pytest.mark.long
def test_a_picture_that_left_costs_its_own_segment(folder: Path) -> None:
    atlas, corpus = folder / "atlas", folder / "corpus"
    first, *others = manifest_of(atlas).segments
    rows = unitscope.open_atlas(str(atlas)).images(k=100)
    numbers = read_part(store_of(atlas), others[0].numbers)["image"].to_pylist()
    (corpus / rows["path"].to_pylist()[numbers[2]]).unlink()
    run(corpus, atlas, replace=True)
    after = manifest_of(atlas).segments
    assert [segment.name for segment in after if segment.name == first.name]
    assert sum(sizes(atlas)) == manifest_of(atlas).stored_count == rows.num_rows - 1
    run(corpus, folder / "other")
    assert_answers_are_those_of(folder / "other", atlas)


def test_tombstones_and_compaction_over_segments(folder: Path) -> None:
    atlas = folder / "atlas"
    paths = unitscope.open_atlas(str(atlas)).images(k=100)["path"].to_pylist()
    remove(atlas, [paths[4], paths[20]])
    shown = answers(atlas)
    compact(atlas, 1, lambda _: None)
    assert len(sizes(atlas)) == 1
    assert verify(atlas, sample=1, seed=0).faults == []
    after = answers(atlas)
    tops = [name for name in shown if name.startswith("top of") and "band" not in name]
    plain = {name: [[row["image_id"] for row in own[name]] for own in (shown, after)] for name in tops}
    assert [name for name, (one, other) in plain.items() if one != other] == []


@pytest.mark.long
def test_segments_are_merged_by_hand_into_the_tables_of_a_fresh_index(folder: Path) -> None:
    atlas = folder / "atlas"
    version = manifest_of(atlas).version
    compact(atlas, 1, lambda _: None)
    manifest = manifest_of(atlas)
    assert (len(manifest.segments), manifest.version) == (1, version)
    collect(atlas, keep=1)
    assert verify(atlas, sample=1, seed=0).faults == []
    assert_answers_are_those_of(folder / "fresh", atlas)


def test_an_open_server_goes_on_while_segments_come_and_go(folder: Path) -> None:
    opened = Atlas(folder / "atlas")
    before = opened.first_ranks("_blocks.5", 20)
    compact(folder / "atlas", 1, lambda _: None)
    assert all((column == opened.first_ranks("_blocks.5", 20)[name]).all() for name, column in before.items())
    assert opened.ranked(UnitId("_blocks.5", 3)).at(["image"], np.arange(30))[0].shape == (30,)


@pytest.mark.long
def test_a_damaged_segment_is_named_and_the_others_answer(folder: Path) -> None:
    segment = manifest_of(folder / "atlas").segments[-1]
    part = folder / "atlas" / segment.layers["_blocks.5"].ranked[0].path
    part.write_bytes(part.read_bytes()[:-9])
    opened = Atlas(folder / "atlas")
    with pytest.raises(AtlasError, match=re.escape(part.name)):
        opened.ranked(UnitId("_blocks.5", 3)).activations()
    assert opened.ranked(UnitId("_blocks.0", 3)).activations().shape == (manifest_of(folder / "atlas").stored_count,)
    assert {fault.where for fault in verify(folder / "atlas", sample=0, seed=0).faults} == {
        part.relative_to(folder / "atlas").as_posix()
    }
    run(folder / "corpus", folder / "atlas")


def test_an_atlas_of_format_version_2_opens_and_grows_without_a_forward_of_what_it_has(folder: Path) -> None:
    atlas, corpus = folder / "fresh", folder / "corpus"
    move_root(atlas, corpus)
    before = answers(atlas)
    turn_into_version_2(atlas)
    path = atlas / "manifest.json"
    assert json.loads(path.read_text())["format_version"] == 2
    assert verify(atlas, sample=1, seed=0).faults == []
    assert [name for name, rows in answers(atlas).items() if rows != before[name]] == []
    blobs(977).save(corpus / "blobs" / "one-more.jpg")
    assert run(corpus, atlas).forward_count == 1
    assert (len(sizes(atlas)), json.loads(path.read_text())["format_version"]) == (2, 3)
    assert verify(atlas, sample=1, seed=0).faults == []


def test_an_index_is_cut_into_segments_of_at_most_so_many_images(grown: Path, tmp_path: Path) -> None:
    atlas = shutil.copytree(grown / "fresh", tmp_path / "atlas")
    for path in ("manifest.json", "versions"):
        shutil.rmtree(atlas / path) if (atlas / path).is_dir() else (atlas / path).unlink(missing_ok=True)
    manifest = run(grown / "corpus", atlas, segment_images=15)
    assert manifest.forward_count == 0
    assert sizes(atlas) == [14, 13, 13]
    assert_answers_are_those_of(grown / "fresh", atlas)
    assert verify(atlas, sample=1, seed=0).faults == []
    assert compact(atlas, 1, lambda _: None).segments == manifest.segments, "three are as few as may be"
