"""A unit's exemplars: which ranks a question chooses, and the rows that answer it."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas.geometry import Box
from schemas.units import UnitId
from schemas.web import PatchQuery, PatchRow
from services.atlas import Atlas
from services.boxes import Boxes, to_image

Ranks = NDArray[np.int64]

_NAMED = ("image_id", "path", "label", "duplicate_group")
_PLACED = ("crop_row", "crop_col", "height_px", "width_px", "resized_height_px", "resized_width_px")
_FIELDS = set(PatchRow.model_fields)


class Exemplars:
    """The images of a unit that pass one question's filters, in its order.

    Filters look at ranks from the first on, piece by piece, and stop as soon as enough have passed.
    """

    def __init__(self, atlas: Atlas, unit: UnitId, query: PatchQuery, band: tuple[int, int]) -> None:
        self._atlas, self._unit, self._query, self._band = atlas, unit, query, band
        self._ranked = atlas.ranked(unit)
        self._labels, self._groups = atlas.catalogue.label_codes, atlas.catalogue.group_codes
        self._label = None if query.label is None else atlas.catalogue.label_code(query.label)

    def following(self, after: int | None, count: int) -> tuple[Ranks, list[int]]:
        """The next `count` ranks, fewer if there are no more, and each one's key: where the next page goes on."""
        ranks, keys = np.empty(0, np.int64), list[int]()
        while len(ranks) < count:
            wanted = count - len(ranks)
            found, found_keys = self._candidates(after, wanted)
            leads = self._leads(found)
            ranks = np.concatenate([ranks, found[leads]])
            keys += [key for key, lead in zip(found_keys, leads.tolist(), strict=True) if lead]
            if len(found) < wanted:
                break
            after = found_keys[-1]
        return ranks, keys

    def rows(self, ranks: Ranks, image_count: int) -> list[PatchRow]:
        """What answers show of the images at these ranks."""
        images, activation, row, col = self._ranked.at(["image", "activation", "row", "col"], ranks)
        found = self._atlas.catalogue.columns(images, [*_NAMED, *_PLACED])
        placed = {name: np.array(found[name], np.int64) for name in _PLACED}
        theoretical, effective, padding = self._atlas.boxes(self._unit.layer).at(row, col)
        columns = {
            "rank": ranks.tolist(),
            **{name: found[name] for name in ("image_id", "path", "label")},
            "activation": activation.tolist(),
            "percentile": (1 - self._first_equal(ranks, activation) / image_count).tolist(),
            "row": row.tolist(),
            "col": col.tolist(),
            "box": _as_boxes(to_image(theoretical, placed)),
            "effective_box": _as_boxes(to_image(effective, placed)),
            "padding": _as_boxes(padding),
            "duplicate_group": found["duplicate_group"],
        }
        # values that need no check: to validate a thousand rows takes longer than to find them
        return [
            PatchRow.model_construct(_FIELDS, **dict(zip(columns, values, strict=True)))
            for values in zip(*columns.values(), strict=True)
        ]

    def _candidates(self, after: int | None, count: int) -> tuple[Ranks, list[int]]:
        """The next ranks with the label, near duplicates among them, and their keys."""
        if self._query.order == "random":
            found = self._atlas.shuffled(self._unit, self._band, self._query.label, self._query.seed, after, count)
            return np.array([row["rank"] for row in found], np.int64), [row["key"] for row in found]
        first, last = self._band
        if self._query.order == "asc":
            last = last if after is None else min(last, -after - 1)
            ranks = np.arange(last, max(first, last - count + 1) - 1, -1)
        else:
            first = first if after is None else max(first, after + 1)
            ranks = np.arange(first, min(last + 1, first + count))
        if self._label is not None:
            ranks = self._labelled(first, last, count)
        return ranks, (ranks if self._query.order == "desc" else -ranks).tolist()

    def _labelled(self, first: int, last: int, count: int) -> Ranks:
        found: list[Ranks] = [np.empty(0, np.int64)]
        for ranks, images in self._images(first, last):
            found.append(ranks[self._labels.take(images) == self._label])
            if sum(map(len, found)) >= count:
                break
        return np.concatenate(found)[:count]

    def _leads(self, ranks: Ranks) -> NDArray[np.bool_]:
        """Which of the ranks are the first that passes the filters of its duplicate group, or in no group."""
        if self._query.expand_duplicates or not len(ranks):
            return np.ones(len(ranks), bool)
        groups = self._groups.take(self._ranked.at(["image"], ranks)[0])
        wanted = np.unique(groups[groups >= 0])
        first: dict[int, int] = {-1: -1}
        for among, images in self._images(*self._band) if len(wanted) else ():
            found = self._groups.take(images)
            passes = np.isin(found, wanted)
            if self._label is not None:
                passes &= self._labels.take(images) == self._label
            members, places = np.unique(found[passes], return_index=True)
            first = dict(zip(members.tolist(), among[passes][places].tolist(), strict=True)) | first
            if len(first) > len(wanted):
                break
        return np.array(
            [first[group] in (-1, rank) for group, rank in zip(groups.tolist(), ranks.tolist(), strict=True)]
        )

    def _images(self, first: int, last: int) -> Iterator[tuple[Ranks, NDArray[Any]]]:
        """Ranks and their images, from the end at which the question's order begins; random order has none."""
        return self._ranked.images(first, last, upwards=self._query.order == "asc")

    def _first_equal(self, ranks: Ranks, activation: NDArray[np.float32]) -> Ranks:
        """The first rank with the same activation as each, which makes the percentile."""
        if self._query.order == "desc" and np.array_equal(ranks, np.arange(len(ranks))):
            return np.searchsorted(-activation, -activation)
        return self._ranked.first_equal(activation)


def _as_boxes(boxes: Boxes) -> list[Box]:
    return list(map(Box._make, boxes.tolist()))
