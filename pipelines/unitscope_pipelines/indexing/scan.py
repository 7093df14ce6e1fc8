"""The way of one shard to its tables: read, prepare, record, peaks, write; it knows no cluster."""

import hashlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple, TypeVar

import numpy as np
import torch

from unitscope_pipelines.corpora.listing import CorpusFile, corpus_files
from unitscope_pipelines.indexing.known_ids import KnownIds
from unitscope_pipelines.indexing.shards import (
    Embeddings,
    LayerPeaks,
    ReadFile,
    ScannedImage,
    ScannedShard,
    Shard,
    write_shard,
)
from unitscope_pipelines.storage.originals import Originals
from unitscope_pipelines.storage.stores import Store
from unitscope_pipelines.vision.images.perceptual_hash import hash_bytes
from unitscope_pipelines.vision.images.preprocessing import Pixels, Prepared, prepare
from unitscope_pipelines.vision.models.models import reload_model
from unitscope_pipelines.vision.receptive_fields.dead_leaves import dead_leaves
from unitscope_pipelines.vision.recording.device import choose_device, one_thread, settle_process
from unitscope_pipelines.vision.recording.embedding import cell_regions, region_boxes
from unitscope_pipelines.vision.recording.fusing import find_fusions
from unitscope_pipelines.vision.recording.peaks import Peaks
from unitscope_pipelines.vision.recording.recorder import RecordedBatch, Recorder, RecordingPlan
from unitscope_schemas import tables
from unitscope_schemas.entries.model import ModelEntry, Precision, Preprocessing
from unitscope_schemas.errors import PictureError
from unitscope_schemas.manifest import Receipt
from unitscope_schemas.units import LayerSpec

_PREFETCHED_BATCHES = 2
_STORE_READERS = 16
"""Count of threads that read from an object store, where every read waits some hundredths of a second."""

Result = TypeVar("Result")


class ReadPicture(NamedTuple):
    """A file that was read, and its picture if its forward may still have to run."""

    file: ReadFile
    prepared: Prepared | None


class NewImage(NamedTuple):
    """A picture whose forward is still to run."""

    image_id: str
    prepared: Prepared


@dataclass(frozen=True)
class ScanPlan:
    """What every shard of a run has in common."""

    corpus: str
    store: Store
    atlas_key: str
    model: ModelEntry
    preprocessing: Preprocessing
    layers: tuple[LayerSpec, ...]
    embed_layer: str
    batch_size: int
    precision: Precision
    device: str
    most_pixels: int
    known_ids: KnownIds
    """Ids of images that an earlier version already holds: their files are noted, their forwards not run again."""
    decoder_count: int = 0
    """Count of threads that decode ahead of the forward; 0: files are read ahead, but decoded between forwards, which
    is 4 % faster on a single core."""
    trust_code: bool = False
    """Permission to build a model of the owner's own code."""


