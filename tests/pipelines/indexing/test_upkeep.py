"""Images are taken out and brought back, and a compacted atlas is a fresh one of what is left."""

import random
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import TINY_LAYERS
from tests.pictures import blobs
from tests.tables import contents, difference, manifest_of
from unitscope_pipelines.indexing.compaction import compact
from unitscope_pipelines.indexing.config import IndexConfig
from unitscope_pipelines.indexing.index import index
from unitscope_pipelines.indexing.sealing.versions import collect
from unitscope_pipelines.indexing.upkeep import remove, restore
from unitscope_pipelines.indexing.verification.verify import verify
from unitscope_schemas import layout
from unitscope_schemas.answers.patches import PatchRow
from unitscope_schemas.errors import NotFoundError, UsageError
from unitscope_schemas.manifest import Manifest
from unitscope_schemas.questions import ExplainQuestion, NeighborsQuestion, TopQuestion
from unitscope_schemas.units import UnitId
from unitscope_services.atlas.atlas import Atlas
from unitscope_services.atlas.catalogue import regrouped
from unitscope_services.atlas.image_filter import EVERY_IMAGE, ImageFilter
from unitscope_services.queries.exemplars import patches
from unitscope_services.queries.session import Session

UNIT = UnitId("_blocks.5", 3)


def run(corpus: Path, atlas: Path) -> Manifest:
    settings = {"layers": TINY_LAYERS, "batch_size": 8, "workers": 1}
    return index(IndexConfig(corpus=str(corpus), atlas=str(atlas), **settings), lambda _: None)


def rows(atlas: Path, **query: object) -> list[PatchRow]:
    return patches(Atlas(atlas), UNIT, TopQuestion(**{"k": 1000, **query})).rows


@pytest.mark.parametrize("query", [{}, {"order": "asc"}, {"order": "random"}, {"label": "blobs"}, {"k": 3}])
@pytest.mark.parametrize("expand", [False, True])
def test_a_removed_image_leaves_all_other_rows_of_an_answer_as_they_are(
    atlas: Path, query: dict[str, object], expand: bool
) -> None:
    query = {**query, "duplicates": "expand" if expand else "collapse"}
    before = rows(atlas, **{**query, "k": 1000})
    gone = {row.image_id for row in before[:2]}
    remove(atlas, sorted(gone))
    left = [row for row in before if row.image_id not in gone]
    assert rows(atlas, **query) == left[: query.get("k", 1000)]


def test_a_removed_image_is_in_no_answer(atlas: Path) -> None:
    before, first = Session(atlas), rows(atlas)[0]
    near = before.neighbors(before.find(rows(atlas)[1].path), NeighborsQuestion(k=40))
    found = remove(atlas, [first.path])
    after = Session(atlas)
    assert [image.image_id for image in found.images] == [first.image_id]
    assert after.atlas.image_by_id(first.image_id) is None
    for reference in (first.image_id, first.image_id[:10], first.path):
        with pytest.raises(NotFoundError, match="is not among the 39 of this atlas"):
            after.atlas.find_image(reference)
    with pytest.raises(NotFoundError, match="no image of this atlas has the path"):
        after.atlas.image_by_path(first.path)
    assert len(after.atlas.image_list(EVERY_IMAGE, None, 100)) == 39
    labelled = ImageFilter(first.label)
    assert len(after.atlas.image_list(labelled, None, 100)) == len(before.atlas.image_list(labelled, None, 100)) - 1
    given = [label for image in after.atlas.image_list(EVERY_IMAGE, None, 100) for label in image.labels]
    assert {entry.label: entry.image_count for entry in after.atlas.catalogue.labels()} == Counter(given)
    left = after.neighbors(after.find(rows(atlas)[0].path), NeighborsQuestion(k=40))
    ids = [row.image_id for row in near.rows if row.image_id != first.image_id]
    assert [row.image_id for row in left.rows] == ids
    alike = after.neighbors(
        after.find(rows(atlas)[0].path), NeighborsQuestion(k=40, label=labelled.label, where=labelled.where)
    )
    assert [row.image_id for row in alike.rows] == [row.image_id for row in left.rows if first.label in row.labels]
    assert left.search.vectors < near.search.vectors
    assert after.atlas.first_peaks(UNIT.layer, [UNIT.channel])[UNIT.channel][0].image_id == rows(atlas)[0].image_id


def test_answers_say_how_many_removed_images_their_figures_count(atlas: Path) -> None:
    remove(atlas, [row.image_id for row in rows(atlas)[:2]])
    session = Session(atlas)
    page = session.explain(session.find(rows(atlas)[0].path), ExplainQuestion())
    assert (session.atlas.summary().images, session.atlas.summary().stale_images) == (38, 2)
    assert (page.stale_images, patches(session.atlas, UNIT, TopQuestion()).stale_images) == (2, 2)


def test_a_group_of_near_duplicates_is_named_by_an_image_that_is_left() -> None:
    groups = np.array([-1, 1, 1, -1, 1, 5, 5], np.int32)
    absent = [1, 5]
    present = np.isin(np.arange(7), absent, invert=True)
    assert regrouped(groups, present).tolist() == [-1, 2, 2, -1, 2, -1, -1]


