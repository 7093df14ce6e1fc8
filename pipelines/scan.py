"""One shard to its tables: read, prepare, record, reduce, write. Pure: knows no cluster."""

import hashlib
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from pipelines.corpus import CorpusFile
from pipelines.storage import write_model, write_table
from pipelines.vision.device import choose_device, settle_process
from pipelines.vision.embedding import cell_regions, pool, region_boxes
from pipelines.vision.models import load_model
from pipelines.vision.preprocessing import Pixels, Prepared, normalise, prepare
from pipelines.vision.recording import record
from pipelines.vision.reduction import Peaks, peaks
from schemas import layout, tables
from schemas.errors import PictureError
from schemas.geometry import Box
from schemas.manifest import BLOCK_UNITS, ModelEntry, Preprocessing, Receipt
from schemas.units import LayerSpec

_PREFETCHED_BATCHES = 2

Forwarded = tuple[dict[str, Peaks], Tensor]
"""Of one batch: peaks by layer, and pooled vectors (image, region, unit) of the embedding layer."""


@dataclass(frozen=True)
class ScanPlan:
    """What every shard of a run has in common."""

    corpus: Path
    atlas: Path
    atlas_key: str
    model: ModelEntry
    preprocessing: Preprocessing
    layers: tuple[LayerSpec, ...]
    embed_layer: str
    batch_size: int
    precision: str
    device: str
    most_pixels: int
    known_ids: frozenset[str]
    """Images that an earlier version already holds: their files are noted, their forwards not run again."""


@dataclass(frozen=True)
class Shard:
    """The files that one worker scans as one unit of work and one commit."""

    name: str
    files: tuple[CorpusFile, ...]


@dataclass(frozen=True)
class _Read:
    """A file's content: an image id with what the network needs, or the reason why not."""

    file: CorpusFile
    image_id: str = ""
    prepared: Prepared | None = None
    reason: str = ""


class Scanner:
    """Scans shards with one loaded model; a worker makes one and calls it once per shard."""

    def __init__(self, plan: ScanPlan) -> None:
        settle_process()
        self.plan = plan
        self.device = choose_device(plan.device)
        self.model = load_model(plan.model.spec, plan.model.weights)
        self.model.module.to(self.device)
        self.layers = {layer.name: layer for layer in plan.layers}
        self.regions = cell_regions(self.layers[plan.embed_layer].grid)

    def __call__(self, shard: Shard) -> Receipt:
        """Write the shard's tables, then its receipt; returns the receipt."""
        started = time.monotonic()
        found = _Found(self.plan, shard)
        recorded: list[Forwarded] = []
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="decode") as decoder:
            reads = _prefetch(decoder, self._read, shard.files, _PREFETCHED_BATCHES * self.plan.batch_size)
            new = found.new_images(reads)
            while batch := list(islice(new, self.plan.batch_size)):
                recorded.append(self.forward([prepared.pixels for prepared in batch]))
        return found.write(recorded, region_boxes(self.layers[self.plan.embed_layer]), started)

    def forward(self, pixels: list[Pixels]) -> Forwarded:
        """Peaks of every layer and pooled vectors of the embedding layer, for up to one batch of pictures.

        The batch is filled up to its fixed size, so that a picture's values do not depend on its company.
        """
        count = len(pixels)
        batch = torch.zeros(self.plan.batch_size, *pixels[0].shape, dtype=torch.uint8)
        torch.stack(pixels, out=batch[:count])
        embedded: list[Tensor] = []

        def keep(layer: str, output: Tensor) -> Peaks:
            if layer == self.plan.embed_layer:
                embedded.append(pool(output, self.layers[layer], self.regions))
            return peaks(output, layer)

        half = torch.autocast(self.device.type, torch.bfloat16, enabled=self.plan.precision == "bf16")
        with torch.inference_mode(), half, record(self.model.module, list(self.layers), keep) as recorded:
            self.model.module(normalise(batch.to(self.device), self.plan.preprocessing))
        found = {
            layer: Peaks(activation[:count].cpu(), location[:count].cpu())
            for layer, (activation, location) in recorded.items()
        }
        return found, embedded[0][:count].cpu()

    def _read(self, file: CorpusFile) -> _Read:
        try:
            data = (self.plan.corpus / file.path).read_bytes()
            image_id = hashlib.sha256(data).hexdigest()
            if image_id in self.plan.known_ids:
                return _Read(file, image_id)
            return _Read(file, image_id, prepare(data, self.plan.preprocessing, self.plan.most_pixels))
        except PictureError as error:
            return _Read(file, reason=str(error))
        except OSError as error:
            return _Read(file, reason=f"{tables.UNREADABLE}: {error.strerror}")


