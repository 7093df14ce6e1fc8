"""The units of a layer in a table, the distribution of one, and the box to show of a peak."""

from typing import Any, get_args

import numpy as np
import pyarrow as pa

from unitscope_schemas import cursors, tables
from unitscope_schemas.answers.patches import Histogram, PatchRow, QuantileRow, UnitPage, UnitRow
from unitscope_schemas.errors import UsageError, listing
from unitscope_schemas.geometry import Box, Location, Placement, ReceptiveField
from unitscope_schemas.questions import HistogramQuestion, UnitsQuestion, UnitStatus
from unitscope_schemas.units import UnitId
from unitscope_services.atlas.atlas import Atlas
from unitscope_services.atlas.ranks.bounded import check_whole
from unitscope_services.atlas.rows import ImageEntry
from unitscope_services.atlas.statistics import UnitStatistics

SORTS = ("channel", "maximum", "mean", "std", "median", "positive_share", "status", "nonfinite_count")
STATUSES: tuple[UnitStatus, ...] = get_args(UnitStatus)
_QUANTILES = (0.0, 0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 0.999, 1.0)


def histogram(atlas: Atlas, unit: UnitId, question: HistogramQuestion) -> Histogram:
    """Return the distribution of a unit's peaks in equal bins; quantiles are exact."""
    statistics, bins = atlas.unit(unit), question.bins
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


def unit_page(atlas: Atlas, layer: str, question: UnitsQuestion) -> UnitPage:
    """Return one row per unit of a layer, of one status or all, in the order of a column; ties by channel."""
    order = channel_order(atlas, layer, question)
    part, following = channel_page(order, f"{atlas.version} {layer} {question.sort} {question.status}", question)
    rows = [unit_row(layer, statistics) for statistics in atlas.unit_statistics(layer, part)]
    return UnitPage(layer=layer, stale_images=atlas.manifest.stale_count, rows=rows, next=following)


def channel_order(atlas: Atlas, layer: str, question: UnitsQuestion) -> list[int]:
    """Return the channels that such a table has, in its order; those without a value stand last.

    Units that are dead or never above zero have no share above zero that says anything: they are not the most
    selective.
    """
    column, descending = question.sort.removeprefix("-"), question.sort.startswith("-")
    if column not in SORTS:
        raise UsageError(f"units cannot be sorted by {column!r}; there are {listing(SORTS)}, also with a leading -")
    table = atlas.units(layer)
    values = _sort_values(table, column)
    statuses = table["status"].to_pylist()
    chosen = [channel for channel in range(len(values)) if question.status in (None, statuses[channel])]
    known = [channel for channel in chosen if values[channel] is not None]
    known.sort(key=lambda channel: values[channel], reverse=descending)
    return known + [channel for channel in chosen if values[channel] is None]


def channel_page(order: list[int], subject: str, question: UnitsQuestion) -> tuple[list[int], str | None]:
    """Return a page of channels in an order, and the cursor to the next page."""
    return cursors.page(order, subject, question.k, question.cursor)


def _sort_values(units: pa.Table, column: str) -> list[Any]:
    if column == "median":
        middle = tables.KNOT_SHARES.index(0.5)
        return [knots[middle] if knots else None for knots in units["knots"].to_pylist()]
    if column == "positive_share":
        columns = (units[name].to_pylist() for name in ("positive_count", "image_count", "status"))
        return [
            positive / count if positive and status != "dead" else None
            for positive, count, status in zip(*columns, strict=True)
        ]
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


def shown_box(field: ReceptiveField, row: PatchRow) -> Box:
    """Return the box to show: the theoretical one, or the effective one where the unit can see the whole input."""
    return row.effective_box if _effective_says_more(field, Location(row.row, row.col)) else row.box


def peak_box(atlas: Atlas, unit: UnitId, image: ImageEntry) -> Box:
    """Return the box to show of a unit's peak on any image of the corpus."""
    atlas.unit(unit)
    location = atlas.locations(unit.layer, [unit.channel], image)[unit.channel]
    return box_to_show(atlas.field(unit), atlas.placement(image), location)


def box_to_show(field: ReceptiveField, placement: Placement, location: Location) -> Box:
    """Return the box to show of a unit with this field, at any location of a picture."""
    return placement.to_image(input_box_to_show(field, location))


def input_box_to_show(field: ReceptiveField, location: Location) -> Box:
    """Return the box to show of a unit with this field at a location, in pixels of the network's input."""
    return field.effective_box_at(location) if _effective_says_more(field, location) else field.box_at(location)


def _effective_says_more(field: ReceptiveField, location: Location) -> bool:
    return location.row >= 0 and field.covers_input
