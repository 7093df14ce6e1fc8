"""Co-activation says which units peak on the same images, within an atlas or across two that are compared.

Cost: units × units × images products, and every unit's ranks read once for each tile of units of the other side. Memory
holds a few tiles, whatever the number of units; until a pair of layers is done, 8 bytes for each pair of units lie in a
temporary folder. What was computed is stored in the (first) atlas under the versions it belongs to, and is never
computed again.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from unitscope_pipelines.derived.rank_profiles import Side, correlations, read_profiles, shared_exemplars
from unitscope_pipelines.storage.cache import LocalPart
from unitscope_pipelines.storage.checked_folder import checked
from unitscope_pipelines.storage.long_tables.scratch import scratch_folder
from unitscope_pipelines.storage.parts import parquet_writer, read_model, write_atomically, write_model
from unitscope_pipelines.storage.segments.images import version_images
from unitscope_pipelines.storage.stores import AtlasAddress, Store, store_of
from unitscope_pipelines.storage.tombstones import removed_images
from unitscope_schemas import layout, tables
from unitscope_schemas.entries.part import Part
from unitscope_schemas.errors import AtlasError, UsageError
from unitscope_schemas.manifest import BLOCK_UNITS, LayerEntry, Manifest
from unitscope_schemas.progress import Tell
from unitscope_schemas.versions import read_version

TILE_BYTES = 512 << 20
"""Bytes of rank profiles that a worker holds of the first side: 256 units of half a million images."""
_TILE_BLOCKS = 16
"""Largest count of blocks of units in a tile."""


@dataclass(frozen=True)
class SealedAtlas:
    """A version of an atlas, and the store it lies in."""

    store: Store
    manifest: Manifest

    @classmethod
    def present(cls, atlas: AtlasAddress | Store) -> "SealedAtlas":
        """Open the present version of an atlas; raises NotFoundError if none is sealed."""
        store = store_of(atlas)
        return cls(store, read_version(store))

    def layer(self, name: str) -> LayerEntry:
        """Return a recorded layer; raises NotFoundError that names those there are."""
        return self.manifest.recorded(name, f"atlas {self.store.address}")

    def side(self, positions: NDArray[np.int32], image_count: int) -> Side:
        """Return the atlas with the images that count, by their positions among all of them."""
        return Side(self.store, tuple(self.manifest.segments), positions, image_count)


@dataclass(frozen=True)
class LayerPair:
    """A layer of the first atlas and one of the second."""

    a: str
    b: str


@dataclass(frozen=True)
class UnitTile:
    """A tile of consecutive blocks of units of a pair's first layer."""

    pair: LayerPair
    blocks: range


@dataclass(frozen=True)
class TileCoactivation:
    """How alike a tile's units are to all units of the pair's second layer, unit × unit."""

    tile: UnitTile
    correlation: NDArray[np.float32]
    jaccard: NDArray[np.float32]


@dataclass(frozen=True)
class CoactivationPlan:
    """Two sides whose images are the same ones in the same order, and the entries of the layers that are compared."""

    a: Side
    b: Side
    layers_a: dict[str, LayerEntry]
    layers_b: dict[str, LayerEntry]

    def steps(self, tile: UnitTile) -> int:
        """Count the blocks of units that a tile is compared with."""
        return block_count(self.layers_b[tile.pair.b])

    def products(self, tile: UnitTile) -> int:
        """Count the products of two numbers that comparing a tile takes."""
        return BLOCK_UNITS * len(tile.blocks) * self.layers_b[tile.pair.b].spec.units * self.a.image_count


Run = Callable[[CoactivationPlan, Sequence[UnitTile]], Iterator[TileCoactivation]]
"""A function that compares tiles and yields every one, in any order."""


