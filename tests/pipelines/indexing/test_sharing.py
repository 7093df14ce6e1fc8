"""A version whose images are those of the one before writes its table of images and names, and nothing else."""

import json
import os
from pathlib import Path

import pytest

from tests.conftest import TINY_LAYERS
from tests.tables import contents, difference, manifest_of, ranked_parts, turn_into_version_2
from unitscope_pipelines.derived.coactivation import InProcess, LayerPair, SealedAtlas, find_coactivation
from unitscope_pipelines.indexing.config import IndexConfig
from unitscope_pipelines.indexing.index import index
from unitscope_pipelines.indexing.sealing.versions import collect
from unitscope_pipelines.indexing.upkeep import remove, restore, revert
from unitscope_pipelines.indexing.verification.verify import verify
from unitscope_schemas.manifest import Manifest
from unitscope_schemas.questions import TopQuestion
from unitscope_schemas.units import UnitId
from unitscope_services.atlas.atlas import Atlas
from unitscope_services.queries.exemplars import patches

OF_FILES = (
    "files/",
    "receipts/",
    "images/",
    "skipped/",
    "embeddings/",
    "peaks/",
    "versions/",
    "manifest.json",
    "groups/",
    "hot-",
    "index.lock",
)
"""What a new version of the same images may write, by how paths begin: tables of files, and what is looked up of them;
embeddings and peaks are those of the shards of what was read again, and hold nothing."""


def run(corpus: Path, atlas: Path, **settings: object) -> Manifest:
    settings = {"layers": TINY_LAYERS, "batch_size": 8, "workers": 1, **settings}
    return index(IndexConfig(corpus=str(corpus), atlas=str(atlas), **settings), lambda _: None)


def files(atlas: Path) -> set[str]:
    return {path.relative_to(atlas).as_posix() for path in atlas.rglob("*") if path.is_file()}


def written(atlas: Path, corpus: Path, before: set[str]) -> set[str]:
    """The files that a run over changed files writes, which runs no forward."""
    times = {name: (atlas / name).stat().st_mtime_ns for name in before}
    assert run(corpus, atlas).forward_count == 0
    rewritten = {name for name in before if (atlas / name).stat().st_mtime_ns != times[name]}
    return (files(atlas) - before) | rewritten


def touch_all(corpus: Path) -> None:
    for number, path in enumerate(sorted(corpus.rglob("*.jpg"))):
        os.utime(path, ns=(10**18, 10**18 + number))


def rename_all(corpus: Path) -> None:
    for path in sorted(corpus.rglob("*.jpg")):
        path.rename(path.with_name(f"renamed-{path.name}"))


def test_touched_pictures_cost_no_rank_no_statistic_and_no_vector(atlas: Path, corpus: Path) -> None:
    before, first = files(atlas), manifest_of(atlas)
    touch_all(corpus)
    new = written(atlas, corpus, before)
    after = manifest_of(atlas)
    assert all(name.startswith(OF_FILES) for name in new), new
    assert not [name for name in new if name.startswith("hot-ranks-")]
    assert after.version != first.version
    assert (after.layers, after.first_ranks) == (first.layers, first.first_ranks)
    assert [*after.segments[0].parts()] == [*first.segments[0].parts()]
    assert verify(atlas, sample=2, seed=0).faults == []


@pytest.mark.long
def test_co_activation_of_the_same_images_is_computed_once(atlas: Path, corpus: Path) -> None:
    pairs = [LayerPair("_blocks.0", "_blocks.0")]

    def compared() -> list[str]:
        sealed, done = SealedAtlas.present(atlas), list[int]()
        paths = find_coactivation(sealed, sealed, pairs, InProcess(lambda count, _: done.append(count)))
        return paths if done else []

    (path,) = compared()
    touch_all(corpus)
    run(corpus, atlas)
    collect(atlas, keep=1)
    assert (atlas / path).exists()
    assert compared() == [], "it is that of the version before"
    remove(atlas, ["blobs/003.jpg"])
    assert compared() not in ([], [path]), "without an image it is another"


