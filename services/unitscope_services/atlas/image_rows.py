"""The images of all segments by their numbers, memory-mapped: a number is the place of an image's id among all ids."""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from unitscope_pipelines.storage.cache import LocalPart
from unitscope_pipelines.storage.segments.lookup import lookup_files, lookup_rows, metadata_columns
from unitscope_schemas import tables
from unitscope_schemas.addresses import WHOLE_FOLDER
from unitscope_schemas.entries.segment import Segment
from unitscope_schemas.errors import AtlasError
from unitscope_schemas.manifest import Manifest
from unitscope_services.atlas.deadlines import check_time
from unitscope_services.atlas.parts import Parts
from unitscope_services.atlas.segment_numbers import ImagePlaces, SegmentNumbers

Mask = NDArray[np.bool_]
_PREFIX = tables.METADATA_PREFIX


@dataclass(frozen=True)
class SegmentRows:
    """The images of one segment by row."""

    images: pa.RecordBatch
    """Rows of `tables.LOOKUP_IMAGES`."""
    files: pa.RecordBatch
    """Rows of `tables.LOOKUP_FILES`."""
    numbers: SegmentNumbers
    held: tuple[LocalPart, ...]
    """The files that are mapped: they stay for as long as they are held."""


class ImageRows:
    """The images of an opened version as rows, those of tombstones too; ids and paths are found by bisection.

    Memory: 5 bytes for each image where there are several segments; all else is mapped. Atlases of format version 2
    hold no such files, and take some 600 bytes an image instead. Raises AtlasError where a part is missing or damaged.
    """

    def __init__(self, parts: Parts, manifest: Manifest, public: bool = False) -> None:
        """Open the images; `public`: paths from the root of a disk are cut down to their last names."""
        self.segments = [_opened(parts, segment, public) for segment in manifest.segments]
        self.count = manifest.stored_count
        self.places = ImagePlaces([(segment.numbers, len(segment.images)) for segment in self.segments], self.count)
        self._metadata = lru_cache(64)(self._read_metadata)

    def __len__(self) -> int:
        return self.count

    @cached_property
    def names(self) -> list[str]:
        """The columns that the images of some segment have, each once."""
        return list(dict.fromkeys(name for segment in self.segments for name in segment.images.schema.names))

    def take(self, numbers: NDArray[np.integer[Any]], names: Sequence[str]) -> dict[str, list[Any]]:
        """Return some columns of the images with these numbers; None where a segment lacks a column."""
        if len(self.segments) == 1:
            taken = self.segments[0].images.select(list(names)).take(pa.array(numbers))
            return {name: taken[name].to_pylist() for name in names}
        own, positions = [], [np.empty(0, np.int64)]
        for place, at, rows in self.places.of(numbers):
            images = self.segments[place].images
            stored = [name for name in names if name in images.schema.names]
            own.append(pa.Table.from_batches([images.select(stored).take(pa.array(rows))]))
            positions.append(at)
        if not own:
            return {name: [] for name in names}
        order = np.argsort(np.concatenate(positions))
        taken = pa.concat_tables(own, promote_options="default").take(pa.array(order))
        return {
            name: taken[name].to_pylist() if name in taken.column_names else [None] * len(numbers) for name in names
        }

    def values(self, numbers: NDArray[np.integer[Any]], names: Sequence[str]) -> dict[str, NDArray[np.int64]]:
        """Return columns of whole numbers of the images with these numbers."""
        found = {name: np.zeros(len(numbers), np.int64) for name in names}
        for place, positions, rows in self.places.of(numbers):
            for name, values in found.items():
                values[positions] = self.segments[place].images[name].to_numpy()[rows]
        return found

    def mask(self, tell: Callable[[SegmentRows], NDArray[np.bool_]]) -> Mask:
        """Return for each image by number what `tell` says of the rows of each segment."""
        told = np.zeros(self.count, bool)
        for segment in self.segments:
            check_time()
            segment.numbers.spread(tell(segment), told)
        return told

    def id_of(self, number: int) -> str:
        """Return the id of an image."""
        return str(self.take(np.array([number]), ["image_id"])["image_id"][0])

    def position(self, image_id: str) -> int:
        """Return how many ids come before this one."""
        return sum(_bisected(segment.images["image_id"], image_id) for segment in self.segments)

    def number_of(self, image_id: str) -> int | None:
        """Return the number of the image with this id, None if there is none."""
        for segment in self.segments:
            ids = segment.images["image_id"]
            row = _bisected(ids, image_id)
            if row < len(ids) and ids[row].as_py() == image_id:
                return segment.numbers.at(row)
        return None

    def at_path(self, path: str) -> list[int]:
        """Return the numbers of the images that a file of this path is."""
        numbers = []
        for segment in self.segments:
            paths = segment.files["path"]
            place = _bisected(paths, path)
            while place < len(paths) and paths[place].as_py() == path:
                numbers.append(segment.numbers.at(segment.files["row"][place].as_py()))
                place += 1
        return sorted(numbers)

    def holding(self, text: str, limit: int) -> list[int]:
        """Return the numbers of the images of the first paths that hold a text, whatever its case."""
        found: list[tuple[str, int]] = []
        for segment in self.segments:
            check_time()
            held = pc.match_substring(segment.files["path"], text, ignore_case=True)
            first = segment.files.take(pc.indices_nonzero(held)[:limit]).to_pydict()
            found += [(path, segment.numbers.at(row)) for path, row in zip(first["path"], first["row"], strict=True)]
        return [number for _, number in sorted(found)[:limit]]

    def metadata(self, name: str) -> dict[int, pa.Array]:
        """Return a column of the metadata of each segment, by its place, all of one type: that of all images together.

        A segment of whose images none has it is missing.
        """
        return self._metadata(name)

    def _read_metadata(self, name: str) -> dict[int, pa.Array]:
        column = f"{_PREFIX}{name}"
        found = {
            place: segment.images[column]
            for place, segment in enumerate(self.segments)
            if column in segment.images.schema.names
        }
        told = {place: values for place, values in found.items() if values.null_count < len(values)}
        if len({values.type for values in told.values()}) < 2:
            return told or found
        # of several types: as if all images had been in one segment
        documents = [self.segments[place].images["metadata"] for place in told]
        whole = metadata_columns(documents)[name]
        starts = np.cumsum([0, *map(len, documents)]).tolist()
        return {place: whole[start : start + len(told[place])] for place, start in zip(told, starts, strict=False)}


