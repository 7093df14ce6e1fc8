"""A bounded atlas is the first ranks of the full one, with its statistics and without its peaks."""

import shutil
import subprocess
import sys
import time
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from tests.pictures import blobs, write_corpus
from tests.tables import contents, difference, manifest_of, move_root, ranked_parts
from unitscope_pipelines.corpora.listing import list_corpus
from unitscope_pipelines.derived.coactivation import InProcess, LayerPair, SealedAtlas, find_coactivation
from unitscope_pipelines.indexing.compaction import compact
from unitscope_pipelines.indexing.config import IndexConfig, load_config
from unitscope_pipelines.indexing.index import expected, index
from unitscope_pipelines.indexing.plan import make_plan
from unitscope_pipelines.indexing.sealing.versions import collect, complete_version, sealed_versions
from unitscope_pipelines.indexing.upkeep import remove, restore
from unitscope_pipelines.indexing.verification.verify import verify
from unitscope_pipelines.storage.parts import read_manifest, read_receipts
from unitscope_pipelines.storage.stores import store_of
from unitscope_schemas.errors import UsageError
from unitscope_schemas.manifest import Manifest
from unitscope_schemas.progress import Progress

LAYERS = ("_blocks.0", "_blocks.5")
KEEP = 5


def config(corpus: Path, atlas: Path | str, keep: str | None = f"top:{KEEP}") -> IndexConfig:
    return IndexConfig(corpus=str(corpus), atlas=str(atlas), layers=LAYERS, batch_size=8, workers=1, keep=keep)


def run(corpus: Path, atlas: Path | str, keep: str | None = f"top:{KEEP}") -> Manifest:
    return index(config(corpus, atlas, keep), lambda _: None)


def peaks_of(atlas: Path) -> list[Path]:
    return sorted(atlas.glob("peaks/**/*.parquet"))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("pictures") / "few", count=12)


@pytest.fixture(scope="module")
def full(pictures: Path, tmp_path_factory: pytest.TempPathFactory, ray_session: None) -> Path:
    atlas = tmp_path_factory.mktemp("atlases") / "full"
    run(pictures, atlas, "all")
    return atlas


@pytest.fixture(scope="module")
def bounded(pictures: Path, tmp_path_factory: pytest.TempPathFactory, ray_session: None) -> Path:
    atlas = tmp_path_factory.mktemp("atlases") / "bounded"
    run(pictures, atlas)
    return atlas


@pytest.fixture
def atlas(bounded: Path, tmp_path: Path) -> Path:
    return shutil.copytree(bounded, tmp_path / "atlas")


@pytest.fixture
def corpus(pictures: Path, atlas: Path, tmp_path: Path) -> Path:
    copied = shutil.copytree(pictures, tmp_path / "corpus")
    move_root(atlas, copied)
    return copied


def test_ranks_are_the_first_of_the_full_atlas_and_statistics_are_those_of_all_images(
    full: Path, bounded: Path
) -> None:
    of_whole, of_kept = manifest_of(full), manifest_of(bounded)
    for whole, kept in zip(of_whole.layers, of_kept.layers, strict=True):
        for one, other in zip(
            ranked_parts(of_whole, whole.spec.name), ranked_parts(of_kept, whole.spec.name), strict=True
        ):
            ranked = pq.read_table(full / one.path, partitioning=None)
            found = pq.read_table(bounded / other.path, partitioning=None)
            assert found.equals(ranked.filter(pc.field("rank") < KEEP))
            assert other.rows == found.num_rows == KEEP * len(pc.unique(ranked["unit"]))
        units = [
            pq.read_table(root / part.path, partitioning=None)
            for root, part in ((full, whole.units), (bounded, kept.units))
        ]
        assert units[0].equals(units[1])
        assert set(units[1]["image_count"].to_pylist()) == {12}


def test_a_sealed_bounded_atlas_has_no_peaks_and_nothing_is_wrong_with_it(full: Path, bounded: Path) -> None:
    manifest = manifest_of(bounded)
    assert (manifest.keep, manifest.kept, manifest_of(full).kept) == (KEEP, KEEP, None)
    assert manifest.version != manifest_of(full).version
    assert peaks_of(full)
    assert peaks_of(bounded) == []
    verdict = verify(bounded, sample=12, seed=0)
    assert (verdict.faults, verdict.image_count) == ([], 12)


