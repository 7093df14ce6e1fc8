"""Scanning one picture after another on one core: how near to the bare machine, how far from other tools.

    OMP_NUM_THREADS=1 python -m benchmarks.scan --pictures 512

Every figure is taken in the same process under the same allocator, in rounds that take turns; ratios are medians over
rounds. The limit is 1 / (1/forward + 1/decode), as decoding shares the core. Other tools: `peers`.
"""

import argparse
import os
import shutil
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from benchmarks.peers import hook_and_topk, zennit_crp
from benchmarks.pictures import write_pictures
from benchmarks.report import print_table, save
from unitscope_pipelines.corpora.listing import list_corpus
from unitscope_pipelines.indexing.config import IndexConfig
from unitscope_pipelines.indexing.plan import cut_shards, make_plan
from unitscope_pipelines.indexing.scan import Scanner
from unitscope_pipelines.vision.images.preprocessing import normalise, prepare
from unitscope_pipelines.vision.models.models import load_model
from unitscope_pipelines.vision.recording.device import settle_process
from unitscope_pipelines.vision.recording.fusing import Fusions

BATCH = 32
TARGETS = {
    "scan / limit": 0.95,
    "scan / as-shipped forward alone": 1.4,
    "scan / fastest other tool": 2.0,
    "bf16 scan / as-shipped forward alone": 2.5,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=Path("build/bench"))
    asked = parser.parse_args()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    settle_process()
    corpus = write_pictures(asked.folder / f"pictures-{asked.pictures}", asked.pictures)
    exact = _scanner(corpus, asked.folder, "fp32")
    # elsewhere bf16 is emulated: a run with it was not done after 570 s
    half = _scanner(corpus, asked.folder, "bf16") if torch.ops.mkldnn._is_mkldnn_bf16_supported() else None
    contestants = _contestants(exact, half, corpus, asked.folder)
    rates: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(asked.rounds + 1):
        for name, run in contestants.items():
            started = time.perf_counter()
            count = run()
            if turn:  # the first round warms up
                rates[name].append(count / (time.perf_counter() - started))
    _tell(rates, half and _half_error(exact, half, corpus))


def _contestants(exact: Scanner, half: Scanner | None, corpus: Path, folder: Path) -> dict[str, Callable[[], int]]:
    """By name a run that returns how many pictures it worked on."""
    files = sorted(corpus.rglob("*.jpg"))
    some = files[: 8 * BATCH]
    layers, preprocessing = list(exact.layers), exact.plan.preprocessing
    data = [file.read_bytes() for file in files[:BATCH]]
    pixels = torch.stack([prepare(one, preprocessing).pixels for one in data])
    shipped, plain = load_model().module.to(memory_format=torch.contiguous_format), load_model().module

    def decode() -> int:
        for file in files[: 4 * BATCH]:
            prepare(file.read_bytes(), preprocessing)
        return 4 * BATCH

    contestants = {
        "decode": decode,
        "forward as shipped": _forwards(lambda: shipped(normalise(pixels, preprocessing).contiguous())),
        "forward, channels last": _forwards(lambda: plain(normalise(pixels, preprocessing))),
        "forward, fused": _forwards(lambda: exact.model.module(normalise(pixels, preprocessing)), exact.fusions),
        "scan": _scans(exact, corpus),
        "hook and top-k": lambda: hook_and_topk(shipped, layers, some, preprocessing, BATCH),
        "zennit-crp": lambda: zennit_crp(shipped, layers, some, preprocessing, BATCH, folder / "crp"),
    }
    if half is not None:
        contestants["forward, fused, bf16"] = _forwards(
            lambda: half.model.module(normalise(pixels, preprocessing)), half.fusions, torch.bfloat16
        )
        contestants["scan, bf16"] = _scans(half, corpus, 8 * BATCH)
    return contestants