def _opened(parts: Parts, segment: Segment, public: bool) -> SegmentRows:
    """Open the images of a segment."""
    stored = segment.tables
    held: tuple[LocalPart, ...] = ()
    if stored.lookup is None or stored.files is None:
        images = _made(parts, segment)
        files = lookup_files(pa.table(images))
    else:
        held = (parts.hold(stored.lookup), parts.hold(stored.files))
        images, files = parts.rows(held[0], stored.lookup), parts.rows(held[1], stored.files)
    numbers = None if segment.numbers is None else parts.read(segment.numbers)["image"].to_numpy()
    if public and pc.any(pc.match_substring_regex(files["path"], WHOLE_FOLDER)).as_py():
        images = _with_last_names(images)
        files = lookup_files(pa.table(images))
    return SegmentRows(images, files, SegmentNumbers(numbers), held)


def _made(parts: Parts, segment: Segment) -> pa.RecordBatch:
    """Make the rows of an atlas of format version 2 from its table of images."""
    part = segment.tables.images
    images = tables.completed(tables.with_labels(parts.read(part)), tables.SEGMENT_IMAGES)
    try:
        return lookup_rows(images)
    except (LookupError, ValueError, TypeError, pa.ArrowException) as error:
        raise AtlasError(f"part {part.path} is damaged: {error}") from None


def _with_last_names(images: pa.RecordBatch) -> pa.RecordBatch:
    """Return the images with the last names of paths that begin at the root of a disk."""
    columns = {name: images[name] for name in images.schema.names}
    columns["path"] = pc.replace_substring_regex(columns["path"], WHOLE_FOLDER, "")
    others = columns["other_paths"]
    names = pc.replace_substring_regex(others.values, WHOLE_FOLDER, "")
    columns["other_paths"] = type(others).from_arrays(others.offsets, names)
    return pa.RecordBatch.from_pydict(columns)


def _bisected(texts: pa.Array, text: str) -> int:
    """Return how many of some texts in order come before this one."""
    return bisect_left(range(len(texts)), text, key=lambda place: texts[place].as_py())
