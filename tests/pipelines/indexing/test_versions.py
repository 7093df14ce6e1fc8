"""Earlier versions stay readable until they are collected, and nothing else is deleted."""

import shutil
from pathlib import Path

import pytest

import unitscope
from tests.tables import manifest_of
from unitscope_pipelines.indexing.compaction import compact
from unitscope_pipelines.indexing.sealing.versions import collect, sealed_versions, version_rows
from unitscope_pipelines.indexing.upkeep import remove, restore
from unitscope_pipelines.indexing.verification.verify import verify
from unitscope_pipelines.storage.stores import store_of
from unitscope_schemas import layout
from unitscope_schemas.answers.patches import PatchRow
from unitscope_schemas.errors import AtlasError, BusyError, NotFoundError
from unitscope_schemas.questions import TopQuestion
from unitscope_schemas.units import UnitId
from unitscope_services.atlas.atlas import Atlas
from unitscope_services.queries.exemplars import patches

UNIT = UnitId("_blocks.15", 7)


def rows(atlas: Atlas) -> list[PatchRow]:
    return patches(atlas, UNIT, TopQuestion(k=1000)).rows


@pytest.fixture(scope="module")
def aged(tiny_atlas: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An atlas of three versions: as indexed, with a tombstone, compacted."""
    atlas = shutil.copytree(tiny_atlas, tmp_path_factory.mktemp("aged") / "atlas")
    remove(atlas, ["blobs/003.jpg"])
    compact(atlas, 1, lambda _: None)
    return atlas


def files(atlas: Path) -> set[str]:
    return {path.relative_to(atlas).as_posix() for path in atlas.rglob("*") if path.is_file()}


def test_an_open_version_and_an_earlier_one_answer_as_before(atlas: Path) -> None:
    opened = Atlas(atlas)
    before = rows(opened)
    remove(atlas, [before[0].image_id])
    assert rows(opened) == rows(Atlas(atlas, version=opened.version)) == before
    assert len(rows(Atlas(atlas))) == len(before) - 1
    notebook = unitscope.open_atlas(str(atlas), version=opened.version[:6])
    assert notebook.top(str(UNIT), k=1)["image_id"].to_pylist() == [before[0].image_id]
    with pytest.raises(NotFoundError, match=f"has no version 'f00'; it has .*{opened.version}"):
        Atlas(atlas, version="f00")


def test_versions_are_listed_with_what_each_holds_alone(aged: Path) -> None:
    found = version_rows(aged)
    assert [row.present for row in found] == [True, False, False]
    assert [row.images for row in found] == [39, 39, 40]
    assert [(row.removed, row.stale_images) for row in found] == [(1, 0), (1, 1), (0, 0)]
    assert [row.own_bytes > 0 for row in found] == [True, False, False], "the older two read the same tables"


def test_gc_deletes_what_no_kept_version_names_and_nothing_else(aged: Path, tmp_path: Path) -> None:
    atlas = shutil.copytree(aged, tmp_path / "atlas")
    own = ["notes.txt", "images/mine.parquet", "ranked/holiday.jpg", "peaks/_blocks.5/copy.parquet", "versions/readme"]
    for name in own:
        (atlas / name).write_text("mine")
    stray = atlas / "peaks" / "_blocks.5" / f"{'0' * 16}.parquet"
    stray.write_bytes(b"of a killed run")
    before, present = files(atlas), manifest_of(atlas)
    would = collect(atlas, keep=1, dry_run=True)
    assert files(atlas) == before
    done = collect(atlas, keep=1)
    gone = before - files(atlas)
    assert done == would
    assert gone == set(done.files)
    assert (len(done.kept), len(done.versions)) == (1, 2)
    assert done.size_bytes == sum((aged / name).stat().st_size for name in gone & files(aged)) + 15
    assert layout.first_ranks(sealed_versions(aged)[2].version) in gone
    assert {*own, "index.lock"} <= files(atlas)
    assert verify(atlas, sample=1, seed=0).faults == []
    assert rows(Atlas(atlas)) == rows(Atlas(aged))
    assert sealed_versions(atlas) == [present]
    assert [image.path for image in restore(atlas, ["blobs/003.jpg"]).waiting] == ["blobs/003.jpg"]


def test_gc_keeps_as_many_versions_as_are_asked_for(aged: Path, tmp_path: Path) -> None:
    atlas = shutil.copytree(aged, tmp_path / "atlas")
    done = collect(atlas, keep=2)
    assert len(done.kept) == 2
    assert {Path(name).parent.name for name in done.files} == {"versions"}, "the second reads the tables of the third"
    assert all((atlas / part.path).is_file() for manifest in sealed_versions(atlas) for part in manifest.parts())


def test_gc_deletes_manifests_before_receipts_before_parts(aged: Path) -> None:
    """So that one that is killed leaves no version whose parts are missing."""
    found = collect(aged, keep=1, dry_run=True).files
    kinds = [0 if name.startswith("versions/") else 1 if name.startswith("receipts/") else 2 for name in found]
    assert kinds == sorted(kinds)
    assert {0, 2} <= set(kinds)


def test_gc_waits_for_no_writer_and_trusts_no_damaged_manifest(aged: Path, tmp_path: Path) -> None:
    atlas = shutil.copytree(aged, tmp_path / "atlas")
    with store_of(atlas).locked(), pytest.raises(BusyError):
        collect(atlas, keep=1)
    (atlas / layout.version(sealed_versions(atlas)[1].version)).write_text("{")
    before = files(atlas)
    with pytest.raises(AtlasError, match="is damaged"):
        collect(atlas, keep=1)
    assert files(atlas) == before
