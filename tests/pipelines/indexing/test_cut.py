"""An atlas does not depend on how its run was cut: workers, shards, names, kills, stages."""

import random
import shutil
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count, islice
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pytest
import torch

from tests.conftest import TINY_LAYERS
from tests.pictures import write_corpus
from tests.tables import contents, difference, manifest_of
from unitscope_pipelines.corpora.listing import list_corpus
from unitscope_pipelines.indexing import scan as scan_module
from unitscope_pipelines.indexing.config import IndexConfig
from unitscope_pipelines.indexing.index import index
from unitscope_pipelines.indexing.plan import Plan, cut_shards, make_plan
from unitscope_pipelines.indexing.scan import Scanner
from unitscope_pipelines.indexing.sealing.version_images import version_images
from unitscope_pipelines.storage.parts import read_part, read_receipts
from unitscope_pipelines.storage.stores import store_of
from unitscope_pipelines.vision.images.preprocessing import Pixels
from unitscope_pipelines.vision.recording.recorder import RecordedBatch
from unitscope_schemas.errors import ModelError
from unitscope_schemas.manifest import Receipt


def run(corpus: Path, atlas: Path, **options: object) -> None:
    settings = {"layers": TINY_LAYERS, "batch_size": 8, "workers": 1, **options}
    index(IndexConfig(corpus=str(corpus), atlas=str(atlas), **settings), lambda _: None)


@pytest.mark.long
def test_three_workers_with_shards_of_seven_give_the_rows_of_one_with_shards_of_sixty_four(
    tmp_path: Path, ray_session: None
) -> None:
    """145 images, so that with batches of eight one is left over."""
    corpus = write_corpus(tmp_path / "corpus", 145)
    run(corpus, tmp_path / "one", workers=1, shard_size=64)
    run(corpus, tmp_path / "three", workers=3, shard_size=7)
    one, three = manifest_of(tmp_path / "one"), manifest_of(tmp_path / "three")
    assert one.corpus.image_count % one.batch_size == 1
    assert (len(one.shards), len(three.shards)) == (3, 21)
    assert difference(contents(tmp_path / "one"), contents(tmp_path / "three")) == []


@pytest.mark.long
def test_shuffled_file_names_change_no_row(tiny_corpus: Path, tiny_atlas: Path, tmp_path: Path) -> None:
    files = sorted(path for path in tiny_corpus.rglob("*.jpg"))
    names = list(range(len(files)))
    random.Random(4).shuffle(names)
    shuffled = tmp_path / "shuffled"
    shuffled.mkdir()
    for path, name in zip(files, names, strict=True):
        shutil.copy(path, shuffled / f"{name:03d}.jpg")
    run(shuffled, tmp_path / "atlas", shard_size=11)
    assert difference(contents(tiny_atlas, paths=False), contents(tmp_path / "atlas", paths=False)) == []


def test_a_last_batch_of_one_image_is_recorded_like_any_other(tiny_corpus: Path, tmp_path: Path) -> None:
    """Nine pictures in batches of eight: the ninth is alone; in shards of four it is in other company."""
    corpus = tmp_path / "nine"
    corpus.mkdir()
    for path in sorted((tiny_corpus / "blobs").glob("*.jpg"))[:9]:
        shutil.copy(path, corpus)
    plan = planned(corpus, tmp_path / "atlas", batch_size=8)
    scan = Scanner(plan.scan)
    together = recorded(plan, [scan(shard) for shard in cut_shards(plan.pending, 9)])
    apart = recorded(plan, [scan(shard) for shard in cut_shards(plan.pending, 4)])
    assert len(together) == 9
    assert together == apart


