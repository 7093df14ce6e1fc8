"""The images of an opened atlas: by number from a memory map, by id, path and label."""

from bisect import bisect_left
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from unitscope_schemas import tables
from unitscope_schemas.addresses import WHOLE_FOLDER
from unitscope_schemas.answers.statements import labels_differ, read_statements
from unitscope_schemas.errors import NotFoundError, UsageError
from unitscope_schemas.manifest import Manifest
from unitscope_services.atlas.conditions.comparison import holds
from unitscope_services.atlas.conditions.conditions import Condition
from unitscope_services.atlas.conditions.image_labels import ImageLabels, check_label
from unitscope_services.atlas.database import Database
from unitscope_services.atlas.image_filter import ImageFilter, all_hold
from unitscope_services.atlas.parts import Parts
from unitscope_services.atlas.rows import ImageEntry, LabelEntry, rows_of

_CODED = ("label", "labels", "duplicate_group")
"""Columns that are stored as numbers: positions among the labels, numbers of images."""
_OWN = ("label", "path")
"""Columns that conditions may name beside those of the metadata, where these have no such name."""
_HAS_WHOLE = f"SELECT image FROM files WHERE regexp_matches(path, '{WHOLE_FOLDER}') LIMIT 1"
_LAST_NAMES = f"(SELECT image, regexp_replace(path, '{WHOLE_FOLDER}', '') AS path FROM files)"


