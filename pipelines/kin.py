"""Which units peak on the same images: co-activation within an atlas, and two atlases compared, unit by unit.

Cost: units × units × images products, and every unit's ranks read once for each tile of units of the other side. What
was found is stored in the (first) atlas under the versions it belongs to, and is never computed again.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipelines import cluster
from pipelines.catalogue import read_part
from pipelines.plan import Progress, Report
from pipelines.profiles import Profiles, Side, correlations, read_profiles, shared_exemplars
from pipelines.storage import write_table
from pipelines.stores import Root, absolute, store_of
from pipelines.tombstones import removed_images
from schemas import layout, tables
from schemas.errors import UsageError
from schemas.manifest import BLOCK_UNITS, LayerEntry, Manifest

TILE_BYTES = 512 << 20
"""Of rank profiles that a worker holds of the first side; 256 units of half a million images."""
_TILE_BLOCKS = 16
_PRODUCTS_HERE = 5_000_000_000
"""Of two numbers: 320 × 320 units on 10,000 images are a fifth of it and took one core a second."""


@dataclass(frozen=True)
class Sealed:
    """A version of an atlas, and where it lies."""

    root: Root
    manifest: Manifest

    def layer(self, name: str) -> LayerEntry:
        """A recorded layer; raises NotFoundError that names those there are."""
        return self.manifest.recorded(name, f"atlas {self.root}")


@dataclass(frozen=True)
class LayerPair:
    """A layer of the first atlas and one of the second."""

    a: str
    b: str


@dataclass(frozen=True)
class Tile:
    """Consecutive blocks of units of a pair's first layer."""

    pair: LayerPair
    blocks: range


@dataclass(frozen=True)
class TileKin:
    """Likeness of the tile's units with all units of the pair's second layer, unit × unit."""

    tile: Tile
    correlation: NDArray[np.float32]
    jaccard: NDArray[np.float32]


@dataclass(frozen=True)
class KinPlan:
    """Two sides whose images are the same ones in the same order, and the entries of the layers that are compared."""

    a: Side
    b: Side
    layers_a: dict[str, LayerEntry]
    layers_b: dict[str, LayerEntry]


class Correlator:
    """Compares tiles of units with all units of another layer, a block at a time.

    Memory: TILE_BYTES, 4 bytes × BLOCK_UNITS for each image, and some 50 MB for products.
    """

    def __init__(self, plan: KinPlan) -> None:
        self.plan = plan

    def __call__(self, tile: Tile) -> TileKin:
        plan, other = self.plan, self.plan.layers_b[tile.pair.b]
        own = read_profiles(plan.a, plan.layers_a[tile.pair.a], tile.blocks)
        found = [
            self._against(own, read_profiles(plan.b, other, range(block, block + 1)))
            for block in range(len(other.ranked))
        ]
        correlation, jaccard = zip(*found, strict=True)
        return TileKin(tile, np.concatenate(correlation, axis=1), np.concatenate(jaccard, axis=1))

    def _against(self, own: Profiles, others: Profiles) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        return correlations(own, others), shared_exemplars(own, others)


def find_kin(a: Sealed, b: Sealed, pairs: Sequence[LayerPair], workers: int | None, report: Report) -> list[str]:
    """Compare all units of each pair of layers; paths in the first atlas of `tables.KIN`, in order of the pairs.

    Pairs whose table is stored are not computed again, so a killed run loses only the pairs it had not finished.
    Raises UsageError if the atlases have no image in common or one keeps first ranks alone, NotFoundError for a layer
    that is not there.
    """
    for side in (a, b):
        if side.manifest.kept is not None:
            raise UsageError(
                f"rank correlations take the ranks of all images, but atlas {side.root} keeps the first "
                f"{side.manifest.kept} of each unit; index with --keep all, or ask for similar units by exemplars"
            )
    layers_a, layers_b = {pair.a: a.layer(pair.a) for pair in pairs}, {pair.b: b.layer(pair.b) for pair in pairs}
    paths = [kin_path(a, b, pair) for pair in pairs]
    missing = [pair for pair, path in zip(pairs, paths, strict=True) if store_of(a.root).stamp(path) is None]
    if missing:
        side_a, side_b = shared_sides(a, b)
        plan = KinPlan(side_a, side_b, layers_a, layers_b)
        tiles = [tile for pair in missing for tile in _tiles(pair, layers_a[pair.a], side_a.image_count)]
        done: dict[LayerPair, list[TileKin]] = {pair: [] for pair in missing}
        waiting = {pair: sum(tile.pair == pair for tile in tiles) for pair in missing}
        report(Progress("correlate", 0, len(tiles), "tiles of units"))
        for number, one in enumerate(_compared(plan, tiles, workers), 1):
            pair = one.tile.pair
            done[pair].append(one)
            if len(done[pair]) == waiting[pair]:
                _write_kin(a.root, kin_path(a, b, pair), done.pop(pair), side_a.image_count)
            report(Progress("correlate", number, len(tiles), "tiles of units"))
    return paths


