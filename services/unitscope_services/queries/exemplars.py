"""A unit's exemplars: which ranks a question chooses, and the rows that answer it."""

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unitscope_schemas.answers.patches import PatchQuery, PatchRow
from unitscope_schemas.ranks import percentiles
from unitscope_schemas.units import UnitId
from unitscope_services.atlas.atlas import Atlas
from unitscope_services.atlas.boxes import as_boxes, to_image
from unitscope_services.atlas.image_filter import ImageFilter

Ranks = NDArray[np.int64]
Keys = NDArray[np.integer[Any]]

_PEAK = ("image", "activation", "row", "col")
_NAMED = ("image_id", "path", "label", "duplicate_group")
_PLACED = ("crop_row", "crop_col", "height_px", "width_px", "resized_height_px", "resized_width_px")


class Exemplars:
    """The images of a unit that pass one question's filters, in its order.

    Filters look at ranks from the first on, piece by piece, and stop as soon as enough have passed.
    """

    def __init__(self, atlas: Atlas, unit: UnitId, query: PatchQuery, band: tuple[int, int]) -> None:
        self._atlas, self._unit, self._query, self._band = atlas, unit, query, band
        self._groups = atlas.catalogue.group_codes
        self._chosen = atlas.catalogue.chosen(ImageFilter(query.label, query.where))
        self._ranked = atlas.ranked_among(unit, self._chosen)

    def following(self, after: int | None, count: int) -> tuple[Ranks, Keys]:
        """The next `count` ranks, fewer if there are no more, and each one's key: where the next page goes on."""
        ranks, keys = np.empty(0, np.int64), np.empty(0, np.uint64 if self._query.order == "random" else np.int64)
        while len(ranks) < count:
            wanted = count - len(ranks)
            found, found_keys = self._candidates(after, wanted)
            leads = self._leads(found)
            ranks = np.concatenate([ranks, found[leads]])
            keys = np.concatenate([keys, found_keys[leads]])
            if len(found) < wanted:
                break
            after = int(found_keys[-1])
        return ranks, keys

    def rows(self, ranks: Ranks, image_count: int) -> list[PatchRow]:
        """What answers show of the images at these ranks."""
        images, activation, row, col = self._ranked.at(_PEAK, ranks)
        found = self._atlas.catalogue.columns(images, _NAMED)
        placed = {name: self._atlas.catalogue.column(name)[images].astype(np.int64) for name in _PLACED}
        theoretical, effective, padding = self._atlas.boxes(self._unit.layer).at(row, col)
        boxes = to_image(np.stack([theoretical, effective]), placed)
        columns = [
            ranks.tolist(),
            *(found[name] for name in ("image_id", "path", "label")),
            activation.tolist(),
            percentiles(self._ranked.above(activation), image_count).tolist(),
            row.tolist(),
            col.tolist(),
            *map(as_boxes, boxes),
            padding,
            found["duplicate_group"],
        ]
        return list(map(PatchRow, *columns))

    def _candidates(self, after: int | None, count: int) -> tuple[Ranks, Keys]:
        """The next ranks that pass the filters, near duplicates among them, and their keys."""
        if self._query.order == "random":
            ranks, keys = self._shuffled
            start = 0 if after is None else int(np.searchsorted(keys, np.uint64(after), side="right"))
            return ranks[start : start + count], keys[start : start + count]
        first, last = self._band
        if self._query.order == "asc":
            last = last if after is None else min(last, -after - 1)
            ranks = np.arange(last, max(first, last - count + 1) - 1, -1)
        else:
            first = first if after is None else max(first, after + 1)
            ranks = np.arange(first, min(last + 1, first + count))
        if self._chosen is not None:
            ranks = self._passing(self._chosen, first, last, count)
        return ranks, ranks if self._query.order == "desc" else -ranks

    @cached_property
    def _shuffled(self) -> tuple[Ranks, NDArray[np.uint64]]:
        """All ranks of the band that pass, in an order that depends on image and seed alone, with its keys."""
        pieces = list(self._images(*self._band))
        ranks = np.concatenate([np.empty(0, np.int64), *(ranks for ranks, _ in pieces)])
        images = np.concatenate([np.empty(0, np.int64), *(images for _, images in pieces)])
        if self._chosen is not None:
            passing = self._chosen.take(images)
            ranks, images = ranks[passing], images[passing]
        seed = _mixed(np.array([self._query.seed % 2**64], np.uint64))
        keys = _mixed(images.astype(np.uint64) ^ seed)
        order = np.argsort(keys)
        return ranks[order], keys[order]

    def _passing(self, chosen: NDArray[np.bool_], first: int, last: int, count: int) -> Ranks:
        found: list[Ranks] = [np.empty(0, np.int64)]
        for ranks, images in self._images(first, last):
            found.append(ranks[chosen.take(images)])
            if sum(map(len, found)) >= count:
                break
        return np.concatenate(found)[:count]

    def _leads(self, ranks: Ranks) -> NDArray[np.bool_]:
        """Which of the ranks are the first that passes the filters of its duplicate group, or in no group."""
        leads = np.ones(len(ranks), bool)
        if self._query.expand_duplicates:
            return leads
        groups = self._groups.take(self._ranked.at(_PEAK, ranks)[0])  # the rest of it is shown next
        members = np.flatnonzero(groups >= 0)
        wanted, which = np.unique(groups[members], return_inverse=True)
        first = np.full(len(wanted), -1)
        for among, images in self._images(*self._band) if len(wanted) else ():
            found = self._groups.take(images)
            passing = np.flatnonzero(found >= 0)
            if self._chosen is not None:
                passing = passing[self._chosen.take(images[passing])]
            numbers, places = np.unique(found[passing], return_index=True)
            at = np.minimum(np.searchsorted(wanted, numbers), len(wanted) - 1)
            new = (wanted[at] == numbers) & (first[at] < 0)
            first[at[new]] = among[passing[places[new]]]
            if first.min() >= 0:
                break
        leads[members] = first[which] == ranks[members]
        return leads

    def _images(self, first: int, last: int) -> Iterator[tuple[Ranks, NDArray[Any]]]:
        """Ranks and their images, from the end at which the question's order begins; random order has none."""
        return self._ranked.images(first, last, upwards=self._query.order == "asc")


def _mixed(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Other numbers for other numbers, in no visible order (the finaliser of SplitMix64, Steele et al. 2014)."""
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))