def test_verify_finds_an_image_that_should_be_among_the_kept(atlas: Path) -> None:
    """The first of a unit, whose row names the next image instead."""
    part = ranked_parts(manifest_of(atlas))[0]
    rows = pq.read_table(atlas / part.path, partitioning=None)
    images = rows["image"].to_numpy().copy()
    images[0] = next(image for image in range(12) if image not in images[:KEEP])
    pq.write_table(rows.set_column(2, rows.field("image"), pa.array(images)), atlas / part.path)
    digest = sha256((atlas / part.path).read_bytes()).hexdigest()
    (atlas / "manifest.json").write_text(manifest_of(atlas).model_dump_json().replace(part.sha256, digest))
    faults = verify(atlas, sample=12, seed=0).faults
    assert any(fault.what.endswith("not among the kept") and "_blocks.0:0 " in fault.where for fault in faults)


def test_the_same_command_again_has_nothing_to_do(pictures: Path, atlas: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in atlas.rglob("*") if path.is_file() and path.suffix != ".lock"}
    first = manifest_of(atlas)
    assert run(pictures, atlas) == first
    assert run(pictures, atlas, keep=None) == first, "left out, the atlas keeps what it kept"
    assert before == {
        path: path.stat().st_mtime_ns for path in atlas.rglob("*") if path.is_file() and path.suffix != ".lock"
    }


def test_a_run_killed_between_seal_and_removal_leaves_peaks_to_the_next_or_to_gc(
    pictures: Path, full: Path, tmp_path: Path
) -> None:
    atlas = shutil.copytree(full, tmp_path / "atlas")
    sealed = run(pictures, atlas)
    assert sealed.forward_count == 0, "of a full atlas with the same pictures only ranks are made"
    assert peaks_of(atlas), "an earlier version names them"
    shutil.rmtree(atlas / "versions")  # now as it was between seal and removal
    again = shutil.copytree(atlas, tmp_path / "again")
    assert collect(again, keep=1).files
    assert peaks_of(again) == []
    assert run(pictures, atlas) == manifest_of(again) == sealed
    assert peaks_of(atlas) == []
    assert len(read_receipts(store_of(atlas), sealed.atlas_key)) == 0, (
        "without their peaks they count for this version alone"
    )


@pytest.mark.long
def test_a_run_killed_as_it_seals_ends_like_one_that_was_not(pictures: Path, bounded: Path, tmp_path: Path) -> None:
    atlas = tmp_path / "atlas"
    layers = [option for layer in LAYERS for option in ("--layers", layer)]
    words = ["index", str(pictures), "--atlas", str(atlas), *layers, "--batch-size", "8", "--workers", "1"]
    command = [sys.executable, "-m", "unitscope", *words, "--keep", f"top:{KEEP}"]
    process = subprocess.Popen(command)
    while not (atlas / "manifest.json").exists() and process.poll() is None:
        time.sleep(0.0005)
    process.kill()
    process.wait()
    assert manifest_of(atlas).keep == KEEP
    subprocess.run(command, check=True)
    assert peaks_of(atlas) == []
    assert difference(contents(bounded), contents(atlas)) == []


def test_gc_of_the_full_version_frees_the_peaks(pictures: Path, full: Path, tmp_path: Path) -> None:
    atlas = shutil.copytree(full, tmp_path / "atlas")
    run(pictures, atlas)
    collect(atlas, keep=1)
    assert peaks_of(atlas) == []
    assert verify(atlas, sample=1, seed=0).faults == []


