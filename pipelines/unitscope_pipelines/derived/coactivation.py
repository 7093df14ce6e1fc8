"""Which units peak on the same images: co-activation within an atlas, and two atlases compared, unit by unit.

Cost: units × units × images products, and every unit's ranks read once for each tile of units of the other side. What
was found is stored in the (first) atlas under the versions it belongs to, and is never computed again.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from unitscope_pipelines.derived.rank_profiles import Profiles, Side, correlations, read_profiles, shared_exemplars
from unitscope_pipelines.storage.parts import read_part, write_table
from unitscope_pipelines.storage.stores import Root, absolute, store_of
from unitscope_pipelines.storage.tombstones import removed_images
from unitscope_schemas import layout, tables
from unitscope_schemas.errors import UsageError
from unitscope_schemas.manifest import BLOCK_UNITS, LayerEntry, Manifest
from unitscope_schemas.versions import read_version

TILE_BYTES = 512 << 20
"""Of rank profiles that a worker holds of the first side; 256 units of half a million images."""
_TILE_BLOCKS = 16


@dataclass(frozen=True)
class Sealed:
    """A version of an atlas, and where it lies."""

    root: Root
    manifest: Manifest

    @classmethod
    def present(cls, root: Root) -> "Sealed":
        """The present version of an atlas; raises NotFoundError if none is sealed."""
        return cls(root, read_version(store_of(root)))

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

    def steps(self, tile: Tile) -> int:
        """Blocks of units that the tile is compared with."""
        return len(self.layers_b[tile.pair.b].ranked)

    def products(self, tile: Tile) -> int:
        """Of two numbers that comparing the tile takes."""
        return BLOCK_UNITS * len(tile.blocks) * self.layers_b[tile.pair.b].spec.units * self.a.image_count


Tell = Callable[[int, int], None]
"""Told how many blocks of units are compared, of how many; what it raises ends the work."""
Run = Callable[[KinPlan, Sequence[Tile]], Iterator[TileKin]]
"""Compares tiles and gives every one, in any order."""


class Correlator:
    """Compares tiles of units with all units of another layer, a block at a time.

    Memory: TILE_BYTES, 4 bytes × BLOCK_UNITS for each image, and some 50 MB for products.
    """

    def __init__(self, plan: KinPlan) -> None:
        self.plan = plan

    def __call__(self, tile: Tile, tell: Callable[[int], None] = lambda _: None) -> TileKin:
        """All of the tile; `tell` hears after each block how many of them are compared."""
        plan, other = self.plan, self.plan.layers_b[tile.pair.b]
        own, found = read_profiles(plan.a, plan.layers_a[tile.pair.a], tile.blocks), []
        for block in range(len(other.ranked)):
            found.append(self._against(own, read_profiles(plan.b, other, range(block, block + 1))))
            tell(block + 1)
        correlation, jaccard = zip(*found, strict=True)
        return TileKin(tile, np.concatenate(correlation, axis=1), np.concatenate(jaccard, axis=1))

    def _against(self, own: Profiles, others: Profiles) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        return correlations(own, others), shared_exemplars(own, others)


@dataclass(frozen=True)
class Here:
    """Compares tiles in this process, one after the other."""

    tell: Tell

    def __call__(self, plan: KinPlan, tiles: Sequence[Tile]) -> Iterator[TileKin]:
        correlator, total, before = Correlator(plan), sum(map(plan.steps, tiles)), 0
        self.tell(0, total)
        for tile in tiles:
            yield correlator(tile, lambda done, before=before: self.tell(before + done, total))  # type: ignore[misc]
            before += plan.steps(tile)


def find_kin(a: Sealed, b: Sealed, pairs: Sequence[LayerPair], run: Run) -> list[str]:
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
        for one in run(plan, tiles):
            pair = one.tile.pair
            done[pair].append(one)
            if len(done[pair]) == waiting[pair]:
                _write_kin(a.root, kin_path(a, b, pair), done.pop(pair), side_a.image_count)
    return paths


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
