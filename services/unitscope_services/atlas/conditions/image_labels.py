"""The labels of an atlas's images, as numbers: the positions of all labels in ascending order."""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from unitscope_schemas.errors import AtlasError, NotFoundError, listing
from unitscope_services.atlas.conditions.comparison import text_holds
from unitscope_services.atlas.conditions.conditions import Condition
from unitscope_services.atlas.segment_numbers import ImagePlaces, SegmentNumbers

_MOST_COMPARED = 200
"""Characters of a label beyond which no label is like it."""

Codes = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class SegmentLabels:
    """The labels of the images of one segment, by row."""

    codes: NDArray[np.int32]
    """The positions among `names` of all labels of all rows, one row after the other."""
    ends: Codes
    """Where each row's labels begin, and the last row's end."""
    names: list[str]
    numbers: SegmentNumbers

    @cached_property
    def by_label(self) -> tuple[NDArray[np.int32], Codes]:
        """The rows in order of their labels, each once for each label, and where those of each of `names` begin, and
        the last one's end.

        Takes 4 bytes for each label of a row; a label's own images are found among them without a look at the others.
        """
        rows = np.repeat(np.arange(len(self.ends) - 1, dtype=np.int32), np.diff(self.ends))
        codes = self.codes.astype(np.min_scalar_type(len(self.names)))  # of two bytes they are sorted ten times faster
        order = np.argsort(codes, kind="stable")
        return rows[order], np.searchsorted(codes[order], np.arange(len(self.names) + 1))

    @classmethod
    def of(cls, labels: pa.LargeListArray, numbers: SegmentNumbers) -> "SegmentLabels":
        """Read lists of labels as they are stored: their names, and numbers of these; raises AtlasError."""
        coded = labels.values
        codes, names = coded.indices.to_numpy(), coded.dictionary.to_pylist()
        if len(codes) and not (codes.min() >= 0 and codes.max() < len(names)):
            raise AtlasError("the labels of images are damaged: they are none of those that the atlas names")
        return cls(codes, labels.offsets.to_numpy(), names, numbers)


class ImageLabels:
    """The labels of all images: an image may have none, one or several, of which the first stands for it."""

    def __init__(self, segments: Sequence[SegmentLabels], places: ImagePlaces) -> None:
        """Hold the labels of the images of all segments, which are at these places."""
        self.names = sorted({name for segment in segments for name in segment.names})
        self._places, self._segments = places, list(segments)
        codes = {name: code for code, name in enumerate(self.names)}
        self._codes = [np.array([codes[name] for name in segment.names], np.int64) for segment in segments]

    def of(self, images: NDArray[np.integer[Any]]) -> tuple[Codes, Codes]:
        """Return each label of some images: the position of the image among these in order, and the label's code."""
        found = [(np.empty(0, np.int64), np.empty(0, np.int64))]
        for place, own, rows in self._places.of(images):
            at, codes = self._at(place, rows)
            found.append((own[at], codes))
        positions, codes = (np.concatenate(columns) for columns in zip(*found, strict=True))
        if len(self._segments) == 1:
            return positions, codes
        order = np.argsort(positions, kind="stable")
        return positions[order], codes[order]

    def _at(self, place: int, rows: NDArray[np.integer[Any]]) -> tuple[Codes, Codes]:
        """Return each label of some rows of a segment: the position of the row among these, and the label's code."""
        segment = self._segments[place]
        starts, counts = segment.ends[rows], segment.ends[rows + 1] - segment.ends[rows]
        positions = np.repeat(np.arange(len(rows)), counts)
        within = np.arange(len(positions)) - np.repeat(np.cumsum(counts) - counts, counts)
        return positions, self._codes[place][segment.codes[np.repeat(starts, counts) + within]]

    def lists(self, images: NDArray[np.integer[Any]]) -> list[list[str]]:
        """Return the labels of some images by their names, first labels first."""
        positions, codes = self.of(images)
        labels: list[list[str]] = [[] for _ in range(len(images))]
        for position, code in zip(positions.tolist(), codes.tolist(), strict=True):
            labels[position].append(self.names[code])
        return labels

    def counts(self, present: Mask | None) -> NDArray[np.int64]:
        """Return how many of the present images have each label; None: all are."""
        if present is not None:
            return np.bincount(self.of(np.flatnonzero(present))[1], minlength=len(self.names))
        counts = np.zeros(len(self.names), np.int64)
        for segment, codes in zip(self._segments, self._codes, strict=True):
            counts[codes] += np.bincount(segment.codes, minlength=len(codes))
        return counts

    def having(self, codes: Sequence[int]) -> Mask:
        """Return which images have one of some labels; costs what there is of such images."""
        has = np.zeros(len(self.names), bool)
        has[list(codes)] = True
        mask = np.zeros(self._places.count, bool)
        for place, segment in enumerate(self._segments):
            rows, starts = segment.by_label
            for own in np.flatnonzero(has[self._codes[place]]).tolist():
                mask[segment.numbers.of_rows(rows[starts[own] : starts[own + 1]])] = True
        return mask

    def _spread(self, rows: Callable[[int], Mask]) -> Mask:
        """Return for each image by its number what is told of the rows of each segment."""
        told = np.zeros(self._places.count, bool)
        for place, segment in enumerate(self._segments):
            segment.numbers.spread(rows(place), told)
        return told

    def where(self, condition: Condition, known: Sequence[str]) -> Mask:
        """Return for which images a condition on labels holds: where one of an image's labels passes.

        Raises NotFoundError for a label that is not among the known ones.
        """
        if condition.relation in ("is null", "is not null"):
            return self._labelled() if condition.relation == "is not null" else ~self._labelled()
        if condition.relation != "^=":
            for label in condition.values:
                check_label(label, known)
        positive = Condition(condition.column, "^=" if condition.relation == "^=" else "in", condition.values)
        mask = self.having([code for code, name in enumerate(self.names) if text_holds(positive, name)])
        if condition.relation in ("!=", "not in"):
            return self._labelled() & ~mask
        return mask

    def _labelled(self) -> Mask:
        """Return which images have a label."""
        return self._spread(lambda place: self._segments[place].ends[1:] > self._segments[place].ends[:-1])

    def labelled(self, label: str) -> Mask:
        """Return which images have a label, none where no image ever had it."""
        code = bisect_left(self.names, label)
        return self.having([code] if [label] == self.names[code : code + 1] else [])


def check_label(label: str, known: Sequence[str]) -> None:
    """Raise NotFoundError for a label that no image has, naming the nearest that some have."""
    if label in known:
        return
    folded = {name.casefold(): name for name in known}
    like = get_close_matches(label.casefold(), folded) if len(label) <= _MOST_COMPARED else []
    near = [folded[text] for text in like] or list(known)
    there = f"there are {listing(near)}" if near else "the corpus has no labels: sub-folders would be labels"
    raise NotFoundError(f"no image of this atlas has the label {label[:_MOST_COMPARED]!r}; {there}")