class Correlator:
    """A task that compares tiles of units with all units of another layer, a block at a time.

    Memory: TILE_BYTES, 4 bytes × BLOCK_UNITS for each image, and some 50 MB for products.
    """

    def __init__(self, plan: CoactivationPlan) -> None:
        self.plan = plan

    def __call__(self, tile: UnitTile, tell: Callable[[int], None] = lambda _: None) -> TileCoactivation:
        """Compare a tile; `tell` hears after each block how many of them are compared."""
        plan, other = self.plan, self.plan.layers_b[tile.pair.b]
        profiles = read_profiles(plan.a, plan.layers_a[tile.pair.a], tile.blocks)
        correlation, jaccard = [], []
        for block in range(block_count(other)):
            others = read_profiles(plan.b, other, range(block, block + 1))
            correlation.append(correlations(profiles, others))
            jaccard.append(shared_exemplars(profiles, others))
            tell(block + 1)
        return TileCoactivation(tile, np.concatenate(correlation, axis=1), np.concatenate(jaccard, axis=1))


@dataclass(frozen=True)
class InProcess:
    """A run that compares tiles in this process, one after the other."""

    tell: Tell

    def __call__(self, plan: CoactivationPlan, tiles: Sequence[UnitTile]) -> Iterator[TileCoactivation]:
        """Compare tiles, and tell how many blocks of units are done."""
        correlator, total, before = Correlator(plan), sum(map(plan.steps, tiles)), 0
        self.tell(0, total)
        for tile in tiles:
            yield correlator(tile, lambda done, before=before: self.tell(before + done, total))  # type: ignore[misc]
            before += plan.steps(tile)


def find_coactivation(a: SealedAtlas, b: SealedAtlas, pairs: Sequence[LayerPair], run: Run) -> list[str]:
    """Compare all units of each pair of layers, and return the tables' paths in the first atlas, in order of the pairs.

    The tables have the schema `tables.COACTIVATION`. Pairs whose table is stored are not computed again, so a killed
    run loses only the pairs it had not finished. Raises UsageError if the atlases have no image in common or one keeps
    first ranks alone, NotFoundError for a layer that is not there.
    """
    for side in (a, b):
        if side.manifest.kept is not None:
            raise UsageError(
                f"rank correlations take the ranks of all images, but atlas {side.store.address} keeps the first "
                f"{side.manifest.kept} of each unit; index with --keep all, or ask for similar units by exemplars"
            )
    layers_a, layers_b = {pair.a: a.layer(pair.a) for pair in pairs}, {pair.b: b.layer(pair.b) for pair in pairs}
    paths = {pair: coactivation_path(a, b, pair) for pair in pairs}
    missing = [pair for pair in pairs if a.store.stamp(paths[pair]) is None]
    if missing:
        side_a, side_b = shared_sides(a, b)
        plan = CoactivationPlan(side_a, side_b, layers_a, layers_b)
        tiles = {pair: _tiles(pair, layers_a[pair.a], side_a.image_count) for pair in missing}
        done: dict[LayerPair, dict[int, Path]] = {pair: {} for pair in missing}
        with scratch_folder() as folder:
            for compared in run(plan, [tile for pair in missing for tile in tiles[pair]]):
                pair, first = compared.tile.pair, compared.tile.blocks.start
                done[pair][first] = Path(folder) / f"{missing.index(pair)}-{first}.npy"
                np.save(done[pair][first], np.stack([compared.correlation, compared.jaccard]))
                if len(done[pair]) == len(tiles[pair]):
                    written = [file for _, file in sorted(done.pop(pair).items())]
                    _write_coactivation(a.store, paths[pair], written, side_a.image_count)
    return [paths[pair] for pair in pairs]


def coactivation_path(a: SealedAtlas, b: SealedAtlas, pair: LayerPair) -> str:
    """Return where the table of a pair of layers lies in the first atlas."""
    return layout.coactivation(a.manifest.compared_as, pair.a, b.manifest.compared_as, pair.b)


def shared_sides(a: SealedAtlas, b: SealedAtlas) -> tuple[Side, Side]:
    """Return both atlases with the images that they share by id, in order of ids; removed images are none.

    Raises UsageError if there is no such image.
    """
    ids_a, present_a = _present_ids(a)
    ids_b, present_b = _present_ids(b)
    in_b = pc.index_in(ids_a, value_set=ids_b).fill_null(-1).to_numpy(zero_copy_only=False)
    shared = (in_b >= 0) & present_a
    shared[shared] = present_b[in_b[shared]]
    count = int(shared.sum())
    if not count:
        raise UsageError(
            f"atlases {a.store.address} and {b.store.address} have no image in common, by the bytes of the pictures; "
            "index one corpus with both models"
        )
    positions_a, positions_b = np.full(len(ids_a), -1, np.int32), np.full(len(ids_b), -1, np.int32)
    positions_a[shared] = positions_b[in_b[shared]] = np.arange(count, dtype=np.int32)
    return a.side(positions_a, count), b.side(positions_b, count)


