"""What a unit responds to: its patches, distribution, labels, and its layer's units in a table."""

from typing import Any, get_args

import numpy as np
import pyarrow as pa

from unitscope_schemas import cursors, tables
from unitscope_schemas.answers.patches import (
    Histogram,
    PatchPage,
    PatchQuery,
    PatchRow,
    QuantileRow,
    UnitPage,
    UnitRow,
    UnitStatus,
)
from unitscope_schemas.errors import UsageError, listing
from unitscope_schemas.geometry import Box, Location, Placement
from unitscope_schemas.units import LayerSpec, UnitId
from unitscope_services.atlas.atlas import Atlas
from unitscope_services.atlas.bounded import bounded_note, check_ranks, check_whole
from unitscope_services.atlas.rows import ImageEntry
from unitscope_services.atlas.statistics import UnitStatistics
from unitscope_services.queries.exemplars import Exemplars

SORTS = ("channel", "maximum", "mean", "std", "median", "positive_share", "status", "nonfinite_count")
STATUSES: tuple[str, ...] = get_args(UnitStatus)
_QUANTILES = (0.0, 0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 0.999, 1.0)


def patches(atlas: Atlas, unit: UnitId, query: PatchQuery) -> PatchPage:
    """The images that most excite a unit, in a total order, each with the box where it peaks.

    Of a group of near duplicates the first that passes the filters stands for all, unless asked otherwise. A
    dead unit has no patches: its images are all alike to it.
    """
    statistics = atlas.unit(unit)
    status, count = statistics.status, statistics.image_count
    note, stale = status_note(statistics), atlas.manifest.stale_count
    if status == "dead" or count == 0:
        return PatchPage(unit=str(unit), status=status, note=note, stale_images=stale, rows=[], next=None)
    question = f"{atlas.version} {unit} {query.model_dump_json(exclude={'limit', 'cursor'})}"
    after = cursors.decode(query.cursor, question)
    exemplars = Exemplars(atlas, unit, query, _asked_band(atlas, unit, query, count))
    ranks, keys = exemplars.following(after, query.limit + 1)
    more = len(ranks) > query.limit
    cut = query.quantile is None and (not more or query.label is not None or query.where)
    bound = bounded_note(atlas.manifest) if cut else None
    return PatchPage(
        unit=str(unit),
        status=status,
        note="; ".join(text for text in (note, bound) if text) or None,
        stale_images=stale,
        kept=atlas.manifest.kept,
        rows=exemplars.rows(ranks[: query.limit], count),
        next=cursors.encode(int(keys[query.limit - 1]), question) if more else None,
    )


def _asked_band(atlas: Atlas, unit: UnitId, query: PatchQuery, count: int) -> tuple[int, int]:
    """The ranks that a question is about; those that are kept, where it asks for the highest of all."""
    first, last = rank_range(query.quantile, count)
    if query.quantile is None and query.order == "desc":
        return first, min(last, (atlas.manifest.kept or count) - 1)
    check_ranks(atlas.manifest, unit, count, last)
    return first, last


def rank_range(quantile: tuple[float, float] | None, count: int) -> tuple[int, int]:
    """First and last rank of the images within a percentile band; rank r has the percentile 1 − r / count."""
    if quantile is None:
        return 0, count - 1
    low, high = quantile
    if not 0 <= low <= high <= 1:
        raise UsageError(f"quantile {low}..{high} is not a band a..b with 0 <= a <= b <= 1")
    slack = 1e-9 * count
    return int(np.ceil((1 - high) * count - slack)), min(count - 1, int(np.floor((1 - low) * count + slack)))


def histogram(atlas: Atlas, unit: UnitId, bins: int = tables.HISTOGRAM_BINS) -> Histogram:
    """The distribution of a unit's peaks in equal bins; quantiles are exact."""
    statistics = atlas.unit(unit)
    counts = statistics.histogram
    edges = np.empty(0)
    if statistics.minimum is not None and statistics.maximum is not None:
        low, high = statistics.minimum, statistics.maximum
        edges = np.linspace(low, high, bins + 1)
        if tables.HISTOGRAM_BINS % bins == 0:
            counts = counts.reshape(bins, -1).sum(axis=1)
        else:
            check_whole(atlas.manifest, f"a histogram of {bins} bins, no share of {tables.HISTOGRAM_BINS},")
            counts = np.histogram(atlas.ranked(unit).activations().astype(np.float64), bins=bins, range=(low, high))[0]
    quantiles = ((share, statistics.quantile(share)) for share in _QUANTILES)
    return Histogram(
        unit=str(unit),
        image_count=statistics.image_count,
        stale_images=atlas.manifest.stale_count,
        zero_count=statistics.zero_count,
        nonfinite_count=statistics.nonfinite_count,
        edges=edges.tolist(),
        counts=counts.tolist(),
        quantiles=[QuantileRow(share=share, activation=value) for share, value in quantiles if value is not None],
    )


