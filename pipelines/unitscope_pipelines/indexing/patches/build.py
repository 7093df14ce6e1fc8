"""The vectors of all patches of a version, and the index that finds the nearest."""

import os
from collections.abc import Iterator
from pathlib import Path

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from unitscope_pipelines.indexing.patches.index import IndexPlan, build_index, choose_index
from unitscope_pipelines.indexing.patches.vectors import VectorFile
from unitscope_pipelines.storage.parts import write_atomically
from unitscope_pipelines.storage.segments.images import SegmentImages
from unitscope_pipelines.storage.stores import Store
from unitscope_schemas import layout
from unitscope_schemas.entries.segment import Embedding, PatchIndex

_BATCH_IMAGES = 64
"""Count of images whose vectors are in memory while shards are copied."""
_BUFFER_BYTES = 1 << 20
"""Bytes of a shard's file that are read at a time."""


def build_patches(images: SegmentImages, embedding: Embedding, memory_bytes: int | None = None) -> PatchIndex:
    """Write the vectors of a segment in order of row × region, and the index that fits their number.

    A vector's id is `row · regions + region`. Recall of the ten best images is measured on the vectors themselves
    against exact search, and probes and short list are the cheapest with 0.99. The index may take `memory_bytes` when
    it is served, None where it is not said.
    """
    store, segment, regions = images.store, images.name, len(embedding.regions)
    count = images.count * regions

    def write(file: Path) -> None:
        VectorFile(file, count, embedding.width, regions).write(image_vectors(images, embedding))

    exact = PatchIndex.none(write_atomically(store, layout.vectors(embedding.layer, segment), write, count))
    plan = choose_index(count, embedding.width, memory_bytes)
    return exact if plan is None else add_index(store, segment, embedding, exact, plan)


def add_index(store: Store, segment: str, embedding: Embedding, exact: PatchIndex, plan: IndexPlan) -> PatchIndex:
    """Build the planned index over vectors that are written, and return the entry that tells how to ask it."""
    with store.hold(exact.vectors) as file:
        index, tuning = build_index(VectorFile(file, plan.count, plan.width, len(embedding.regions)), plan)
    path = layout.index(embedding.layer, segment)
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


def image_vectors(images: SegmentImages, embedding: Embedding) -> Iterator[tuple[int, NDArray[np.float16]]]:
    """Read the row and vectors, region × number, of every image of a segment, in the order of shards."""
    width, regions, receipts = embedding.width, len(embedding.regions), images.receipts
    table = images.read(["shard", "shard_row"])
    shards = pc.index_in(table["shard"], value_set=pa.array([receipt.shard for receipt in receipts])).to_numpy()
    rows = table["shard_row"].to_numpy()
    order = np.argsort(shards, kind="stable")
    ends = np.searchsorted(shards[order], np.arange(len(receipts) + 1))
    for receipt, first, last in zip(receipts, ends, ends[1:], strict=False):
        if first == last:
            continue
        image_of_row = np.full(receipt.forward_count, -1)
        image_of_row[rows[order[first:last]]] = order[first:last]
        with images.store.hold(receipt.embeddings) as file, pq.ParquetFile(file, buffer_size=_BUFFER_BYTES) as stored:
            start = 0
            for batch in stored.iter_batches(_BATCH_IMAGES * regions, columns=["vector"]):
                vectors = batch["vector"].flatten().to_numpy().reshape(-1, regions, width)
                for image, image_vectors in zip(image_of_row[start:].tolist(), vectors, strict=False):
                    if image >= 0:
                        yield image, image_vectors
                start += len(vectors)
    pa.default_memory_pool().release_unused()
