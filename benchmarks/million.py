"""A synthetic atlas of any size, made by the writers of an index run: `python -m benchmarks.million IMAGES`.

Nothing is read but a seed: peaks have heavy tails and, where rectified, a third of exact zeros.
"""

import argparse
import hashlib
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from rich.console import Console

from unitscope_pipelines import cluster
from unitscope_pipelines.indexing.ranking.ranker import RankedBlock, Ranker, RankPlan, UnitBlock
from unitscope_pipelines.indexing.sealing.lookup import build_first_ranks, build_lookup
from unitscope_pipelines.storage.parts import write_atomically, write_model, write_table
from unitscope_pipelines.storage.stores import store_of
from unitscope_schemas import layout, tables
from unitscope_schemas.entries.corpus import CorpusEntry
from unitscope_schemas.entries.model import ModelEntry, Preprocessing
from unitscope_schemas.geometry import Box, Location, ReceptiveField, Size
from unitscope_schemas.manifest import BLOCK_UNITS, FORMAT_VERSION, LayerEntry, Manifest, Part, PatchIndex, Receipt
from unitscope_schemas.units import LayerSpec

LAYER_UNITS = 320
SHARD_IMAGES = 1_024
LABELS, RARE_LABEL, RARE_IMAGES = 1_000, "rare", 12
_KEY, _VERSION, _INPUT, _WIDTH = "synthetic", "synthetic", Size(224, 224), 4
_HEIGHTS_PX = (333, 375, 400, 500)


@dataclass(frozen=True)
class ShardPlan:
    """What all shards of a synthetic atlas have in common."""

    atlas: Path
    image_count: int


class ShardWriter:
    """Writes the peaks of one shard after the other, as a scan does."""

    def __init__(self, plan: ShardPlan) -> None:
        self.plan = plan

    def __call__(self, number: int) -> Receipt:
        """Write a shard's tables and its receipt."""
        atlas, name = self.plan.atlas, shard_name(number)
        count = min(SHARD_IMAGES, self.plan.image_count - number * SHARD_IMAGES)
        chance = np.random.default_rng([1, number])
        receipt = Receipt(
            shard=name,
            atlas_key=_KEY,
            files=write_table(store_of(atlas), layout.files(name), tables.FILES.empty_table()),
            scanned=write_table(store_of(atlas), layout.scanned(name), tables.SCANNED.empty_table()),
            skipped=write_table(store_of(atlas), layout.skipped(name), tables.SKIPPED.empty_table()),
            peaks={
                layer.name: write_table(
                    store_of(atlas), layout.peaks(layer.name, name), _peaks(layer, count, chance), BLOCK_UNITS * count
                )
                for layer in layers()
            },
            embeddings=write_table(
                store_of(atlas), layout.embeddings(layers()[-1].name, name), tables.embeddings(_WIDTH).empty_table()
            ),
            forward_count=count,
            forward="synthetic",
            seconds=0,
        )
        write_model(store_of(atlas), layout.receipt(name), receipt)
        return receipt


def layers() -> list[LayerSpec]:
    """Four layers of a network of the usual shape: the deeper, the coarser."""
    return [
        LayerSpec(name=f"stage{number}", kind="map", units=LAYER_UNITS, grid=Size(side, side), receptive_field=field)
        for number, (side, size) in enumerate(((28, 43), (14, 99), (14, 195), (7, 427)), 1)
        for field in [_field(side, size)]
    ]


def shard_name(number: int) -> str:
    return f"synthetic-{number:05d}"


