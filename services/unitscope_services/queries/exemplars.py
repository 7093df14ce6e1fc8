"""A unit's exemplars: which ranks a question chooses, and the rows that answer it."""

from collections.abc import Iterator
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unitscope_schemas import cursors
from unitscope_schemas.answers.patches import PatchPage, PatchRow
from unitscope_schemas.answers.relations import BandPage, BandRow
from unitscope_schemas.questions import BandsQuestion, ExemplarQuestion, TopQuestion
from unitscope_schemas.ranks import percentiles
from unitscope_schemas.units import UnitId
from unitscope_services.atlas.atlas import Atlas
from unitscope_services.atlas.boxes import as_boxes, to_image
from unitscope_services.atlas.deadlines import check_time
from unitscope_services.atlas.image_filter import ImageFilter
from unitscope_services.atlas.ranks.bounded import bounded_note, check_ranks, check_whole
from unitscope_services.atlas.rows import rows_of
from unitscope_services.atlas.statistics import UnitStatistics

Ranks = NDArray[np.int64]
Keys = NDArray[np.integer[Any]]

_PEAK = ("image", "activation", "row", "col")
_NAMED = ("image_id", "path", "label", "labels", "duplicate_group")
_PLACED = ("crop_row", "crop_col", "height_px", "width_px", "resized_height_px", "resized_width_px")


def patches(atlas: Atlas, unit: UnitId, question: TopQuestion) -> PatchPage:
    """Return the images that most excite a unit, in a total order, each with the box where it peaks.

    The first image of a group of near duplicates that passes the filters stands for all, unless the question expands
    them. A unit with the same finite peak on all images has no patches: they are all alike to it.
    """
    statistics = atlas.unit(unit)
    status, count = statistics.status, statistics.image_count
    note, stale = status_note(statistics), atlas.manifest.stale_count
    if statistics.constant or count == 0:
        atlas.catalogue.chosen(ImageFilter(question.label, question.where))  # refused alike, whatever the unit
        return PatchPage(unit=str(unit), status=status, note=note, stale_images=stale, rows=[], next=None)
    subject = f"{atlas.version} {unit} {question.model_dump_json(exclude={'k', 'cursor'})}"
    after = cursors.decode(question.cursor, subject, _keys(question, count))
    exemplars = Exemplars(atlas, unit, question, _asked_band(atlas, unit, question, count))
    ranks, keys = exemplars.following(after, question.k + 1)
    more = len(ranks) > question.k
    cut = question.band is None and (not more or question.label is not None or question.where)
    bound = bounded_note(atlas.manifest) if cut else None
    return PatchPage(
        unit=str(unit),
        status=status,
        note="; ".join(text for text in (note, bound) if text) or None,
        stale_images=stale,
        kept=atlas.manifest.kept,
        rows=exemplars.rows(ranks[: question.k], count),
        next=cursors.encode(int(keys[question.k - 1]), subject) if more else None,
    )


def _keys(question: TopQuestion, count: int) -> range:
    """Return the keys that ranks may have in the order of a question."""
    return {"desc": range(count), "asc": range(1 - count, 1), "random": range(2**64)}[question.order]


def _asked_band(atlas: Atlas, unit: UnitId, question: TopQuestion, count: int) -> tuple[int, int]:
    """Return the ranks that a question is about; the stored ones, where it is about the highest of all."""
    first, last = rank_range(question.band, count)
    if question.min_activation is not None:
        below = np.nextafter(np.float32(question.min_activation), np.float32(-np.inf))
        last = min(last, int(atlas.ranked(unit).above(np.array([below], np.float32))[0]) - 1)
    if question.band is None and question.order == "desc":
        return first, min(last, (atlas.manifest.kept or count) - 1)
    check_ranks(atlas.manifest, unit, count, last)
    return first, last


