"""A synthetic atlas of any size, made by the writers of an index run: `python -m benchmarks.million IMAGES`.

Nothing is read but a seed: peaks have heavy tails and, where rectified, a third of exact zeros. With `--segments N` it
grows, each time by half of what is left: N runs, each of which writes a segment, and what it wrote is said.
"""

import argparse
import resource
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from rich.console import Console

from benchmarks.synthetic_images import INPUT, SHARD_IMAGES, SyntheticImages, shard_name
from unitscope_pipelines.cluster.resources import Resources, resources
from unitscope_pipelines.cluster.session import connected
from unitscope_pipelines.cluster.workers import each
from unitscope_pipelines.corpora.listing import Listing
from unitscope_pipelines.indexing.building import VersionBuilder
from unitscope_pipelines.indexing.config import IndexConfig
from unitscope_pipelines.indexing.known_ids import KnownIds
from unitscope_pipelines.indexing.plan import Plan
from unitscope_pipelines.indexing.ranking.layers import OnWorkers
from unitscope_pipelines.indexing.ranking.ranker import Ranker, UnitBlock
from unitscope_pipelines.indexing.scan import ScanPlan
from unitscope_pipelines.indexing.sealing.segments import segmentation
from unitscope_pipelines.indexing.sealing.version_images import VersionImages
from unitscope_pipelines.indexing.sealing.versions import NewVersion, seal
from unitscope_pipelines.storage.long_tables.long_table import LongTable
from unitscope_pipelines.storage.parts import read_manifest, sizes_in, write_model, write_table
from unitscope_pipelines.storage.segments.images import SegmentImages
from unitscope_pipelines.storage.stores import Store, store_of
from unitscope_schemas import layout, tables
from unitscope_schemas.entries.model import ModelEntry, Preprocessing
from unitscope_schemas.geometry import Location, ReceptiveField, Size
from unitscope_schemas.manifest import BLOCK_UNITS, Manifest, Receipt
from unitscope_schemas.progress import Progress
from unitscope_schemas.units import LayerSpec
from unitscope_schemas.versions import read_version

LAYER_UNITS = 320
_KEY = "0" * 64
_MODEL = ModelEntry(spec="synthetic", weights="none", weights_digest=_KEY)
_PREPROCESSING = Preprocessing(resize_px=256, input=INPUT, interpolation="bicubic", mean=(0.0,) * 3, std=(1.0,) * 3)


@dataclass(frozen=True)
class ShardPlan:
    """What all shards of a synthetic atlas have in common."""

    atlas: Path
    image_count: int
    layers: tuple[LayerSpec, ...]


class ShardWriter:
    """Writes the peaks of one shard after the other, as a scan does."""

    def __init__(self, plan: ShardPlan) -> None:
        self.plan = plan

    def __call__(self, number: int) -> Receipt:
        """Write a shard's tables and its receipt."""
        store, name, specs = store_of(self.plan.atlas), shard_name(number), self.plan.layers
        count = min(SHARD_IMAGES, self.plan.image_count - number * SHARD_IMAGES)
        chance = np.random.default_rng([1, number])
        receipt = Receipt(
            shard=name,
            atlas_key=_KEY,
            files=write_table(store, layout.files(name), tables.FILES.empty_table()),
            scanned=write_table(store, layout.scanned(name), tables.SCANNED.empty_table()),
            skipped=write_table(store, layout.skipped(name), tables.SKIPPED.empty_table()),
            peaks={
                layer.name: write_table(
                    store, layout.peaks(layer.name, name), _peaks(layer, count, chance), BLOCK_UNITS * count
                )
                for layer in specs
            },
            embeddings=write_table(store, layout.embeddings(specs[-1].name, name), _embeddings(count, chance)),
            forward_count=count,
            forward="synthetic",
            seconds=0,
        )
        write_model(store, layout.receipt(name), receipt)
        return receipt


