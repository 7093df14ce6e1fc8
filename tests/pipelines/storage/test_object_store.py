"""An atlas in an object store is the atlas of a folder: written, resumed, kept up, checked and answered from."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pyarrow as pa
import pyarrow.csv
import pytest
from moto.server import ThreadedMotoServer
from typer.testing import CliRunner, Result

from tests.conftest import TINY_LAYERS
from tests.tables import contents, difference, manifest_of, ranked_parts
from unitscope.cli import app
from unitscope_pipelines.corpora.listing import list_corpus
from unitscope_pipelines.indexing.config import IndexConfig
from unitscope_pipelines.indexing.index import index
from unitscope_pipelines.indexing.plan import make_plan
from unitscope_pipelines.indexing.scan import Scanner
from unitscope_pipelines.indexing.sealing.versions import collect, version_rows
from unitscope_pipelines.indexing.upkeep import remove, restore
from unitscope_pipelines.indexing.verification.verify import verify
from unitscope_pipelines.storage.cache import Cache
from unitscope_pipelines.storage.object_stores import writer_lock
from unitscope_pipelines.storage.parts import read_manifest, read_receipts, write_atomically
from unitscope_pipelines.storage.stores import store_of
from unitscope_schemas import layout
from unitscope_schemas.errors import AtlasError, BusyError, NotFoundError, StorageError, StoreError, UsageError
from unitscope_schemas.manifest import Manifest
from unitscope_schemas.questions import HistogramQuestion, TopQuestion
from unitscope_schemas.units import UnitId
from unitscope_services.atlas.atlas import Atlas
from unitscope_services.queries.exemplars import patches
from unitscope_services.queries.units import histogram

ALL_RANKS = HistogramQuestion(bins=60)
"""Bins of a histogram that is counted over all ranks of a unit, from its part: stored are 64."""

UNITS = ("_blocks.0:3", "_blocks.5:40", "_blocks.15:290")


def invoke(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def config(corpus: Path, atlas: str, **options: object) -> IndexConfig:
    settings = {"layers": TINY_LAYERS, "batch_size": 8, "workers": 1, **options}
    return IndexConfig(corpus=str(corpus), atlas=atlas, **settings)


def keys(bucket: Any, prefix: str) -> set[str]:
    return {found.key.removeprefix(f"{prefix}/") for found in bucket.objects.filter(Prefix=f"{prefix}/")}


def uploaded(folder: Path, bucket: Any, prefix: str) -> str:
    """The address of a copy of an atlas."""
    for path in folder.rglob("*"):
        if path.is_file() and path.name != layout.LOCK:
            bucket.upload_file(str(path), f"{prefix}/{path.relative_to(folder).as_posix()}")
    return f"s3://{bucket.name}/{prefix}"


def downloaded(bucket: Any, prefix: str, folder: Path) -> Path:
    for key in keys(bucket, prefix):
        (folder / key).parent.mkdir(parents=True, exist_ok=True)
        bucket.download_file(f"{prefix}/{key}", str(folder / key))
    return folder


def named_by(manifest: Manifest) -> set[str]:
    """Every object that an atlas of this version consists of."""
    receipts = {layout.receipt(receipt.shard) for receipt in manifest.shards}
    return {part.path for part in manifest.parts()} | receipts | {layout.MANIFEST, layout.measured(manifest.atlas_key)}


@pytest.fixture(scope="module")
def remote(tiny_corpus: Path, bucket: Any, ray_session: None) -> str:
    """The atlas of the tiny corpus, written into the store by a run that went on where one was killed."""
    address = "s3://atlases/tiny"
    settings = config(tiny_corpus, address, shard_size=15)
    plan = make_plan(settings, list_corpus(str(tiny_corpus)), lambda _: None)
    scan = Scanner(plan.scan)
    first, torn, *_ = plan.shards(1)
    scan(first)
    for path in (layout.files(torn.name), layout.scanned("0" * 16), layout.peaks("_blocks.0", "0" * 16)):
        write_atomically(store_of(address), path, lambda file: file.write_bytes(b"of a killed run"), 1)
    bucket.Object(f"tiny/{layout.peaks('_blocks.0', torn.name)}").initiate_multipart_upload()
    owner = {"id": "killed", "host": "here", "process": 2**22 + 1, "scope": writer_lock._process_scope()}
    bucket.put_object(Key=f"tiny/{layout.LOCK}", Body=json.dumps(owner).encode())
    index(settings, lambda _: None)
    return address


@pytest.mark.long
def test_a_run_that_was_killed_goes_on_and_leaves_nothing_but_the_atlas(remote: str, bucket: Any) -> None:
    manifest = read_manifest(store_of(remote))
    assert manifest is not None
    assert (manifest.corpus.image_count, manifest.forward_count) == (40, 25), "15 images were in the finished shard"
    assert keys(bucket, "tiny") == named_by(manifest)
    assert list(bucket.multipart_uploads.all()) == []
    assert len(read_receipts(store_of(remote), manifest.atlas_key)) == 3


@pytest.mark.long
def test_the_same_corpus_gives_the_same_tables_and_digests_here_and_there(
    remote: str, bucket: Any, tiny_corpus: Path, tiny_atlas: Path, tmp_path: Path
) -> None:
    fetched = downloaded(bucket, "tiny", tmp_path / "fetched")
    assert difference(contents(tiny_atlas), contents(fetched)) == []
    here, there = manifest_of(tiny_atlas), manifest_of(fetched)
    assert here.version == there.version
    ranked = [
        [part.sha256 for part in (*(entry.units for entry in one.layers), *ranked_parts(one))] for one in (here, there)
    ]
    assert ranked[0] == ranked[1]
    assert verify(remote, sample=2, seed=0).faults == []
    again = index(config(tiny_corpus, remote, shard_size=15), lambda _: None)
    assert again == there, "with nothing to do, nothing changes"


QUESTIONS = [
    *(["top", "ATLAS", unit, "-k", "12", "--json"] for unit in UNITS),
    ["top", "ATLAS", UNITS[1], "--quantile", "0.2..0.7", "--label", "blobs", "--order", "random", "--format", "csv"],
    ["explain", "ATLAS", "blobs/003.jpg", "--json"],
    ["neighbors", "ATLAS", "stripes/004.jpg", "--json"],
    ["units", "ATLAS", "_blocks.5", "--sort", "-maximum", "--format", "csv"],
]


@pytest.mark.parametrize("words", QUESTIONS, ids=lambda words: f"{words[0]}-{words[2]}")
def test_every_question_has_the_same_answer_here_and_there(words: list[str], remote: str, tiny_atlas: Path) -> None:
    here, there = ([str(atlas) if word == "ATLAS" else word for word in words] for atlas in (tiny_atlas, remote))
    answer = invoke(*there)
    assert answer.exit_code == 0, answer.output
    assert answer.stdout == invoke(*here).stdout
    assert len(answer.stdout) > 500


def test_a_cache_with_room_for_few_parts_keeps_its_bound_and_the_answers(
    remote: str, tiny_atlas: Path, tmp_path: Path
) -> None:
    manifest = manifest_of(tiny_atlas)
    stored = manifest.segments[0].tables
    assert stored.lookup is not None and stored.files is not None
    lasting = sum(part.size_bytes for part in (manifest.first_ranks, stored.lookup, stored.files))
    units = [entry.units for entry in manifest.layers]
    largest = max(part.size_bytes for part in (*ranked_parts(manifest), *units))
    cache = Cache(tmp_path, lasting + largest)
    here, there = Atlas(tiny_atlas), Atlas(store_of(remote, cache))
    fetched = set()
    for _ in range(2):
        for layer, count in zip(TINY_LAYERS, (16, 80, 320), strict=True):
            for channel in range(0, count, 8):
                unit = UnitId(layer, channel)
                assert patches(there, unit, TopQuestion(k=40)) == patches(here, unit, TopQuestion(k=40))
                assert histogram(there, unit, ALL_RANKS) == histogram(here, unit, ALL_RANKS)
                kept = [path for path in tmp_path.iterdir() if len(path.name) == 64]
                assert sum(path.stat().st_size for path in kept) <= cache.limit_bytes
                fetched |= {path.name for path in kept}
    assert len(fetched) > len(kept) + 5, "some were deleted again"


def test_a_cache_that_cannot_hold_what_a_question_needs_says_so(remote: str, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"no room for hot-.*UNITSCOPE_CACHE_GB"):
        Atlas(store_of(remote, Cache(tmp_path, 1000)))


def test_a_flipped_object_and_a_missing_one_are_found_though_the_cache_has_them(tiny_atlas: Path, bucket: Any) -> None:
    address, manifest = uploaded(tiny_atlas, bucket, "flipped"), manifest_of(tiny_atlas)
    assert invoke("top", address, UNITS[1], "-k", 3).exit_code == 0
    flipped, missing = ranked_parts(manifest, manifest.layers[1].spec.name)[2].path, manifest.layers[0].units.path
    data = bytearray((tiny_atlas / flipped).read_bytes())
    data[len(data) // 2] ^= 1
    bucket.put_object(Key=f"flipped/{flipped}", Body=bytes(data))
    bucket.Object(f"flipped/{missing}").delete()
    found = verify(address, sample=2, seed=0)
    assert {fault.where: fault.what for fault in found.faults} == {
        flipped: "its bytes are not those that were sealed",
        missing: "cannot be read: there is no such object",
    }
    assert invoke("verify", address, "--sample", 0).exit_code == 4


def test_a_flipped_object_is_never_answered_from(tiny_atlas: Path, bucket: Any, tmp_path: Path) -> None:
    address, part = uploaded(tiny_atlas, bucket, "torn"), ranked_parts(manifest_of(tiny_atlas), "_blocks.5")[2]
    data = bytearray((tiny_atlas / part.path).read_bytes())
    data[-9] ^= 1
    bucket.put_object(Key=f"torn/{part.path}", Body=bytes(data))
    atlas = Atlas(store_of(address, Cache(tmp_path, 10**9)))
    with pytest.raises(AtlasError, match=f"part {part.path} is damaged: its bytes are not those that were sealed"):
        histogram(atlas, UnitId("_blocks.5", 2 * 16), ALL_RANKS)


def test_versions_are_made_listed_and_collected_as_in_a_folder(tiny_atlas: Path, bucket: Any, tmp_path: Path) -> None:
    here, there = shutil.copytree(tiny_atlas, tmp_path / "atlas"), uploaded(tiny_atlas, bucket, "kept-up")
    before, stray = manifest_of(tiny_atlas).version, layout.peaks("_blocks.0", "0" * 16)
    for atlas in (here, there):
        remove(atlas, ["blobs/003.jpg", "blobs/005.jpg"])
        restore(atlas, ["blobs/005.jpg"])
        write_atomically(store_of(atlas), stray, lambda file: file.write_bytes(b"of a killed run"), 1)
    held = keys(bucket, "kept-up")
    assert held == downloaded_keys(here) - {layout.LOCK}
    assert [row.version for row in version_rows(there)] == [row.version for row in version_rows(here)]
    assert Atlas(there, version=before).summary().images == 40
    assert json.loads(invoke("versions", there, "--json").stdout)["rows"][0]["images"] == 39
    would = collect(there, keep=1, dry_run=True)
    assert keys(bucket, "kept-up") == held
    done = collect(there, keep=1)
    assert done == would == collect(here, keep=1)
    assert stray in done.files
    assert keys(bucket, "kept-up") == held - set(done.files)
    with pytest.raises(NotFoundError, match="has no version"):
        Atlas(there, version=before)


def downloaded_keys(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_plan_and_an_export_read_what_is_there_and_a_catalog_is_refused(
    remote: str, bucket: Any, tiny_corpus: Path, tiny_atlas: Path, tmp_path: Path
) -> None:
    before = keys(bucket, "tiny")
    words = ["--layers", ",".join(TINY_LAYERS), "--batch-size", 8, "--plan", "--json"]
    done = invoke("index", tiny_corpus, "--atlas", remote, *words)
    assert json.loads(done.stdout)["pending_files"] == 0
    for atlas, out in ((remote, tmp_path / "there"), (tiny_atlas, tmp_path / "here")):
        assert invoke("export", atlas, "--format", "csv", "--out", out, "--units", UNITS[0]).exit_code == 0
    there, here = (pa.csv.read_csv(tmp_path / place / "exemplars.csv") for place in ("there", "here"))
    assert there.drop_columns(["digest"]).equals(here.drop_columns(["digest"])), "another run has another manifest"
    assert keys(bucket, "tiny") == before
    refused = invoke("catalog", remote, "--out", tmp_path / "catalog.duckdb").exception
    assert isinstance(refused, UsageError)
    assert "is in an object store, which the views of a catalog cannot read" in str(refused)


def test_a_second_writer_is_refused_and_the_first_leaves_no_lock(bucket: Any, tiny_corpus: Path) -> None:
    address = "s3://atlases/busy"
    with store_of(address).locked():
        with pytest.raises(BusyError, match=r"another index run is writing s3://atlases/busy: process \d+ on "):
            index(config(tiny_corpus, address), lambda _: None)
        assert keys(bucket, "busy") == {layout.LOCK}
    assert keys(bucket, "busy") == set()
    with store_of(address).locked():
        pass


def test_a_lock_is_taken_from_the_dead_only(bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """One elsewhere is dead when the store has not heard of it for long enough."""
    address, key = "s3://atlases/dead", f"dead/{layout.LOCK}"
    elsewhere = {"id": "other", "host": "elsewhere", "process": 1, "scope": "another boot"}
    bucket.put_object(Key=key, Body=json.dumps(elsewhere).encode())
    with pytest.raises(BusyError, match="process 1 on elsewhere, heard of"), store_of(address).locked():
        pass
    with monkeypatch.context() as patched:
        patched.setattr(writer_lock, "LIFETIME_S", -5.0)
        with store_of(address).locked():
            assert json.loads(bucket.Object(key).get()["Body"].read())["id"] != "other"
    bucket.put_object(Key=key, Body=b"")  # a folder's lock file, copied
    with store_of(address).locked():
        assert json.loads(bucket.Object(key).get()["Body"].read())["id"] != "other"


def test_a_run_that_lost_its_lock_puts_nothing_more(bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_lock, "_BEAT_S", 0.05)
    monkeypatch.setattr(writer_lock, "_FRESH_S", 0.0)
    address, key = "s3://atlases/lost", f"lost/{layout.LOCK}"
    with store_of(address).locked():
        first = bucket.Object(key).e_tag
        wait_until(lambda: bucket.Object(key).e_tag != first)
        bucket.put_object(Key=key, Body=b'{"id": "other", "host": "elsewhere", "process": 1}')
        with pytest.raises(StoreError, match="another run has taken over s3://atlases/lost"):
            write_atomically(store_of(address), "x.json", lambda file: file.write_text("x"), 1)
        assert keys(bucket, "lost") == {layout.LOCK}
    assert json.loads(bucket.Object(key).get()["Body"].read())["id"] == "other", "the other's lock is left alone"


def wait_until(holds: Any) -> None:
    import time

    ends = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < ends
        time.sleep(0.02)


def test_a_store_that_ignores_conditions_is_refused(bucket: Any) -> None:
    store: Any = store_of("s3://atlases/loose")

    def loosen(request: Any, **_: object) -> None:
        for name in ("If-None-Match", "If-Match"):
            del request.headers[name]

    events = store._client.meta.events  # of the client that all stores of this process have
    events.register("before-sign.s3.PutObject", loosen)
    try:
        with pytest.raises(StoreError, match="ignores conditions of puts"), store_of("s3://atlases/loose").locked():
            pass
    finally:
        events.unregister("before-sign.s3.PutObject", loosen)
    assert keys(bucket, "loose") == set()


def test_what_is_wrong_with_an_address_is_said(bucket: Any, tiny_corpus: Path) -> None:
    with pytest.raises(NotFoundError, match="bucket 'nowhere' of s3://nowhere/atlas does not exist; create it first"):
        index(config(tiny_corpus, "s3://nowhere/atlas"), lambda _: None)
    with pytest.raises(NotFoundError, match=r"s3://atlases/nothing is no atlas: it has no manifest\.json"):
        Atlas("s3://atlases/nothing")
    for address in ("s3://", "s3://me:hidden@atlases/x", "s3://atlases/x?region=eu"):
        with pytest.raises(UsageError, match="no address of an atlas") as refused:
            Atlas(address)
        assert "hidden" not in str(refused.value)
    with pytest.raises(UsageError, match="s3://my bucket/atlas is no address of an object store"):
        Atlas("s3://my bucket/atlas")


def test_missing_credentials_are_said_and_a_public_atlas_needs_none(
    remote: str, bucket: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    opened = [bucket.Object(f"tiny/{key}") for key in keys(bucket, "tiny")]
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    with pytest.raises(StoreError, match="no credentials for s3://atlases/tiny: set AWS_ACCESS_KEY_ID"):
        Atlas(store_of(remote, Cache(tmp_path, 10**9)))
    public = "s3://anonymous@atlases/tiny"
    with pytest.raises(StoreError, match=r"refuses to read manifest\.json: 403, .* must be allowed to get and list"):
        Atlas(public)
    for found in opened:
        found.Acl().put(ACL="public-read")
    assert Atlas(public).summary() == Atlas(remote).summary()


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadedMotoServer]:
    """A store of its own that a test may switch off."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://{}:{}".format(*server.get_host_and_port()))
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    boto3.resource("s3").Bucket("failing").create()
    yield server
    server.stop()


def test_a_store_that_goes_away_in_the_middle_is_named_after_some_tries(
    failing: ThreadedMotoServer, tiny_corpus: Path
) -> None:
    address = "s3://failing/atlas"
    plan = make_plan(config(tiny_corpus, address, shard_size=8), list_corpus(str(tiny_corpus), 8), lambda _: None)
    scan, shard = Scanner(plan.scan), next(plan.shards(1))
    failing.stop()
    with pytest.raises(StoreError, match=r"s3://failing/atlas does not answer: .* run again to resume"):
        scan(shard)
    failing.start()
