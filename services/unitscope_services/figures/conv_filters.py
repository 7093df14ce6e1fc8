"""Filters: a layer's weights as pictures, each with its unit."""

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from unitscope_schemas.answers.visuals import FilterPage, FilterRow
from unitscope_schemas.errors import NotFoundError, UsageError
from unitscope_schemas.units import UnitId
from unitscope_services.atlas.deadlines import check_time
from unitscope_services.figures.drawing import INK, QUIET, Drawing, Tile, Words, shortened
from unitscope_services.queries.session import Session

if TYPE_CHECKING:
    from unitscope_pipelines.vision.attribution.conv_filters import ConvFilters

_MARGIN, _SIDE, _STEP, _LINE, _HEAD, _COLUMNS = 40, 64, 74, 84, 62, 12
"""Lengths in points, and filters side by side."""


def filters_of(session: Session, layer: str) -> "ConvFilters":
    """Return a layer's weights; `first` is the first layer with weights. Raises UsageError for one without filters."""
    return session.first_filters if layer == "first" else session.encoder.filters(layer)


def filter_page(session: Session, layer: str) -> FilterPage:
    """Return one row for each unit of a layer of the model; `first` is the first layer with weights."""
    layer_filters = filters_of(session, layer)
    largest = layer_filters.largest
    rows = [_filter_row(layer_filters, channel, largest) for channel in range(len(layer_filters.weights))]
    return FilterPage(layer=layer_filters.layer, rows=rows)


def _filter_row(layer_filters: "ConvFilters", channel: int, largest: float) -> FilterRow:
    """Return what is known of a unit's weights, in a layer of which this is the largest; those not finite are left
    out."""
    from unitscope_pipelines.vision.images.diverging import FAINT_SHARE

    weights = layer_filters.weights[channel]
    finite = weights[np.isfinite(weights)]
    own = float(np.abs(finite).max(initial=0))
    share = own / largest if largest else 0.0
    notes = [f"{weights.size - finite.size} weights are not finite"] if finite.size < weights.size else []
    if share < FAINT_SHARE:
        notes.append("no weights" if not own else f"hardly any weights: {share:.2g} of the layer's largest")
    return FilterRow(
        channel=channel,
        unit=str(UnitId(layer_filters.layer, channel)),
        minimum=float(finite.min(initial=0) if not finite.size else finite.min()),
        maximum=float(finite.max(initial=0) if not finite.size else finite.max()),
        scale=max(own, FAINT_SHARE * largest),
        share=share,
        note="; ".join(notes),
        input_channels=weights.shape[0],
        height=weights.shape[1],
        width=weights.shape[2],
    )


def filter_of(session: Session, layer: str, channel: int) -> Image.Image:
    """Return the picture of one filter in its own pixels; raises NotFoundError that names the valid range."""
    return picture_of_filter(filters_of(session, layer), channel)


def filter_sheet(session: Session, layer: str) -> Drawing:
    """Draw all filters of a layer in one drawing, under their channels."""
    layer_filters, page = filters_of(session, layer), filter_page(session, layer)
    columns = min(_COLUMNS, len(page.rows))
    first = page.rows[0]
    shape = f"{first.height} x {first.width} weights of {first.input_channels} input channels"
    about = f"{shape} · grey is zero, each in its own scale; those below 1 % of the layer's largest weight are dim"
    tiles, words = (
        [],
        [
            Words(f"{session.atlas.summary().model}  {layer_filters.layer}", _MARGIN, _MARGIN + 16, 18, INK),
            Words(about, _MARGIN, _MARGIN + 36, 11, QUIET),
        ],
    )
    for row in page.rows:
        check_time()
        line, column = divmod(row.channel, columns)
        left, top = _MARGIN + column * _STEP, _MARGIN + _HEAD + line * _LINE
        what = f"{row.unit}: weights from {row.minimum:.3g} to {row.maximum:.3g}" + (row.note and f"; {row.note}")
        tiles.append(Tile(tile_of_filter(layer_filters, row.channel), left, top, _SIDE, what, crisp=True))
        told = row.note.partition(":")[0]
        words.append(Words(shortened(f"{row.channel} {told}".strip(), 9, _STEP), left, top + _SIDE + 11, 9, QUIET))
    lines = -(-len(page.rows) // columns)
    width = max(columns * _STEP, 420)
    return Drawing(
        f"Filters of {layer_filters.layer}",
        width + 2 * _MARGIN,
        _HEAD + lines * _LINE + 2 * _MARGIN,
        tuple(tiles),
        tuple(words),
    )


def picture_of_filter(filters: "ConvFilters", channel: int) -> Image.Image:
    """Return one of some filters in its own pixels; raises NotFoundError that names the valid range, and UsageError for
    weights that are not finite."""
    if not 0 <= channel < len(filters.weights):
        raise NotFoundError(f"layer {filters.layer} has filters 0 to {len(filters.weights) - 1}, not {channel}")
    broken = int((~np.isfinite(filters.weights[channel])).sum())
    if broken:
        raise UsageError(f"{broken} weights of unit {UnitId(filters.layer, channel)} are not finite: it has no picture")
    return filters.picture(channel).picture


def tile_of_filter(filters: "ConvFilters", channel: int) -> Image.Image:
    """Return one of some filters in its own pixels; a white one where weights are not finite."""
    if np.isfinite(filters.weights[channel]).all():
        return picture_of_filter(filters, channel)
    return Image.new("L", filters.weights.shape[:1:-1], 255)
