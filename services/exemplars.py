"""A unit's exemplars: which ranks a question chooses, and the rows that answer it."""

from collections.abc import Iterator
from functools import partial
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


class Exemplars:
    """The images of a unit that pass one question's filters, in its order.

    Filters look at ranks from the first on, piece by piece, and stop as soon as enough have passed.
    """

    def __init__(self, atlas: Atlas, unit: UnitId, query: PatchQuery, band: tuple[int, int]) -> None:
        self._atlas, self._unit, self._query, self._band = atlas, unit, query, band
        self._ranked = atlas.ranked(unit)
        self._groups = atlas.catalogue.group_codes
        self._chosen = atlas.catalogue.present if query.label is None else atlas.catalogue.labelled(query.label)

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
        found = self._atlas.catalogue.columns(images, _NAMED)
        placed = {name: self._atlas.catalogue.column(name)[images].astype(np.int64) for name in _PLACED}
        theoretical, effective, padding = self._atlas.boxes(self._unit.layer).at(row, col)
        columns = [
            ranks.tolist(),
            *(found[name] for name in ("image_id", "path", "label")),
            activation.tolist(),
            (1 - self._ranked.above(activation) / image_count).tolist(),
            row.tolist(),
            col.tolist(),
            *map(_as_boxes, (to_image(theoretical, placed), to_image(effective, placed), padding)),
            found["duplicate_group"],
        ]
        return list(map(PatchRow, *columns))

    def _candidates(self, after: int | None, count: int) -> tuple[Ranks, list[int]]:
        """The next ranks with the label, near duplicates among them, and their keys; in random order also removed."""
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
        if self._chosen is not None:
            ranks = self._among(self._chosen, first, last, count)
        return ranks, (ranks if self._query.order == "desc" else -ranks).tolist()

    def _among(self, chosen: NDArray[np.bool_], first: int, last: int, count: int) -> Ranks:
        found: list[Ranks] = [np.empty(0, np.int64)]
        for ranks, images in self._images(first, last):
            found.append(ranks[chosen.take(images)])
            if sum(map(len, found)) >= count:
                break
        return np.concatenate(found)[:count]

    def _leads(self, ranks: Ranks) -> NDArray[np.bool_]:
        """Which of the ranks pass, and are the first that does of its duplicate group, or in no group."""
        if not len(ranks) or (self._query.expand_duplicates and self._chosen is None):
            return np.ones(len(ranks), bool)
        own = self._ranked.at(["image"], ranks)[0]
        chosen = np.ones(len(ranks), bool) if self._chosen is None else self._chosen.take(own)
        if self._query.expand_duplicates:
            return chosen
        groups = self._groups.take(own)
        wanted = np.unique(groups[groups >= 0])
        first: dict[int, int] = {-1: -1}
        for among, images in self._images(*self._band) if len(wanted) else ():
            found = self._groups.take(images)
            passes = np.isin(found, wanted)
            if self._chosen is not None:
                passes &= self._chosen.take(images)
            members, places = np.unique(found[passes], return_index=True)
            first = dict(zip(members.tolist(), among[passes][places].tolist(), strict=True)) | first
            if len(first) > len(wanted):
                break
        return chosen & [
            first.get(group) in (-1, rank) for group, rank in zip(groups.tolist(), ranks.tolist(), strict=True)
        ]

    def _images(self, first: int, last: int) -> Iterator[tuple[Ranks, NDArray[Any]]]:
        """Ranks and their images, from the end at which the question's order begins; random order has none."""
        return self._ranked.images(first, last, upwards=self._query.order == "asc")


def _as_boxes(boxes: Boxes) -> list[Box]:
    return list(map(partial(tuple.__new__, Box), boxes.tolist()))
