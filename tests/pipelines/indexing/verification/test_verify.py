"""`verify` finds what is not as it was sealed."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from tests.tables import manifest_of, ranked_parts
from unitscope.cli import app
from unitscope_pipelines.indexing.upkeep import remove
from unitscope_pipelines.indexing.verification.verify import verify
from unitscope_pipelines.storage.parts import write_model, write_table
from unitscope_pipelines.storage.stores import store_of
from unitscope_schemas.errors import AtlasError, FormatError
from unitscope_services.atlas.atlas import Atlas


@pytest.fixture
def copied(tiny_atlas: Path, tiny_corpus: Path, tmp_path: Path) -> tuple[Path, Path]:
    shutil.copytree(tiny_atlas, tmp_path / "atlas")
    shutil.copytree(tiny_corpus, tmp_path / "corpus")
    return tmp_path / "atlas", tmp_path / "corpus"


def test_a_sealed_atlas_has_no_fault(tiny_atlas: Path) -> None:
    verdict = verify(tiny_atlas, sample=4, seed=1)
    assert verdict.faults == []
    assert (verdict.image_count, verdict.cell_count) == (4, 4 * (16 + 80 + 320))
    assert verdict.largest_drift <= 1e-4


def test_one_flipped_byte_is_found(copied: tuple[Path, Path]) -> None:
    atlas, corpus = copied
    part = atlas / ranked_parts(manifest_of(atlas), "_blocks.5")[2].path
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 1
    part.write_bytes(data)
    faults = verify(atlas, 2, 0, corpus).faults
    assert [(fault.kind, fault.where) for fault in faults] == [("part", str(part.relative_to(atlas)))]


def test_a_missing_part_is_found(copied: tuple[Path, Path]) -> None:
    atlas, corpus = copied
    (atlas / manifest_of(atlas).layers[0].units.path).unlink()
    assert [fault.kind for fault in verify(atlas, 2, 0, corpus).faults] == ["part"]


def test_one_flipped_byte_in_any_part_is_found(copied: tuple[Path, Path]) -> None:
    atlas, corpus = copied
    remove(atlas, ["blobs/003.jpg"])
    named = [part.path for part in manifest_of(atlas).parts()]
    assert len({path.split("/")[0].split("-")[0] for path in named}) == 11, "of every kind that there is"
    flipped = named[::3] if len(named) > 120 else named
    for path in flipped:
        data = bytearray((atlas / path).read_bytes())
        data[len(data) // 2] ^= 1
        (atlas / path).write_bytes(data)
    assert {fault.where for fault in verify(atlas, 2, 0, corpus).faults} == set(flipped)


def test_a_row_that_drifted_is_found_though_its_part_is_as_it_was_sealed(copied: tuple[Path, Path]) -> None:
    """As other hardware, or another version of a library, would let it drift."""
    atlas, corpus = copied
    manifest = manifest_of(atlas)
    receipt = manifest.shards[0]
    table = pq.read_table(atlas / receipt.peaks["_blocks.5"].path, partitioning=None)
    rows = 16 * receipt.forward_count
    drifted = table["activation"].to_numpy().copy()
    drifted[: receipt.forward_count] *= np.float32(1.001)
    columns = [pa.array(drifted) if name == "activation" else table[name] for name in table.column_names]
    part = write_table(store_of(atlas), receipt.peaks["_blocks.5"].path, pa.table(columns, schema=table.schema), rows)
    shards = [receipt.model_copy(update={"peaks": {**receipt.peaks, "_blocks.5": part}}), *manifest.shards[1:]]
    write_model(store_of(atlas), "manifest.json", manifest.model_copy(update={"shards": shards}))
    verdict = verify(atlas, 6, 0, corpus)
    assert {fault.kind for fault in verdict.faults} == {"document", "activation", "ranks", "statistics"}
    drifted_peaks = [fault for fault in verdict.faults if fault.kind == "activation"]
    assert all(fault.where.startswith("_blocks.5:0 on ") for fault in drifted_peaks)
    assert verdict.largest_drift == pytest.approx(1e-3, rel=0.5)


def test_faults_are_named_with_exit_code_4(copied: tuple[Path, Path]) -> None:
    atlas, corpus = copied
    part = manifest_of(atlas).layers[1].units.path
    (atlas / part).unlink()
    done = CliRunner().invoke(app, ["verify", str(atlas), "--corpus", str(corpus), "--sample", "0"])
    assert done.exit_code == 4
    assert f"part  {part}: cannot be read: No such file or directory" in done.stdout


def test_edited_and_missing_pictures_are_found(copied: tuple[Path, Path]) -> None:
    atlas, corpus = copied
    (corpus / "blobs" / "003.jpg").write_bytes((corpus / "blobs" / "005.jpg").read_bytes())
    (corpus / "stripes" / "002.jpg").unlink()
    faults = verify(atlas, 40, 0, corpus).faults
    assert sorted((fault.where, fault.what.split()[0]) for fault in faults) == [
        ("blobs/003.jpg", "edited"),
        ("stripes/002.jpg", "cannot"),
    ]


def test_every_picture_is_looked_at_whatever_else_is_broken(copied: tuple[Path, Path]) -> None:
    atlas, corpus = copied
    (corpus / "blobs" / "003.jpg").write_bytes((corpus / "blobs" / "005.jpg").read_bytes())
    (corpus / "stripes" / "002.jpg").unlink()
    part = ranked_parts(manifest_of(atlas), "_blocks.5")[0].path
    (atlas / part).unlink()
    verdict = verify(atlas, 0, 0, corpus)
    assert sorted(fault.where for fault in verdict.faults) == sorted(["blobs/003.jpg", "stripes/002.jpg", part])
    assert (verdict.picture_count, verdict.image_count) == (41, 0), "the copy is a file too"
    assert verdict.note.endswith("; 0 of 40 images were run again")


def test_a_broken_table_of_peaks_keeps_no_other_layer_from_being_compared(copied: tuple[Path, Path]) -> None:
    atlas, corpus = copied
    for receipt in manifest_of(atlas).shards:
        (atlas / receipt.peaks["_blocks.5"].path).unlink()
    verdict = verify(atlas, 3, 0, corpus)
    assert {fault.kind for fault in verdict.faults} == {"part"}
    assert (verdict.image_count, verdict.cell_count) == (3, 3 * (16 + 320))
    assert "peaks of _blocks.5 were not compared" in verdict.note


def test_a_part_that_is_a_link_out_of_the_atlas_is_a_fault_and_ends_no_look(copied: tuple[Path, Path]) -> None:
    atlas, corpus = copied
    part = atlas / manifest_of(atlas).layers[0].units.path
    shutil.move(part, atlas.parent / "outside")
    part.symlink_to(atlas.parent / "outside")
    verdict = verify(atlas, 0, 0, corpus)
    assert [(fault.kind, "leads out" in fault.what) for fault in verdict.faults] == [("part", True)]
    assert verdict.picture_count == 41


def test_without_the_table_of_images_no_picture_can_be_looked_at(copied: tuple[Path, Path]) -> None:
    atlas, corpus = copied
    (atlas / manifest_of(atlas).segments[0].tables.images.path).unlink()
    verdict = verify(atlas, 3, 0, corpus)
    assert [fault.kind for fault in verdict.faults] == ["part"]
    assert "no picture was looked at" in verdict.note


def test_a_quick_look_reads_no_picture_and_says_so(copied: tuple[Path, Path]) -> None:
    atlas, corpus = copied
    edited, touched, gone = (corpus / "blobs" / f"00{number}.jpg" for number in (3, 5, 7))
    state = edited.stat()
    edited.write_bytes(edited.read_bytes()[::-1])
    os.utime(edited, ns=(state.st_atime_ns, state.st_mtime_ns))
    os.utime(touched, ns=(1, 1))
    gone.unlink()
    verdict = verify(atlas, 0, 0, corpus, quick=True)
    assert sorted(fault.where for fault in verdict.faults) == ["blobs/005.jpg", "blobs/007.jpg"]
    assert verdict.note.startswith("pictures were compared by size and time alone")
    assert "blobs/003.jpg" in {fault.where for fault in verify(atlas, 0, 0, corpus).faults}


def test_a_truncated_manifest_is_named(copied: tuple[Path, Path]) -> None:
    atlas, _ = copied
    text = (atlas / "manifest.json").read_text()
    (atlas / "manifest.json").write_text(text[: len(text) // 2])
    with pytest.raises(AtlasError, match=r"manifest of atlas .* is damaged"):
        Atlas(atlas)


def test_another_format_version_is_refused(copied: tuple[Path, Path]) -> None:
    atlas, _ = copied
    content = json.loads((atlas / "manifest.json").read_text())
    (atlas / "manifest.json").write_text(json.dumps({**content, "format_version": 99}))
    with pytest.raises(FormatError, match="format version 99, this unitscope reads 2"):
        Atlas(atlas)


def test_a_missing_hot_part_is_named(copied: tuple[Path, Path]) -> None:
    atlas, _ = copied
    os.remove(atlas / manifest_of(atlas).first_ranks.path)  # noqa: PTH107
    with pytest.raises(AtlasError, match="hot-"):
        Atlas(atlas)