def _scanner(corpus: Path, folder: Path, precision: Literal["fp32", "bf16"]) -> Scanner:
    atlas = folder / f"scan-{precision}"
    shutil.rmtree(atlas, ignore_errors=True)
    config = IndexConfig(corpus=str(corpus), atlas=str(atlas), precision=precision, batch_size=BATCH, device="cpu")
    return Scanner(make_plan(config, list_corpus(str(corpus)), lambda _: None).scan)


def _scans(scanner: Scanner, corpus: Path, most: int | None = None) -> Callable[[], int]:
    """The corpus as one shard: decoded, recorded, reduced, written."""

    def run() -> int:
        files = list_corpus(str(corpus), most).files
        for shard in cut_shards(files, len(files)):
            scanner(shard)
        return len(files)

    return run


def _forwards(
    forward: Callable[[], Tensor], fusions: Fusions | None = None, autocast: torch.dtype | None = None
) -> Callable[[], int]:
    """The bare forward of four batches of decoded pixels that are in memory; nothing is recorded."""

    def run() -> int:
        with torch.inference_mode(), torch.autocast("cpu", autocast or torch.bfloat16, enabled=autocast is not None):
            for _ in range(4):
                with fusions.running() if fusions else nullcontext():
                    forward()
        return 4 * BATCH

    return run


def _half_error(exact: Scanner, half: Scanner, corpus: Path) -> dict[str, float]:
    """How far bf16 is off: largest and median error as shares of a unit's largest value, and the same top nine."""
    files = sorted(corpus.rglob("*.jpg"))[: 8 * BATCH]
    preprocessing = exact.plan.preprocessing
    errors, same = [], []
    found: list[list[np.ndarray]] = [[], []]
    for first in range(0, len(files), BATCH):
        pixels = [prepare(file.read_bytes(), preprocessing).pixels for file in files[first : first + BATCH]]
        for values, scanner in zip(found, (exact, half), strict=True):
            values.append(np.hstack([one.activation.numpy() for one in scanner.forward(pixels).peaks.values()]))
    plain, rounded = (np.concatenate(values).T for values in found)
    for one, other in zip(plain, rounded, strict=True):
        errors.append(np.abs(one - other).max() / max(np.abs(one).max(), 1e-12))
        same.append(len({*np.argsort(-one)[:9]} & {*np.argsort(-other)[:9]}) / 9)
    return {
        "largest error": float(max(errors)),
        "median error": float(np.median(errors)),
        "top nine shared": float(np.mean(same)),
    }


def _tell(rates: dict[str, list[float]], half_error: dict[str, float] | None) -> None:
    middle = {name: statistics.median(found) for name, found in rates.items()}
    limits = [
        1 / (1 / forward + 1 / decode) for forward, decode in zip(rates["forward, fused"], rates["decode"], strict=True)
    ]
    others = [max(pair) for pair in zip(rates["hook and top-k"], rates["zennit-crp"], strict=True)]
    shipped = rates["forward as shipped"]
    found = {
        "scan / limit": _ratio(rates["scan"], limits),
        "scan / as-shipped forward alone": _ratio(rates["scan"], shipped),
        "scan / fastest other tool": _ratio(rates["scan"], others),
    }
    if half_error is not None:
        found["bf16 scan / as-shipped forward alone"] = _ratio(rates["scan, bf16"], shipped)
    print_table(
        "Images per second on one core, medians of rounds", [{"what": k, "images/s": v} for k, v in middle.items()]
    )
    ratios = [{"ratio": name, "found": value, "wanted": TARGETS[name]} for name, value in found.items()]
    print_table("Ratios, medians of rounds", ratios)
    if half_error is None:
        print("\nbf16: not measured, for this processor does not multiply it")  # noqa: T201
    else:
        print_table("bf16 beside fp32, over units", [half_error])
    save("scan", {"images_per_s": middle, "rounds": rates, "ratios": ratios, "bf16": half_error})


def _ratio(these: list[float], those: list[float]) -> float:
    return statistics.median(one / other for one, other in zip(these, those, strict=True))


if __name__ == "__main__":
    main()
