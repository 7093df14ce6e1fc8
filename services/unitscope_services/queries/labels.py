"""Labels that excite a unit, and units that a label excites: shares of first ranks with lift, and over all ranks."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from unitscope_schemas import tables
from unitscope_schemas.answers.patches import LabelPage, LabelRow
from unitscope_schemas.answers.relations import SelectivePage, SelectiveRow, SelectivityPage, SelectivityRow
from unitscope_schemas.errors import UsageError
from unitscope_schemas.questions import LabelsQuestion, SelectiveQuestion, SelectivityQuestion
from unitscope_schemas.units import UnitId
from unitscope_services.atlas.atlas import Atlas
from unitscope_services.atlas.ranks.bounded import check_ranks, check_whole
from unitscope_services.atlas.rows import rows_of
from unitscope_services.atlas.statistics import UnitStatistics
from unitscope_services.queries.exemplars import rank_range, status_note


def labels(atlas: Atlas, unit: UnitId, question: LabelsQuestion) -> LabelPage:
    """Return labels among a unit's first ranks, with lift: their share there over their share of the corpus.

    Without `ranks` they are the stored ones; with it they are counted now, and no removed image counts. With `quantile`
    they are counted over all images of that percentile band, near duplicates one by one. A unit with the same finite
    peak on all images has none: its ranks are no order.
    """
    statistics, ranks, limit = atlas.unit(unit), question.ranks, question.k
    if ranks is not None and question.band is not None:
        raise UsageError("labels are counted over first ranks or over a percentile band: give ranks or quantile")
    if statistics.constant:
        return LabelPage(unit=str(unit), ranks=0, note=status_note(statistics), rows=[])
    if ranks is not None:
        count = statistics.image_count
        check_ranks(atlas.manifest, unit, count, min(ranks, count) - 1)
        images = _present(atlas, _ranked_images(atlas, unit, 0, count - 1))[:ranks]
        return _counted_labels(atlas, unit, limit, images, ranks)
    if question.band is not None:
        first, last = rank_range(question.band, statistics.image_count)
        check_ranks(atlas.manifest, unit, statistics.image_count, last)
        return _counted_labels(atlas, unit, limit, _present(atlas, _ranked_images(atlas, unit, first, last)))
    total = min(tables.TOP_LABEL_RANKS, statistics.image_count)
    return LabelPage(
        unit=str(unit),
        ranks=total,
        note=_label_note(atlas, unit, total),
        stale_images=atlas.manifest.stale_count,
        rows=[
            LabelRow(
                label=top.label,
                count=top.count,
                share=top.share,
                lift=top.lift,
                **_lift_ends(top.count, total, top.share / top.lift),
            )
            for top in statistics.telling_labels[:limit]
        ],
    )


def selectivity(atlas: Atlas, unit: UnitId, question: SelectivityQuestion) -> SelectivityPage:
    """Return labels by the chance that their images excite the unit more than others do, over all ranks.

    The chance is the area under the curve: Mann & Whitney's statistic (1947), ties half. A label that all images or
    none have says nothing and is left out; no removed image counts. A unit with the same finite peak on all images has
    none. Reads all ranks of the unit.
    """
    check_whole(atlas.manifest, "selectivity over all ranks")
    statistics = atlas.unit(unit)
    if statistics.constant:
        note = status_note(statistics)
        return SelectivityPage(unit=str(unit), images=statistics.image_count, note=note, rows=[])
    images, activations = _ranked_activations(atlas, unit)
    names = atlas.catalogue.image_labels.names
    positions, codes = atlas.catalogue.image_labels.of(images)
    inside = np.bincount(codes, minlength=len(names))
    outside = len(images) - inside
    telling = np.flatnonzero((inside > 0) & (outside > 0))
    below = np.bincount(codes, _ranks_from_below(activations)[positions], len(names))[telling]
    means = np.bincount(codes, activations.astype(np.float64)[positions], len(names))[telling] / inside[telling]
    auc = (below - inside[telling] * (inside[telling] + 1) / 2) / (inside[telling] * outside[telling])
    low, high = of_auc(auc, inside[telling], outside[telling])
    columns = {"images": inside[telling], "mean": means, "auc": auc, "auc_low": low, "auc_high": high}
    labels = [names[code] for code in telling.tolist()]
    rows = rows_of(SelectivityRow, {"label": labels, **{name: column.tolist() for name, column in columns.items()}})
    rows.sort(key=lambda row: (-row.auc, row.label))
    note = status_note(statistics)
    return SelectivityPage(unit=str(unit), images=len(images), note=note, rows=rows[: question.k])


def selective_units(atlas: Atlas, question: SelectiveQuestion) -> SelectivePage:
    """Return the units whose first ranks hold the label most above its share of the corpus, by the lower end of the
    lift.

    They are units of one layer or of all. They are read from the stored top labels, which name every label among those
    ranks; constant units, whose ranks mean nothing, are left out. Raises NotFoundError for a label that no image has.
    """
    label, layer = question.label, question.layer
    base = float(atlas.catalogue.labelled(label).mean())
    entries = atlas.manifest.layers if layer is None else [atlas.layer(layer)]
    rows = [
        _selective_row(entry.spec.name, statistics, label, base)
        for entry in entries
        for statistics in atlas.unit_statistics(entry.spec.name)
        if not statistics.constant
    ]
    rows.sort(key=lambda row: (-row.lift_low, -row.lift))
    return SelectivePage(label=label, stale_images=atlas.manifest.stale_count, rows=rows[: question.k])


def _selective_row(layer: str, statistics: UnitStatistics, label: str, base: float) -> SelectiveRow:
    total = min(tables.TOP_LABEL_RANKS, statistics.image_count)
    count = next((top.count for top in statistics.telling_labels if top.label == label), 0)
    return SelectiveRow(
        layer=layer,
        channel=statistics.channel,
        status=statistics.status,
        label=label,
        ranks=total,
        count=count,
        share=count / total,
        lift=count / total / base,
        **_lift_ends(count, total, base),
    )


def _label_note(atlas: Atlas, unit: UnitId, total: int | None = None) -> str | None:
    """Return what a person should know of labels counted over so many first ranks, or over a band: None."""
    statistics = atlas.unit(unit)
    notes, stored = [status_note(statistics)], atlas.manifest.kept or statistics.image_count
    if total is not None and 0 < total < min(stored, statistics.image_count):
        last, following = atlas.ranked(unit).at(["activation"], np.array([total - 1, total]))[0].tolist()
        if last == following:
            first = int(atlas.ranked(unit).above(np.array([last], np.float32))[0])
            notes.append(
                f"ranks from {first + 1} to {total} have the same peak, {last:g}, as images that are not counted: only "
                f"the first {first} are told apart by the unit"
            )
    return "; ".join(note for note in notes if note) or None


def _counted_labels(
    atlas: Atlas, unit: UnitId, limit: int, images: NDArray[np.int64], total_ranks: int | None = None
) -> LabelPage:
    names, total = atlas.catalogue.image_labels.names, len(images)
    shares = np.array([entry.image_count for entry in atlas.catalogue.labels()]) / atlas.catalogue.count
    counts = np.bincount(atlas.catalogue.image_labels.of(images)[1], minlength=len(names))
    rows = [
        LabelRow(
            label=names[code],
            count=int(counts[code]),
            share=float(counts[code] / total),
            lift=float(counts[code] / total / shares[code]),
            **_lift_ends(int(counts[code]), total, float(shares[code])),
        )
        for code in np.flatnonzero(counts).tolist()
    ]
    rows.sort(key=lambda row: (-row.count, -row.lift, row.label))
    return LabelPage(unit=str(unit), ranks=total, note=_label_note(atlas, unit, total_ranks), rows=rows[:limit])


def _lift_ends(count: int, total: int, base: float) -> dict[str, float]:
    """Return ends of the lift's interval: those of the share over the label's share of the corpus, known exactly."""
    low, high = of_share(np.array([count]), total)
    return {"lift_low": float(low[0] / base), "lift_high": float(high[0] / base)}


def _ranked_activations(atlas: Atlas, unit: UnitId) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the numbers of a unit's present images and their activations, in rank order."""
    count = atlas.unit(unit).image_count
    images = _ranked_images(atlas, unit, 0, count - 1)
    activations = atlas.ranked(unit).activations() if count else np.empty(0, np.float32)
    present = atlas.catalogue.present
    return _present(atlas, images), activations if present is None else activations[present.take(images)]


