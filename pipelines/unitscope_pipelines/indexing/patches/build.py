"""The vectors of all patches of a version, and the index that finds the nearest."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from unitscope_pipelines.indexing.patches.index import IndexPlan, build_index, choose_index
from unitscope_pipelines.indexing.patches.vectors import VectorFile
from unitscope_pipelines.storage.parts import read_part, write_atomically
from unitscope_pipelines.storage.stores import Store
from unitscope_schemas import layout
from unitscope_schemas.geometry import Box
from unitscope_schemas.manifest import Part, PatchIndex, Receipt

_BATCH_IMAGES = 64
"""Count of images whose vectors are in memory while shards are copied."""
_BUFFER_BYTES = 1 << 20
"""Bytes of a shard's file that are read at a time."""


@dataclass(frozen=True)
class EmbeddedLayer:
    """The layer whose pooled output is searched."""

    layer: str
    width: int
    """Count of the numbers of a vector."""
    regions: list[Box]
    """Boxes of the regions in input pixels."""
    memory_bytes: int | None = None
    """Memory that the index may take when it is served, None where it is not said."""


def build_patches(
    store: Store, version: str, embedded: EmbeddedLayer, receipts: Sequence[Receipt], images: Part
) -> PatchIndex:
    """Write the vectors in order of image × region, and the index that fits their number.

    A vector's id is `image · regions + region`. Recall of the ten best images is measured on the vectors themselves
    against exact search, and probes and short list are the cheapest with 0.99.
    """
    count = images.rows * len(embedded.regions)
    path = layout.vectors(embedded.layer, version)

    def write(file: Path) -> None:
        vectors = VectorFile(file, count, embedded.width, len(embedded.regions))
        vectors.write(image_vectors(store, receipts, images, embedded))

    part = write_atomically(store, path, write, count)
    exact = PatchIndex.none(embedded.layer, embedded.width, embedded.regions, part)
    plan = choose_index(count, embedded.width, embedded.memory_bytes)
    return exact if plan is None else add_index(store, version, exact, plan)


def add_index(store: Store, version: str, exact: PatchIndex, plan: IndexPlan) -> PatchIndex:
    """Build the planned index over vectors that are written, and return the entry that tells how to ask it."""
    with store.hold(exact.vectors) as file:
        index, tuning = build_index(VectorFile(file, plan.count, plan.width, len(exact.regions)), plan)
    path = layout.index(exact.layer, version)
    return exact.model_copy(
        update={
            "index": write_atomically(store, path, lambda file: faiss.write_index(index, os.fspath(file)), plan.count),
            "factory": plan.factory,
            "exact": False,
            "recall_at_10": tuning.recall,
            "probes": tuning.probes,
            "short_list": tuning.short_list,
        }
    )


def image_vectors(
    store: Store, receipts: Sequence[Receipt], images: Part, embedded: EmbeddedLayer
) -> Iterator[tuple[int, NDArray[np.float16]]]:
    """Read every image's number and vectors, region × number, in the order of shards."""
    width, regions = embedded.width, len(embedded.regions)
    table = read_part(store, images, ["shard", "shard_row"])
    shards = pc.index_in(table["shard"], value_set=pa.array([receipt.shard for receipt in receipts])).to_numpy()
    rows = table["shard_row"].to_numpy()
    order = np.argsort(shards, kind="stable")
    ends = np.searchsorted(shards[order], np.arange(len(receipts) + 1))
    for receipt, first, last in zip(receipts, ends, ends[1:], strict=False):
        image_of_row = np.full(receipt.forward_count, -1)
        image_of_row[rows[order[first:last]]] = order[first:last]
        with store.hold(receipt.embeddings) as file, pq.ParquetFile(file, buffer_size=_BUFFER_BYTES) as stored:
            start = 0
            for batch in stored.iter_batches(_BATCH_IMAGES * regions, columns=["vector"]):
                vectors = batch["vector"].flatten().to_numpy().reshape(-1, regions, width)
                for image, image_vectors in zip(image_of_row[start:].tolist(), vectors, strict=False):
                    if image >= 0:
                        yield image, image_vectors
                start += len(vectors)
    pa.default_memory_pool().release_unused()