def _present_ids(atlas: SealedAtlas) -> tuple[pa.Array, NDArray[np.bool_]]:
    """Read the ids of all images in the tables, and which of them were not removed."""
    ids = version_images(atlas.manifest, atlas.store, ["image_id"])["image_id"].combine_chunks()
    removed = removed_images(atlas.manifest, atlas.store)["image_id"].combine_chunks()
    return ids, ~pc.is_in(ids, value_set=removed).to_numpy(zero_copy_only=False)


def block_count(entry: LayerEntry) -> int:
    """Return the count of a layer's blocks of units."""
    return -(-entry.spec.units // BLOCK_UNITS)


def _tiles(pair: LayerPair, entry: LayerEntry, image_count: int) -> list[UnitTile]:
    """Cut the layer's blocks into tiles of equal length that fit TILE_BYTES."""
    most = max(1, min(_TILE_BLOCKS, TILE_BYTES // (4 * BLOCK_UNITS * image_count)))
    total = block_count(entry)
    length = -(-total // -(-total // most))
    return [UnitTile(pair, range(first, min(total, first + length))) for first in range(0, total, length)]


def _write_coactivation(store: Store, path: str, tiles: list[Path], image_count: int) -> None:
    """Write one row per unit of the first layer, from the files of its tiles in their order.

    A row group is a block of units: a table of all would have more values than offsets of 32 bits can count where two
    layers have 46,341 units. Needs no lock: equal paths have equal content.
    """
    counts = {"image_count": str(image_count), "top_images": str(tables.exemplar_count(image_count))}
    schema = tables.COACTIVATION.with_metadata(counts)
    unit_count = sum(np.load(tile, mmap_mode="r").shape[1] for tile in tiles)

    def write(file: Path) -> None:
        first = 0
        with parquet_writer(file, schema, keep_statistics=["unit"]) as writer:
            for tile in tiles:
                likenesses = np.load(tile, mmap_mode="r")
                for start in range(0, likenesses.shape[1], BLOCK_UNITS):
                    correlation, jaccard = likenesses[:, start : start + BLOCK_UNITS]
                    units = np.arange(first, first + len(correlation), dtype=np.int32)
                    columns = {"unit": units, "correlation": _lists(correlation), "jaccard": _lists(jaccard)}
                    writer.write_table(pa.table(columns, schema=schema), row_group_size=BLOCK_UNITS)
                    first += len(correlation)

    write_model(store, note_of(path), write_atomically(store, path, write, unit_count))


def note_of(path: str) -> str:
    """Return the path of the note that says what a stored table must hold."""
    return f"{path.removesuffix('.parquet')}.json"


def open_coactivation(store: Store, path: str) -> LocalPart | None:
    """Return the file of a stored table, None if there is none; raises AtlasError unless it is as it was written.

    Tables of earlier versions have no note of their digest, and are what they are.
    """
    note = store.read(note_of(path))
    if store.stamp(path) is None:
        return None
    try:
        part = _unnoted(store, path) if note is None else read_model(note, Part)
        if part.path == path:
            return checked(store).hold(part)
    except (ValueError, AtlasError):
        pass
    raise AtlasError(f"part {path} of atlas {store.name} is damaged; delete it to compute it again")


def _unnoted(store: Store, path: str) -> Part:
    content = store.read(path) or b""
    return Part(path=path, rows=0, size_bytes=len(content), sha256=hashlib.sha256(content).hexdigest())


def _lists(rows: NDArray[np.float32]) -> pa.ListArray:
    offsets = pa.array(np.arange(len(rows) + 1, dtype=np.int32) * rows.shape[1])
    return pa.ListArray.from_arrays(offsets, pa.array(rows.ravel()))
