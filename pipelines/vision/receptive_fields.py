"""Receptive fields: for every layer the input pixels that can change its units, and those that mostly do."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from pipelines.vision.axes import is_channels_last, token_grid
from pipelines.vision.embedding import as_map
from pipelines.vision.intervals import Intervals
from pipelines.vision.reaches import CLIPPED, Reach, hull
from pipelines.vision.recording import record
from schemas.errors import ModelError
from schemas.geometry import Location, ReceptiveField, Size, Span
from schemas.units import LayerSpec

ENERGY_SHARE = 0.9
"""Of a gradient's energy, the part that the effective field holds (Luo et al. 2016)."""

PICTURE_COUNT = 12
_PICTURES_AT_ONCE = 4

MARGIN = 1.25
"""Enlarges the largest sample, which holds the share for some 95 % of units; enlarged it held it for each of 4,352
pairs of unit and photograph over the blocks of EfficientNet-Lite0, and each of 965 of a random ResNet-18."""

COVERAGE = 9
"""How many discs lie over a pixel of a synthetic picture, on average."""

Shape = tuple[int, int, int]


def measure_layers(
    model: nn.Module,
    names: Sequence[str],
    input_shape: Shape,
    seed: int = 0,
    picture_count: int = PICTURE_COUNT,
) -> list[LayerSpec]:
    """Grid, units and receptive field of each named layer, for inputs of (channel, row, col).

    A layer is a module path, with `@1` for the second call of a module. A module whose output has 4 axes is a
    map, 3 tokens, 2 a vector. With `picture_count` 0 the effective field is left as large as the theoretical one.
    The model's mode and gradients are left as they were. Raises ModelError for a layer that is not there, is not
    called, or does not depend on the input.
    """
    with _settled(model):
        layers = _theoretical(model, names, input_shape)
        effective = effective_sizes(model, layers, input_shape, seed, picture_count)
    return [_with_effective(layer, effective[layer.name]) for layer in layers]


def _with_effective(layer: LayerSpec, size: Size) -> LayerSpec:
    field = layer.receptive_field.model_copy(update={"effective": size})
    return layer.model_copy(update={"receptive_field": field})


