"""Where the images of a segment are among those of the version, and in which segment each image is."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unitscope_schemas.errors import AtlasError


@dataclass(frozen=True)
class SegmentNumbers:
    """The number that the image of each row of a segment has in the version."""

    stored: NDArray[np.int32] | None
    """The numbers in ascending order, by row; None where row n is image n."""

    def rows(self, numbers: NDArray[np.integer[Any]]) -> NDArray[np.integer[Any]]:
        """Return the rows of images of the segment."""
        if self.stored is None:
            return numbers
        return np.searchsorted(self.stored, numbers.astype(np.int32, copy=False))  # of another type it copies `stored`

    def spread(self, values: NDArray[Any], onto: NDArray[Any]) -> None:
        """Write a value of each row where its image is among all."""
        onto[slice(None) if self.stored is None else self.stored] = values

    def of_all(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return those of the values of all images that are the segment's, by row."""
        return values if self.stored is None else values[self.stored]

    def of_rows(self, rows: NDArray[np.integer[Any]]) -> NDArray[np.integer[Any]]:
        """Return the numbers of some rows' images."""
        return rows if self.stored is None else self.stored[rows]

    def at(self, row: int) -> int:
        """Return the number of a row's image."""
        return row if self.stored is None else int(self.stored[row])


class ImagePlaces:
    """The segment of each image of a version, and its row there; takes one or two bytes for each image."""

    def __init__(self, segments: Sequence[tuple[SegmentNumbers, int]], count: int) -> None:
        """Take the numbers of each segment and how many rows it has.

        Raises AtlasError unless the segments have each of `count` images once, in order of numbers.
        """
        self.count, self._segments = count, [numbers for numbers, _ in segments]
        self._owners: NDArray[np.unsignedinteger[Any]] | None = None
        if len(segments) == 1 and self._segments[0].stored is None:
            return
        kind = np.min_scalar_type(len(segments))
        self._owners = np.full(count, len(segments), kind)
        for owner, (numbers, row_count) in enumerate(segments):
            stored = numbers.stored
            assert stored is not None, "several segments have numbers: the manifest is refused without"
            in_order = len(stored) == row_count and bool((stored[1:] > stored[:-1]).all())
            if not in_order or stored[0] < 0 or stored[-1] >= count or (self._owners[stored] < len(segments)).any():
                raise AtlasError("the numbers of images of a segment are damaged: they are not in order, or another's")
            self._owners[stored] = owner

    def of(
        self, numbers: NDArray[np.integer[Any]]
    ) -> Iterator[tuple[int, NDArray[np.int64], NDArray[np.integer[Any]]]]:
        """Yield for each segment that has some of these images: which of them, by position, and their rows."""
        if self._owners is None:
            if len(numbers):
                yield 0, np.arange(len(numbers)), numbers
            return
        owners = self._owners[numbers]
        for owner in np.unique(owners).tolist():
            positions = np.flatnonzero(owners == owner)
            yield owner, positions, self._segments[owner].rows(numbers[positions])
