"""What a shard's scan writes: its files, images and peaks as tables, and the receipt that makes them count."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from unitscope_pipelines.corpora.listing import CorpusFile
from unitscope_pipelines.storage.parts import write_model, write_table
from unitscope_pipelines.storage.stores import Root
from unitscope_schemas import layout, tables
from unitscope_schemas.geometry import Box, Placement
from unitscope_schemas.manifest import BLOCK_UNITS, Part, Receipt
from unitscope_schemas.units import LayerSpec

_WRITERS = 4
"""Layers written at once: each waits for the disk to keep what was written, or for an object store."""


@dataclass(frozen=True)
class Shard:
    """The files that one worker scans as one unit of work and one commit."""

    name: str
    files: pa.Table
    """With the schema `tables.LISTED`."""


@dataclass(frozen=True)
class ReadFile:
    """A file with the size and id of its picture, or the reason why it is none."""

    file: CorpusFile
    size_bytes: int
    image_id: str = ""
    reason: str = ""


@dataclass(frozen=True)
class ScannedImage:
    """An image whose forward ran: how the network saw it, and its perceptual hash."""

    image_id: str
    format: str
    mode: str
    placement: Placement
    gradient_hash: bytes
    tint: bytes


@dataclass(frozen=True)
class LayerPeaks:
    """Peaks of one layer, an image a row, in order of the shard's images."""

    layer: LayerSpec
    activation: NDArray[np.float32]
    location: NDArray[np.int64]


@dataclass(frozen=True)
class Embeddings:
    """Pooled vectors (image, region, unit) of one layer in 16 bits, and the regions' boxes in input pixels."""

    layer: str
    vectors: NDArray[np.float16]
    regions: list[Box]


@dataclass(frozen=True)
class ScannedShard:
    """All that the scan of a shard found."""

    name: str
    files: Sequence[ReadFile]
    images: Sequence[ScannedImage]
    peaks: Sequence[LayerPeaks]
    embeddings: Embeddings


def write_shard(atlas: Root, atlas_key: str, shard: ScannedShard, forward: str, seconds: float) -> Receipt:
    """Write all tables, the layers' beside each other, and, last, the receipt."""
    name, embeddings = shard.name, shard.embeddings
    rows_per_block = BLOCK_UNITS * max(1, len(shard.images))
    read = [one for one in shard.files if not one.reason]
    refused = [one for one in shard.files if one.reason]

    def write_peaks(one: LayerPeaks) -> Part:
        return write_table(atlas, layout.peaks(one.layer.name, name), peaks_table(one), rows_per_block)

    with ThreadPoolExecutor(_WRITERS, thread_name_prefix="write") as threads:
        peaks = list(threads.map(write_peaks, shard.peaks))
    receipt = Receipt(
        shard=name,
        atlas_key=atlas_key,
        files=write_table(atlas, layout.files(name), _files_table(read)),
        scanned=write_table(atlas, layout.scanned(name), _images_table(shard.images)),
        skipped=write_table(atlas, layout.skipped(name), _skipped_table(refused)),
        peaks={one.layer.name: part for one, part in zip(shard.peaks, peaks, strict=True)},
        embeddings=write_table(
            atlas, layout.embeddings(embeddings.layer, name), _embeddings_table(embeddings, shard.images)
        ),
        forward_count=len(shard.images),
        forward=forward,
        seconds=seconds,
    )
    write_model(atlas, layout.receipt(name), receipt)
    return receipt


def peaks_table(peaks: LayerPeaks) -> pa.Table:
    """Every cell of units × images, sorted by unit, then image."""
    layer, count = peaks.layer, len(peaks.activation)
    location = np.ascontiguousarray(peaks.location.T, np.int32).ravel()
    row, col = np.divmod(location - layer.prefix_tokens, layer.grid.width)
    if layer.prefix_tokens:
        special = location < layer.prefix_tokens
        row[special], col[special] = tables.TOKEN_ROW, location[special]
    columns = [
        np.repeat(np.arange(layer.units, dtype=np.int32), count),
        np.tile(np.arange(count, dtype=np.int32), layer.units),
        np.ascontiguousarray(peaks.activation.T).ravel(),
        row.astype(np.int16),
        col.astype(np.int16),
    ]
    return pa.table([pa.array(column) for column in columns], schema=tables.PEAKS)


def _key(read: ReadFile) -> dict[str, object]:
    return {**{name: getattr(read.file, name) for name in tables.FILE_KEY}, "size_bytes": read.size_bytes}


def _files_table(read: Sequence[ReadFile]) -> pa.Table:
    return pa.Table.from_pylist([{**_key(one), "image_id": one.image_id} for one in read], tables.FILES)


def _skipped_table(refused: Sequence[ReadFile]) -> pa.Table:
    return pa.Table.from_pylist([{**_key(one), "reason": one.reason} for one in refused], tables.SKIPPED)


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
        }
        for row, image in enumerate(images)
    ]
    return pa.Table.from_pylist(rows, tables.SCANNED)


def _embeddings_table(embeddings: Embeddings, images: Sequence[ScannedImage]) -> pa.Table:
    count, region_count, width = embeddings.vectors.shape
    placed: dict[Placement, list[Box]] = {}
    for image in images:
        if image.placement not in placed:
            placed[image.placement] = [image.placement.to_image(box) for box in embeddings.regions]
    boxes = np.array([placed[image.placement] for image in images], np.int32).reshape(count * region_count, 4)
    columns = [
        pa.array(np.repeat(np.arange(count, dtype=np.int32), region_count)),
        pa.array(np.tile(np.arange(region_count, dtype=np.int16), count)),
        *(pa.array(boxes[:, side]) for side in range(4)),
        pa.FixedSizeListArray.from_arrays(pa.array(embeddings.vectors.ravel()), width),
    ]
    return pa.table(columns, schema=tables.embeddings(width))
