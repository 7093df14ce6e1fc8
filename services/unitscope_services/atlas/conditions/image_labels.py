"""The labels of an atlas's images, as numbers: the positions of all labels in ascending order."""

from bisect import bisect_left
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from unitscope_schemas.errors import NotFoundError, listing
from unitscope_services.atlas.conditions.comparison import text_holds
from unitscope_services.atlas.conditions.conditions import Condition

_MOST_COMPARED = 200
"""Characters of a label beyond which no label is like it."""

Codes = NDArray[np.int64]
Mask = NDArray[np.bool_]


class ImageLabels:
    """The labels of all images: an image may have none, one or several, of which the first stands for it."""

    def __init__(self, names: Sequence[str], first: NDArray[np.int32], lists: pa.LargeListArray | None) -> None:
        """Hold the codes of first labels, −1 for none, and of all labels; None: no image has several."""
        self.names = list(names)
        self._first = first
        if lists is None:
            self._codes: NDArray[Any] = first[first >= 0]
            self._ends: NDArray[np.int64] = np.concatenate([[0], np.cumsum(first >= 0)])
        else:
            self._codes = lists.values.to_numpy()
            self._ends = lists.offsets.to_numpy()

    def of(self, images: NDArray[np.integer[Any]]) -> tuple[Codes, Codes]:
        """Return each label of some images: the position of the image among these, and the label's code."""
        starts, counts = self._ends[images], self._ends[images + 1] - self._ends[images]
        positions = np.repeat(np.arange(len(images)), counts)
        within = np.arange(len(positions)) - np.repeat(np.cumsum(counts) - counts, counts)
        return positions, self._codes[np.repeat(starts, counts) + within].astype(np.int64)

    def lists(self, images: NDArray[np.integer[Any]]) -> list[list[str]]:
        """Return the labels of some images by their names, first labels first."""
        positions, codes = self.of(images)
        labels: list[list[str]] = [[] for _ in range(len(images))]
        for position, code in zip(positions.tolist(), codes.tolist(), strict=True):
            labels[position].append(self.names[code])
        return labels

    def counts(self, present: Mask | None) -> NDArray[np.int64]:
        """Return how many of the present images have each label; None: all are."""
        images = np.arange(len(self._first)) if present is None else np.flatnonzero(present)
        return np.bincount(self.of(images)[1], minlength=len(self.names))

    def having(self, codes: Sequence[int]) -> Mask:
        """Return which images have one of some labels."""
        has = np.zeros(len(self.names), bool)
        has[list(codes)] = True
        sums = np.concatenate([[0], np.cumsum(has[self._codes])])
        mask: Mask = sums[self._ends[1:]] > sums[self._ends[:-1]]
        return mask

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
        mask: Mask = self._ends[1:] > self._ends[:-1]
        return mask

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
