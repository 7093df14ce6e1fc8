"""What an index run would write, hold in memory and take in time, said before any of it is done."""

import os
import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from unitscope_pipelines.cluster.resources import resources
from unitscope_pipelines.cluster.session import connected
from unitscope_pipelines.corpora.listing import CorpusFile, corpus_files
from unitscope_pipelines.indexing.departures import unlisted_count
from unitscope_pipelines.indexing.laws import (
    BYTES_PER_FIRST_RANK,
    BYTES_PER_PEAK,
    BYTES_PER_PEAKS_PART,
    BYTES_PER_RANK,
    BYTES_PER_UNIT,
    MERGED_PER_S,
    RANKED_PER_S,
)
from unitscope_pipelines.indexing.patches.index import build_memory, choose_index
from unitscope_pipelines.indexing.plan import Plan
from unitscope_pipelines.indexing.ranking.merging import merging_memory
from unitscope_pipelines.indexing.ranking.ranker import ranking_memory
from unitscope_pipelines.indexing.ranking.unit_fields import exemplar_count, unit_count
from unitscope_pipelines.indexing.scan import Scanner
from unitscope_pipelines.indexing.sealing.segments import fewest, staying
from unitscope_pipelines.storage.long_tables.long_table import LongTable
from unitscope_pipelines.vision.recording.device import choose_device
from unitscope_pipelines.vision.recording.embedding import cell_regions
from unitscope_schemas.entries.segment import EXACT
from unitscope_schemas.tables import FIRST_RANKS

_BYTES_PER_FILE = 500
"""Bytes of a file beside its path, label, metadata and address, which are stored up to three times and compressed
twice."""
_BYTES_FIXED = 250_000
"""Bytes of the file of first ranks when it is empty, and of the manifest."""


@dataclass(frozen=True)
class Forecast:
    """What an index run would write, hold in memory and take in time; figures of the scan only if files are pending."""

    files: int
    pending_files: int
    units: int
    rows: int
    size_bytes: int
    temporary_bytes: int
    rank_memory_bytes: int
    patch_index: str
    patch_index_bytes: int
    patch_index_memory_bytes: int
    workers: int
    leaving_images: int | None = None
    """Count of the atlas's images that leave with the run, as far as paths and times tell; None where none does."""
    scan_memory_bytes: int | None = None
    scan_seconds: float | None = None
    rank_seconds: float | None = None
    box_gradients: int | None = None
    """Count of the gradients by which effective boxes of units are measured, if none are known yet."""
    box_seconds: float | None = None

    def facts(self) -> dict[str, float | str]:
        """Return the figures that are known, by their names."""
        return {name: value for name, value in vars(self).items() if value is not None}


def forecast(plan: Plan) -> Forecast:
    """Return rows and bytes of the finished atlas, memory of each stage, and seconds that the pending work takes.

    A bounded atlas needs its temporary bytes beside until it is sealed: the peaks of all images. The pace is that of
    one batch of the pending files, read and run here twice with nothing written; a gradient takes as long as a file. It
    is shared among as many workers as this machine, or the cluster of the configured address, has room for. Near
    duplicates, copies and unusable files cannot be known beforehand: rows and bytes are those of a corpus without any.
    """
    files, units = len(plan.listing.files), plan.cells_per_image
    embed = next(layer for layer in plan.scan.layers if layer.name == plan.scan.embed_layer)
    ranked = _newly_ranked(plan)
    is_merged = ranked < files or _segment_images(plan, ranked) < ranked
    regions = len(cell_regions(embed.grid))
    workers = plan.config.workers or _slots(plan.config.address, plan.config.device)
    rank_count = files if plan.keep is None else min(files, plan.keep)
    peaks_bytes = _peaks_bytes(plan, workers)
    bounded = plan.keep is not None
    index = choose_index(files * regions, embed.units, plan.config.patch_memory_bytes)
    result = Forecast(
        files=files,
        pending_files=len(plan.pending),
        units=units,
        rows=rank_count * units,
        size_bytes=_size_bytes(plan, rank_count, 2 * 2 * regions * embed.units) + peaks_bytes * (not bounded),
        temporary_bytes=peaks_bytes * (bounded and not plan.lacks_peaks),
        rank_memory_bytes=max(
            ranking_memory(_segment_images(plan, ranked), max(layer.units for layer in plan.scan.layers)),
            merging_memory(files) if is_merged else 0,
        ),
        patch_index=index.factory if index else EXACT,
        patch_index_bytes=index.served_bytes if index else 0,
        patch_index_memory_bytes=build_memory(index),
        workers=workers,
        leaving_images=(plan.previous and unlisted_count(plan.listing, plan.previous, plan.store)) or None,
    )
    if not len(plan.pending):
        return result
    exemplars = exemplar_count(plan.config.field_exemplars, plan.scan.layers, files)
    gradients = exemplars * unit_count(plan.scan.layers)
    seconds = _seconds_per_file(Scanner(plan.scan), _spread(plan.pending, plan.scan.batch_size))
    return replace(
        result,
        scan_memory_bytes=_peak_memory_bytes(),
        scan_seconds=round(len(plan.pending) * seconds / workers, 1),
        rank_seconds=round((ranked / RANKED_PER_S + (files / MERGED_PER_S if is_merged else 0)) * units / workers, 1),
        box_gradients=gradients,
        box_seconds=round(gradients * seconds / workers, 1),
    )