@contextmanager
def _settled(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients of the weights; both restored."""
    modes = [(module, module.training) for module in model.modules()]
    gradients = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        model.eval().requires_grad_(False)
        yield
    finally:
        for module, training in modes:
            module.training = training
        for parameter, requires_grad in gradients:
            parameter.requires_grad_(requires_grad)


def _like_input(model: nn.Module, pictures: Tensor) -> Tensor:
    """The pictures on the model's device and in its precision."""
    parameter = next((one for one in model.parameters() if one.is_floating_point()), pictures)
    return pictures.to(parameter.device, parameter.dtype)


# --- the theoretical field ---------------------------------------------------------------------------------------


def _theoretical(model: nn.Module, names: Sequence[str], input_shape: Shape) -> list[LayerSpec]:
    image = _like_input(model, torch.zeros(1, *input_shape))
    intervals = Intervals(image)

    def keep(_name: str, output: Tensor) -> tuple[Reach | None, list[tuple[int, int]]]:
        return intervals.reach_of(output), list(intervals.grids)

    with torch.no_grad(), record(model, names, keep) as recorded, intervals:
        model(image)
    layers = []
    for name in names:
        if name not in recorded:
            raise ModelError(f"layer {name!r} was not called in a forward; choose another layer or call")
        reach, grids = recorded[name]
        if reach is None or bool(reach[CLIPPED].isneginf().all()):
            raise ModelError(f"layer {name!r} does not depend on the input; choose another layer")
        if reach.dim() < 3 or reach.shape[1] != 1:
            raise ModelError(
                f"layer {name!r} puts out shape {tuple(reach.shape[1:])} for one image, so its first axis is not the "
                "image (windows, or all tokens in one list); record the block around it"
            )
        layers.append(_layer(name, reach, grids, Size(*input_shape[1:])))
    return layers


def _layer(name: str, reach: Reach, conv_grids: Sequence[tuple[int, int]], size: Size) -> LayerSpec:
    """A layer with its theoretical field, from the reach of its output for one image."""
    shape = tuple(reach.shape[2:])
    if len(shape) == 3:
        last = is_channels_last(reach, conv_grids)
        reach = reach.movedim(4, 2) if last else reach
        field = _field(hull(reach, [1])[:, 0, 0], size)
        rows_cols = Size(*reach.shape[3:])
        return LayerSpec(
            name=name, kind="map", units=reach.shape[2], grid=rows_cols, channels_last=last, receptive_field=field
        )
    if len(shape) == 2:
        grid = token_grid(shape[0], conv_grids)
        prefix = shape[0] - grid.height * grid.width
        field = _field(hull(reach, [2])[:, 0, prefix:, 0].reshape(-1, *grid), size)
        return LayerSpec(
            name=name, kind="tokens", units=shape[1], grid=grid, prefix_tokens=prefix, receptive_field=field
        )
    if len(shape) == 1:
        field = _whole_field(size, ((0, size.height),), ((0, size.width),))
        return LayerSpec(name=name, kind="vector", units=shape[0], grid=Size(1, 1), receptive_field=field)
    raise ModelError(f"layer {name!r} puts out {len(shape) + 1} axes; maps have 4, tokens 3, vectors 2")


def _field(bounds: Float[Tensor, "plane row col"], size: Size) -> ReceptiveField:
    """Boxes from the hull of each row and of each column; `whole` where no location has its own box."""
    by_row, by_col = bounds.amax(2), bounds.amax(1)
    rows, cols = _spans(by_row[0:2], size.height), _spans(by_col[2:4], size.width)
    vertical, horizontal = _steps(by_row[4:6], by_row[8]), _steps(by_col[6:8], by_col[9])
    one_place = len(rows) == len(cols) == 1 and (rows[0], cols[0]) == ((0, size.height), (0, size.width))
    if one_place or (not (vertical and horizontal) and len(set(rows)) == len(set(cols)) == 1):
        return _whole_field(size, rows, cols)
    start, extent, stride = zip(vertical, horizontal, strict=True) if vertical and horizontal else (None,) * 3
    return ReceptiveField(
        input=size,
        kind="local",
        start=start and Location(*start),
        size=extent and Size(*extent),
        stride=stride and Size(*stride),
        rows=rows,
        cols=cols,
        effective=Size(*extent) if extent else size,
    )


def _whole_field(size: Size, rows: tuple[Span, ...], cols: tuple[Span, ...]) -> ReceptiveField:
    return ReceptiveField(
        input=size, kind="whole", size=None, stride=None, start=None, rows=rows, cols=cols, effective=size
    )


def _spans(bounds: Float[Tensor, "bound place"], length: int) -> tuple[Span, ...]:
    """The pixels of each place; a place that sees only padding gets the nearest pixel."""
    firsts = bounds[0].neg().nan_to_num(posinf=0).clamp(0, length - 1).long()
    ends = torch.maximum(bounds[1].nan_to_num(neginf=0).long(), firsts + 1)
    return tuple(zip(firsts.tolist(), ends.tolist(), strict=True))


def _steps(bounds: Float[Tensor, "bound place"], jumps: Float[Tensor, " place"]) -> tuple[int, int, int] | None:
    """Start, size and stride if every place has the same size and one stride further than the last."""
    starts, size, jump = -bounds[0], (bounds[0] + bounds[1])[0], jumps[0]
    even = starts[0] + jump * torch.arange(len(starts))
    if not (bounds.isfinite().all() and jump >= 1 and jump.frac() == 0):
        return None
    if not (torch.equal(starts, even) and torch.equal(bounds[1], even + size)):
        return None
    return int(starts[0]), int(size), int(jump)


# --- the effective field -----------------------------------------------------------------------------------------


def effective_sizes(
    model: nn.Module,
    layers: Sequence[LayerSpec],
    input_shape: Shape,
    seed: int = 0,
    picture_count: int = PICTURE_COUNT,
) -> dict[str, Size]:
    """For each layer the height and width of the box around a peak that holds 90 % of the gradient's energy.

    Measured at the peaks of random units on synthetic pictures, so that no corpus has a say in it: the largest of
    the samples, enlarged by a margin. A layer whose gradients are all zero keeps its theoretical size.
    """
    pictures = dead_leaves(picture_count, input_shape, np.random.default_rng(seed))
    heights: dict[str, list[int]] = {layer.name: [] for layer in layers}
    drawn = {layer.name: _drawn_units(layer, seed, picture_count) for layer in layers}
    for first in range(0, picture_count, _PICTURES_AT_ONCE):
        batch = slice(first, first + _PICTURES_AT_ONCE)
        units = {name: of_layer[batch] for name, of_layer in drawn.items()}
        for layer, peaks, energy in _gradients(model, layers, pictures[batch], units):
            heights[layer.name] += _heights(layer.receptive_field, peaks, energy)
    return {layer.name: _enlarged(layer.receptive_field, heights[layer.name]) for layer in layers}


def _drawn_units(layer: LayerSpec, seed: int, count: int) -> Int64[Tensor, " image"]:
    """One unit for each picture; the name seeds it, so that other layers of the run change nothing."""
    generator = np.random.default_rng([seed, *layer.name.encode()])
    return torch.from_numpy(generator.integers(layer.units, size=count))


def dead_leaves(
    count: int, input_shape: Shape, generator: np.random.Generator
) -> Float[Tensor, "image channel row col"]:
    """Pictures of discs that hide each other, with the edges and the spectrum of photographs.

    Radii follow a power law (Lee, Mumford and Huang 2001); colours are mostly grey; mean 0, deviation 0.6 to 1.
    """
    channels, rows, cols = input_shape
    row, col = np.arange(rows)[:, None], np.arange(cols)
    largest = max(rows, cols) / 2
    smallest = min(3.0, largest)
    disc_count = math.ceil(COVERAGE * rows * cols / (math.pi * smallest * largest))
    pictures = np.zeros((count, channels, rows, cols), np.float32)
    for picture in pictures:
        radii = 1 / generator.uniform(1 / largest, 1 / smallest, disc_count)
        centres = generator.uniform(size=(disc_count, 2)) * (rows, cols)
        colours = 0.9 * generator.standard_normal((disc_count, 1))
        colours = colours + 0.45 * generator.standard_normal((disc_count, channels))
        for radius, (y, x), colour in zip(radii, centres, colours, strict=True):
            near = np.s_[max(0, int(y - radius)) : int(y + radius) + 2, max(0, int(x - radius)) : int(x + radius) + 2]
            disc = (row[near[0]] - y) ** 2 + (col[near[1]] - x) ** 2 < radius**2
            picture[:, *near][:, disc] = colour[:, None]
        picture -= picture.mean()
        picture *= generator.uniform(0.6, 1.0) / max(float(picture.std()), 1e-6)
    return torch.from_numpy(pictures)


def _gradients(
    model: nn.Module,
    layers: Sequence[LayerSpec],
    pictures: Float[Tensor, "image channel row col"],
    units: Mapping[str, Int64[Tensor, " image"]],
) -> Iterator[tuple[LayerSpec, list[Location], Float[Tensor, "image row col"]]]:
    """Of each map or tokens layer one unit's peak in each picture, and its squared gradient at every pixel."""
    leaf = _like_input(model, pictures).contiguous(memory_format=torch.channels_last).requires_grad_()
    # clones, because an in-place module behind a layer would change what is differentiated
    with (
        torch.enable_grad(),
        record(model, [layer.name for layer in layers], lambda _, output: output.clone()) as outputs,
    ):
        model(leaf.clone())
    for layer in layers:
        output = outputs.pop(layer.name)
        if layer.kind == "vector" or not output.requires_grad:
            continue
        image = torch.arange(len(pictures), device=output.device)
        maps = as_map(output, layer)[image, units[layer.name].to(output.device)].flatten(1)
        activation, place = maps.max(1)
        (gradient,) = torch.autograd.grad(activation.sum(), leaf, retain_graph=True, materialize_grads=True)
        peaks = [layer.location(layer.prefix_tokens + index) for index in place.tolist()]
        yield layer, peaks, gradient.float().square().sum(1).cpu()


def _heights(field: ReceptiveField, peaks: Sequence[Location], energy: Float[Tensor, "image row col"]) -> list[int]:
    """For each sample the least height of an effective box that holds the share of its energy; zeros left out."""
    aspect = field.size or field.input
    heights = []
    for peak, pixels in zip(peaks, energy, strict=True):
        if not 0 < float(pixels.sum()) < math.inf:
            continue
        row, col = field.centre_at(peak)
        tall, wide = _least_sides(row, field.input.height), _least_sides(col, field.input.width)
        needed = torch.maximum(tall[:, None], -(-wide * aspect.height // aspect.width))
        held = torch.bincount(needed.flatten(), pixels.flatten().double()).cumsum(0)
        heights.append(int((held < ENERGY_SHARE * held[-1]).sum()))
    return heights


def _least_sides(centre: int, length: int) -> Int64[Tensor, " pixel"]:
    """For each pixel the least side of an effective box, moved into the input, that holds it."""
    pixel, side = torch.arange(length)[:, None], torch.arange(1, length + 1)
    start = torch.minimum((centre - side // 2).clamp(min=0), length - side)
    return 1 + ((pixel < start) | (pixel >= start + side)).sum(1)


def _enlarged(field: ReceptiveField, heights: Sequence[int]) -> Size:
    """The effective size in the proportions of the field; at most the field and the input."""
    aspect = field.size or field.input
    if not heights:
        height, width = aspect
    else:
        height = math.ceil(MARGIN * max(heights))
        width = math.ceil(height * aspect.width / aspect.height)
    return Size(min(height, aspect.height, field.input.height), min(width, aspect.width, field.input.width))
