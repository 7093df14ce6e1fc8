"""An opened atlas, read-only: what it holds, by layer, unit and image."""

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from unitscope_pipelines.storage.allowed_roots import AllowedRoots, PictureRoots, hidden_roots
from unitscope_pipelines.storage.checked_folder import checked
from unitscope_pipelines.storage.filesystem import checked_folder
from unitscope_pipelines.storage.originals import Originals
from unitscope_pipelines.storage.stores import AtlasAddress, Store, store_of
from unitscope_schemas.addresses import last_name, without_paths
from unitscope_schemas.answers.served import AtlasRow, ImageRow, LayerRow, SkippedRow
from unitscope_schemas.answers.statements import read_statements
from unitscope_schemas.entries.segment import Segment
from unitscope_schemas.errors import NotFoundError
from unitscope_schemas.geometry import Location, Placement, ReceptiveField, Size
from unitscope_schemas.manifest import BLOCK_UNITS, LayerEntry
from unitscope_schemas.units import UnitId
from unitscope_schemas.versions import read_version
from unitscope_services.atlas.boxes import FieldBoxes
from unitscope_services.atlas.catalogue import Catalogue
from unitscope_services.atlas.database import Database
from unitscope_services.atlas.image_filter import ImageFilter
from unitscope_services.atlas.parts import Parts
from unitscope_services.atlas.peaks import ScannedPeaks
from unitscope_services.atlas.ranks.bounded import BoundedRanks, RankBound, missing_peak, stored_location
from unitscope_services.atlas.ranks.merged_unit import MergedUnit
from unitscope_services.atlas.ranks.ranked_unit import (
    FewRanked,
    FirstRanks,
    RankedImages,
    RankedPart,
    RankedUnit,
    first_ranks,
)
from unitscope_services.atlas.rows import ImageEntry
from unitscope_services.atlas.statistics import LayerStatistics, SegmentUnits, UnitStatistics

_REMEMBERED_BLOCKS = 4096
"""Blocks of units whose ranked part is remembered."""
_FEW_IMAGES, _RANKS_OF_ONE = 8, 32_768
"""Images that are found from their own scans whatever the atlas's size, and ranks that are gone through in the time
that a further one takes."""