def _ranked_images(atlas: Atlas, unit: UnitId, first: int, last: int) -> NDArray[np.int64]:
    """Return the numbers of a unit's images from one rank to another, both included, in rank order."""
    pieces = [images for _, images in atlas.ranked(unit).images(first, last)] if first <= last else []
    return np.concatenate([np.empty(0, np.int64), *pieces]).astype(np.int64)


def _present(atlas: Atlas, images: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return those of some images that are not removed."""
    present = atlas.catalogue.present
    return images if present is None else images[present.take(images)]


def _ranks_from_below(descending: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the ranks of descending values, 1 for the lowest; equal values share their mean rank."""
    starts = np.flatnonzero(np.diff(descending, prepend=np.inf))
    ends = np.append(starts[1:], len(descending))
    return np.repeat(len(descending) - (starts + ends - 1) / 2, ends - starts)


_Z = 1.959964
"""Number of standard deviations of a normal distribution that hold 95 % of it."""
_HALVINGS = 50
"""Number of halvings after which the last bit of a 64-bit float between 0 and 1 is decided."""

Numbers = NDArray[np.floating[Any]] | NDArray[np.integer[Any]]


def of_share(count: Numbers, total: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the ends of the interval of `count / total` (Wilson 1927): within 0..1, and of some width at both ends."""
    share = np.asarray(count, np.float64) / total
    middle = share + _Z**2 / (2 * total)
    half = _Z * np.sqrt(share * (1 - share) / total + (_Z / (2 * total)) ** 2)
    scale = 1 + _Z**2 / total
    return np.maximum((middle - half) / scale, 0), np.minimum((middle + half) / scale, 1)


def of_auc(auc: Numbers, inside: Numbers, outside: Numbers) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the ends of the interval of the area under the curve for so many images inside and outside a class.

    Each end is the area from which the observed one lies `_Z` standard deviations away, by the variance of Hanley &
    McNeil (1982) at that end, as Wilson does for shares: a perfect area has an interval too.
    """
    observed = np.asarray(auc, np.float64)
    ends = []
    for extreme in (0.0, 1.0):
        near, far = observed.copy(), np.full_like(observed, extreme)
        for _ in range(_HALVINGS):
            middle = (near + far) / 2
            within = np.abs(observed - middle) <= _Z * np.sqrt(_auc_variance(middle, inside, outside))
            near, far = np.where(within, middle, near), np.where(within, far, middle)
        ends.append(near)
    return ends[0], ends[1]


def _auc_variance(auc: NDArray[np.float64], inside: Numbers, outside: Numbers) -> NDArray[np.float64]:
    two_inside, two_outside = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    spread = (inside - 1) * (two_inside - auc**2) + (outside - 1) * (two_outside - auc**2)
    variance: NDArray[np.float64] = (auc * (1 - auc) + spread) / (inside * outside)
    return np.maximum(variance, 0)