def layers(count: int = 4) -> list[LayerSpec]:
    """The layers of a network of the usual shape, the deeper, the coarser; the last `count` of four."""
    return [
        LayerSpec(name=f"stage{number}", kind="map", units=LAYER_UNITS, grid=Size(side, side), receptive_field=field)
        for number, (side, size) in enumerate(((28, 43), (14, 99), (14, 195), (7, 427)), 1)
        for field in [_field(side, size)]
    ][-count:]


def embedded_layer() -> LayerSpec:
    """A layer of a single unit, so that vectors of patches are as many as images, and hardly any bytes."""
    return LayerSpec(name="pooled", kind="map", units=1, grid=Size(1, 1), receptive_field=_field(1, 224))


def growth(shard_count: int, segments: int) -> list[int]:
    """Return how many shards an atlas has after each of so many runs, each of which brings half of what is left.

    >>> growth(1000, 1), growth(1000, 4), growth(5, 4)
    ([1000], [534, 801, 934, 1000], [3, 4, 5])
    """
    shares = [1 - 0.5**number for number in range(1, segments + 1)]
    return list(dict.fromkeys(int(-(-shard_count * share // shares[-1])) for share in shares))


def write_atlas(atlas: Path, image_count: int, segment_count: int, layer_count: int, segment_images: int) -> None:
    """Write the peaks, then seal one version after the other; says what each cost."""
    config = IndexConfig(corpus="synthetic", atlas=str(atlas), segment_images=segment_images)
    say, store, specs = Console(highlight=False).print, store_of(atlas), (*layers(layer_count), embedded_layer())
    shard_count = -(-image_count // SHARD_IMAGES)
    with connected(None):
        workers = resources(None, "cpu")
        started = time.perf_counter()
        scan = partial(ShardWriter, ShardPlan(atlas, image_count, specs))
        receipts = [done.result for done in each(scan, range(shard_count), workers)]
        receipts.sort(key=lambda receipt: receipt.shard)
        say(f"peaks of {image_count:,} images: {time.perf_counter() - started:.0f} s")
        images = SyntheticImages.of(image_count)
        for count in growth(shard_count, segment_count):
            say(grow(store, images.table(count), receipts[:count], synthetic_plan(store, specs, config), workers))
    size_bytes = sum(sizes_in(store).values())
    cells = image_count * sum(layer.units for layer in specs)
    say(f"{size_bytes / 1e9:.2f} GB, {size_bytes / cells:.2f} bytes per cell")


def grow(
    store: Store,
    images: LongTable,
    receipts: list[Receipt],
    plan: Plan,
    workers: Resources,
) -> str:
    """Seal a version of these images on top of the one before, and say what it wrote and how long each stage took."""
    stages: dict[str, float] = {}
    begun = started = time.perf_counter()

    def report(progress: Progress) -> None:
        nonlocal started
        stages[progress.stage] = stages.get(progress.stage, 0) + time.perf_counter() - started
        started = time.perf_counter()

    previous = read_manifest(store)
    before = {part.path for part in previous.parts()} if previous else set()
    version = NewVersion.of(
        _KEY,
        None,
        VersionImages(images, tables.SKIPPED.empty_table(), images.num_rows, frozenset(one.shard for one in receipts)),
        receipts,
    )
    cut = segmentation(plan.previous, store, version, None, plan.config.segment_images)
    builder = VersionBuilder(plan, version, cut, OnWorkers(workers, report))
    manifest = seal(store, builder.build(measures=False))
    of_version = sum(part.size_bytes for part in manifest.parts())
    new = sum(part.size_bytes for part in manifest.parts() if part.path not in before)
    new += sizes_in(store)[layout.MANIFEST]
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    shares = ", ".join(f"{name} {seconds:.0f}" for name, seconds in stages.items())
    sizes = " + ".join(f"{segment.image_count:,}" for segment in manifest.segments)
    return (
        f"{sizes} images: {time.perf_counter() - begun:.0f} s ({shares}), {new / 1e6:,.0f} MB new, "
        f"{new / of_version:.2%} of the version's; the driver's peak so far {memory:.1f} GiB"
    )


def synthetic_plan(store: Store, specs: tuple[LayerSpec, ...], config: IndexConfig) -> Plan:
    """Return the plan of a run that scans nothing."""
    scan = ScanPlan(
        corpus="synthetic",
        store=store,
        atlas_key=_KEY,
        model=_MODEL,
        preprocessing=_PREPROCESSING,
        layers=specs,
        embed_layer=specs[-1].name,
        batch_size=32,
        precision="fp32",
        device="cpu",
        most_pixels=10**8,
        known_ids=KnownIds(),
    )
    nothing = LongTable.of(tables.LISTED.empty_table())
    return Plan(
        config=config,
        scan=scan,
        listing=Listing("synthetic", nothing, tables.SKIPPED.empty_table(), {}),
        pending=nothing,
        finished=[],
        previous=read_manifest(store),
        removed=tables.REMOVED.empty_table(),
    )


def time_ranking(atlas: Path, block_count: int = 4) -> float:
    """Cells per second that one process ranks, from shards to a part on disk, from its second block on."""
    manifest: Manifest = read_version(store_of(atlas))
    images = manifest.segments[0].tables.images
    rank = Ranker(SegmentImages(store_of(atlas), "0" * 16, images, tuple(manifest.shards)))
    blocks = [UnitBlock(manifest.layers[0].spec.name, number) for number in range(1 + block_count)]
    ranked = [rank(blocks[0])]
    started = time.perf_counter()
    ranked += [rank(block) for block in blocks[1:]]
    seconds = time.perf_counter() - started
    for one in ranked:
        (atlas / one.part.path).unlink()
    return images.rows * BLOCK_UNITS * block_count / seconds


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
    stride = INPUT.height // side
    starts = [place * stride + stride // 2 - size_px // 2 for place in range(side)]
    spans = tuple((max(0, start), min(INPUT.height, start + size_px)) for start in starts)
    return ReceptiveField(
        input=INPUT,
        kind="local",
        size=Size(size_px, size_px),
        stride=Size(stride, stride),
        start=Location(starts[0], starts[0]),
        rows=spans,
        cols=spans,
        effective=Size(size_px // 2, size_px // 2),
    )


def _embeddings(count: int, chance: np.random.Generator) -> pa.Table:
    """A number of each image."""
    vectors: NDArray[np.float16] = chance.standard_normal(count).astype(np.float16)
    zeros = np.zeros(count, np.int32)
    columns = {
        **dict.fromkeys(("top_px", "left_px", "bottom_px", "right_px"), zeros),
        "row": np.arange(count, dtype=np.int32),
        "region": np.zeros(count, np.int16),
        "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors), 1),
    }
    schema = tables.embeddings(1)
    return pa.table([columns[name] for name in schema.names], schema=schema)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", type=int)
    parser.add_argument("--segments", type=int, default=1, help="runs in which it grows")
    parser.add_argument("--layers", type=int, default=4, help=f"of {LAYER_UNITS} units each, at most 4")
    parser.add_argument("--segment-images", type=int, help="most images of a segment; default: as `index` has it")
    parser.add_argument("--atlases", type=Path, default=Path("build/bench"), help="the folder they are written to")
    asked = parser.parse_args()
    usual = IndexConfig.model_fields["segment_images"].default
    several = f"-{asked.segments}" if asked.segments > 1 else ""
    several += f"-of-{asked.layers}" if asked.layers != 4 else ""
    several += f"-by-{asked.segment_images}" if asked.segment_images else ""
    root = (asked.atlases / f"{asked.images}{several}").absolute()
    pa.set_cpu_count(1)
    if not (root / layout.MANIFEST).exists():
        write_atlas(root, asked.images, asked.segments, asked.layers, asked.segment_images or usual)
    Console(highlight=False).print(f"ranking in one process: {time_ranking(root) / 1e6:.1f} M cells/s")