class _Found:
    """The rows that a shard gathers while it is read, and how they are written."""

    def __init__(self, plan: ScanPlan, shard: Shard) -> None:
        self.plan, self.shard = plan, shard
        self.files: list[dict[str, object]] = []
        self.scanned: list[dict[str, object]] = []
        self.placed: list[Prepared] = []
        self.skipped: list[dict[str, object]] = []

    def new_images(self, reads: Iterator[_Read]) -> Iterator[Prepared]:
        """Note every file; yield the pictures whose forward is still to run."""
        seen: set[str] = set()
        for read in reads:
            file = read.file
            address = {"path": file.path, "size_bytes": file.size_bytes, "modified_ns": file.modified_ns}
            if read.reason:
                self.skipped.append({**address, "reason": read.reason})
                continue
            self.files.append({**address, "label": file.label, "image_id": read.image_id})
            if read.prepared is None or read.image_id in seen:
                continue
            seen.add(read.image_id)
            self.scanned.append(_image_row(len(self.scanned), read.image_id, read.prepared))
            self.placed.append(read.prepared)
            yield read.prepared

    def write(self, recorded: list[Forwarded], regions: list[Box], started: float) -> Receipt:
        """Write all tables and, last, the receipt that makes them count."""
        root, name, embed = self.plan.atlas, self.shard.name, self.plan.embed_layer
        rows_per_block = BLOCK_UNITS * max(1, len(self.placed))
        peak_parts = {
            layer.name: write_table(
                root,
                layout.peaks(layer.name, name),
                _peaks_table(layer, [found[layer.name] for found, _ in recorded]),
                rows_per_block,
            )
            for layer in self.plan.layers
        }
        width = next(layer.units for layer in self.plan.layers if layer.name == embed)
        vectors = [pooled for _, pooled in recorded] or [torch.empty(0, len(regions), width)]
        boxes = [[prepared.placement.to_image(box) for box in regions] for prepared in self.placed]
        receipt = Receipt(
            shard=name,
            atlas_key=self.plan.atlas_key,
            files=write_table(root, layout.files(name), pa.Table.from_pylist(self.files, tables.FILES)),
            scanned=write_table(root, layout.scanned(name), pa.Table.from_pylist(self.scanned, tables.SCANNED)),
            skipped=write_table(root, layout.skipped(name), pa.Table.from_pylist(self.skipped, tables.SKIPPED)),
            peaks=peak_parts,
            embeddings=write_table(root, layout.embeddings(embed, name), _embeddings_table(torch.cat(vectors), boxes)),
            forward_count=len(self.placed),
            seconds=round(time.monotonic() - started, 3),
        )
        write_model(root, layout.receipt(name), receipt)
        return receipt


def _prefetch(
    decoder: ThreadPoolExecutor, read: Callable[[CorpusFile], _Read], files: Sequence[CorpusFile], count: int
) -> Iterator[_Read]:
    """Read files in order on the decoder's thread, at most `count` of them ahead of the forward."""
    remaining = iter(files)
    ahead = deque(decoder.submit(read, file) for file in islice(remaining, count))
    while ahead:
        result = ahead.popleft().result()
        ahead.extend(decoder.submit(read, file) for file in islice(remaining, 1))
        yield result


def _image_row(row: int, image_id: str, prepared: Prepared) -> dict[str, object]:
    placement = prepared.placement
    return {
        "row": row,
        "image_id": image_id,
        "format": prepared.format,
        "mode": prepared.mode,
        "height_px": placement.image.height,
        "width_px": placement.image.width,
        "resized_height_px": placement.resized.height,
        "resized_width_px": placement.resized.width,
        "crop_row": placement.crop.row,
        "crop_col": placement.crop.col,
        "gradient_hash": _gradient_hash(prepared.pixels),
        "tint": bytes(prepared.pixels.float().mean((1, 2)).expand(3).round().to(torch.uint8).tolist()),
    }


def _gradient_hash(pixels: Pixels) -> bytes:
    """256 bits: where a 16 × 17 thumbnail grows brighter to the right by more than one level in 255."""
    grey = pixels.float().mean(0, keepdim=True)
    thumbnail = adaptive_avg_pool2d(grey, (16, 17))[0].numpy()
    return np.packbits(np.diff(thumbnail, axis=1) > 1).tobytes()


def _peaks_table(layer: LayerSpec, found: list[Peaks]) -> pa.Table:
    """Every cell of units × images, sorted by unit, then image."""
    empty = np.empty((0, layer.units))
    activation = np.concatenate([empty, *(part.activation.numpy() for part in found)]).astype(np.float32)
    location = np.concatenate([empty, *(part.location.numpy() for part in found)]).astype(np.int64)
    row, col = np.divmod(location - layer.prefix_tokens, layer.grid.width)
    special = location < layer.prefix_tokens
    row[special], col[special] = tables.TOKEN_ROW, location[special]
    count = len(activation)
    columns = [
        np.repeat(np.arange(layer.units, dtype=np.int32), count),
        np.tile(np.arange(count, dtype=np.int32), layer.units),
        activation.T.ravel(),
        row.T.ravel().astype(np.int16),
        col.T.ravel().astype(np.int16),
    ]
    return pa.table([pa.array(column) for column in columns], schema=tables.PEAKS)


def _embeddings_table(vectors: Tensor, boxes: list[list[Box]]) -> pa.Table:
    count, region_count, width = vectors.shape
    flat = np.array(boxes, dtype=np.int32).reshape(count * region_count, 4)
    halves = pa.array(vectors.to(torch.float16).numpy().ravel())
    columns = [
        pa.array(np.repeat(np.arange(count, dtype=np.int32), region_count)),
        pa.array(np.tile(np.arange(region_count, dtype=np.int16), count)),
        *(pa.array(flat[:, side]) for side in range(4)),
        pa.FixedSizeListArray.from_arrays(halves, width),
    ]
    return pa.table(columns, schema=tables.embeddings(width))