class Atlas:
    """One sealed version of an atlas, the present one unless another is named.

    The version stays as it is while newer ones are sealed, until `gc` deletes its parts. Raises NotFoundError if there
    is none, AtlasError if parts are missing. A database statement that takes longer than `question_timeout_s` raises
    BusyError (None: as long as it takes). `corpus` is the folder below which the pictures are now, if they
    have moved since they were indexed, or the folders below which alone they are read. Each part is digested on first
    use unless `check` is off. A `public` atlas shows paths from the root of a disk, which lists may hold, by their last
    names: it is nobody else's business where things lie on this machine.
    """

    def __init__(
        self,
        root: AtlasAddress | Store,
        question_timeout_s: float | None = None,
        version: str | None = None,
        corpus: str | AllowedRoots | None = None,
        check: bool = True,
        public: bool = False,
    ) -> None:
        self.store = checked(store_of(root)) if check else store_of(root)
        self.root = self.store.address
        self.manifest = read_version(self.store, version)
        self.name = self.store.name
        self.version = self.manifest.version
        self.corpus = corpus
        self.pictures = self._pictures(corpus)
        """Where the pictures are now, and below what they must lie."""
        self.hidden_roots = hidden_roots(self.manifest.corpus, self.pictures)
        """Roots of the corpora whose pictures may not be read."""
        self._database = Database(self.store, self.manifest.first_ranks, question_timeout_s)
        self._parts = Parts(self.store)
        self.catalogue = Catalogue(self._parts, self.manifest, public)
        self._peaks = ScannedPeaks(self._parts, self.manifest)
        self._public = public
        self._positions = {entry.spec.name: position for position, entry in enumerate(self.manifest.layers)}
        self._units: dict[str, pa.Table] = {}
        self._statistics: dict[str, LayerStatistics] = {}
        self._heights: dict[str, list[int | None]] = {}
        self._boxes: dict[tuple[str, Size], FieldBoxes] = {}
        self._lookups: dict[str, FirstRanks] = {}
        self._segment_units: dict[str, list[SegmentUnits]] = {}
        self._ranked_parts = lru_cache(_REMEMBERED_BLOCKS)(self._find_ranked_parts)

    @property
    def corpus_root(self) -> str:
        """Folder below which the pictures are now."""
        return self.pictures.root

    @property
    def is_here(self) -> bool:
        """Whether the atlas's parts lie on this machine, so that none has to be fetched for a question."""
        return self.store.is_here

    def close(self) -> None:
        """End what runs beside the questions."""
        self._database.close()

    def summary(self) -> AtlasRow:
        """Return the atlas in one row."""
        manifest = self.manifest
        return AtlasRow(
            name=self.name,
            version=manifest.version,
            model=self.model_name,
            images=manifest.corpus.image_count,
            skipped=manifest.corpus.skipped_count,
            labels=manifest.corpus.label_count,
            layers=len(manifest.layers),
            units=sum(entry.spec.units for entry in manifest.layers),
            created=manifest.created,
            stale_images=manifest.stale_count,
            kept=manifest.kept,
            ignored=manifest.corpus.ignored_count,
            digest=manifest.digest or "",
            hidden_corpora=len(self.hidden_roots),
        )

    @property
    def model_name(self) -> str:
        """The model's spec; of a file of code only its last name, for no answer tells where things lie."""
        spec = self.manifest.model.spec
        if not spec.startswith("file:"):
            return spec
        return "file:" + spec.removeprefix("file:").replace("\\", "/").rpartition("/")[2]

    def layer(self, name: str) -> LayerEntry:
        """Return a recorded layer; raises NotFoundError that names those there are."""
        return self.manifest.recorded(name)

    def layers(self) -> list[LayerRow]:
        """Return all recorded layers in the order of the forward."""
        return [self.layer_row(entry.spec.name) for entry in self.manifest.layers]

    def layer_row(self, name: str) -> LayerRow:
        """Return a recorded layer as answers show it; raises NotFoundError that names those there are."""
        statuses = self.units(name)["status"].to_pylist()
        return LayerRow.of(self.layer(name).spec, live=statuses.count("live"), dead=statuses.count("dead"))

    def units(self, layer: str) -> pa.Table:
        """Return the units table of a layer, in order of channels."""
        entry = self.layer(layer)
        if layer not in self._units:
            self._units[layer] = self._parts.read(entry.units)
        return self._units[layer]

    def statistics(self, layer: str) -> LayerStatistics:
        """Return the units table of a layer as arrays."""
        if layer not in self._statistics:
            self._statistics[layer] = LayerStatistics.of(self.units(layer))
        return self._statistics[layer]

    def unit_statistics(self, layer: str, channels: Sequence[int] | None = None) -> list[UnitStatistics]:
        """Return the statistics of a layer's units one by one: all by channel, or some in their order."""
        units = self.units(layer)
        return UnitStatistics.rows(units if channels is None else units.take(pa.array(channels, pa.int64())))

    def unit(self, unit: UnitId) -> UnitStatistics:
        """Return the statistics of one unit; raises NotFoundError that names the valid range."""
        self._check_unit(unit)
        return UnitStatistics.at(self.units(unit.layer), unit.channel)

    def ranked(self, unit: UnitId) -> RankedImages:
        """Return the unit's images in rank order, for one question; in a bounded atlas the first of them."""
        statistics, stored_count = self.statistics(unit.layer), self.manifest.kept
        parts, lookup = self._ranked_parts(unit.layer, unit.channel // BLOCK_UNITS), self._first_ranks_of(unit.layer)
        if len(parts) > 1:
            stored = [rows.numbers.stored for rows in self.catalogue.images.segments]
            numbers = [own for own in stored if own is not None]
            return MergedUnit(list(zip(parts, numbers, strict=True)), lookup, unit.channel)
        key = parts[0], lookup, unit.channel
        count = int(statistics.count[unit.channel])
        if stored_count is None or stored_count >= count:
            return RankedUnit(*key)
        return BoundedRanks(*key, RankBound(stored_count, count, statistics.knots[unit.channel]))

    def ranked_among(self, unit: UnitId, chosen: NDArray[np.bool_] | None) -> RankedImages | FewRanked:
        """Return the unit's images in rank order as `ranked` does, or only the chosen ones where these are few.

        Few are so many that to look for each of them among what was scanned is faster than to go through all ranks.
        None chooses all images.
        """
        few = _FEW_IMAGES + self.manifest.stored_count // _RANKS_OF_ONE
        if chosen is None or self.manifest.keep or np.count_nonzero(chosen) > few:
            return self.ranked(unit)
        images = np.flatnonzero(chosen)
        shards, rows = self.catalogue.columns(images, ["shard", "shard_row"]).values()
        peaks = self._peaks.of_unit(self.layer(unit.layer), unit.channel, shards, rows)
        finite = np.isfinite(peaks["activation"])
        return FewRanked(self.ranked(unit), images[finite], {name: column[finite] for name, column in peaks.items()})

    def place_of(self, image: int) -> tuple[Segment, int]:
        """Return the segment of an image, and its row there."""
        place, _, rows = next(self.catalogue.images.places.of(np.array([image])))
        return self.manifest.segments[place], int(rows[0])

    def first_row(self, unit: UnitId, segment: Segment) -> int:
        """Return the row of a unit's first rank in the ranked part of its block of a segment."""
        first = unit.channel // BLOCK_UNITS * BLOCK_UNITS
        stored = self._units_of_segments(unit.layer)[self.manifest.segments.index(segment)]
        return int(stored.counts[first : unit.channel].sum())

    def first_ranks(self, layer: str, count: int) -> dict[str, NDArray[Any]]:
        """Return unit, image and activation of the first `count` ranks of every unit of a layer, as columns."""
        self.layer(layer)
        return first_ranks(self._database, self._positions[layer], count)

    def first_peaks(self, layer: str, units: Sequence[int]) -> dict[int, tuple[ImageEntry, Location]]:
        """Return for each of some units of a layer the first present image and where the unit peaks on it.

        A unit of which no image is left is missing.
        """
        peaks = {unit: self._first_peak(UnitId(layer, unit)) for unit in units}
        left = {unit: peak for unit, peak in peaks.items() if peak is not None}
        images = self.catalogue.rows([image for image, _ in left.values()])
        return {unit: (row, location) for (unit, (_, location)), row in zip(left.items(), images, strict=True)}

    def locations(self, layer: str, channels: Sequence[int], image: ImageEntry) -> dict[int, Location]:
        """Return where some units of a layer peak on one image of the corpus.

        Raises NotFoundError where a bounded atlas does not store that peak.
        """
        if self.manifest.keep is None:
            return self._peaks.locations(self.layer(layer), channels, image)
        return {channel: self._stored_location(UnitId(layer, channel), image) for channel in channels}

    def activations(self, layer: str, image: ImageEntry) -> NDArray[np.float32]:
        """Return the peaks of all units of a layer on one image of the corpus, in order of channels."""
        return self._peaks.activations(self.layer(layer), image)

    def scanned_activations(self, layer: str, channels: Sequence[int], shard: str) -> NDArray[np.float32]:
        """Return the peaks of some units of a layer on every image of a shard, unit × row of the shard."""
        return self._peaks.of_units(self.layer(layer), channels, shard)

    def field(self, unit: UnitId) -> ReceptiveField:
        """Return the receptive field of a unit: its layer's, with the effective box that was measured for the unit.

        Raises NotFoundError that names the units there are.
        """
        self._check_unit(unit)
        entry = self.layer(unit.layer)
        if unit.layer not in self._heights:
            stored = entry.fields and self._parts.read(entry.fields)
            self._heights[unit.layer] = stored["effective_height_px"].to_pylist() if stored else []
        heights = self._heights[unit.layer]
        return entry.spec.receptive_field.of_unit(heights[unit.channel] if heights else None)

    def boxes(self, unit: UnitId) -> FieldBoxes:
        """Return the boxes of all locations of a unit."""
        field = self.field(unit)
        key = unit.layer, field.effective
        if key not in self._boxes:
            self._boxes[key] = FieldBoxes(field, self.layer(unit.layer).spec.grid)
        return self._boxes[key]

    def images(self, numbers: Sequence[int]) -> dict[int, ImageEntry]:
        """Return the images with these numbers, by number."""
        return dict(zip(numbers, self.catalogue.rows(numbers), strict=True))

    def find_image(self, reference: str) -> ImageEntry:
        """Return the image with this id, an unambiguous beginning of it, or this path."""
        return self.catalogue.find(reference)

    def image_by_path(self, path: str) -> ImageEntry:
        """Return the image of this file below the corpus root; raises NotFoundError."""
        return self.catalogue.at_path(path)

    def image_list(self, passing: ImageFilter, after: int | None, limit: int) -> list[ImageEntry]:
        """Return images that pass in order of their numbers, from behind number `after` on."""
        return self.catalogue.listed(passing, after, limit)

    def image_by_id(self, image_id: str) -> ImageEntry | None:
        """Return the image whose bytes have this digest, or None if it is not in the atlas."""
        return self.catalogue.by_id(image_id)

    @cached_property
    def originals(self) -> Originals:
        """The pictures of the corpus, by their addresses."""
        return Originals(self.pictures)

    @cached_property
    def skipped(self) -> list[SkippedRow]:
        """The files of the corpus that are no usable image."""
        rows = self._parts.read(self.manifest.skipped).to_pylist()
        if self._public:
            for row in rows:
                name = last_name(row["path"])
                row |= {"path": name, "reason": without_paths(row["reason"].replace(row["path"], name))}
        return [SkippedRow(path=row["path"], size_bytes=row["size_bytes"], reason=row["reason"]) for row in rows]

    def image_row(self, image: ImageEntry) -> ImageRow:
        """Return an image as answers show it."""
        placement = self.placement(image)
        statements = read_statements(image.statements)
        if self._public:
            statements = [replace(said, path=last_name(said.path)) for said in statements]
        return ImageRow(
            image=image.image,
            image_id=image.image_id,
            path=image.path,
            other_paths=image.other_paths,
            label=image.label,
            labels=image.labels,
            statements=statements,
            size_bytes=image.size_bytes,
            format=image.format,
            mode=image.mode,
            size=placement.image,
            seen_box=placement.seen,
            duplicate_group=image.duplicate_group,
            metadata=json.loads(image.metadata or "{}"),
            notes=image.notes,
        )

    def placement(self, image: ImageEntry) -> Placement:
        """Return how the image became the network's input."""
        return Placement(
            image=Size(image.height_px, image.width_px),
            resized=Size(image.resized_height_px, image.resized_width_px),
            crop=Location(image.crop_row, image.crop_col),
            input=self.manifest.preprocessing.input,
        )

    def _check_unit(self, unit: UnitId) -> None:
        count = self.layer(unit.layer).spec.units
        if not 0 <= unit.channel < count:
            raise NotFoundError(f"unit {unit} does not exist: layer {unit.layer} has units 0 to {count - 1}")

    def _pictures(self, corpus: str | AllowedRoots | None) -> PictureRoots:
        recorded = self.manifest.corpus
        if isinstance(corpus, AllowedRoots):
            return corpus.place(recorded, self.root)
        return PictureRoots(recorded.root if corpus is None else checked_folder(corpus))

    def _find_ranked_parts(self, layer: str, block: int) -> list[RankedPart]:
        """Return the ranked part of a block of a layer's units of each segment."""
        units = slice(block * BLOCK_UNITS, (block + 1) * BLOCK_UNITS)
        return [
            RankedPart(self._parts, segment.layers[layer].ranked[block], own.counts[units].tolist(), own.footers[units])
            for segment, own in zip(self.manifest.segments, self._units_of_segments(layer), strict=True)
        ]

    def _units_of_segments(self, layer: str) -> list[SegmentUnits]:
        """Return what is stored of the ranks of a layer's units in every segment."""
        if layer not in self._segment_units:
            tables_of_units = [self._parts.read(segment.layers[layer].units) for segment in self.manifest.segments]
            self._segment_units[layer] = [SegmentUnits.of(units, self.manifest.kept) for units in tables_of_units]
        return self._segment_units[layer]

    def _first_ranks_of(self, layer: str) -> FirstRanks:
        if layer not in self._lookups:
            self._lookups[layer] = FirstRanks(self._database, self._positions[layer], self._stored(layer))
        return self._lookups[layer]

    def _stored(self, layer: str) -> NDArray[np.int64]:
        """Return how many ranks of each unit of a layer are stored."""
        counts = self.statistics(layer).count
        return counts if self.manifest.kept is None else np.minimum(counts, self.manifest.kept)

    def _stored_location(self, unit: UnitId, image: ImageEntry) -> Location:
        count = int(self.statistics(unit.layer).count[unit.channel])
        location = stored_location(self.ranked(unit), image.image, count)
        if location is None:
            raise missing_peak(self.manifest, unit, image.path)
        return location

    def _first_peak(self, unit: UnitId) -> tuple[int, Location] | None:
        present, ranked = self.catalogue.present, self.ranked(unit)
        rank: int | None = 0
        if present is not None:
            last = int(self.statistics(unit.layer).count[unit.channel]) - 1
            left = (ranks[present.take(images)] for ranks, images in ranked.images(0, last))
            rank = next((int(ranks[0]) for ranks in left if len(ranks)), None)
        if rank is None:
            return None
        image, row, col = (int(column[0]) for column in ranked.at(["image", "row", "col"], np.array([rank])))
        return image, Location(row, col)