@pytest.mark.long
def test_new_pictures_are_indexed_with_all_others_again_and_the_run_says_so(
    atlas: Path, corpus: Path, tmp_path: Path
) -> None:
    blobs(900).save(corpus / "new.jpg")
    first, said = manifest_of(atlas), list[Progress]()
    planned = expected(make_plan(config(corpus, atlas), list_corpus(str(corpus)), lambda _: None))
    grown = index(config(corpus, atlas, keep=None), said.append)
    notes = [progress.note for progress in said if progress.note]
    assert len(notes) == 1
    assert "no peaks: 14 files are scanned again" in notes[0]
    assert (len(planned.pending), grown.forward_count, grown.corpus.image_count) == (15, 13, 13)
    assert peaks_of(atlas) == []
    assert [one.version for one in sealed_versions(atlas)] == [grown.version, first.version]
    fresh = run(corpus, tmp_path / "fresh")
    assert difference(contents(tmp_path / "fresh"), contents(atlas)) == []
    assert fresh.version == grown.version
    assert run(corpus, atlas) == grown
    (corpus / "new.jpg").unlink()
    back = run(corpus, atlas)
    assert (back.version, back.forward_count) == (first.version, 0), "the earlier version is still there"
    assert complete_version(store_of(atlas), grown.version) is not None
    assert verify(atlas, sample=2, seed=0).faults == []
    assert remove(atlas, ["blobs/003.jpg"], dry_run=True).image_count == 11


def test_a_growth_that_was_killed_goes_on_where_it_was(atlas: Path, corpus: Path) -> None:
    blobs(901).save(corpus / "new.jpg")

    class KilledError(Exception): ...

    def kill(progress: Progress) -> None:
        if progress.stage == "rank":
            raise KilledError

    with pytest.raises(KilledError):
        index(config(corpus, atlas), kill)
    assert verify(atlas, sample=2, seed=0).faults == [], "the version from before is untouched"
    assert run(corpus, atlas).forward_count == 0


def test_keeping_all_again_takes_all_forwards(pictures: Path, full: Path, atlas: Path) -> None:
    assert run(pictures, atlas, "all").forward_count == 12
    assert difference(contents(full), contents(atlas)) == []


def test_the_size_of_ranked_tables_does_not_grow_with_the_corpus(bounded: Path, tmp_path: Path) -> None:
    twice = write_corpus(tmp_path / "pictures", count=24)
    run(twice, tmp_path / "atlas")
    small, large = (ranked_parts(manifest_of(root)) for root in (bounded, tmp_path / "atlas"))
    assert [part.rows for part in small] == [part.rows for part in large]
    assert sum(part.size_bytes for part in large) == pytest.approx(sum(part.size_bytes for part in small), rel=0.05)


def test_a_removed_image_stays_a_tombstone(atlas: Path) -> None:
    before = manifest_of(atlas)
    remove(atlas, ["blobs/003.jpg"])
    with pytest.raises(UsageError, match="keeps the first 5 ranks of each unit and no peaks"):
        compact(atlas, 1, lambda _: None)
    restore(atlas, ["blobs/003.jpg"])
    assert manifest_of(atlas).version == before.version


def test_units_are_not_compared_over_ranks_that_are_gone(full: Path, bounded: Path) -> None:
    one, two = (SealedAtlas.present(root) for root in (full, bounded))
    with pytest.raises(UsageError, match="keeps the first 5 of each unit; index with --keep all"):
        find_coactivation(one, two, [LayerPair("_blocks.0", "_blocks.0")], InProcess(lambda *_: None))


def test_an_atlas_of_fewer_images_than_ranks_to_keep_is_whole(pictures: Path, full: Path, tmp_path: Path) -> None:
    manifest = run(pictures, tmp_path / "atlas", "top:100")
    assert (manifest.keep, manifest.kept) == (100, None)
    assert difference(contents(full), contents(tmp_path / "atlas")) == []


@pytest.mark.long
def test_a_bounded_atlas_in_an_object_store_has_no_peaks_either(
    pictures: Path, full: Path, bucket: Any, ray_session: None
) -> None:
    address = "s3://atlases/bounded"
    manifest = run(pictures, address)
    keys = [found.key for found in bucket.objects.filter(Prefix="bounded/")]
    assert any("/ranked/" in key for key in keys)
    assert not any("/peaks/" in key for key in keys)
    assert run(pictures, address) == manifest == read_manifest(store_of(address))
    assert verify(address, sample=1, seed=0).faults == []


@pytest.mark.parametrize("keep", ["top", "top:0", "9", "top:-1", "top:1.5"])
def test_only_all_or_a_number_of_ranks_is_kept(keep: str) -> None:
    with pytest.raises(UsageError, match="index keep"):
        load_config(IndexConfig, "index", {"corpus": "a", "atlas": "b", "keep": keep})
