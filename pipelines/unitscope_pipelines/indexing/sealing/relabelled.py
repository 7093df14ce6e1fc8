"""The statistics of a version of the same images as another's, with the labels that its images have now."""

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from unitscope_pipelines.indexing.ranking.statistics import Labels
from unitscope_pipelines.storage.long_tables.long_table import LongTable
from unitscope_pipelines.storage.parts import read_part, write_table
from unitscope_pipelines.storage.segments.images import version_images
from unitscope_pipelines.storage.segments.ranked_rows import RankedRows
from unitscope_pipelines.storage.stores import Store
from unitscope_schemas import layout, tables
from unitscope_schemas.entries.segment import Segment
from unitscope_schemas.manifest import LayerEntry, Manifest


def has_labels_of(previous: Manifest, store: Store, images: LongTable) -> bool:
    """Tell whether images have the labels of those of a version, which are the same."""
    before = version_images(previous, store, ["labels"])["labels"]
    return bool(before.equals(images.read(["labels"])["labels"]))


def relabelled(
    store: Store, version: str, layers: Sequence[LayerEntry], segments: Sequence[Segment], images: LongTable
) -> list[LayerEntry]:
    """Write the statistics of layers with other labels of each unit's first images, without sorting anything anew."""
    labels = Labels(images.read(["labels"])["labels"])
    return [_of_layer(store, version, entry, segments, labels) for entry in layers]


def _of_layer(store: Store, version: str, entry: LayerEntry, segments: Sequence[Segment], labels: Labels) -> LayerEntry:
    name, units = entry.spec.name, read_part(store, entry.units)
    ordered = set(units["unit"].filter(pc.not_equal(units["minimum"], units["maximum"])).to_pylist())
    rows = RankedRows.of(store, name, segments)
    found = {
        channel: [vars(label) for label in labels.of_first_ranks(columns["image"])]
        for block in rows.blocks
        for channel, columns in rows.units(block, ["image"], tables.TOP_LABEL_RANKS)
        if channel in ordered
    }
    field = tables.UNITS.field("top_labels")
    column = pa.array([found.get(channel, []) for channel in units["unit"].to_pylist()], field.type)
    table = units.set_column(units.schema.get_field_index(field.name), field, column)
    return entry.model_copy(update={"units": write_table(store, layout.units(name, version), table)})