def test_renamed_pictures_answer_under_their_new_names_with_the_same_ranks(atlas: Path, corpus: Path) -> None:
    rename_all(corpus)
    new = written(atlas, corpus, files(atlas))
    assert all(name.startswith(OF_FILES) and not name.startswith("hot-ranks-") for name in new), new
    rows = patches(Atlas(atlas), UnitId("_blocks.5", 3), TopQuestion(k=5)).rows
    assert all("renamed-" in row.path for row in rows)
    assert verify(atlas, sample=2, seed=0).faults == []


@pytest.mark.long
def test_other_labels_give_other_statistics_which_are_those_of_a_fresh_index(
    atlas: Path, corpus: Path, tmp_path: Path
) -> None:
    """Half of the pictures of one folder go to another: labels, and their shares of the corpus, change."""
    (corpus / "spots").mkdir()
    for path in sorted((corpus / "blobs").glob("*.jpg"))[::2]:
        path.rename(corpus / "spots" / path.name)
    new = written(atlas, corpus, files(atlas))
    assert {name.split("/")[0] for name in new if not name.startswith(OF_FILES)} == {"units"}
    run(corpus, tmp_path / "fresh")
    assert difference(contents(tmp_path / "fresh"), contents(atlas)) == []
    assert verify(atlas, sample=2, seed=0).faults == []


@pytest.mark.long
def test_shared_tables_stay_as_long_as_a_version_reads_them(atlas: Path, corpus: Path) -> None:
    """Through tombstones, garbage and a return to the version that wrote them."""
    first = manifest_of(atlas)
    touch_all(corpus)
    run(corpus, atlas)
    touched = manifest_of(atlas)
    remove(atlas, ["blobs/003.jpg"])
    collect(atlas, keep=1)
    assert verify(atlas, sample=1, seed=0).faults == []
    restore(atlas, ["blobs/003.jpg"])
    assert (manifest_of(atlas).version, manifest_of(atlas).segments) == (touched.version, touched.segments)
    rename_all(corpus)
    run(corpus, atlas)
    for manifest in (manifest_of(atlas), touched):
        assert [*manifest.segments[0].parts()] == [*first.segments[0].parts()]
    revert(atlas, touched.version)
    collect(atlas, keep=1)
    faults = verify(atlas, sample=1, seed=0).faults
    assert {fault.kind for fault in faults} == {"picture"}, "this version does not know the new names"


@pytest.mark.long
def test_a_shared_part_that_is_gone_is_made_again(atlas: Path, corpus: Path) -> None:
    before = manifest_of(atlas)
    (atlas / ranked_parts(before)[0].path).unlink()
    touch_all(corpus)
    run(corpus, atlas)
    assert manifest_of(atlas).segments[0].name != before.segments[0].name
    collect(atlas, keep=1)
    assert verify(atlas, sample=1, seed=0).faults == []


@pytest.mark.long
def test_a_bounded_atlas_needs_no_forward_for_touched_pictures(corpus: Path, tmp_path: Path) -> None:
    atlas = tmp_path / "bounded"
    run(corpus, atlas, keep="top:5")
    touch_all(corpus)
    new = written(atlas, corpus, files(atlas))
    assert all(name.startswith(OF_FILES) for name in new), new


@pytest.mark.long
def test_an_atlas_of_before_gives_its_ranks_too(atlas: Path, corpus: Path) -> None:
    """Its first ranks lie with its labels: they are written once more, and shared from then on."""
    _as_before(atlas)
    touch_all(corpus)
    new = written(atlas, corpus, files(atlas))
    assert len([name for name in new if name.startswith("hot-ranks-")]) == 1
    assert {name.split("/")[0] for name in new if not name.startswith(OF_FILES)} == set()
    rows = patches(Atlas(atlas), UnitId("_blocks.5", 3), TopQuestion(k=5)).rows
    assert len(rows) == 5
    assert verify(atlas, sample=2, seed=0).faults == []


def _as_before(atlas: Path) -> None:
    """Let the lookup database of format version 2 hold the first ranks too, as it did."""
    turn_into_version_2(atlas)
    path = atlas / "manifest.json"
    content = json.loads(path.read_text())
    database, ranks = content["hot"]["database"]["path"], content["hot"]["ranks"]["path"]
    (atlas / ranks).replace(atlas / database)
    content["hot"] |= {"database": content["hot"]["ranks"] | {"path": database}, "ranks": None}
    path.write_text(json.dumps(content))
