"""Theoretical fields: what each layer puts out, and the input pixels that can change it."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from unitscope_pipelines.vision.receptive_fields.axes import (
    Grid,
    channel_axis,
    rows_and_cols,
    sure_rows_and_cols,
)
from unitscope_pipelines.vision.receptive_fields.dead_leaves import Shape
from unitscope_pipelines.vision.receptive_fields.dependency import CLIPPED, Dependency, hull
from unitscope_pipelines.vision.receptive_fields.intervals import Intervals
from unitscope_pipelines.vision.receptive_fields.origin import Origin, Origins
from unitscope_pipelines.vision.receptive_fields.picture_axis import PictureAxis, picture_axes
from unitscope_pipelines.vision.receptive_fields.places import map_order, token_places
from unitscope_pipelines.vision.recording.recording import record, split_call
from unitscope_schemas.errors import ModelError
from unitscope_schemas.geometry import Location, ReceptiveField, Size, Span
from unitscope_schemas.units import LayerSpec, Layout

_MOST_ADVISED = 2
"""Largest number of layers that an error advises to record instead."""


class Output(NamedTuple):
    """A layer's output for one image, with shapes but without values; the image's axis is first."""

    dependency: Dependency
    """Input pixels that each element depends on."""
    origin: Origin
    """Place in the picture where each element lies."""
    pictures: PictureAxis
    """Axis of the images in the output as it is."""
    conv_grids: Sequence[Grid]
    """Grids of the convolutions before the layer, in the order of the forward."""


def theoretical_layers(model: nn.Module, names: Sequence[str], input_shape: Shape) -> list[LayerSpec]:
    """Return the named layers with their theoretical fields; raise ModelError for one that cannot be recorded."""
    layers = []
    for name, layer in _measured(model, names, input_shape).items():
        if isinstance(layer, str):
            raise ModelError(f"layer {name!r} puts out {layer}; {_advice(model, name, input_shape)}")
        layers.append(layer)
    return layers


def like_input(
    model: nn.Module, pictures: Float[Tensor, "image channel row col"]
) -> Float[Tensor, "image channel row col"]:
    """Return the pictures on the model's device and in its precision."""
    parameter = next((weights for weights in model.parameters() if weights.is_floating_point()), pictures)
    return pictures.to(parameter.device, parameter.dtype)


def _advice(model: nn.Module, name: str, input_shape: Shape) -> str:
    """Return in words the nearest layers around one that can be recorded in its place."""
    around: list[str] = []
    path = split_call(name, dict(model.named_modules())).path
    while len(around) < _MOST_ADVISED and (path := path.rpartition(".")[0]):
        try:
            layer = _measured(model, [path], input_shape)[path]
        except ModelError:
            continue
        if isinstance(layer, LayerSpec):
            around.append(path)
    return f"record {' or '.join(around)} around it" if around else "choose another layer"


def _measured(model: nn.Module, names: Sequence[str], input_shape: Shape) -> dict[str, LayerSpec | str]:
    """Return each named layer, or in words what it puts out if that cannot be recorded.

    Raises ModelError for a layer that is not called or does not depend on the input.
    """
    image = like_input(model, torch.zeros(1, *input_shape))
    watched = _watched(model, names, image, Intervals(image))
    for name in names:
        if name not in watched:
            raise ModelError(f"layer {name!r} was not called in a forward; choose another layer or call")
        dependency, _ = watched[name]
        if dependency is None or bool(dependency[CLIPPED].isneginf().all()):
            raise ModelError(f"layer {name!r} does not depend on the input; choose another layer")
    shapes = {name: known.shape[1:] for name, (known, _) in watched.items() if known is not None}
    axes = picture_axes(model, shapes, _two_pictures(model, input_shape))
    dependencies = {
        name: axis.first(known)
        for name, (known, _) in watched.items()
        if known is not None and isinstance(axis := axes[name], PictureAxis)
    }
    unclear = [name for name, dependency in dependencies.items() if _is_unclear(dependency)]
    origins = _watched(model, unclear, image, Origins(image)) if unclear else {}
    layers: dict[str, LayerSpec | str] = {}
    for name in names:
        axis = axes[name]
        if isinstance(axis, str):
            layers[name] = axis
            continue
        origin = origins[name][0] if name in origins else None
        placed = dependencies[name] if origin is None else axis.first(origin)
        output = Output(dependencies[name], placed, axis, watched[name][1])
        layers[name] = _layer(name, output, Size(*input_shape[1:]))
    return layers


def _two_pictures(model: nn.Module, input_shape: Shape) -> Float[Tensor, "2 channel row col"]:
    """Return two pictures on which the axis of the images is looked for."""
    noise = np.random.default_rng(0).standard_normal((2, *input_shape), np.float32)
    return like_input(model, torch.from_numpy(noise))


def _watched(
    model: nn.Module, names: Sequence[str], image: Float[Tensor, "1 channel row col"], watch: Intervals
) -> dict[str, tuple[Dependency | None, list[Grid]]]:
    """Run one forward; return each layer's dependency, or origin, and the grids of the convolutions before it."""

    def keep(_name: str, output: Tensor) -> tuple[Dependency | None, list[Grid]]:
        return watch.dependency_of(output), list(watch.grids)

    with torch.no_grad(), record(model, names, keep) as recorded, watch:
        model(image)
    return dict(recorded)


def _is_unclear(dependency: Dependency) -> bool:
    """Return whether the dependency does not tell which axes are rows, columns and tokens, and their order."""
    if dependency.dim() == 3:
        return False
    axes = sure_rows_and_cols(dependency) if dependency.dim() == 5 else None
    return axes is None or bool(map_order(_bounds(dependency, 1 if axes == (2, 3) else 3)))


