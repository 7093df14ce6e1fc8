"""Measurement of what a unit, or a vector over units, truly answers to pictures."""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from unitscope_pipelines.vision.images.preprocessing import normalise
from unitscope_pipelines.vision.models.models import VisionModel
from unitscope_pipelines.vision.optimisation.memory import short_memory
from unitscope_pipelines.vision.recording.device import device_of, one_thread
from unitscope_pipelines.vision.recording.embedding import as_map
from unitscope_pipelines.vision.recording.peaks import arranged, peaks
from unitscope_pipelines.vision.recording.recording import output_of, record
from unitscope_schemas.geometry import Location
from unitscope_schemas.units import LayerSpec

EightBit = UInt8[Tensor, "image channel row col"]
"""Pictures of 8 bits in the size of the network's input."""
Direction = int | Float[Tensor, " unit"]
"""What is measured in a layer's output: a channel, or the product with a vector over its units."""


def measure(
    model: VisionModel, layer: LayerSpec, direction: Direction, pictures: EightBit, lowest: bool = False
) -> tuple[tuple[float, ...], tuple[Location, ...]]:
    """Return the peak (or lowest value) of a unit, or of a vector over units, on each picture, and its location.

    Each picture goes through the plain forward, one at a time.
    """
    activations, locations, sign = [], [], -1.0 if lowest else 1.0

    def keep(_layer: str, output: Tensor) -> Tensor:
        return sign * _single_unit(output.float(), layer, direction)

    with (
        short_memory(1, model),
        one_thread(),
        torch.inference_mode(),
        record(model.module, [layer.name], keep) as outputs,
    ):
        for picture in pictures:
            model.module(normalise(picture[None].to(device_of(model.module)), model.preprocessing))
            peak = peaks(outputs[layer.name], layer.name)
            activations.append(sign * float(peak.activation))
            locations.append(layer.location(int(peak.location)))
    return tuple(activations), tuple(locations)


def moved_shares(
    model: VisionModel, layer: LayerSpec, direction: Direction, pictures: EightBit, lowest: bool = False
) -> tuple[tuple[float, float], ...]:
    """Return for each picture how far it moves what is measured from where plain grey has it, and as which share.

    The share is of the root mean square of what the picture moves all units of the layer by, 0 where it moves none.
    """
    extreme = torch.Tensor.amin if lowest else torch.Tensor.amax
    mean = torch.tensor(model.preprocessing.mean).clamp(0, 255).round().to(torch.uint8)
    grey = mean[:, None, None].expand(pictures.shape[1:])
    levels, units = [], []
    with short_memory(1, model), one_thread(), torch.inference_mode():
        for picture in (grey, *pictures):
            images = normalise(picture[None].to(device_of(model.module)), model.preprocessing)
            output = as_map(output_of(model.module, layer.name, images).float(), layer)
            values = output[:, direction] if isinstance(direction, int) else _along(output, direction)
            levels.append(extreme(values.flatten()))
            units.append(extreme(output[0].flatten(1), 1))
    shares = []
    for level, every in zip(levels[1:], units[1:], strict=True):
        moved, usual = float((level - levels[0]).abs()), float((every - units[0]).square().mean().sqrt())
        shares.append((moved, moved / usual if usual else 0.0))
    return tuple(shares)


def _along(
    output: Float[Tensor, "image unit row col"], vector: Float[Tensor, " unit"]
) -> Float[Tensor, "image row col"]:
    """Return a map along a vector over its units, of unit length, so that it compares with single units."""
    along: Tensor = torch.einsum("nurc,u->nrc", output, torch.nn.functional.normalize(vector, dim=0).to(output))
    return along


def _single_unit(
    output: Float[Tensor, "image ..."], layer: LayerSpec, direction: Direction
) -> Float[Tensor, "image ..."]:
    """Return a layer's output, arranged, with one unit instead of all: a channel, or the product with a vector."""
    values = arranged(output, layer)
    units = values.movedim(1, -1) if layer.kind == "map" else values
    values = units[..., direction] if isinstance(direction, int) else units @ direction.to(units)
    return values.unsqueeze(1 if layer.kind == "map" else -1)
