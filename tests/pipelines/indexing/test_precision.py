"""bf16 is as exact as it says, and a GPU records what the CPU does."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.conftest import TINY_LAYERS
from unitscope_pipelines.corpora.listing import list_corpus
from unitscope_pipelines.indexing.config import IndexConfig
from unitscope_pipelines.indexing.index import index
from unitscope_pipelines.indexing.plan import make_plan
from unitscope_pipelines.indexing.scan import RecordedBatch, Scanner
from unitscope_pipelines.vision.images.preprocessing import prepare
from unitscope_schemas.progress import Progress

pytestmark = pytest.mark.long

HALF_ERROR = 0.25
"""Of a unit's largest value over the pictures: what --precision bf16 promises, see benchmarks/README.md."""


def forwarded(corpus: Path, atlas: Path, **options: object) -> RecordedBatch:
    """What one batch of the corpus gives."""
    settings = {"layers": TINY_LAYERS, "batch_size": 32, "device": "cpu", **options}
    config = IndexConfig(corpus=str(corpus), atlas=str(atlas), **settings)
    scanner = Scanner(make_plan(config, list_corpus(str(corpus)), lambda _: None).scan)
    files = sorted((corpus / "blobs").iterdir()) + sorted((corpus / "stripes").glob("0*.jpg"))
    return scanner.forward([prepare(file.read_bytes(), scanner.plan.preprocessing).pixels for file in files[:32]])


def largest_error(found: RecordedBatch, truth: RecordedBatch) -> float:
    """Over all units: the largest difference, as a share of the unit's largest value."""
    errors = []
    for layer, peaks in truth.peaks.items():
        difference = np.abs(found.peaks[layer].activation.numpy() - peaks.activation.numpy()).max(axis=0)
        errors.append((difference / np.abs(peaks.activation.numpy()).max(axis=0)).max())
    return float(max(errors))


def test_bf16_keeps_its_bound(tiny_corpus: Path, tmp_path: Path) -> None:
    exact, half = (forwarded(tiny_corpus, tmp_path / name, precision=name) for name in ("fp32", "bf16"))
    assert 1e-4 < largest_error(half, exact) < HALF_ERROR
    torch.testing.assert_close(half.vectors, exact.vectors, rtol=0, atol=0.06)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_how_far_values_are_from_fp32_is_measured_and_stands_with_each_shard(
    precision: str, tiny_corpus: Path, tmp_path: Path, ray_session: None
) -> None:
    settings = {"layers": TINY_LAYERS, "limit": 4, "batch_size": 4, "device": "cpu"}
    manifest = index(
        IndexConfig(corpus=str(tiny_corpus), atlas=str(tmp_path), precision=precision, **settings), lambda _: None
    )
    (forward,) = {shard.forward for shard in manifest.shards}
    found = re.match(rf"cpu, {precision} \(([0-9.e-]+) % from fp32 on made pictures\), ", forward)
    assert found is not None, forward
    assert 0.01 < float(found[1]) < 100 * HALF_ERROR


def test_bf16_without_a_gpu_says_that_fp32_is_better(tiny_corpus: Path, tmp_path: Path, ray_session: None) -> None:
    settings = {"layers": TINY_LAYERS, "limit": 2, "batch_size": 2, "device": "cpu", "precision": "bf16"}
    said: list[Progress] = []
    index(IndexConfig(corpus=str(tiny_corpus), atlas=str(tmp_path / "atlas"), **settings), said.append)
    assert ["fp32 is faster" in progress.note for progress in said if progress.note] == [True]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here; the CPU runs the same code in all other tests")
@pytest.mark.parametrize(("precision", "bound"), [("fp32", 1e-4), ("bf16", HALF_ERROR)])
def test_a_gpu_records_what_the_cpu_does(precision: str, bound: float, tiny_corpus: Path, tmp_path: Path) -> None:
    exact = forwarded(tiny_corpus, tmp_path / "cpu")
    found = forwarded(tiny_corpus, tmp_path / "gpu", device="cuda", precision=precision)
    assert largest_error(found, exact) < bound
    assert torch.equal(found.brighter, exact.brighter) and torch.equal(found.tint, exact.tint)
