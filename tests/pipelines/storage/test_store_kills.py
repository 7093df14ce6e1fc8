"""Runs that write into an object store are killed, or lose it, at random moments, and end as an undisturbed one;
an atlas there is compacted to the rows that it has in a folder."""

import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import TINY_LAYERS
from tests.pipelines.indexing.test_kills import reaches_scan
from tests.pipelines.storage.test_object_store import downloaded, keys, named_by, uploaded
from tests.tables import contents, difference, manifest_of
from unitscope_pipelines.indexing.compaction import compact
from unitscope_pipelines.indexing.sealing.versions import collect
from unitscope_pipelines.indexing.upkeep import remove
from unitscope_pipelines.indexing.verification.verify import verify

pytestmark = pytest.mark.long


def command(corpus: Path, address: str) -> list[str]:
    layers = [option for layer in TINY_LAYERS for option in ("--layers", layer)]
    return [
        *(sys.executable, "-m", "unitscope", "index", str(corpus), "--atlas", address, *layers),
        *("--batch-size", "8", "--shard-size", "5", "--workers", "2", "--progress", "json"),
    ]


def test_a_driver_killed_five_times_resumes_to_the_same_rows_and_leaves_nothing(
    tiny_corpus: Path, tiny_atlas: Path, bucket: Any, tmp_path: Path
) -> None:
    address, chance = "s3://atlases/killed", random.Random(21)
    receipts = [0]
    for _ in range(5):
        process = subprocess.Popen(command(tiny_corpus, address), stderr=subprocess.PIPE, text=True)
        if reaches_scan(process):
            time.sleep(chance.uniform(2, 8))
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert process.stderr is not None
        process.stderr.close()
        receipts.append(sum(key.startswith("receipts/") for key in keys(bucket, "killed")))
    assert receipts == sorted(receipts), "a finished shard stays finished"
    subprocess.run(command(tiny_corpus, address), check=True)
    fetched = downloaded(bucket, "killed", tmp_path / "fetched")
    assert difference(contents(tiny_atlas), contents(fetched)) == []
    assert keys(bucket, "killed") == named_by(manifest_of(fetched))
    assert list(bucket.multipart_uploads.all()) == []


def test_a_run_that_loses_its_store_says_how_to_go_on_and_does(
    tiny_corpus: Path, tiny_atlas: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import boto3
    from moto.server import ThreadedMotoServer

    store = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    store.start()
    host, port = store.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    bucket = boto3.resource("s3").Bucket("cut")
    bucket.create()
    run = command(tiny_corpus, "s3://cut/atlas")
    process = subprocess.Popen(run, stderr=subprocess.PIPE, text=True)
    assert reaches_scan(process)
    deadline = time.monotonic() + 60
    while not any(key.startswith("receipts/") for key in keys(bucket, "atlas")) and time.monotonic() < deadline:
        time.sleep(0.05)
    store.stop()
    _, talk = process.communicate(timeout=120)
    assert process.returncode == 1, talk
    assert "s3://cut/atlas does not answer" in talk
    assert "finished shards are kept, run again to resume" in talk
    again = ThreadedMotoServer(ip_address="127.0.0.1", port=port)
    again.start()
    subprocess.run(run, check=True)
    fetched = downloaded(bucket, "atlas", tmp_path / "fetched")
    assert difference(contents(tiny_atlas), contents(fetched)) == []
    assert keys(bucket, "atlas") == named_by(manifest_of(fetched))
    again.stop()


def test_an_atlas_is_compacted_to_the_rows_that_it_has_in_a_folder(
    tiny_atlas: Path, bucket: Any, tmp_path: Path, ray_session: None
) -> None:
    here, there = shutil.copytree(tiny_atlas, tmp_path / "atlas"), uploaded(tiny_atlas, bucket, "compacted")
    for atlas in (here, there):
        remove(atlas, ["blobs/003.jpg"])
        compact(atlas, 1, lambda _: None)
        collect(atlas, keep=1)
    fetched = downloaded(bucket, "compacted", tmp_path / "fetched")
    assert difference(contents(here), contents(fetched)) == []
    assert manifest_of(here).version == manifest_of(fetched).version
    assert verify(there, sample=1, seed=0).faults == []