def bands(atlas: Atlas, unit: UnitId, question: BandsQuestion) -> BandPage:
    """Return patches from each of equal bands that hold equally many of the unit's images, highest band first.

    Within a band they are in the order of the question: from its top, from its bottom, or at random by its seed.
    Filters and near duplicates count within each band. A dead unit has no bands.
    """
    check_whole(atlas.manifest, "a distribution in bands")
    first = patches(atlas, unit, TopQuestion(k=1, label=question.label, where=question.where))
    total, count = atlas.unit(unit).image_count, question.bands
    edges = [round(total * band / count) for band in range(count + 1)] if first.rows else [0]
    rows = []
    for band, (start, end) in enumerate(pairwise(edges), 1):
        exemplars = Exemplars(atlas, unit, question, (start, end - 1))
        ranks = exemplars.following(None, question.k)[0] if start < end else np.empty(0, np.int64)
        low, high = (count - band) / count, (count - band + 1) / count
        rows += [BandRow(**vars(row), band=band, low=low, high=high) for row in exemplars.rows(ranks, total)]
    return BandPage(unit=first.unit, status=first.status, note=first.note, stale_images=first.stale_images, rows=rows)


def rank_range(quantile: tuple[float, float] | None, count: int) -> tuple[int, int]:
    """Return first and last rank of the images within a percentile band; rank r has the percentile 1 − r / count."""
    if quantile is None:
        return 0, count - 1
    low, high = quantile
    slack = 1e-9 * count
    return int(np.ceil((1 - high) * count - slack)), min(count - 1, int(np.floor((1 - low) * count + slack)))


def status_note(statistics: UnitStatistics) -> str | None:
    """Return what a person should know about a unit that is not live."""
    match statistics.status:
        case "dead" if statistics.maximum == 0:
            return f"never active: its peak is 0 on all {statistics.image_count} images"
        case "dead":
            return f"constant: its peak is {statistics.maximum:g} on all {statistics.image_count} images"
        case "negative-only":
            return "never above zero: these are its least negative images"
        case "rare":
            return f"rare: above zero on {statistics.positive_count} of {statistics.image_count} images"
        case "non-finite":
            left_out = f"not a number or infinite on {statistics.nonfinite_count} images, which are left out"
            if not statistics.constant or statistics.maximum is None:
                return left_out
            return f"{left_out}; its peak is {statistics.maximum:g} on all {statistics.image_count} others"
    return None