class Scanner:
    """A worker's task that scans shards with one loaded model; a worker makes one and calls it once per shard.

    Two threads may call it: forwards are of one shard at a time, and beside them the other shard is read ahead or
    written.
    """

    def __init__(self, plan: ScanPlan) -> None:
        self.plan = plan
        self.originals = Originals(plan.corpus)
        self.device = choose_device(plan.device)
        settle_process()
        self.model = reload_model(plan.model, plan.trust_code)
        self.model.module.to(self.device)
        self.layers = {layer.name: layer for layer in plan.layers}
        self.embed_layer = self.layers[plan.embed_layer]
        self.regions = cell_regions(self.embed_layer.grid)
        watched = dead_leaves(2, self.model.input_shape, np.random.default_rng(0)).to(self.device)
        self.fusions = find_fusions(self.model.module, list(self.layers), watched)
        recording = RecordingPlan(plan.preprocessing, plan.layers, plan.embed_layer, plan.batch_size, plan.precision)
        self.recorder = Recorder(self.model.module, recording, self.device, self.fusions)
        self.rounding = self.recorder.rounding(list((128 + 64 * watched.cpu()).clamp(0, 255).to(torch.uint8)))
        self._turn = threading.Lock()

    def __call__(self, shard: Shard) -> Receipt:
        """Write the shard's tables, then its receipt; returns the receipt."""
        readers = max(1, self.plan.decoder_count, _STORE_READERS if self.originals.folder.remote else 0)
        with ThreadPoolExecutor(readers, thread_name_prefix="read") as threads:
            reads = self._reads(threads, corpus_files(shard.files))
            with self._turn, one_thread():
                started = time.monotonic()
                scanned = self._scanned(shard.name, reads)
                seconds = round(time.monotonic() - started, 3)
        return write_shard(self.plan.store, self.plan.atlas_key, scanned, self.about_forward, seconds)

    def _scanned(self, name: str, reads: Iterator[ReadPicture]) -> ScannedShard:
        """Run the forwards of a shard whose files come in their order."""
        files: list[ReadFile] = []
        images: list[ScannedImage] = []
        recorded: list[RecordedBatch] = []
        under_way: deque[list[NewImage]] = deque()
        for values in self.recorder.run(self._pixels(_new_images(reads, files), under_way)):
            recorded.append(values)
            images += _scanned_images(under_way.popleft(), values)
        return ScannedShard(
            name=name,
            files=files,
            images=images,
            peaks=[_layer_peaks(layer, [batch.peaks[layer.name] for batch in recorded]) for layer in self.plan.layers],
            embeddings=self._embeddings(recorded),
        )

    @property
    def about_forward(self) -> str:
        """How forwards run in this process, in words for the manifest."""
        at_once = self.recorder.at_once
        parts = "" if at_once == self.plan.batch_size else f"{at_once} at a time to fit its memory, "
        share = f" ({100 * self.rounding:.2g} % from fp32 on made pictures)" if self.plan.precision != "fp32" else ""
        return f"{self.device.type}, {self.plan.precision}{share}, {parts}channels last, {self.fusions}"

    def forward(self, pixels: list[Pixels]) -> RecordedBatch:
        """Record peaks of every layer and pooled vectors of the embedding layer, for up to one batch of pictures."""
        return self.recorder.forward(pixels)

    def read(self, file: CorpusFile) -> ReadPicture:
        """Read a file of the corpus, and its picture if it is one whose forward may still have to run."""
        return self._decoded(self._loaded(file))

    def _pixels(self, new: Iterator[NewImage], under_way: deque[list[NewImage]]) -> Iterator[list[Pixels]]:
        """Yield the pixels of a batch at a time, and note what images they are of."""
        while batch := list(islice(new, self.plan.batch_size)):
            under_way.append(batch)
            yield [image.prepared.pixels for image in batch]

    def _reads(self, threads: ThreadPoolExecutor, files: Sequence[CorpusFile]) -> Iterator[ReadPicture]:
        """Read the files in order, and perhaps decode them, ahead of the forward."""
        ahead = _PREFETCHED_BATCHES * self.plan.batch_size
        if self.plan.decoder_count:
            return _prefetch(threads, self.read, files, ahead)
        return map(self._decoded, _prefetch(threads, self._loaded, files, ahead))

    def _loaded(self, file: CorpusFile) -> tuple[ReadFile, bytes]:
        try:
            data = self.originals.read(file.address)
        except OSError as error:
            return ReadFile(file, 0, reason=f"{tables.UNREADABLE}: {error.strerror or error}"), b""
        return ReadFile(file, len(data), hashlib.sha256(data).hexdigest()), data

    def _decoded(self, loaded: tuple[ReadFile, bytes]) -> ReadPicture:
        file, data = loaded
        if file.reason or file.image_id in self.plan.known_ids:
            return ReadPicture(file, None)
        try:
            return ReadPicture(file, prepare(data, self.plan.preprocessing, self.plan.most_pixels))
        except PictureError as error:
            return ReadPicture(ReadFile(file.file, file.size_bytes, reason=str(error)), None)

    def _embeddings(self, recorded: list[RecordedBatch]) -> Embeddings:
        empty = np.empty((0, len(self.regions), self.embed_layer.units), np.float16)
        vectors = np.concatenate([empty, *(batch.vectors.to(torch.float16).numpy() for batch in recorded)])
        return Embeddings(self.embed_layer.name, vectors, region_boxes(self.embed_layer))


def _prefetch(
    threads: ThreadPoolExecutor, read: Callable[[CorpusFile], Result], files: Sequence[CorpusFile], count: int
) -> Iterator[Result]:
    """Read files in order on threads, at most `count` of them ahead; the first of them begin now."""
    remaining = iter(files)
    ahead = deque(threads.submit(read, file) for file in islice(remaining, count))

    def results() -> Iterator[Result]:
        while ahead:
            result = ahead.popleft().result()
            ahead.extend(threads.submit(read, file) for file in islice(remaining, 1))
            yield result

    return results()


def _new_images(reads: Iterator[ReadPicture], files: list[ReadFile]) -> Iterator[NewImage]:
    """Note every file in `files`; yield the pictures whose forward is still to run, each content once."""
    seen: set[str] = set()
    for file, prepared in reads:
        files.append(file)
        if prepared is not None and file.image_id not in seen:
            seen.add(file.image_id)
            yield NewImage(file.image_id, prepared)


def _scanned_images(batch: Sequence[NewImage], recorded: RecordedBatch) -> list[ScannedImage]:
    return [
        ScannedImage(
            image_id=image.image_id,
            format=image.prepared.format,
            mode=image.prepared.mode,
            placement=image.prepared.placement,
            gradient_hash=hash_bytes(brighter),
            tint=bytes(tint.tolist()),
            notes=image.prepared.notes,
        )
        for image, brighter, tint in zip(batch, recorded.brighter, recorded.tint, strict=True)
    ]


def _layer_peaks(layer: LayerSpec, batches: list[Peaks]) -> LayerPeaks:
    activation = [batch.activation.numpy() for batch in batches]
    location = [batch.location.numpy() for batch in batches]
    empty = np.empty((0, layer.units))
    return LayerPeaks(
        layer,
        np.concatenate([empty, *activation]).astype(np.float32),
        np.concatenate([empty, *location]).astype(np.int64),
    )
