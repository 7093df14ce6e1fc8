"""`verify` finds tables that are whole by their digests and yet not what they should be."""

import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from tests.conftest import TINY_LAYERS
from tests.tables import manifest_of, ranked_parts, resealed
from unitscope_pipelines.indexing.ranking.ranker import Numbering, Ranker, UnitBlock, rank_peaks
from unitscope_pipelines.indexing.verification.tables import TableCheck
from unitscope_pipelines.indexing.verification.verify import verify
from unitscope_pipelines.storage.parts import parquet_writer, write_atomically, write_model, write_table
from unitscope_pipelines.storage.segments.images import version_images
from unitscope_pipelines.storage.stores import FolderStore, Store, store_of
from unitscope_schemas import layout, tables
from unitscope_schemas.entries.part import Part
from unitscope_schemas.manifest import Manifest

Change = Callable[[Store, Manifest], Manifest]


def rewritten(store: Store, part: Part, change: Callable[[pa.Table], pa.Table]) -> Part:
    """A table with other rows at the same path, in as many row groups, with the digest that it has now."""
    with store.hold(part) as path, pq.ParquetFile(path) as file:
        sizes = [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]
        table = change(file.read()).cast(file.schema_arrow)

    def write(target: Path) -> None:
        with pq.ParquetWriter(target, table.schema) as writer:
            start = 0
            for size in sizes:
                writer.write_table(table.slice(start, size), row_group_size=max(1, size))
                start += size

    return write_atomically(store, part.path, write, part.rows)


def with_layer(manifest: Manifest, number: int, **changed: Any) -> Manifest:
    layers = list(manifest.layers)
    layers[number] = layers[number].model_copy(update=changed)
    return manifest.model_copy(update={"layers": layers})


def swapped(table: pa.Table) -> pa.Table:
    """The first two rows in each other's place."""
    return table.take([1, 0, *range(2, table.num_rows)])


def column(name: str, change: Callable[[Any], Any]) -> Callable[[pa.Table], pa.Table]:
    def changed(table: pa.Table) -> pa.Table:
        values = [change(value) for value in table[name].to_pylist()]
        return table.set_column(table.schema.get_field_index(name), name, pa.array(values, table[name].type))

    return changed


def other_ranks(store: Store, manifest: Manifest) -> Manifest:
    """A layer has the ranks of another one's units."""
    one, other = (ranked_parts(manifest, name)[0] for name in TINY_LAYERS[:2])
    with store.hold(other) as path:
        table = pq.read_table(path, partitioning=None)
    return resealed(manifest, rewritten(store, one, lambda _: table))


def reordered_ranks(store: Store, manifest: Manifest) -> Manifest:
    return resealed(manifest, rewritten(store, ranked_parts(manifest, "_blocks.5")[2], swapped))


def other_units(store: Store, manifest: Manifest) -> Manifest:
    units = manifest.layers[2].units
    return resealed(manifest, rewritten(store, units, column("maximum", lambda value: value and 2 * value)))


def shifted_field(_: Store, manifest: Manifest) -> Manifest:
    """A receptive field lies ten pixels further down."""
    spec = manifest.layers[1].spec
    field = spec.receptive_field
    moved = field.model_copy(update={"rows": tuple((start + 10, end + 10) for start, end in field.rows)})
    return with_layer(manifest, 1, spec=spec.model_copy(update={"receptive_field": moved}))


def other_labels(store: Store, manifest: Manifest) -> Manifest:
    return resealed(manifest, rewritten(store, images_part(manifest), column("label", lambda _: "cat")))


def other_sizes(store: Store, manifest: Manifest) -> Manifest:
    return resealed(manifest, rewritten(store, images_part(manifest), column("height_px", lambda value: value + 1)))


def other_numbers(store: Store, manifest: Manifest) -> Manifest:
    return resealed(manifest, rewritten(store, images_part(manifest), swapped))


def other_groups(store: Store, manifest: Manifest) -> Manifest:
    """The first two images are said to be near duplicates."""
    part = manifest.groups
    assert part is not None
    name = version_images(manifest, store, ["image_id"])["image_id"][0].as_py()
    table = pa.table([[0, 1], [0, 0], [name, name]], schema=tables.GROUPS)
    return resealed(manifest, write_table(store, part.path, table))


def images_part(manifest: Manifest) -> Part:
    return manifest.segments[0].tables.images


def other_first_ranks(store: Store, manifest: Manifest) -> Manifest:
    ranks = manifest.first_ranks

    def write(target: Path) -> None:
        with store.hold(ranks) as path:
            shutil.copy(path, target)
        with duckdb.connect(str(target)) as connection:
            connection.execute("UPDATE first_ranks SET activation = activation * 2 WHERE unit = 3")

    part = write_atomically(store, ranks.path, write, ranks.rows)
    return resealed(manifest, part)