class Exemplars:
    """The images of a unit that pass one question's filters, in its order.

    Filters look at ranks from the first on, piece by piece, and stop as soon as enough have passed.
    """

    def __init__(self, atlas: Atlas, unit: UnitId, question: ExemplarQuestion, band: tuple[int, int]) -> None:
        self._atlas, self._unit, self._question, self._band = atlas, unit, question, band
        self._groups = atlas.catalogue.group_codes
        self._chosen = atlas.catalogue.chosen(ImageFilter(question.label, question.where))
        self._ranked = atlas.ranked_among(unit, self._chosen)

    def following(self, after: int | None, count: int) -> tuple[Ranks, Keys]:
        """Return the next `count` ranks, fewer if there are no more, each with its key: where the next page goes on."""
        ranks, keys = np.empty(0, np.int64), np.empty(0, np.uint64 if self._question.order == "random" else np.int64)
        while len(ranks) < count:
            check_time()
            wanted = count - len(ranks)
            candidates, candidate_keys = self._candidates(after, wanted)
            leads = self._leads(candidates)
            ranks = np.concatenate([ranks, candidates[leads]])
            keys = np.concatenate([keys, candidate_keys[leads]])
            if len(candidates) < wanted:
                break
            after = int(candidate_keys[-1])
        return ranks, keys

    def rows(self, ranks: Ranks, image_count: int) -> list[PatchRow]:
        """Return what answers show of the images at these ranks."""
        images, activation, row, col = self._ranked.at(_PEAK, ranks)
        named = self._atlas.catalogue.columns(images, _NAMED)
        placed = self._atlas.catalogue.images.values(images, _PLACED)
        theoretical, effective, padding = self._atlas.boxes(self._unit).at(row, col)
        boxes = to_image(np.stack([theoretical, effective]), placed)
        columns = {
            "rank": ranks.tolist(),
            **named,
            "activation": activation.tolist(),
            "percentile": percentiles(self._ranked.above(activation), image_count).tolist(),
            "row": row.tolist(),
            "col": col.tolist(),
            "box": as_boxes(boxes[0]),
            "effective_box": as_boxes(boxes[1]),
            "padding": padding,
        }
        return rows_of(PatchRow, columns)

    def _candidates(self, after: int | None, count: int) -> tuple[Ranks, Keys]:
        """Yield the next ranks that pass the filters, near duplicates among them, and their keys."""
        if self._question.order == "random":
            ranks, keys = self._shuffled
            start = 0 if after is None else int(np.searchsorted(keys, np.uint64(after), side="right"))
            return ranks[start : start + count], keys[start : start + count]
        first, last = self._band
        if self._question.order == "asc":
            last = last if after is None else min(last, -after - 1)
            ranks = np.arange(last, max(first, last - count + 1) - 1, -1)
        else:
            first = first if after is None else max(first, after + 1)
            ranks = np.arange(first, min(last + 1, first + count))
        if self._chosen is not None:
            ranks = self._passing(self._chosen, first, last, count)
        return ranks, ranks if self._question.order == "desc" else -ranks

    @cached_property
    def _shuffled(self) -> tuple[Ranks, NDArray[np.uint64]]:
        """Return all ranks of the band that pass, in an order that depends on image and seed alone, with its keys."""
        pieces = list(self._images(*self._band))
        ranks = np.concatenate([np.empty(0, np.int64), *(ranks for ranks, _ in pieces)])
        images = np.concatenate([np.empty(0, np.int64), *(images for _, images in pieces)])
        if self._chosen is not None:
            passing = self._chosen.take(images)
            ranks, images = ranks[passing], images[passing]
        seed = _mixed(np.array([self._question.seed % 2**64], np.uint64))
        keys = _mixed(images.astype(np.uint64) ^ seed)
        order = np.argsort(keys)
        return ranks[order], keys[order]

    def _passing(self, chosen: NDArray[np.bool_], first: int, last: int, count: int) -> Ranks:
        pieces: list[Ranks] = [np.empty(0, np.int64)]
        for ranks, images in self._images(first, last):
            pieces.append(ranks[chosen.take(images)])
            if sum(map(len, pieces)) >= count:
                break
        return np.concatenate(pieces)[:count]

    def _leads(self, ranks: Ranks) -> NDArray[np.bool_]:
        """Return which of the ranks are the first that passes the filters of its duplicate group, or in no group."""
        leads = np.ones(len(ranks), bool)
        if self._question.duplicates == "expand":
            return leads
        groups = self._groups.take(self._ranked.at(_PEAK, ranks)[0])  # the rest of it is shown next
        members = np.flatnonzero(groups >= 0)
        wanted, which = np.unique(groups[members], return_inverse=True)
        first = np.full(len(wanted), -1)
        for among, images in self._images(*self._up_to(ranks[members])) if len(wanted) else ():
            image_groups = self._groups.take(images)
            passing = np.flatnonzero(image_groups >= 0)
            if self._chosen is not None:
                passing = passing[self._chosen.take(images[passing])]
            numbers, places = np.unique(image_groups[passing], return_index=True)
            at = np.minimum(np.searchsorted(wanted, numbers), len(wanted) - 1)
            new = (wanted[at] == numbers) & (first[at] < 0)
            first[at[new]] = among[passing[places[new]]]
            if first.min() >= 0:
                break
        leads[members] = first[which] == ranks[members]
        return leads

    def _up_to(self, ranks: Ranks) -> tuple[int, int]:
        """Return the ranks of the band up to the last of some in the question's order."""
        first, last = self._band
        return (int(ranks.min()), last) if self._question.order == "asc" else (first, int(ranks.max()))

    def _images(self, first: int, last: int) -> Iterator[tuple[Ranks, NDArray[Any]]]:
        """Return ranks and their images, from the end at which the question's order begins; random order has none."""
        return self._ranked.images(first, last, upwards=self._question.order == "asc")


def _mixed(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return other numbers for other numbers, in no visible order (the finaliser of SplitMix64, Steele et al. 2014)."""
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))