def unit_page(
    atlas: Atlas,
    layer: str,
    sort: str = "channel",
    limit: int = 100,
    cursor: str | None = None,
    status: str | None = None,
) -> UnitPage:
    """One row per unit of a layer; `sort` is a column, descending with a leading minus; ties by channel."""
    order, question = channel_order(atlas, layer, sort, status), f"{atlas.version} {layer} {sort} {status}"
    part, following = channel_page(order, question, limit, cursor)
    rows = [unit_row(layer, statistics) for statistics in atlas.unit_statistics(layer, part)]
    return UnitPage(layer=layer, stale_images=atlas.manifest.stale_count, rows=rows, next=following)


def channel_order(atlas: Atlas, layer: str, sort: str, status: str | None) -> list[int]:
    """The channels of such pages in their order."""
    column, descending = sort.removeprefix("-"), sort.startswith("-")
    if column not in SORTS:
        raise UsageError(f"units cannot be sorted by {column!r}; there are {listing(SORTS)}, also with a leading -")
    if status is not None and status not in STATUSES:
        raise UsageError(f"no unit has the status {status!r}; there are {listing(STATUSES)}")
    table = atlas.units(layer)
    values = _sort_values(table, column)
    statuses = table["status"].to_pylist()
    chosen = [channel for channel in range(len(values)) if status in (None, statuses[channel])]
    known = [channel for channel in chosen if values[channel] is not None]
    known.sort(key=lambda channel: values[channel], reverse=descending)
    return known + [channel for channel in chosen if values[channel] is None]


def channel_page(order: list[int], question: str, limit: int, cursor: str | None) -> tuple[list[int], str | None]:
    """A part of such an order, and the cursor to the next."""
    start = cursors.decode(cursor, question) or 0
    following = cursors.encode(start + limit, question) if start + limit < len(order) else None
    return order[start : start + limit], following


def _sort_values(units: pa.Table, column: str) -> list[Any]:
    if column == "median":
        middle = tables.KNOT_SHARES.index(0.5)
        return [knots[middle] if knots else None for knots in units["knots"].to_pylist()]
    if column == "positive_share":
        counts = zip(units["positive_count"].to_pylist(), units["image_count"].to_pylist(), strict=True)
        return [positive / max(1, count) for positive, count in counts]
    values: list[Any] = units["unit" if column == "channel" else column].to_pylist()
    return values


def unit_row(layer: str, statistics: UnitStatistics) -> UnitRow:
    """Return the statistics of a unit as answers show them."""
    return UnitRow(
        layer=layer,
        channel=statistics.channel,
        status=statistics.status,
        image_count=statistics.image_count,
        nonfinite_count=statistics.nonfinite_count,
        positive_share=statistics.positive_share,
        maximum=statistics.maximum,
        minimum=statistics.minimum,
        mean=statistics.mean,
        std=statistics.std,
        median=statistics.quantile(0.5),
        q90=statistics.quantile(0.9),
        q99=statistics.quantile(0.99),
        top_label=statistics.top_label,
    )


def status_note(statistics: UnitStatistics) -> str | None:
    """What a person should know about a unit that is not live."""
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
            return f"not a number or infinite on {statistics.nonfinite_count} images, which are left out"
    return None


def shown_box(spec: LayerSpec, row: PatchRow) -> Box:
    """The box to show: the theoretical one, or the effective one where the unit can see the whole input."""
    return row.effective_box if _effective_says_more(spec, Location(row.row, row.col)) else row.box


def peak_box(atlas: Atlas, unit: UnitId, image: ImageEntry) -> Box:
    """The box to show of a unit's peak on any image of the corpus."""
    atlas.unit(unit)
    location = atlas.locations(unit.layer, [unit.channel], image)[unit.channel]
    return box_to_show(atlas.layer(unit.layer).spec, atlas.placement(image), location)


def box_to_show(spec: LayerSpec, placement: Placement, location: Location) -> Box:
    """The same for any location of a picture."""
    return placement.to_image(input_box_to_show(spec, location))


def input_box_to_show(spec: LayerSpec, location: Location) -> Box:
    """The same in pixels of the network's input."""
    field = spec.receptive_field
    return field.effective_box_at(location) if _effective_says_more(spec, location) else field.box_at(location)


def _effective_says_more(spec: LayerSpec, location: Location) -> bool:
    return location.row >= 0 and spec.receptive_field.covers_input