def _compared(plan: KinPlan, tiles: Sequence[Tile], workers: int | None) -> Iterator[TileKin]:
    """Every tile, in any order: on Ray, but what takes seconds here, where a cluster would take them to start."""
    products = sum(
        BLOCK_UNITS * len(tile.blocks) * plan.layers_b[tile.pair.b].spec.units * plan.a.image_count for tile in tiles
    )
    if products <= _PRODUCTS_HERE:
        yield from map(Correlator(plan), tiles)
        return
    with cluster.connected(None):
        for done in cluster.each(partial(Correlator, plan), tiles, cluster.resources(workers, "cpu")):
            yield done.result


def kin_path(a: Sealed, b: Sealed, pair: LayerPair) -> str:
    """Where the table of a pair of layers lies in the first atlas."""
    return layout.kin(a.manifest.version, pair.a, b.manifest.version, pair.b)


def shared_sides(a: Sealed, b: Sealed) -> tuple[Side, Side]:
    """Both atlases with the images that they share by id, in order of ids; removed images are none."""
    ids_a, left_a = _present_ids(a)
    ids_b, left_b = _present_ids(b)
    place = pc.index_in(ids_a, value_set=ids_b).fill_null(-1).to_numpy(zero_copy_only=False)
    shared = (place >= 0) & left_a
    shared[shared] = left_b[place[shared]]
    count = int(shared.sum())
    if not count:
        raise UsageError(
            f"atlases {a.root} and {b.root} have no image in common, by the bytes of the pictures; index one corpus "
            "with both models"
        )
    positions_a, positions_b = np.full(len(ids_a), -1, np.int32), np.full(len(ids_b), -1, np.int32)
    positions_a[shared] = positions_b[place[shared]] = np.arange(count, dtype=np.int32)
    return Side(absolute(a.root), positions_a, count), Side(absolute(b.root), positions_b, count)


def _present_ids(atlas: Sealed) -> tuple[pa.Array, NDArray[np.bool_]]:
    """Ids of all images in the tables, and which of them were not removed."""
    ids = read_part(atlas.root, atlas.manifest.images, ["image_id"])["image_id"].combine_chunks()
    removed = removed_images(atlas.manifest, atlas.root)["image_id"].combine_chunks()
    return ids, ~pc.is_in(ids, value_set=removed).to_numpy(zero_copy_only=False)


def _tiles(pair: LayerPair, entry: LayerEntry, image_count: int) -> list[Tile]:
    """The layer's blocks in tiles of equal length that fit TILE_BYTES."""
    most = max(1, min(_TILE_BLOCKS, TILE_BYTES // (4 * BLOCK_UNITS * image_count)))
    total = len(entry.ranked)
    length = -(-total // -(-total // most))
    return [Tile(pair, range(first, min(total, first + length))) for first in range(0, total, length)]


def _write_kin(root: Root, path: str, tiles: list[TileKin], image_count: int) -> None:
    """One row per unit of the first layer. Needs no lock: the same path always has the same content."""
    tiles.sort(key=lambda one: one.tile.blocks.start)
    correlation, jaccard = (
        np.concatenate([getattr(one, name) for one in tiles]) for name in ("correlation", "jaccard")
    )
    columns = [pa.array(np.arange(len(correlation), dtype=np.int32)), _lists(correlation), _lists(jaccard)]
    counts = {"image_count": str(image_count), "top_images": str(tables.exemplar_count(image_count))}
    table = pa.table(columns, schema=tables.KIN.with_metadata(counts))
    write_table(root, path, table, row_group_size=BLOCK_UNITS)


def _lists(rows: NDArray[np.float32]) -> pa.ListArray:
    offsets = pa.array(np.arange(len(rows) + 1, dtype=np.int32) * rows.shape[1])
    return pa.ListArray.from_arrays(offsets, pa.array(rows.ravel()))
