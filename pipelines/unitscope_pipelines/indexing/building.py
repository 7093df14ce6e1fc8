"""A new version is built: its images, segments of what no other has, and the tables of all of them."""

from dataclasses import dataclass
from functools import cached_property

from unitscope_pipelines.indexing.patches.build import build_patches
from unitscope_pipelines.indexing.plan import Plan
from unitscope_pipelines.indexing.ranking.layers import OnWorkers, merge_layers, rank_layers
from unitscope_pipelines.indexing.ranking.merging import MergePlan
from unitscope_pipelines.indexing.ranking.unit_fields import (
    RankedVersion,
    exemplar_count,
    is_over_budget,
    with_fields_of,
    with_unit_fields,
)
from unitscope_pipelines.indexing.run_entry import run_entry
from unitscope_pipelines.indexing.sealing.first_ranks import build_first_ranks
from unitscope_pipelines.indexing.sealing.image_tables import renewed_image_tables, write_groups, write_image_tables
from unitscope_pipelines.indexing.sealing.relabelled import has_labels_of, relabelled
from unitscope_pipelines.indexing.sealing.segments import (
    KeptSegment,
    Numbers,
    Segmentation,
    segment_name,
    write_numbers,
)
from unitscope_pipelines.indexing.sealing.versions import NewVersion
from unitscope_pipelines.storage.long_tables.long_table import LongTable
from unitscope_pipelines.storage.parts import sizes_in, write_table
from unitscope_pipelines.storage.segments.images import SegmentImages
from unitscope_pipelines.vision.images.pictures import RULES
from unitscope_pipelines.vision.recording.embedding import region_boxes
from unitscope_schemas import layout
from unitscope_schemas.entries.part import Part
from unitscope_schemas.entries.segment import Embedding, Segment
from unitscope_schemas.manifest import FORMAT_VERSION, LayerEntry, Manifest
from unitscope_schemas.progress import Progress