def other_rows(store: Store, manifest: Manifest) -> Manifest:
    rows = manifest.segments[0].tables.lookup
    assert rows is not None
    with store.hold(rows) as path:
        table = pa.ipc.open_file(pa.OSFile(str(path))).read_all()
    column_number = table.schema.get_field_index("size_bytes")
    changed = table.set_column(column_number, table.schema.field("size_bytes"), pc.add(table["size_bytes"], 1))
    batch = changed.combine_chunks().to_batches()[0]

    def write(target: Path) -> None:
        with pa.OSFile(str(target), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
            writer.write_batch(batch)

    part = write_atomically(store, rows.path, write, rows.rows)
    return resealed(manifest, part)


def other_vectors(store: Store, manifest: Manifest) -> Manifest:
    vectors = manifest.segments[0].patches.vectors
    with store.hold(vectors) as path:
        stored = np.load(path)

    def write(target: Path) -> None:
        with target.open("wb") as file:
            np.save(file, stored[::-1])

    part = write_atomically(store, vectors.path, write, vectors.rows)
    return resealed(manifest, part)


def other_key(_: Store, manifest: Manifest) -> Manifest:
    return manifest.model_copy(update={"batch_size": manifest.batch_size + 1})


def other_receipt(store: Store, manifest: Manifest) -> Manifest:
    receipt = manifest.shards[0]
    write_model(store, layout.receipt(receipt.shard), receipt.model_copy(update={"seconds": receipt.seconds + 1}))
    return manifest


def no_measured_layers(store: Store, manifest: Manifest) -> Manifest:
    store.delete([layout.measured(manifest.atlas_key)])
    return manifest


def other_counts(_: Store, manifest: Manifest) -> Manifest:
    corpus = manifest.corpus.model_copy(update={"label_count": manifest.corpus.label_count + 1})
    return manifest.model_copy(update={"corpus": corpus})


def no_table(store: Store, manifest: Manifest) -> Manifest:
    """A table of one column where ranks belong."""
    part = ranked_parts(manifest)[0]
    made = write_atomically(store, part.path, lambda file: pq.write_table(pa.table({"a": [1]}), file), part.rows)
    return resealed(manifest, made)


CHANGES: list[dict[Change, tuple[str, str]]] = [
    {
        other_ranks: ("ranks", "ranked/"),
        reordered_ranks: ("ranks", "ranked/_blocks.5"),
        other_units: ("statistics", "units/"),
        shifted_field: ("layer", "_blocks.5"),
        other_sizes: ("table", "images/shard-"),
        other_first_ranks: ("lookup", "hot-"),
        other_rows: ("lookup", "hot-images/"),
        other_groups: ("table", "groups/"),
        other_vectors: ("vectors", "patches/"),
        other_key: ("key", "manifest"),
        other_receipt: ("document", "receipts/"),
        other_counts: ("manifest", "corpus.label_count"),
    },
    {
        other_labels: ("table", "images/"),
        no_measured_layers: ("document", "layers-"),
        no_table: ("ranks", "ranked/"),
    },
    {other_numbers: ("table", "images/")},
]
"""What is changed in one atlas, and the kind and place of each fault; what would hide another change has its own."""


@pytest.mark.parametrize("changes", CHANGES)
def test_what_is_sealed_but_does_not_follow_is_found(
    changes: dict[Change, tuple[str, str]], tiny_atlas: Path, tiny_corpus: Path, tmp_path: Path
) -> None:
    atlas = tmp_path / "atlas"
    shutil.copytree(tiny_atlas, atlas)
    store = store_of(atlas)
    manifest = manifest_of(atlas)
    for change in changes:
        manifest = change(store, manifest)
    write_model(store, layout.MANIFEST, manifest)
    faults = verify(atlas, 0, 0, tiny_corpus).faults
    for change, (kind, where) in changes.items():
        assert any(fault.kind == kind and fault.where.startswith(where) for fault in faults), change.__name__
    assert "part" not in {fault.kind for fault in faults}, "every part is the one that was sealed"


@pytest.mark.parametrize(
    ("ends", "words"),
    [
        ([0, tables.FIRST_RANKS, 1_500, 2_000], None),
        ([0, tables.FIRST_RANKS, 2_000], None),
        ([0, 500, 2_000], "the first row group of x:5 is not its first ranks"),
        ([0, tables.FIRST_RANKS, 1_999], "has 1999 rows, where its peaks give 2000"),
    ],
)
def test_ranks_may_be_grouped_as_an_earlier_version_did(tmp_path: Path, ends: list[int], words: str | None) -> None:
    chance = np.random.default_rng(0)
    ranked = rank_peaks(
        5, chance.normal(size=2_000).astype(np.float32), np.zeros(2_000, np.int32), Numbering.of(np.arange(2_000))
    )
    store = FolderStore(tmp_path)

    def write(file: Path) -> None:
        with parquet_writer(file, tables.RANKED) as writer:
            for first, end in pairwise(ends):
                writer.write_table(ranked.slice(first, end - first))

    part = write_atomically(store, "ranked/x.parquet", write, ends[-1])
    ranker = SimpleNamespace(units=lambda _: [(ranked, SimpleNamespace(unit=5))])
    check = TableCheck(store, cast(Manifest, None), (), lambda _: None)
    found = list(check._block(cast(Ranker, ranker), UnitBlock("x", 0), part, []))
    assert [fault.what for fault in found] == ([] if words is None else [words])