class Catalogue:
    """The images of an atlas as rows. An image's number is the position of its id, so ids are found by bisection."""

    def __init__(self, parts: Parts, manifest: Manifest, database: Database, public: bool = False) -> None:
        """Open the images; `public`: paths from the root of a disk are cut down to their last names."""
        self._database = database
        self._held = parts.hold(manifest.lookup.images)
        self._images = parts.rows(self._held, manifest.lookup.images)
        self._files = "files"
        if public and len(database.columns(_HAS_WHOLE, [])["image"]):
            self._images, self._files = _with_last_names(self._images), _LAST_NAMES
        self._ids = self._images["image_id"]
        self.group_codes = self.column("duplicate_group")
        self.present: NDArray[np.bool_] | None = None
        """Which images answers may show; None where that is all."""
        if manifest.removed is not None and manifest.removed.stale:
            self.present = self._numbered(parts.read(manifest.removed.table)["image_id"].to_pylist())
            """Which images answers may show; None where that is all."""
            self.group_codes = regrouped(self.group_codes, self.present)

    def column(self, name: str) -> NDArray[Any]:
        """Return a column of whole numbers of all images, on the disk."""
        values: NDArray[Any] = self._images[name].to_numpy()
        return values

    def columns(self, numbers: NDArray[np.integer[Any]], names: Sequence[str]) -> dict[str, list[Any]]:
        """Return some columns of the images with these numbers, as answers write their values."""
        stored = self._images.schema.names
        taken = self._images.select([name for name in names if name in stored and name not in _CODED])
        columns: dict[str, list[Any]] = {name: [None] * len(numbers) for name in names if name not in stored}
        columns |= taken.take(pa.array(numbers)).to_pydict()
        if "label" in names or "labels" in names:
            labels = self.image_labels.lists(numbers)
            columns |= {"labels": labels, "label": [own[0] if own else None for own in labels]}
        if "duplicate_group" in names:
            groups = self.group_codes[numbers]
            columns["duplicate_group"] = [None] * len(groups)
            members = np.flatnonzero(groups >= 0)
            names_of_groups = self._ids.take(pa.array(groups[members])).to_pylist()
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
            first = self._position(reference.lower())
            last = self._position(f"{reference.lower()}~")
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
        first, last = self._position(prefix), self._position(f"{prefix}~")
        return self.rows([number for number in range(first, last) if self.is_present(number)][:limit])

    def known(self, reference: str) -> ImageEntry | None:
        """Return the image that `find` finds, or None if there is none; raises UsageError if several begin so."""
        try:
            return self.find(reference)
        except NotFoundError:
            return None

    def holding(self, text: str, limit: int) -> list[ImageEntry]:
        """Return the images of the first paths that hold a text, whatever its case."""
        removed = len(self._images) - self.count
        columns = self._database.columns(
            f"SELECT image FROM {self._files} WHERE contains(lower(path), lower(?)) ORDER BY path LIMIT ?",
            [text, limit + removed],
        )
        numbers = list(dict.fromkeys(filter(self.is_present, columns["image"].tolist())))
        return self.rows(numbers[:limit])

    def at_path(self, path: str) -> ImageEntry:
        """Return the image of this file below the corpus root; raises NotFoundError."""
        numbers = self._numbers_at(path)
        if not numbers:
            raise NotFoundError(f"no image of this atlas has the path {path!r} below the corpus root")
        return self.rows(numbers)[0]

    def by_id(self, image_id: str) -> ImageEntry | None:
        """Return the image whose bytes have this digest, or None if it is not in the atlas."""
        number = self._position(image_id)
        known = number < len(self._images) and self._id(number) == image_id and self.is_present(number)
        return self.rows([number])[0] if known else None

    def listed(self, passing: ImageFilter, after: int | None, limit: int) -> list[ImageEntry]:
        """Return images that pass in order of their numbers, from behind number `after` on."""
        first = 0 if after is None else after + 1
        chosen = self.chosen(passing)
        if chosen is None:
            return self.rows(range(first, min(first + limit, len(self._images))))
        return self.rows(first + np.flatnonzero(chosen[first:])[:limit])

    @property
    def count(self) -> int:
        """How many images answers may show."""
        return len(self._images) if self.present is None else int(self.present.sum())

    def is_present(self, number: int) -> bool:
        """Return whether answers may show the image."""
        return self.present is None or bool(self.present[number])

    def chosen(self, passing: ImageFilter) -> NDArray[np.bool_] | None:
        """Return which images that answers may show pass a filter; None if all images do.

        Raises UsageError for a metadata column that there is not, NotFoundError for a label that no image has.
        """
        present = [] if self.present is None else [self.present]
        labelled = [] if passing.label is None else [self.labelled(passing.label)]
        return all_hold([*present, *labelled, *map(self._where, passing.where), *self._asked_for(passing)])

    def shards(self, chosen: NDArray[np.bool_]) -> dict[str, NDArray[np.int64]]:
        """Return the rows of the chosen images in the shards that scanned them, by shard."""
        chosen_images = self._images.select(["shard", "shard_row"]).filter(pa.array(chosen))
        names, rows = chosen_images["shard"].dictionary_encode(), chosen_images["shard_row"].to_numpy().astype(np.int64)
        codes = names.indices.to_numpy()
        return {name: rows[codes == code] for code, name in enumerate(names.dictionary.to_pylist())}

    @cached_property
    def metadata_names(self) -> list[str]:
        """The metadata columns that conditions may name."""
        prefix = tables.METADATA_PREFIX
        return [name.removeprefix(prefix) for name in self._images.schema.names if name.startswith(prefix)]

    @cached_property
    def disagreeing(self) -> NDArray[np.bool_]:
        """The images to which files or rows of lists give different labels, as a mask."""
        return np.array([labels_differ(read_statements(text)) for text in self._all("statements", None)], bool)

    @cached_property
    def repeated(self) -> NDArray[np.bool_]:
        """The images that have further files with the same bytes, as a mask."""
        counts: NDArray[np.int64] = pc.list_value_length(self._images["other_paths"]).to_numpy(zero_copy_only=False)
        return counts > 0

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
            return holds(condition, self._images[condition.column])
        return holds(condition, self._images[f"{tables.METADATA_PREFIX}{condition.column}"])

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
        names = self._database.columns("SELECT label FROM labels ORDER BY label", [])["label"].tolist()
        lists = self._images["labels"] if "labels" in self._images.schema.names else None
        return ImageLabels(names, self.column("label"), lists)

    def _all(self, name: str, default: str | None) -> list[str | None]:
        """Return a column of text of all images, the default in older atlases that do not have it."""
        if name not in self._images.schema.names:
            return [default] * len(self._images)
        texts: list[str | None] = self._images[name].to_pylist()
        return texts

    def _numbers_at(self, path: str) -> list[int]:
        """Return the numbers of the present images with this path."""
        images = self._database.columns(f"SELECT image FROM {self._files} WHERE path = ?", [path])["image"]
        return list(filter(self.is_present, images.tolist()))

    def _numbered(self, removed: list[str]) -> NDArray[np.bool_]:
        """Return which images are left without those with these ids, of which some may not be in this version."""
        present = np.ones(len(self._images), bool)
        for image_id in removed:
            number = self._position(image_id)
            if number < len(present) and self._id(number) == image_id:
                present[number] = False
        return present

    def _position(self, image_id: str) -> int:
        """Return how many ids come before this one."""
        return bisect_left(range(len(self._images)), image_id, key=self._id)

    def _id(self, number: int) -> str:
        image_id: str = self._ids[number].as_py()
        return image_id


def _with_last_names(images: pa.RecordBatch) -> pa.RecordBatch:
    """Return the images with the last names of paths that begin at the root of a disk."""
    columns = {name: images[name] for name in images.schema.names}
    columns["path"] = pc.replace_substring_regex(columns["path"], WHOLE_FOLDER, "")
    others = columns["other_paths"]
    names = pc.replace_substring_regex(others.values, WHOLE_FOLDER, "")
    columns["other_paths"] = type(others).from_arrays(others.offsets, names)
    return pa.RecordBatch.from_pydict(columns)


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
