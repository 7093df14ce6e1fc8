"""One set of pictures as every kind of corpus gives one atlas; what is broken is named."""

import hashlib
import json
import logging
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.corpora import add, pictures_of, write_list, write_parquet, write_tars
from unitscope_pipelines.corpora.listing import list_corpus
from unitscope_pipelines.indexing.config import IndexConfig
from unitscope_pipelines.indexing.plan import Plan, cut_shards, make_plan
from unitscope_pipelines.indexing.scan import Scanner
from unitscope_pipelines.indexing.sealing.version_images import VersionImages, version_images
from unitscope_pipelines.storage.originals import Originals
from unitscope_pipelines.storage.parts import read_part, read_receipts
from unitscope_pipelines.storage.stores import store_of
from unitscope_schemas.addresses import Address, Cell, Range
from unitscope_schemas.errors import AtlasError, CorpusError

LAYER = "_blocks.0"


def planned(corpus: Path | str, atlas: Path | str) -> Plan:
    config = IndexConfig(corpus=str(corpus), atlas=str(atlas), layers=(LAYER,), batch_size=8)
    return make_plan(config, list_corpus(str(corpus)), lambda _: None)


def scanned(corpus: Path | str, atlas: Path) -> tuple[Plan, VersionImages]:
    """Scan what is pending as one shard; the images of the version that this would seal."""
    plan = planned(corpus, atlas)
    for shard in cut_shards(plan.pending, 1000):
        Scanner(plan.scan)(shard)
    return plan, version_images(plan.listing, read_receipts(store_of(atlas), plan.scan.atlas_key), store_of(atlas))


def peaks_by_id(plan: Plan) -> dict[str, list[object]]:
    """Everything that was recorded, by image."""
    store, found = plan.store, {}
    for receipt in read_receipts(store, plan.scan.atlas_key):
        peaks = read_part(store, receipt.peaks[LAYER]).sort_by([("image", "ascending"), ("unit", "ascending")])
        units = plan.cells_per_image
        for row, image_id in enumerate(read_part(store, receipt.scanned)["image_id"].to_pylist()):
            found[image_id] = peaks.slice(row * units, units).drop_columns(["image"]).to_pylist()
    return found


@pytest.fixture(scope="module")
def folder(tiny_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, VersionImages]:
    return scanned(tiny_corpus, tmp_path_factory.mktemp("kinds") / "folder")


MAKERS: dict[str, Callable[[Path, Path], Path]] = {
    "tars": lambda target, source: write_tars(target, pictures_of(source)),
    "parquet": lambda target, source: write_parquet(target, pictures_of(source)),
    "list": lambda target, source: write_list(target.with_suffix(".csv"), source, absolute=True),
}
BY_KIND = {
    "statements",
    "path",
    "other_paths",
    "address",
    "other_addresses",
    "metadata",
    "modified_ns",
    "shard",
    "shard_row",
}


@pytest.mark.parametrize(
    "kind", ["tars", *(pytest.param(kind, marks=pytest.mark.long) for kind in MAKERS if kind != "tars")]
)
def test_every_kind_of_corpus_gives_the_images_and_peaks_of_the_folder(
    kind: str, tiny_corpus: Path, folder: tuple[Plan, VersionImages], tmp_path: Path
) -> None:
    plan, found = scanned(MAKERS[kind](tmp_path / "corpus", tiny_corpus), tmp_path / "atlas")
    same = [name for name in found.images.schema.names if name not in BY_KIND]
    assert found.images.read(same).equals(folder[1].images.read(same))
    assert found.skipped.select(["reason", "size_bytes"]).equals(folder[1].skipped.select(["reason", "size_bytes"]))
    assert peaks_by_id(plan) == peaks_by_id(folder[0])
    assert len(planned(plan.config.corpus, plan.config.atlas).pending) == 0, "what was read is not read again"
    originals = Originals(plan.listing.root)
    for row in found.images.read(["image_id", "address", "metadata"]).to_pylist():
        assert hashlib.sha256(originals.read(row["address"])).hexdigest() == row["image_id"]
        assert 2000 <= json.loads(row["metadata"])["year"] < 2043