@dataclass(frozen=True)
class VersionBuilder:
    """Writes what a version needs beside the segments that it takes over."""

    plan: Plan
    version: NewVersion
    cut: Segmentation
    run: OnWorkers

    def build(self, measures: bool) -> Manifest:
        """Write the tables, the new segments and the lookup files, and return the manifest.

        Without `measures` units keep the effective boxes of the version before.
        """
        plan, store, name = self.plan, self.plan.store, self.version.name
        segments = self._segments()
        images = self.version.images.images
        layers, groups = self._layers(segments), write_groups(store, name, images)
        first_ranks = self._first_ranks(segments)
        wanted = exemplar_count(plan.config.field_exemplars, plan.scan.layers, images.num_rows)
        if not measures:
            layers = with_fields_of(plan.previous, layers)
        elif not self.cut.is_same or any(entry.field_exemplars != wanted for entry in layers):
            layers = with_fields(plan, RankedVersion(store, name, layers, segments, groups), self.run)
        return Manifest(
            format_version=FORMAT_VERSION,
            atlas_key=plan.scan.atlas_key,
            version=name,
            model=plan.scan.model,
            preprocessing=plan.scan.preprocessing,
            precision=plan.config.precision,
            device="cuda" if plan.scan.device == "cuda" else "cpu",
            batch_size=plan.scan.batch_size,
            layers=layers,
            skipped=write_table(store, layout.skipped_of(name), self.version.images.skipped),
            first_ranks=first_ranks,
            embedding=self._embedding,
            segments=segments,
            groups=groups,
            layer_notes=list(plan.layer_notes),
            picture_rules=list(RULES),
            keep=plan.keep,
            **run_entry(plan, self.version)._asdict(),
        )

    @cached_property
    def _embedding(self) -> Embedding:
        """What is embedded of each image."""
        scan = self.plan.scan
        layer = next(layer for layer in scan.layers if layer.name == scan.embed_layer)
        return Embedding(layer=layer.name, width=layer.units, regions=region_boxes(layer))

    def _segments(self) -> list[Segment]:
        """Return the segments: those that stay, and new ones of the other images."""
        sizes = sizes_in(self.plan.store)
        kept = [self._kept(one, rows, sizes) for one, rows in zip(self.cut.kept, self._rows, strict=False)]
        return [*kept, *map(self._new_segment, self.cut.fresh, self._rows[len(kept) :])]

    @cached_property
    def _rows(self) -> list[LongTable]:
        """The images of each segment, of those that stay and of new ones."""
        images = self.version.images.images
        parts = [*(kept.numbers for kept in self.cut.kept), *self.cut.fresh]
        return images.split(parts) if self._are_several else [images]

    def _kept(self, kept: KeptSegment, rows: LongTable, sizes: dict[str, int]) -> Segment:
        """Return a segment that stays, with the numbers, paths, labels and times that its images have now."""
        store, name, segment, numbers = self.plan.store, self.version.name, kept.segment, None
        if self._are_several:
            numbers = write_numbers(store, segment.name, name, kept.numbers)
        return segment.model_copy(
            update={"numbers": numbers, "tables": renewed_image_tables(store, segment, name, rows, sizes)}
        )

    @property
    def _are_several(self) -> bool:
        """Whether the version has several segments, so that each has numbers of its images."""
        return len(self.cut.kept) + len(self.cut.fresh) > 1

    def _new_segment(self, fresh: Numbers, rows: LongTable) -> Segment:
        """Rank, embed and index images that no segment has yet; all of a version carry its own name."""
        plan, version, name, numbers = self.plan, self.version, self.version.name, None
        if self._are_several:
            name = segment_name(plan.scan.atlas_key, rows)
            numbers = write_numbers(plan.store, name, version.name, fresh)
        image_tables = write_image_tables(plan.store, name, version.name, rows)
        used = tuple(receipt for receipt in version.receipts if receipt.forward_count)
        own = SegmentImages(plan.store, name, image_tables.images, used)
        layers = rank_layers(own, plan.keep, plan.scan.layers, self.run)
        self.run.report(Progress("embed", 0, 1, "index"))
        patches = build_patches(own, self._embedding, plan.config.patch_memory_bytes)
        self.run.report(Progress("embed", 1, 1, "index"))
        return Segment(
            name=name, image_count=own.count, tables=image_tables, layers=layers, patches=patches, numbers=numbers
        )

    def _layers(self, segments: list[Segment]) -> list[LayerEntry]:
        """Return the layers with the statistics of all images."""
        store, name, specs = self.plan.store, self.version.name, self.plan.scan.layers
        images, previous = self.version.images.images, self.plan.previous
        if previous is not None and self.cut.is_same:
            if has_labels_of(previous, store, images):
                return previous.layers
            return relabelled(store, name, previous.layers, segments, images)
        if len(segments) > 1:
            return merge_layers(MergePlan(store, tuple(segments)), name, specs, self.run)
        layers = [LayerEntry(spec=layer, units=segments[0].layers[layer.name].units) for layer in specs]
        return relabelled(store, name, layers, segments, images) if self.cut.kept else layers

    def _first_ranks(self, segments: list[Segment]) -> Part:
        """Return the file of the first ranks, which stays where the images do."""
        store, previous = self.plan.store, self.plan.previous
        if previous is not None and self.cut.is_same and not layout.is_lookup_of_2(previous.first_ranks.path):
            return previous.first_ranks
        return build_first_ranks(store, self.version.name, segments)


def with_fields(plan: Plan, version: RankedVersion, run: OnWorkers) -> list[LayerEntry]:
    """Return a version's layers with the effective boxes of their units, on as many exemplars as the plan asks for."""
    count = exemplar_count(plan.config.field_exemplars, plan.scan.layers, version.image_count)
    alone = plan.batch_dependence is not None
    if is_over_budget(plan.config.field_exemplars, plan.scan.layers, version.image_count):
        note = "effective boxes are those of layers: units are many for so few images (--field-exemplars measures them)"
        run.report(Progress("boxes", 0, 0, "gradients", note=note))
    return with_unit_fields(version, plan.scan, count, plan.previous, run.workers, run.report, alone)
