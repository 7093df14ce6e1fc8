"""The images of an opened atlas: by number from a memory map, by id, path and label."""

from collections.abc import Sequence
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from unitscope_schemas import tables
from unitscope_schemas.answers.statements import labels_differ, read_statements
from unitscope_schemas.errors import AtlasError, NotFoundError, UsageError
from unitscope_schemas.manifest import Manifest
from unitscope_services.atlas.conditions.comparison import holds
from unitscope_services.atlas.conditions.conditions import Condition
from unitscope_services.atlas.conditions.image_labels import ImageLabels, SegmentLabels, check_label
from unitscope_services.atlas.image_filter import ImageFilter, all_hold
from unitscope_services.atlas.image_rows import ImageRows, SegmentRows
from unitscope_services.atlas.parts import Parts
from unitscope_services.atlas.rows import ImageEntry, LabelEntry, rows_of

_NUMBERED = ("image", "label", "labels", "duplicate_group")
"""Columns that are numbers, or stored as such: of images, of labels."""
_OWN = ("label", "path")
"""Columns that conditions may name beside those of the metadata, where these have no such name."""
_CHOSEN_BYTES = 64 << 20
"""Bytes of what passed the last filters that is remembered, one for each image of the atlas."""


class Catalogue:
    """The images of an atlas as rows. An image's number is the position of its id, so ids are found by bisection."""

    def __init__(self, parts: Parts, manifest: Manifest, public: bool = False) -> None:
        """Open the images; `public`: paths from the root of a disk are cut down to their last names."""
        self.images = ImageRows(parts, manifest, public)
        self._chosen = lru_cache(max(1, _CHOSEN_BYTES // max(1, len(self.images))))(self._find_chosen)
        self.group_codes = _group_codes(parts, manifest, self.images)
        self.present: NDArray[np.bool_] | None = None
        """Which images answers may show; None where that is all."""
        if manifest.removed is not None and manifest.removed.stale:
            self.present = self._numbered(parts.read(manifest.removed.table)["image_id"].to_pylist())
            self.group_codes = regrouped(self.group_codes, self.present)

    def columns(self, numbers: NDArray[np.integer[Any]], names: Sequence[str]) -> dict[str, list[Any]]:
        """Return some columns of the images with these numbers, as answers write their values."""
        stored = [name for name in names if name in self.images.names and name not in _NUMBERED]
        columns: dict[str, list[Any]] = {name: [None] * len(numbers) for name in names if name not in stored}
        columns |= self.images.take(numbers, stored)
        if "image" in names:
            columns["image"] = numbers.tolist()
        if "label" in names or "labels" in names:
            labels = self.image_labels.lists(numbers)
            columns |= {"labels": labels, "label": [own[0] if own else None for own in labels]}
        if "duplicate_group" in names:
            groups = self.group_codes[numbers]
            columns["duplicate_group"] = [None] * len(groups)
            members = np.flatnonzero(groups >= 0)
            names_of_groups = self.images.take(groups[members], ["image_id"])["image_id"]
            for member, name in zip(members.tolist(), names_of_groups, strict=True):
                columns["duplicate_group"][member] = name
        return columns

    def rows(self, numbers: Sequence[int] | NDArray[np.integer[Any]]) -> list[ImageEntry]:
        """Return the images with these numbers."""
        return rows_of(ImageEntry, self.columns(np.asarray(numbers, np.int64), ImageEntry._fields))

    def find(self, reference: str) -> ImageEntry:
        """Return the image with this id, an unambiguous beginning of it (at least 6 digits), or this path.

        Raises NotFoundError if there is none, UsageError if several begin so.
        """
        numbers = self._numbers_at(reference)
        if not numbers and len(reference) >= tables.LEAST_ID_DIGITS:
            first = self.images.position(reference.lower())
            last = self.images.position(f"{reference.lower()}~")
            numbers = [n for n in range(first, last) if self.is_present(n)][:2]
        if not numbers:
            raise NotFoundError(
                f"image {reference!r} is not among the {self.count} of this atlas; "
                "give its id, the first digits of it, or its path below the corpus root"
            )
        if len(numbers) > 1:
            raise UsageError(f"several images begin with {reference!r}; give more digits")
        return self.rows(numbers)[0]

    def beginning(self, prefix: str, limit: int) -> list[ImageEntry]:
        """Return the first images whose ids begin so, in order of ids."""
        first, last = self.images.position(prefix), self.images.position(f"{prefix}~")
        return self.rows([number for number in range(first, last) if self.is_present(number)][:limit])

    def known(self, reference: str) -> ImageEntry | None:
        """Return the image that `find` finds, or None if there is none; raises UsageError if several begin so."""
        try:
            return self.find(reference)
        except NotFoundError:
            return None

    def holding(self, text: str, limit: int) -> list[ImageEntry]:
        """Return the images of the first paths that hold a text, whatever its case."""
        removed = len(self.images) - self.count
        numbers = list(dict.fromkeys(filter(self.is_present, self.images.holding(text, limit + removed))))
        return self.rows(numbers[:limit])

    def at_path(self, path: str) -> ImageEntry:
        """Return the image of this file below the corpus root; raises NotFoundError."""
        numbers = self._numbers_at(path)
        if not numbers:
            raise NotFoundError(f"no image of this atlas has the path {path!r} below the corpus root")
        return self.rows(numbers)[0]

    def by_id(self, image_id: str) -> ImageEntry | None:
        """Return the image whose bytes have this digest, or None if it is not in the atlas."""
        number = self.images.number_of(image_id)
        return None if number is None or not self.is_present(number) else self.rows([number])[0]

    def listed(self, passing: ImageFilter, after: int | None, limit: int) -> list[ImageEntry]:
        """Return images that pass in order of their numbers, from behind number `after` on."""
        first = 0 if after is None else after + 1
        chosen = self.chosen(passing)
        if chosen is None:
            return self.rows(range(first, min(first + limit, len(self.images))))
        return self.rows(first + np.flatnonzero(chosen[first:])[:limit])

    @property
    def count(self) -> int:
        """How many images answers may show."""
        return len(self.images) if self.present is None else int(self.present.sum())

    def is_present(self, number: int) -> bool:
        """Return whether answers may show the image."""
        return self.present is None or bool(self.present[number])

    def chosen(self, passing: ImageFilter) -> NDArray[np.bool_] | None:
        """Return which images that answers may show pass a filter; None if all images do. The last ones are remembered.

        Raises UsageError for a metadata column that there is not, NotFoundError for a label that no image has.
        """
        return self._chosen(passing)

    def _find_chosen(self, passing: ImageFilter) -> NDArray[np.bool_] | None:
        present = [] if self.present is None else [self.present]
        labelled = [] if passing.label is None else [self.labelled(passing.label)]
        chosen = all_hold([*present, *labelled, *map(self._where, passing.where), *self._asked_for(passing)])
        if chosen is not None:
            chosen.setflags(write=False)  # the next question gets the same
        return chosen

    def shards(self, chosen: NDArray[np.bool_]) -> dict[str, NDArray[np.int64]]:
        """Return the rows of the chosen images in the shards that scanned them, by shard."""
        rows: dict[str, NDArray[np.int64]] = {}
        for segment in self.images.segments:
            own = segment.images.select(["shard", "shard_row"]).filter(pa.array(segment.numbers.of_all(chosen)))
            names, numbers = own["shard"].dictionary_encode(), own["shard_row"].to_numpy().astype(np.int64)
            codes = names.indices.to_numpy()
            for code, name in enumerate(names.dictionary.to_pylist()):
                rows[name] = np.concatenate([rows.get(name, numbers[:0]), numbers[codes == code]])
        return rows

    @cached_property
    def metadata_names(self) -> list[str]:
        """The metadata columns that conditions may name."""
        prefix = tables.METADATA_PREFIX
        return sorted(name.removeprefix(prefix) for name in self.images.names if name.startswith(prefix))

    @cached_property
    def disagreeing(self) -> NDArray[np.bool_]:
        """The images to which files or rows of lists give different labels, as a mask."""
        return self.images.mask(_disagreeing)

    @cached_property
    def repeated(self) -> NDArray[np.bool_]:
        """The images that have further files with the same bytes, as a mask."""
        return self.images.mask(lambda segment: _lengths(segment.images["other_paths"]) > 0)

    def _asked_for(self, passing: ImageFilter) -> list[NDArray[np.bool_]]:
        return [*([self.disagreeing] if passing.conflicts else []), *([self.repeated] if passing.duplicates else [])]

    def _where(self, text: str) -> NDArray[np.bool_]:
        """Return for which images a condition holds: on metadata, or else on labels and paths.

        Raises UsageError for an unknown column.
        """
        own = [name for name in _OWN if name not in self.metadata_names]
        condition = Condition.parse(text, [*self.metadata_names, *own])
        if condition.column in own:
            if condition.column == "label":
                return self.image_labels.where(condition, self.known_labels)
            return self.images.mask(lambda segment: holds(condition, segment.images[condition.column]))
        return self._where_metadata(condition)

    def _where_metadata(self, condition: Condition) -> NDArray[np.bool_]:
        """Return for which images a condition on a column of their metadata holds."""
        columns, told = self.images.metadata(condition.column), np.zeros(len(self.images), bool)
        kind = next(values.type for values in columns.values())
        for place, segment in enumerate(self.images.segments):
            values = columns[place] if place in columns else pa.nulls(len(segment.images), kind)
            segment.numbers.spread(holds(condition, values), told)
        return told

    def labels(self) -> list[LabelEntry]:
        """Return all labels in ascending order, also those that only removed images had."""
        return self._labels

    @cached_property
    def _labels(self) -> list[LabelEntry]:
        counts = self.image_labels.counts(self.present)
        return rows_of(LabelEntry, {"label": self.image_labels.names, "image_count": counts.tolist()})

    @cached_property
    def known_labels(self) -> list[str]:
        """The labels that images have which answers may show, in ascending order."""
        return [entry.label for entry in self.labels() if entry.image_count]

    def labelled(self, label: str) -> NDArray[np.bool_]:
        """Return which images have the label; raises NotFoundError for one that none has, naming the nearest."""
        check_label(label, self.known_labels)
        return self.image_labels.labelled(label)

    @cached_property
    def image_labels(self) -> ImageLabels:
        """The labels of all images, removed ones too."""
        segments = [SegmentLabels.of(segment.images["labels"], segment.numbers) for segment in self.images.segments]
        return ImageLabels(segments, self.images.places)

    def _numbers_at(self, path: str) -> list[int]:
        """Return the numbers of the present images with this path."""
        return list(filter(self.is_present, self.images.at_path(path)))

    def _numbered(self, removed: list[str]) -> NDArray[np.bool_]:
        """Return which images are left without those with these ids, of which some may not be in this version."""
        present = np.ones(len(self.images), bool)
        present[[number for image_id in removed if (number := self.images.number_of(image_id)) is not None]] = False
        return present


def _group_codes(parts: Parts, manifest: Manifest, images: ImageRows) -> NDArray[np.int32]:
    """Return the number of the image that names the group of near duplicates of each image, −1 for none."""
    codes = np.full(len(images), -1, np.int32)
    if manifest.groups is None:
        names = parts.read(manifest.segments[0].tables.images)["duplicate_group"]
        ids = images.segments[0].images["image_id"].cast(names.type)
        return pc.index_in(names, value_set=ids).fill_null(-1).combine_chunks().to_numpy()  # type: ignore[no-any-return]
    groups = parts.read(manifest.groups)
    members, first = groups["image"].to_numpy(), groups["first"].to_numpy()
    if len(groups) and not (min(members.min(), first.min()) >= 0 and max(members.max(), first.max()) < len(codes)):
        raise AtlasError(f"part {manifest.groups.path} is damaged: it names images that the atlas does not have")
    codes[members] = first
    return codes


def _disagreeing(segment: SegmentRows) -> NDArray[np.bool_]:
    """Return to which rows of a segment files give different labels."""
    texts = segment.images["statements"].to_pylist()
    return np.array([labels_differ(read_statements(text)) for text in texts], bool)


def _lengths(lists: pa.Array) -> NDArray[np.int64]:
    lengths: NDArray[np.int64] = pc.list_value_length(lists).to_numpy(zero_copy_only=False)
    return lengths


def regrouped(groups: NDArray[np.int32], present: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Return groups of near duplicates without the absent images: named by the first that is left, −1 for a single one.

    A group that only an absent image held together stays one until the atlas is compacted.
    """
    codes = groups.copy()
    for group in np.unique(groups[~present & (groups >= 0)]):
        members = groups == group
        left = np.flatnonzero(members & present)
        codes[members] = left[0] if len(left) > 1 else -1
    return codes
