"""What a version takes over from the one before where its images are the same: ranks, vectors, and statistics."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from unitscope_pipelines.indexing.ranking.statistics import Labels
from unitscope_pipelines.indexing.sealing.lookup import build_first_ranks
from unitscope_pipelines.indexing.sealing.versions import NewVersion
from unitscope_pipelines.storage.parts import is_present, read_part, sizes_in, write_table
from unitscope_pipelines.storage.stores import Store
from unitscope_schemas import layout, tables
from unitscope_schemas.entries.shared import SharedTables
from unitscope_schemas.manifest import LayerEntry, Manifest, Part, Receipt


@dataclass(frozen=True)
class SameImages:
    """An earlier version of the same images, which some of its files or labels may have changed since.

    An image's number is its place among all ids, so ranks and vectors of the same ids are the same, whatever the files
    are called, wherever they lie and whenever they were written.
    """

    store: Store
    manifest: Manifest
    same_labels: bool

    @classmethod
    def of(cls, previous: Manifest | None, store: Store, version: NewVersion, keep: int | None) -> "SameImages | None":
        """Return the previous version if it has the images of a new one, of the same peaks and vectors, as many ranks,
        and all parts that would be taken over."""
        images = version.images.images
        if previous is None or previous.keep != keep or previous.images.rows != images.num_rows:
            return None
        sizes = sizes_in(store)
        are_there = all(is_present(sizes, part) for part in _taken(previous))
        if not are_there or _recorded(previous.shards) != _recorded(version.receipts):
            return None
        before = tables.with_labels(read_part(store, previous.images))
        if not all(before[name].equals(images[name]) for name in ("image_id", "shard", "shard_row")):
            return None
        return cls(store, previous, before["labels"].equals(images["labels"]))

    def names(self, version: str) -> SharedTables:
        """Return whose tables a new version reads."""
        before = self.manifest.shared or SharedTables(ranks=self.manifest.built, units=self.manifest.built)
        return before if self.same_labels else before.model_copy(update={"units": version})

    def first_ranks(self) -> Part:
        """Return the file of the first ranks, written now where they lie with other tables."""
        own = self.manifest.lookup.ranks
        return own or build_first_ranks(self.store, self.names("").ranks, self.manifest.layers)

    def layers(self, version: str, images: pa.Table) -> list[LayerEntry]:
        """Return the layers with their statistics, which get other labels where images have some."""
        if self.same_labels:
            return self.manifest.layers
        labels = Labels(images["labels"])
        return [self._relabelled(version, entry, labels) for entry in self.manifest.layers]

    def _relabelled(self, version: str, entry: LayerEntry, labels: Labels) -> LayerEntry:
        """Write a layer's statistics with the labels that the first images of its units have now."""
        units = read_part(self.store, entry.units)
        ordered = set(units["unit"].filter(pc.not_equal(units["minimum"], units["maximum"])).to_pylist())
        found = {
            channel: [vars(label) for label in labels.of_first_ranks(images)]
            for channel, images in _first_images(self.store, entry)
            if channel in ordered
        }
        field = tables.UNITS.field("top_labels")
        column = pa.array([found.get(channel, []) for channel in units["unit"].to_pylist()], field.type)
        table = units.set_column(units.schema.get_field_index(field.name), field, column)
        return entry.model_copy(
            update={"units": write_table(self.store, layout.units(entry.spec.name, version), table)}
        )


def _first_images(store: Store, entry: LayerEntry) -> Iterator[tuple[int, NDArray[np.int32]]]:
    """Yield each unit of a layer that has ranks, with the images that its labels are counted of."""
    first = pc.field("rank") < tables.TOP_LABEL_RANKS
    for part in entry.ranked:
        with store.hold(part) as path:
            ranked = pq.read_table(path, columns=["unit", "image"], filters=first, partitioning=None)
        channels, starts = np.unique(ranked["unit"].to_numpy(), return_index=True)
        yield from zip(channels.tolist(), np.split(ranked["image"].to_numpy(), starts[1:]), strict=bool(len(channels)))


def _recorded(receipts: Iterable[Receipt]) -> dict[str, list[str]]:
    """Return the digests of what each shard recorded of images."""
    return {
        receipt.shard: [part.sha256 for part in (receipt.scanned, receipt.embeddings, *receipt.peaks.values())]
        for receipt in receipts
        if receipt.forward_count
    }


def _taken(manifest: Manifest) -> Iterator[Part]:
    """Yield the parts that a version of the same images can take over."""
    for entry in manifest.layers:
        yield from (entry.units, *entry.ranked)
    optional = (manifest.lookup.ranks, manifest.patches.index, *(entry.fields for entry in manifest.layers))
    yield from (manifest.patches.vectors, *filter(None, optional))
