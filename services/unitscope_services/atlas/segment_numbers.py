"""Where the images of a segment are among those of the version."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class SegmentNumbers:
    """The number that the image of each row of a segment has in the version."""

    stored: NDArray[np.int32] | None
    """The numbers in ascending order, by row; None where row n is image n."""

    def among(self, numbers: NDArray[np.integer[Any]]) -> tuple[NDArray[np.int64], NDArray[np.integer[Any]]]:
        """Return which of some numbers are those of images of the segment, by position, and the rows of these."""
        if self.stored is None:
            return np.arange(len(numbers)), numbers
        asked = numbers.astype(np.int32, copy=False)  # of another type than the numbers it would copy these
        rows = np.searchsorted(self.stored, asked)
        rows[rows == len(self.stored)] = 0
        positions = np.flatnonzero(self.stored[rows] == asked)
        return positions, rows[positions]

    def spread(self, values: NDArray[Any], onto: NDArray[Any]) -> None:
        """Write a value of each row where its image is among all."""
        onto[slice(None) if self.stored is None else self.stored] = values

    def of_all(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return those of the values of all images that are the segment's, by row."""
        return values if self.stored is None else values[self.stored]

    def at(self, row: int) -> int:
        """Return the number of a row's image."""
        return row if self.stored is None else int(self.stored[row])
