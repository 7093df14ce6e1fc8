"""What a shard's scan writes: its files, images and peaks as tables, and the receipt that makes them count."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from unitscope_pipelines.corpora.listing import CorpusFile
from unitscope_pipelines.storage.parts import write_model, write_table
from unitscope_pipelines.storage.stores import Store
from unitscope_pipelines.vision.images.libraries import code_digest, library_versions
from unitscope_schemas import layout, tables
from unitscope_schemas.entries.part import Part
from unitscope_schemas.geometry import Box, Placement
from unitscope_schemas.manifest import BLOCK_UNITS, Receipt
from unitscope_schemas.units import LayerSpec

_WRITERS = 4
"""Count of layers that are written at once: each waits for the disk or for an object store."""


@dataclass(frozen=True)
class Shard:
    """The files that one worker scans as one unit of work and one commit."""

    name: str
    files: pa.Table
    """Table of the files, with the schema `tables.LISTED`."""


@dataclass(frozen=True)
class ReadFile:
    """A file that was read, with the size and id of its picture, or the reason why it is none."""

    file: CorpusFile
    size_bytes: int
    """Size of the picture, 0 where it could not be read."""
    image_id: str = ""
    reason: str = ""
    """Reason why the file is no usable image; empty where it is one."""


@dataclass(frozen=True)
class ScannedImage:
    """An image whose forward ran: how the network saw it, and its perceptual hash."""

    image_id: str
    format: str
    mode: str
    placement: Placement
    gradient_hash: bytes
    tint: bytes
    notes: tuple[str, ...] = ()
    """What was done to the picture besides decoding."""


@dataclass(frozen=True)
class LayerPeaks:
    """The peaks of one layer, image × unit, in order of the shard's images."""

    layer: LayerSpec
    activation: NDArray[np.float32]
    location: NDArray[np.int64]
    """Flat index of each peak's location in row order, class and register tokens first."""


@dataclass(frozen=True)
class Embeddings:
    """The pooled vectors (image, region, unit) of one layer in 16 bits, and the regions' boxes in input pixels."""

    layer: str
    vectors: NDArray[np.float16]
    regions: list[Box]


@dataclass(frozen=True)
class ScannedShard:
    """All that the scan of a shard recorded."""

    name: str
    files: Sequence[ReadFile]
    images: Sequence[ScannedImage]
    peaks: Sequence[LayerPeaks]
    embeddings: Embeddings


def write_shard(store: Store, atlas_key: str, shard: ScannedShard, forward: str, seconds: float) -> Receipt:
    """Write all tables, the layers' beside each other, and, last, the receipt, which is returned."""
    name, embeddings = shard.name, shard.embeddings
    rows_per_block = BLOCK_UNITS * max(1, len(shard.images))
    usable = [file for file in shard.files if not file.reason]
    refused = [file for file in shard.files if file.reason]

    def write_peaks(peaks: LayerPeaks) -> Part:
        return write_table(store, layout.peaks(peaks.layer.name, name), peaks_table(peaks), rows_per_block)

    with ThreadPoolExecutor(_WRITERS, thread_name_prefix="write") as threads:
        parts = list(threads.map(write_peaks, shard.peaks))
    receipt = Receipt(
        shard=name,
        atlas_key=atlas_key,
        files=write_table(store, layout.files(name), _files_table(usable)),
        scanned=write_table(store, layout.scanned(name), _images_table(shard.images)),
        skipped=write_table(store, layout.skipped(name), _skipped_table(refused)),
        peaks={peaks.layer.name: part for peaks, part in zip(shard.peaks, parts, strict=True)},
        embeddings=write_table(
            store, layout.embeddings(embeddings.layer, name), _embeddings_table(embeddings, shard.images)
        ),
        forward_count=len(shard.images),
        forward=forward,
        seconds=seconds,
        libraries=library_versions(),
        code=code_digest(),
    )
    write_model(store, layout.receipt(name), receipt)
    return receipt


def peaks_table(peaks: LayerPeaks) -> pa.Table:
    """Return every cell of units × images, sorted by unit, then image, with the schema `tables.PEAKS`."""
    layer, count = peaks.layer, len(peaks.activation)
    location = np.ascontiguousarray(peaks.location.T, np.int32).ravel()
    row, col = np.divmod(location - layer.prefix_tokens, max(1, layer.grid.width))
    if layer.prefix_tokens:
        special = location < layer.prefix_tokens
        row[special], col[special] = tables.TOKEN_ROW, location[special]
    columns = {
        "unit": np.repeat(np.arange(layer.units, dtype=np.int32), count),
        "image": np.tile(np.arange(count, dtype=np.int32), layer.units),
        "activation": np.ascontiguousarray(peaks.activation.T).ravel(),
        "row": row.astype(np.int16),
        "col": col.astype(np.int16),
    }
    return pa.table(columns, schema=tables.PEAKS)


def _key(read: ReadFile) -> dict[str, object]:
    return {**{name: getattr(read.file, name) for name in tables.FILE_KEY}, "size_bytes": read.size_bytes}


def _files_table(usable: Sequence[ReadFile]) -> pa.Table:
    return pa.Table.from_pylist([{**_key(file), "image_id": file.image_id} for file in usable], tables.FILES)


def _skipped_table(refused: Sequence[ReadFile]) -> pa.Table:
    return pa.Table.from_pylist([{**_key(file), "reason": file.reason} for file in refused], tables.SKIPPED)


def _images_table(images: Sequence[ScannedImage]) -> pa.Table:
    rows = [
        {
            "row": row,
            "image_id": image.image_id,
            "format": image.format,
            "mode": image.mode,
            "height_px": image.placement.image.height,
            "width_px": image.placement.image.width,
            "resized_height_px": image.placement.resized.height,
            "resized_width_px": image.placement.resized.width,
            "crop_row": image.placement.crop.row,
            "crop_col": image.placement.crop.col,
            "gradient_hash": image.gradient_hash,
            "tint": image.tint,
            "notes": "; ".join(image.notes) or None,
        }
        for row, image in enumerate(images)
    ]
    return pa.Table.from_pylist(rows, tables.SCANNED)


def _embeddings_table(embeddings: Embeddings, images: Sequence[ScannedImage]) -> pa.Table:
    count, region_count, width = embeddings.vectors.shape
    regions: dict[Placement, list[Box]] = {}
    for image in images:
        if image.placement not in regions:
            regions[image.placement] = [image.placement.to_image(box) for box in embeddings.regions]
    boxes = np.array([regions[image.placement] for image in images], np.int32).reshape(count * region_count, 4)
    columns = [
        pa.array(np.repeat(np.arange(count, dtype=np.int32), region_count)),
        pa.array(np.tile(np.arange(region_count, dtype=np.int16), count)),
        *(pa.array(boxes[:, side]) for side in range(4)),
        pa.FixedSizeListArray.from_arrays(pa.array(embeddings.vectors.ravel()), width),
    ]
    return pa.table(columns, schema=tables.embeddings(width))