def _newly_ranked(plan: Plan) -> int:
    """Return how many images make new segments, if each pending file is one, and none leaves."""
    if plan.previous is None or plan.keep is not None or plan.previous.keep is not None:
        return len(plan.listing.files)
    sizes = [segment.image_count for segment in plan.previous.segments]
    stays = staying(sizes, len(plan.pending), plan.config.segment_images)
    return len(plan.pending) + sum(size for size, stay in zip(sizes, stays, strict=True) if not stay)


def _segment_images(plan: Plan, ranked: int) -> int:
    """Return how many of the images that are ranked anew the largest segment has."""
    return ranked if plan.keep is not None else -(-ranked // fewest(ranked, plan.config.segment_images))


def _slots(address: str | None, device: str) -> int:
    """Count the workers that there is room for; Ray is not started for this machine alone."""
    if address is not None:
        with connected(address):
            return resources(None, device).slots
    return torch.cuda.device_count() if choose_device(device).type == "cuda" else os.cpu_count() or 1


def _peaks_bytes(plan: Plan, workers: int) -> int:
    """Return the bytes of the peaks that scans record."""
    shards = len(plan.finished) + plan.shard_count(workers)
    cells = len(plan.listing.files) * plan.cells_per_image
    return int(cells * BYTES_PER_PEAK + shards * len(plan.scan.layers) * BYTES_PER_PEAKS_PART)


def _size_bytes(plan: Plan, rank_count: int, vector_bytes: int) -> int:
    """Return the bytes of all other files of the atlas, if so many ranks of each unit are stored."""
    files, units = len(plan.listing.files), plan.cells_per_image
    described = sum(batch.nbytes for batch in plan.listing.files.batches(["path", "label", "metadata", "address"]))
    return int(
        _BYTES_FIXED
        + files * (_BYTES_PER_FILE + vector_bytes)
        + rank_count * units * BYTES_PER_RANK
        + min(rank_count, FIRST_RANKS) * units * BYTES_PER_FIRST_RANK
        + units * BYTES_PER_UNIT
        + 2 * described
    )


def _spread(pending: LongTable, count: int) -> list[CorpusFile]:
    """Return files from all over the pending ones: those of one folder or shard may be larger than the rest."""
    return corpus_files(pending.take(np.unique(np.linspace(0, len(pending) - 1, count).astype(int))))


def _seconds_per_file(scanner: Scanner, files: Sequence[CorpusFile]) -> float:
    """Return how long a file takes to be read, decoded and run with its batch; the first time is not counted."""
    seconds = 0.0
    for _ in range(2):
        started = time.monotonic()
        prepared = [seen.pixels for _, seen in map(scanner.read, files) if seen is not None]
        if prepared:
            scanner.forward(prepared)
        seconds = time.monotonic() - started
    return seconds / len(files)


def _peak_memory_bytes() -> int:
    """Return the most memory that this process, which did what a worker does, has held so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