@pytest.mark.long
def test_added_shards_cost_their_own_forwards_only(tiny_corpus: Path, tmp_path: Path) -> None:
    pictures, corpus = pictures_of(tiny_corpus), tmp_path / "corpus"
    write_tars(corpus, pictures[:10], tar_count=1)
    scanned(corpus, tmp_path / "atlas")
    shutil.move(write_tars(tmp_path / "more", pictures[6:12], 1) / "shard-000.tar", corpus / "shard-001.tar")
    plan, found = scanned(corpus, tmp_path / "atlas")
    assert set(plan.pending["path"].to_pylist()) == {f"shard-001.tar/{number:04d}.jpg" for number in range(6)}
    receipts = read_receipts(store_of(tmp_path / "atlas"), plan.scan.atlas_key)
    assert sorted(receipt.forward_count for receipt in receipts) == [2, 10]
    assert found.file_count == 16


@pytest.mark.long
def test_an_edited_list_changes_labels_without_a_forward(tiny_corpus: Path, tmp_path: Path) -> None:
    source = tmp_path / "some.csv"
    for label in ("day", "night"):
        paths = sorted((tiny_corpus / "blobs").glob("*.jpg"))[:3]
        source.write_text("path,label\n" + "".join(f"{path},{label}\n" for path in paths))
        plan, found = scanned(source, tmp_path / "atlas")
    assert len(plan.pending) == 0
    assert found.images.read()["label"].to_pylist() == ["night"] * 3


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("list.csv", "path,label\na.jpg,one\n\nb.jpg,two\n"),
        ("list.jsonl", '{"path":"a.jpg","label":"one"}\n\n{"path":"b.jpg","label":"two"}\n'),
        ("list.txt", "a.jpg\n\n  \nb.jpg\n"),
    ],
)
def test_a_blank_line_shifts_no_entry(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    files = list_corpus(str(tmp_path / name)).files
    assert files["path"].to_pylist() == ["a.jpg", "b.jpg"]
    assert files["label"].to_pylist() == ([None, None] if name.endswith("txt") else ["one", "two"])


def test_a_broken_parquet_file_is_named_and_the_others_are_listed(tiny_corpus: Path, tmp_path: Path) -> None:
    corpus = write_parquet(tmp_path / "corpus", pictures_of(tiny_corpus)[:6])
    broken = corpus / "data" / "train-00001.parquet"
    broken.write_bytes(broken.read_bytes()[:-40])
    listed = list_corpus(str(corpus))
    assert len(listed.files) == 3
    (refused,) = listed.refused.to_pylist()
    assert refused["path"] == "data/train-00001.parquet"
    assert "is broken" in refused["reason"]
    (corpus / "data" / "train-00000.parquet").unlink()
    with pytest.raises(CorpusError, match=r"holds no picture \(data/train-00001\.parquet: .* is broken"):
        list_corpus(str(corpus))


def test_a_parquet_file_without_image_bytes_is_named_with_its_columns(tmp_path: Path) -> None:
    pq.write_table(pa.table({"year": [1], "text": ["a"]}), tmp_path / "a.parquet")
    with pytest.raises(CorpusError, match=r"no column of image bytes, only year \(int64\), text \(string\)"):
        list_corpus(str(tmp_path))


def test_a_missing_entry_of_a_list_is_listed_and_cannot_be_read(tiny_corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text(f"{tiny_corpus}/blobs/001.jpg\n\ngone.jpg\n")
    listed = list_corpus(str(tmp_path / "list.txt"))
    assert listed.files["path"].to_pylist() == [f"{tiny_corpus}/blobs/001.jpg", "gone.jpg"]
    with pytest.raises(FileNotFoundError):
        Originals(listed.root).read(listed.files["address"][1].as_py())


def test_web_addresses_in_a_list_are_refused(tmp_path: Path) -> None:
    (tmp_path / "list.jsonl").write_text('{"path": "https://host/a.jpg"}\n')
    with pytest.raises(CorpusError, match=r"line 1 of list 'list\.jsonl' .* download it first"):
        list_corpus(str(tmp_path / "list.jsonl"))


def test_metadata_keep_types_and_nested_values(tmp_path: Path) -> None:
    lines = ['{"path": "a.jpg", "label": 3, "year": 2012, "share": 0.5, "day": true, "name": "x", "tags": [1]}']
    (tmp_path / "list.jsonl").write_text("\n".join(lines))
    row = list_corpus(str(tmp_path / "list.jsonl")).files.read().to_pylist()[0]
    assert (row["label"], row["metadata"]) == ("3", '{"year":2012,"share":0.5,"day":true,"name":"x","tags":[1]}')


def test_a_folder_of_tars_and_parquet_files_is_refused_and_a_glob_chooses(tiny_corpus: Path, tmp_path: Path) -> None:
    pictures = pictures_of(tiny_corpus)[:4]
    write_tars(tmp_path / "mixed", pictures)
    write_parquet(tmp_path / "mixed", pictures)
    with pytest.raises(CorpusError, match="several kinds"):
        list_corpus(str(tmp_path / "mixed"))
    chosen = list_corpus(str(tmp_path / "mixed" / "*-000.tar"))
    assert chosen.files["path"].to_pylist() == ["shard-000.tar/0000.jpg", "shard-000.tar/0001.jpg"]


@pytest.mark.parametrize(
    "address",
    [
        Address("a:b/c.jpg"),
        Address("x:+.tar", Range(512, 9)),
        Address("p", Cell(2, 1)),
        Address("p:/q", Cell(0, 3, "a/b:c")),
    ],
)
def test_an_address_is_read_as_it_was_written(address: Address) -> None:
    assert Address.parse(str(address)) == address


def test_what_is_no_address_is_refused() -> None:
    with pytest.raises(AtlasError, match="no address"):
        Address.parse("range:1:x")


@pytest.mark.parametrize("kind", ["folder", "tars", "parquet"])
def test_an_object_store_gives_the_images_of_the_folder(
    kind: str, pictures_bucket: Any, tiny_corpus: Path, folder: tuple[Plan, VersionImages], tmp_path: Path
) -> None:
    source = tiny_corpus if kind == "folder" else MAKERS[kind](tmp_path / "corpus", tiny_corpus)
    for path in source.rglob("*.*"):
        pictures_bucket.upload_file(str(path), f"sets/{kind}/{path.relative_to(source)}")
    listed = list_corpus(f"s3://corpus/sets/{kind}")
    originals = Originals(listed.root)
    found = {hashlib.sha256(originals.read(address)).hexdigest() for address in listed.files["address"].to_pylist()}
    assert found > set(folder[1].images.read()["image_id"].to_pylist())
    assert (len(listed.files), len(found)) == (42, 41), "one file is a copy, and one no usable picture"
    assert sorted(filter(None, listed.files["label"].to_pylist())).count("stripes") == 21


def test_a_password_in_an_address_is_refused_and_not_repeated(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="holds a password") as refused:
        list_corpus("s3://me:hidden@corpus/tiny")
    assert "hidden" not in str(refused.value)


def test_a_missing_bucket_is_named(pictures_bucket: Any) -> None:
    with pytest.raises(CorpusError, match="s3://nowhere/tiny"):
        list_corpus("s3://nowhere/tiny")


@pytest.mark.parametrize(("at_once", "most"), [(1 << 24, 2), (1 << 20, 5)])
def test_a_tar_in_an_object_store_is_listed_in_few_pieces_whatever_its_members(
    at_once: int,
    most: int,
    pictures_bucket: Any,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with tarfile.open(tmp_path / "one.tar", "w") as tar:
        for number in range(60):
            add(tar, f"{number:03d}.jpg", bytes(50_000))
            add(tar, f"{number:03d}.cls", b"grey")
    pictures_bucket.upload_file(str(tmp_path / "one.tar"), "one.tar")
    monkeypatch.setattr("unitscope_pipelines.corpora.tars._AT_ONCE_BYTES", at_once)
    with caplog.at_level(logging.INFO, "werkzeug"):
        listed = list_corpus("s3://corpus")
    reads = [record for record in caplog.messages if "GET /corpus/one.tar" in record]
    assert 1 <= len(reads) <= most
    assert listed.files["label"].to_pylist() == ["grey"] * 60
    names = ["path", "label", "address"]
    assert listed.files.read(names).equals(list_corpus(str(tmp_path)).files.read(names))