def images(image_count: int) -> pa.Table:
    """The images table: ids like digests, labels of very different size, two in a hundred nearly alike."""
    chance = np.random.default_rng(0)
    ids = np.array([hashlib.sha256(b"%d" % number).hexdigest() for number in range(image_count)])
    scanned = np.argsort(ids)
    labels = np.array([f"label{number:03d}" for number in range(LABELS)] + [RARE_LABEL])
    label = labels[(LABELS * chance.random(image_count) ** 2).astype(int)]
    label[:: max(1, image_count // RARE_IMAGES)][:RARE_IMAGES] = RARE_LABEL
    twins = np.flatnonzero(chance.random(image_count - 1) < 0.01)
    groups = np.full(image_count, None, object)
    groups[twins] = groups[twins + 1] = np.where(ids[twins] < ids[twins + 1], ids[twins], ids[twins + 1])
    heights = chance.choice(_HEIGHTS_PX, image_count)
    resized = 256 * heights // np.minimum(heights, 500)
    widths = 256 * 500 // np.minimum(heights, 500)
    paths = [f"{label[number]}/{number:07d}.jpg" for number in scanned]
    none = pa.array([[]] * image_count, pa.list_(pa.string()))
    columns = {
        "image": np.arange(image_count),
        "image_id": ids[scanned],
        "path": paths,
        "other_paths": none,
        "address": [f"file:{path}" for path in paths],
        "other_addresses": none,
        "metadata": pa.nulls(image_count, pa.string()),
        "label": label[scanned],
        "size_bytes": chance.integers(50_000, 150_000, image_count),
        "modified_ns": np.zeros(image_count, np.int64),
        "format": pa.array(["JPEG"] * image_count),
        "mode": pa.array(["RGB"] * image_count),
        "height_px": heights,
        "width_px": np.full(image_count, 500),
        "resized_height_px": resized,
        "resized_width_px": widths,
        "crop_row": (resized - _INPUT.height) // 2,
        "crop_col": (widths - _INPUT.width) // 2,
        "duplicate_group": pa.array(groups[scanned], pa.string()),
        "shard": pa.array([shard_name(number) for number in range(-(-image_count // SHARD_IMAGES))]).take(
            pa.array(scanned // SHARD_IMAGES)
        ),
        "shard_row": scanned % SHARD_IMAGES,
    }
    return pa.table({name: pa.array(columns[name]) for name in tables.IMAGES.names}).cast(tables.IMAGES)


def write_atlas(atlas: Path, image_count: int) -> None:
    """Write, rank and seal; says what it cost."""
    say = Console(highlight=False).print
    with cluster.connected(None):
        workers = cluster.resources(None, "cpu")
        worker_count = workers.slots
        started = time.perf_counter()
        shards = range(-(-image_count // SHARD_IMAGES))
        receipts = [
            done.result for done in cluster.each(partial(ShardWriter, ShardPlan(atlas, image_count)), shards, workers)
        ]
        receipts.sort(key=lambda receipt: receipt.shard)
        say(f"peaks of {image_count:,} images: {time.perf_counter() - started:.0f} s")
        part = write_table(store_of(atlas), layout.images_of(_VERSION), images(image_count))
        ranking = RankPlan(store_of(atlas), _VERSION, part, tuple(receipts))
        started = time.perf_counter()
        blocks = [UnitBlock(layer.name, number) for layer in layers() for number in range(LAYER_UNITS // BLOCK_UNITS)]
        ranked = [done.result for done in cluster.each(partial(Ranker, ranking), blocks, workers)]
        seconds = time.perf_counter() - started
    cells = image_count * LAYER_UNITS * len(layers())
    rate = cells / seconds / worker_count / 1e6
    say(f"ranking by {worker_count} workers: {seconds:.0f} s, {rate:.1f} M cells/s per core")
    _seal(atlas, image_count, ranking, ranked)
    size_bytes = sum(file.stat().st_size for file in atlas.rglob("*") if file.is_file())
    say(f"{size_bytes / 1e9:.2f} GB, {size_bytes / cells:.2f} bytes per cell")


def time_ranking(atlas: Path, block_count: int = 4) -> float:
    """Cells per second that one process ranks, from shards to a part on disk, from its second block on."""
    manifest = Manifest.model_validate_json((atlas / layout.MANIFEST).read_text())
    rank = Ranker(RankPlan(store_of(atlas), "timed", manifest.images, tuple(manifest.shards)))
    blocks = [UnitBlock(layers()[0].name, number) for number in range(1 + block_count)]
    ranked = [rank(blocks[0])]
    started = time.perf_counter()
    ranked += [rank(block) for block in blocks[1:]]
    seconds = time.perf_counter() - started
    for one in ranked:
        (atlas / one.part.path).unlink()
    return manifest.corpus.image_count * BLOCK_UNITS * block_count / seconds


def _peaks(layer: LayerSpec, count: int, chance: np.random.Generator) -> pa.Table:
    """Every cell of a shard: of 64 units one is dead and one is not rectified."""
    value = np.sinh(1.2 * chance.standard_normal((layer.units, count), np.float32)) + np.float32(0.54)
    value *= np.linspace(0.5, 5, layer.units, dtype=np.float32)[:, None]
    np.maximum(value, 0, out=value, where=(np.arange(layer.units) % 64 != 62)[:, None])
    value[63::64] = 0
    row, col = (chance.integers(0, side, value.size, np.int16) for side in layer.grid)
    unit, image = np.divmod(np.arange(value.size, dtype=np.int32), np.int32(count))
    return pa.table([pa.array(column) for column in (unit, image, value.ravel(), row, col)], schema=tables.PEAKS)


def _field(side: int, size_px: int) -> ReceptiveField:
    stride = _INPUT.height // side
    starts = [place * stride + stride // 2 - size_px // 2 for place in range(side)]
    spans = tuple((max(0, start), min(_INPUT.height, start + size_px)) for start in starts)
    return ReceptiveField(
        input=_INPUT,
        kind="local",
        size=Size(size_px, size_px),
        stride=Size(stride, stride),
        start=Location(starts[0], starts[0]),
        rows=spans,
        cols=spans,
        effective=Size(size_px // 2, size_px // 2),
    )


def _seal(atlas: Path, image_count: int, ranking: RankPlan, ranked: list[RankedBlock]) -> None:
    ranked.sort(key=lambda one: one.block.number)
    entries = []
    for layer in layers():
        own = [one for one in ranked if one.block.layer == layer.name]
        rows = pa.Table.from_pylist([row for one in own for row in one.units], schema=tables.UNITS)
        part = write_table(store_of(atlas), layout.units(layer.name, _VERSION), rows)
        entries.append(LayerEntry(spec=layer, units=part, ranked=[one.part for one in own]))
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        unitscope_version="synthetic",
        created="2000-01-01T00:00:00+00:00",
        atlas_key=_KEY,
        version=_VERSION,
        model=ModelEntry(spec="synthetic", weights="none", weights_digest=_KEY),
        preprocessing=Preprocessing(
            resize_px=256, input=_INPUT, interpolation="bicubic", mean=(0.0,) * 3, std=(1.0,) * 3
        ),
        precision="fp32",
        batch_size=32,
        corpus=CorpusEntry(
            root="synthetic",
            image_count=image_count,
            file_count=image_count,
            skipped_count=0,
            ignored_count=0,
            label_count=LABELS + 1,
        ),
        layers=entries,
        images=ranking.images,
        skipped=write_table(store_of(atlas), layout.skipped_of(_VERSION), tables.SKIPPED.empty_table()),
        lookup=build_lookup(
            store_of(atlas), _VERSION, ranking.images, build_first_ranks(store_of(atlas), _VERSION, entries)
        ),
        patches=_patches(atlas, image_count),
        shards=list(ranking.receipts),
        forward_count=image_count,
        config={"corpus": "synthetic"},
    )
    write_model(store_of(atlas), layout.MANIFEST, manifest)


def _patches(atlas: Path, image_count: int) -> PatchIndex:
    layer = layers()[-1].name
    vectors: NDArray[np.float16] = np.ones((image_count, _WIDTH), np.float16)
    part: Part = write_atomically(
        store_of(atlas), layout.vectors(layer, _VERSION), lambda file: np.save(file.open("wb"), vectors), image_count
    )
    return PatchIndex.none(layer, _WIDTH, [Box(0, 0, *_INPUT)], part)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", type=int)
    parser.add_argument("--atlases", type=Path, default=Path("build/bench"), help="the folder they are written to")
    asked = parser.parse_args()
    root = (asked.atlases / f"{asked.images}").absolute()
    pa.set_cpu_count(1)
    if not (root / layout.MANIFEST).exists():
        write_atlas(root, asked.images)
    Console(highlight=False).print(f"ranking in one process: {time_ranking(root) / 1e6:.1f} M cells/s")