def test_a_shard_is_written_while_the_forwards_of_the_next_run(
    tiny_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first shard's tables are not written before a forward of the second; forwards are of one shard at a time."""
    plan = planned(tiny_corpus, tmp_path / "atlas", batch_size=8)
    scan, shards = Scanner(plan.scan), list(islice(cut_shards(plan.pending, 8), 2))
    run, write, second_began, at_once = scan.recorder.run, scan_module.write_shard, threading.Event(), []
    begun = count()

    def recorded_run(batches: Iterable[Sequence[Pixels]]) -> Iterator[RecordedBatch]:
        at_once.append(1)
        assert sum(at_once) == 1
        if next(begun) == 1:
            second_began.set()
        yield from run(batches)
        at_once.append(-1)

    def late_write(*shard: Any) -> Receipt:
        assert second_began.wait(timeout=60)
        return write(*shard)

    monkeypatch.setattr(scan.recorder, "run", recorded_run)
    monkeypatch.setattr(scan_module, "write_shard", late_write)
    with ThreadPoolExecutor(2) as threads:
        receipts = list(threads.map(scan, shards))
    assert [receipt.shard for receipt in receipts] == [shard.name for shard in shards]
    monkeypatch.undo()
    alone = planned(tiny_corpus, tmp_path / "alone", batch_size=8)
    assert recorded(plan, receipts) == recorded(alone, [Scanner(alone.scan)(shard) for shard in shards])


def test_a_forward_without_memory_stops_the_shard_and_commits_nothing(tiny_corpus: Path, tmp_path: Path) -> None:
    plan = planned(tiny_corpus, tmp_path / "atlas", batch_size=8)
    scan = Scanner(plan.scan)

    def fail(*_: object) -> None:
        raise torch.OutOfMemoryError("out of memory")

    scan.model.module.register_forward_hook(fail)
    with pytest.raises(ModelError, match="one picture does not fit the memory of the device"):
        scan(next(plan.shards(1)))
    assert not list((tmp_path / "atlas").rglob("*.parquet"))


def planned(corpus: Path, atlas: Path, **options: object) -> Plan:
    settings = {"layers": ("_blocks.0",), **options}
    config = IndexConfig(corpus=str(corpus), atlas=str(atlas), **settings)
    return make_plan(config, list_corpus(str(corpus)), lambda _: None)


def recorded(plan: Plan, receipts: list[Receipt]) -> dict[str, list]:
    """By image id everything that the scans of some shards recorded."""
    found = {}
    for receipt in receipts:
        ids = read_part(plan.scan.store, receipt.scanned)["image_id"].to_pylist()
        peaks = read_part(plan.scan.store, receipt.peaks["_blocks.0"])
        for row, image_id in enumerate(ids):
            own = peaks.filter(pc.field("image") == row)
            found[image_id] = [own[name].to_pylist() for name in ("unit", "activation", "row", "col")]
    return found


@pytest.mark.long
def test_new_pictures_cost_their_own_forwards_only(tiny_corpus: Path, tiny_atlas: Path, tmp_path: Path) -> None:
    corpus, atlas = tmp_path / "corpus", tmp_path / "atlas"
    shutil.copytree(tiny_corpus, corpus)
    added = [
        corpus / folder / f"{name}.jpg"
        for folder, name in (
            ("blobs", "001"),
            ("stripes", "004"),
            ("blobs", "037"),
            ("blobs", "015"),
            ("stripes", "022"),
        )
    ]
    aside = tmp_path / "aside"
    aside.mkdir()
    for path in added:
        shutil.move(path, aside)
    run(corpus, atlas)
    before = manifest_of(atlas)
    for path in added:
        shutil.move(aside / path.name, path)
    run(corpus, atlas)
    after = manifest_of(atlas)
    assert (before.forward_count, after.forward_count) == (36, 4), "blobs/001.jpg was there as copies/same-bytes.jpg"
    assert difference(contents(tiny_atlas), contents(atlas)) == []
    assert {receipt.shard for receipt in before.shards} < {receipt.shard for receipt in after.shards}


def test_a_run_with_nothing_to_do_changes_nothing(tiny_corpus: Path, tiny_atlas: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in tiny_atlas.rglob("*") if path.is_file()}
    run(tiny_corpus, tiny_atlas)
    after = {path: path.stat().st_mtime_ns for path in tiny_atlas.rglob("*") if path.is_file()}
    lock = tiny_atlas / "index.lock"
    assert {**before, lock: 0} == {**after, lock: 0}


def test_stray_and_unfinished_parts_are_ignored(tiny_corpus: Path, tiny_atlas: Path, tmp_path: Path) -> None:
    atlas = tmp_path / "atlas"
    shutil.copytree(tiny_atlas, atlas)
    peaks = next((atlas / "peaks" / "_blocks.0").glob("*.parquet"))
    shutil.copy(peaks, peaks.with_name("stray.parquet"))
    (atlas / "peaks" / "_blocks.0" / ".half.parquet.0.tmp").write_bytes(b"half")
    (atlas / ".hot.duckdb.0.tmp").mkdir()
    for name in ("hot.duckdb", "hot.duckdb.wal"):  # a killed writer's, and what its library had put beside
        (atlas / ".hot.duckdb.0.tmp" / name).write_bytes(b"half")
    (atlas / "receipts" / "stray.json").write_text("{")
    (atlas / "manifest.json").unlink()
    run(tiny_corpus, atlas)
    assert difference(contents(tiny_atlas), contents(atlas)) == []
    assert not list(atlas.rglob("*.tmp"))


def test_a_truncated_part_with_the_right_name_is_not_reused(tiny_atlas: Path, tmp_path: Path) -> None:
    atlas = tmp_path / "atlas"
    shutil.copytree(tiny_atlas, atlas)
    manifest = manifest_of(atlas)
    torn = manifest.shards[1]
    part = atlas / torn.peaks["_blocks.5"].path
    part.write_bytes(part.read_bytes()[:-10])
    kept = {receipt.shard for receipt in read_receipts(store_of(atlas), manifest.atlas_key)}
    assert kept == {receipt.shard for receipt in manifest.shards} - {torn.shard}


@pytest.mark.long
def test_a_file_that_could_not_be_read_is_tried_again(tiny_corpus: Path, tmp_path: Path) -> None:
    corpus, atlas = tmp_path / "corpus", tmp_path / "atlas"
    corpus.mkdir()
    shutil.copy(tiny_corpus / "blobs" / "003.jpg", corpus / "a.jpg")
    late, aside = corpus / "b.jpg", tmp_path / "aside.jpg"
    shutil.copy(tiny_corpus / "blobs" / "005.jpg", late)
    before = planned(corpus, atlas, batch_size=2)
    late.rename(aside)
    first = Scanner(before.scan)(next(before.shards(1)))
    assert (first.forward_count, first.skipped.rows) == (1, 1)
    aside.rename(late)
    after = planned(corpus, atlas, batch_size=2)
    assert after.pending["path"].to_pylist() == ["b.jpg"]
    second = Scanner(after.scan)(next(after.shards(1)))
    found = version_images(after.listing, [first, second], store_of(atlas))
    assert (found.images.num_rows, found.skipped.num_rows) == (2, 0)
