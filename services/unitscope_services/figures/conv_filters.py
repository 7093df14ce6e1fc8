"""Filters: a layer's weights as pictures, each with its unit."""

from typing import TYPE_CHECKING

from PIL import Image

from unitscope_schemas.answers.visuals import FilterPage, FilterRow
from unitscope_schemas.errors import NotFoundError
from unitscope_schemas.units import UnitId
from unitscope_services.figures.drawing import INK, QUIET, Drawing, Tile, Words
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
    from unitscope_pipelines.vision.attribution.conv_filters import filter_picture

    layer_filters = filters_of(session, layer)
    rows = []
    for channel, weights in enumerate(layer_filters.weights):
        rows.append(
            FilterRow(
                channel=channel,
                unit=str(UnitId(layer_filters.layer, channel)),
                minimum=float(weights.min()),
                maximum=float(weights.max()),
                scale=filter_picture(weights).scale,
                input_channels=weights.shape[0],
                height=weights.shape[1],
                width=weights.shape[2],
            )
        )
    return FilterPage(layer=layer_filters.layer, rows=rows)


def filter_of(session: Session, layer: str, channel: int) -> Image.Image:
    """Return the picture of one filter in its own pixels; raises NotFoundError that names the valid range."""
    return picture_of_filter(filters_of(session, layer), channel)


def filter_sheet(session: Session, layer: str) -> Drawing:
    """Draw all filters of a layer in one drawing, under their channels."""
    layer_filters, page = filters_of(session, layer), filter_page(session, layer)
    columns = min(_COLUMNS, len(page.rows))
    first = page.rows[0]
    shape = f"{first.height} x {first.width} weights of {first.input_channels} input channels"
    about = f"{shape} · grey is zero, each in its own scale"
    tiles, words = (
        [],
        [
            Words(f"{session.atlas.summary().model}  {layer_filters.layer}", _MARGIN, _MARGIN + 16, 18, INK),
            Words(about, _MARGIN, _MARGIN + 36, 11, QUIET),
        ],
    )
    for row in page.rows:
        line, column = divmod(row.channel, columns)
        left, top = _MARGIN + column * _STEP, _MARGIN + _HEAD + line * _LINE
        what = f"{row.unit}: weights from {row.minimum:.3g} to {row.maximum:.3g}"
        tiles.append(Tile(picture_of_filter(layer_filters, row.channel), left, top, _SIDE, what, crisp=True))
        words.append(Words(f"{row.channel}", left, top + _SIDE + 11, 9, QUIET))
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
    """Return one of some filters in its own pixels; raises NotFoundError that names the valid range."""
    from unitscope_pipelines.vision.attribution.conv_filters import filter_picture

    if not 0 <= channel < len(filters.weights):
        raise NotFoundError(f"layer {filters.layer} has filters 0 to {len(filters.weights) - 1}, not {channel}")
    return filter_picture(filters.weights[channel]).picture