def _layer(name: str, output: Output, size: Size) -> LayerSpec | str:
    """Return a layer with its theoretical field, or in words what it puts out instead of a map, tokens or a vector."""
    shape = tuple(output.dependency.shape[2:])
    if len(shape) == 1:
        field = _whole_field(size, ((0, size.height),), ((0, size.width),))
        layout = None if output.pictures == PictureAxis() else _layout(output.pictures, 1, ())
        return LayerSpec(
            name=name, kind="vector", units=shape[0], grid=Size(1, 1), layout=layout, receptive_field=field
        )
    if len(shape) == 3 and (axes := _rows_and_cols(output)):
        return _map_layer(name, output, size, 1 if axes == (2, 3) else 3)
    axis = channel_axis(output.origin) if shape else None
    if axis is not None:
        return _token_layer(name, output, size, axis)
    return (
        f"shape {shape} for one image, whose axes are neither those of a map (channel, row, col or row, col, channel) "
        "nor of tokens (token, channel) nor of a vector"
    )


def _rows_and_cols(output: Output) -> Grid | None:
    """Return the axes of rows and columns; windows of an image have none but those that are sure."""
    return sure_rows_and_cols(output.dependency) or rows_and_cols(
        output.origin, output.conv_grids if output.pictures.windows == 1 else ()
    )


def _map_layer(name: str, output: Output, size: Size, channels: int) -> LayerSpec:
    """Return the layer of a map, by the hull of the dependencies of all its channels."""
    bounds = _bounds(output.dependency, channels)
    order = map_order(_bounds(output.origin, channels))
    plain = output.pictures == PictureAxis() and not order
    grid = Size(*bounds.shape[1:])
    return LayerSpec(
        name=name,
        kind="map",
        units=output.dependency.shape[channels + 1],
        grid=grid,
        channels_last=plain and channels == 3,
        layout=None if plain else _layout(output.pictures, channels, order),
        receptive_field=_field(_ordered(bounds, order, grid), size),
    )


def _token_layer(name: str, output: Output, size: Size, channels: int) -> LayerSpec:
    """Return the layer of tokens; those that fill no grid have no place, and see the whole input."""
    bounds = _bounds(output.dependency, channels).flatten(1)
    places = token_places(_bounds(output.origin, channels).flatten(1))
    grid, prefix, order = places or (Size(0, 0), bounds.shape[1], ())
    if places is None:
        field = _whole_field(size, (), ())
    else:
        field = _field(_ordered(bounds, order, Size(1, bounds.shape[1]))[:, 0, prefix:].reshape(-1, *grid), size)
    plain = output.pictures == PictureAxis() and not order and (channels, output.dependency.dim()) == (2, 4)
    return LayerSpec(
        name=name,
        kind="tokens",
        units=output.dependency.shape[channels + 1],
        grid=grid,
        prefix_tokens=prefix,
        layout=None if plain else _layout(output.pictures, channels, order),
        receptive_field=field,
    )


def _bounds(dependency: Dependency, channels: int) -> Float[Tensor, "plane ..."]:
    """Return the bounds of each location of one image: the hull over the axis of the channels."""
    return hull(dependency, [channels]).squeeze(channels + 1)[:, 0]


def _ordered(bounds: Float[Tensor, "plane ..."], order: tuple[int, ...], grid: Size) -> Float[Tensor, "plane row col"]:
    """Return the bounds of locations in their order on the grid."""
    flat = bounds.flatten(1)
    return (flat[:, list(order)] if order else flat).reshape(-1, *grid)


def _layout(pictures: PictureAxis, channels: int, order: tuple[int, ...]) -> Layout:
    """Return the layout of an output by its axes and its order."""
    return Layout(
        image_axis=pictures.axis,
        windows=pictures.windows,
        images_inside=pictures.inside,
        channel_axis=channels,
        order=order,
    )


def _field(bounds: Float[Tensor, "plane row col"], size: Size) -> ReceptiveField:
    """Return the boxes by the hull of each row and of each column; `whole` where no location has its own box."""
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
    """Return the field of a layer whose units depend on the whole input."""
    return ReceptiveField(
        input=size, kind="whole", size=None, stride=None, start=None, rows=rows, cols=cols, effective=size
    )


def _spans(bounds: Float[Tensor, "bound position"], length: int) -> tuple[Span, ...]:
    """Return the pixels of each position; one that sees none, in padding for example, gets the nearest one."""
    spans: list[Span | None] = [
        (int(first), int(end)) if first < end else None
        for first, end in zip((-bounds[0]).clamp(0, length).tolist(), bounds[1].clamp(0, length).tolist(), strict=True)
    ]
    nearest = next((span[0] for span in spans if span), 0)
    filled: list[Span] = []
    for span in spans:
        filled.append(span or (nearest, nearest + 1))
        nearest = filled[-1][1] - 1
    return tuple(filled)


def _steps(bounds: Float[Tensor, "bound position"], jumps: Float[Tensor, " position"]) -> tuple[int, int, int] | None:
    """Return start, size and stride if every position has the same size and lies one stride beyond the last."""
    starts, size, jump = -bounds[0], (bounds[0] + bounds[1])[0], jumps[0]
    even = starts[0] + jump * torch.arange(len(starts))
    if not (bounds.isfinite().all() and jump >= 1 and jump.frac() == 0):
        return None
    if not (torch.equal(starts, even) and torch.equal(bounds[1], even + size)):
        return None
    return int(starts[0]), int(size), int(jump)
