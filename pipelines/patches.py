"""The FAISS index over pooled layer embeddings, and the vectors it re-ranks with."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipelines.catalogue import read_part
from pipelines.storage import write_atomically
from schemas import layout
from schemas.geometry import Box
from schemas.manifest import Part, PatchIndex, Receipt

EXACT_UP_TO = 50_000
"""Up to so many vectors a plain scan answers within milliseconds, exactly; no index is built."""
_TRAINING_PER_LIST = 64
_RECALL_QUERIES = 200
_RECALL_AT = 10
_WANTED_RECALL = 0.98
SHORT_LIST = 200
"""Candidates of the compressed index that are scored again with the full vectors."""


@dataclass(frozen=True)
class EmbeddedLayer:
    layer: str
    width: int
    regions: list[Box]
    exact_up_to: int = EXACT_UP_TO


def build_patches(
    atlas: Path, version: str, embedded: EmbeddedLayer, receipts: list[Receipt], images: Part
) -> PatchIndex:
    """Write the vectors in order of image × region, and above `exact_up_to` of them a compressed index.

    A vector's id is `image · regions + region`. Recall is measured on the vectors themselves against exact
    search, and the number of probed lists is raised until it suffices.
    """
    table = read_part(atlas, images, ["image", "shard", "shard_row"])
    count = table.num_rows * len(embedded.regions)

    def write_vectors(file: Path) -> None:
        vectors = np.lib.format.open_memmap(file, "w+", np.float16, (count, embedded.width))
        for image_rows, block in _shard_vectors(atlas, table, receipts, len(embedded.regions)):
            vectors[image_rows] = block
        vectors.flush()

    part = write_atomically(atlas, layout.vectors(embedded.layer, version), write_vectors, count)
    exact = PatchIndex(
        layer=embedded.layer,
        width=embedded.width,
        regions=embedded.regions,
        vectors=part,
        index=None,
        factory="Flat",
        exact=True,
        recall_at_10=1.0,
        probes=0,
    )
    if count <= embedded.exact_up_to:
        return exact
    vectors = np.load(atlas / part.path, mmap_mode="r")
    index, factory = _fill_index(vectors)
    recall, probes = _tune(index, vectors)
    path = layout.index(embedded.layer, version)
    written = write_atomically(atlas, path, lambda file: faiss.write_index(index, os.fspath(file)), count)
    return exact.model_copy(
        update={"index": written, "factory": factory, "exact": False, "recall_at_10": recall, "probes": probes}
    )


def _shard_vectors(
    atlas: Path, images: pa.Table, receipts: list[Receipt], region_count: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float16]]]:
    """For each shard the ids of its images' vectors, and the vectors."""
    shards = images["shard"].to_numpy()
    rows = images["shard_row"].to_numpy()
    regions = np.arange(region_count)
    for receipt in receipts:
        numbers = np.flatnonzero(shards == receipt.shard)
        if not len(numbers):
            continue
        stored = read_part(atlas, receipt.embeddings, ["vector"])["vector"].combine_chunks()
        vectors = stored.flatten().to_numpy().reshape(receipt.forward_count, region_count, -1)
        ids = (numbers[:, None] * region_count + regions).ravel()
        yield ids, vectors[rows[numbers]].reshape(len(ids), -1)


def _fill_index(vectors: NDArray[np.float16]) -> tuple[faiss.Index, str]:
    """Train an inverted file of 8-bit vectors on a seeded sample, then add all of them block by block."""
    count, width = vectors.shape
    lists = 2 ** round(np.log2(2 * np.sqrt(count)))
    factory = f"IVF{lists},SQ8"
    index = faiss.index_factory(width, factory, faiss.METRIC_INNER_PRODUCT)
    sample = np.random.default_rng(0).choice(count, min(count, lists * _TRAINING_PER_LIST), replace=False)
    index.train(vectors[np.sort(sample)].astype(np.float32))
    for start in range(0, count, 65_536):
        index.add(vectors[start : start + 65_536].astype(np.float32))
    return index, factory


def _tune(index: faiss.Index, vectors: NDArray[np.float16]) -> tuple[float, int]:
    """The smallest number of probed lists with the wanted recall@10, and the recall that it has."""
    sample = np.random.default_rng(1).choice(len(vectors), min(_RECALL_QUERIES, len(vectors)), replace=False)
    queries = vectors[sample].astype(np.float32)
    true_scores = np.full((len(queries), _RECALL_AT), -np.inf, np.float32)
    for start in range(0, len(vectors), 65_536):
        scores = queries @ vectors[start : start + 65_536].astype(np.float32).T
        true_scores = -np.sort(-np.hstack([true_scores, scores]), axis=1)[:, :_RECALL_AT]
    inverted = faiss.extract_index_ivf(index)
    probes = 8
    while True:
        inverted.nprobe = probes
        _, short_lists = index.search(queries, SHORT_LIST)
        recall = _recall(queries, vectors, short_lists, true_scores[:, -1])
        if recall >= _WANTED_RECALL or probes >= inverted.nlist:
            return recall, probes
        probes *= 2


def _recall(
    queries: NDArray[np.float32],
    vectors: NDArray[np.float16],
    short_lists: NDArray[np.int64],
    tenth_score: NDArray[np.float32],
) -> float:
    """Share of the true nearest that the re-ranked short lists hold; equal scores count as found."""
    found = 0
    for query, short_list, least in zip(queries, short_lists, tenth_score, strict=True):
        candidates = vectors[np.sort(short_list[short_list >= 0])].astype(np.float32)
        found += min(_RECALL_AT, int((candidates @ query >= least - 1e-6).sum()))
    return found / (_RECALL_AT * len(queries))