def test_a_dry_run_and_a_wrong_name_change_nothing(atlas: Path) -> None:
    def files() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in atlas.rglob("*") if path.is_file() and path.suffix != ".lock"}

    before, ids = files(), [row.image_id for row in rows(atlas, duplicates="expand")]
    assert remove(atlas, ids[:3], dry_run=True).image_count == 37
    with pytest.raises(NotFoundError, match=r"image 'no/such\.jpg' is not among the 40 images of this atlas"):
        remove(atlas, [ids[0], "no/such.jpg"])
    with pytest.raises(NotFoundError, match="at least 6 first digits"):
        remove(atlas, [ids[0][:5]])
    with pytest.raises(UsageError, match="would remove every image"):
        remove(atlas, ids)
    assert files() == before


def test_a_copy_s_path_removes_the_image_with_all_its_files(atlas: Path) -> None:
    assert remove(atlas, ["copies/same-bytes.jpg", "blobs/001.jpg"]).image_count == 39
    assert manifest_of(atlas).corpus.file_count == 39, "of 41: two files had the same bytes"


def test_restored_images_are_in_the_version_from_before(atlas: Path) -> None:
    before, gone = contents(atlas), [row.image_id for row in rows(atlas)[:3]]
    version, first = manifest_of(atlas).version, rows(atlas)
    remove(atlas, gone[:2])
    remove(atlas, gone[2:])
    restore(atlas, [gone[1][:12]])
    assert manifest_of(atlas).version != version
    assert restore(atlas, [gone[0], first[2].path]).stale_count == 0
    assert (manifest_of(atlas).version, manifest_of(atlas).removed, rows(atlas)) == (version, None, first)
    assert difference(before, contents(atlas)) == []
    with pytest.raises(NotFoundError, match="not among the 0 that were removed"):
        restore(atlas, [gone[0]])


def test_index_runs_leave_removed_images_out(atlas: Path, corpus: Path) -> None:
    remove(atlas, ["blobs/003.jpg"])
    tombstoned = manifest_of(atlas)
    assert run(corpus, atlas) == tombstoned, "with nothing to do, nothing changes"
    blobs(900).save(corpus / "new.jpg")
    shutil.copy(corpus / "blobs" / "003.jpg", corpus / "again.jpg")
    after = run(corpus, atlas)
    assert (after.forward_count, after.corpus.image_count, after.stale_count) == (1, 40, 0)
    assert {"blobs/003.jpg", "again.jpg"}.isdisjoint(contents(atlas)["images"]["path"])
    assert [image.path for image in restore(atlas, ["blobs/003.jpg"]).waiting] == ["blobs/003.jpg"]
    brought = run(corpus, atlas)
    assert (brought.forward_count, brought.corpus.image_count, brought.removed) == (0, 41, None)


def test_removed_images_stay_out_when_the_manifest_is_gone(atlas: Path, corpus: Path) -> None:
    remove(atlas, ["blobs/003.jpg"])
    remove(atlas, ["stripes/002.jpg"])
    (atlas / "manifest.json").unlink()
    after = run(corpus, atlas)
    assert (after.forward_count, after.corpus.image_count, after.stale_count) == (0, 38, 0)
    assert {"blobs/003.jpg", "stripes/002.jpg"}.isdisjoint(contents(atlas)["images"]["path"])
    assert restore(atlas, ["blobs/003.jpg"]).waiting[0].path == "blobs/003.jpg"
    assert run(corpus, atlas).corpus.image_count == 39


@pytest.mark.long
def test_gc_frees_shards_all_of_whose_pictures_have_left(atlas: Path, corpus: Path) -> None:
    def shards() -> set[str]:
        return {receipt.shard for receipt in manifest_of(atlas).shards}

    before, first = contents(atlas), shards()
    (corpus / "late").mkdir()
    for number in range(3):
        blobs(800 + number).save(corpus / "late" / f"{number}.jpg", quality=90)
    run(corpus, atlas)
    (late,) = shards() - first
    shutil.copy(corpus / "late" / "0.jpg", corpus / "copied.jpg")
    shutil.rmtree(corpus / "late")
    assert run(corpus, atlas).forward_count == 0
    assert late in shards(), "the copy's peaks are there"
    (corpus / "copied.jpg").unlink()
    run(corpus, atlas)
    assert shards() == first
    assert layout.receipt(late) in collect(atlas, keep=1).files
    assert not [path for path in atlas.rglob("*") if late in path.name]
    assert difference(before, contents(atlas)) == []
    assert verify(atlas, sample=1, seed=0).faults == []


@pytest.mark.long
def test_a_compacted_atlas_is_a_fresh_one_of_what_is_left(atlas: Path, corpus: Path, tmp_path: Path) -> None:
    """A tenth added, a twentieth removed; then row for row."""
    for number in range(4):
        blobs(700 + number).save(corpus / "blobs" / f"added-{number}.jpg", quality=90)
    run(corpus, atlas)
    paths = sorted(entry.path for entry in Atlas(atlas).image_list(EVERY_IMAGE, None, 99) if not entry.other_paths)
    removed = random.Random(3).sample(paths, 2)
    remove(atlas, removed)
    after = compact(atlas, 1, lambda _: None)
    assert (after.forward_count, after.corpus.image_count, after.stale_count) == (0, 42, 0)
    assert verify(atlas, sample=2, seed=0).faults == []
    for path in removed:
        (corpus / path).unlink()
    fresh = run(corpus, tmp_path / "fresh")
    assert difference(contents(tmp_path / "fresh"), contents(atlas)) == []
    assert (after.version, after.corpus) == (fresh.version, fresh.corpus)
    assert compact(atlas, 1, lambda _: None) == after, "without tombstones nothing is done"
