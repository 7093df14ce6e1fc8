"""Default layers that can be recorded: what cannot be is left out of a default, and said."""

from collections.abc import Sequence

from unitscope_pipelines.vision.models.models import VisionModel
from unitscope_pipelines.vision.receptive_fields.receptive_fields import measure_layers
from unitscope_schemas.errors import ModelError, listing
from unitscope_schemas.units import LayerSpec


def measure_default(
    model: VisionModel, names: Sequence[str], picture_count: int | None = None
) -> tuple[list[LayerSpec], tuple[str, ...]]:
    """Return the layers of a default that can be recorded, measured, and a note on each kind of reason to leave others.

    Raises the first layer's ModelError if none can be.
    """
    options = {} if picture_count is None else {"picture_count": picture_count}
    try:
        return measure_layers(model.module, names, model.input_shape, **options), ()
    except ModelError as error:
        first = error
    reasons = {name: _why_not(model, name) for name in names}
    left = [name for name in names if reasons[name] is None]
    if not left:
        raise first
    out = [name for name in names if name not in left]
    note = f"{len(out)} of {len(names)} default layers cannot be recorded and are left out: {listing(out)}"
    return measure_layers(model.module, left, model.input_shape, **options), (f"{note} ({reasons[out[0]]})",)


def _why_not(model: VisionModel, name: str) -> str | None:
    """Return why a layer cannot be recorded, None if it can be."""
    try:
        measure_layers(model.module, [name], model.input_shape, picture_count=0)
    except ModelError as error:
        return str(error)
    return None
