"""Theoretical fields: what each layer puts out, and the input pixels that can change it."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unitscope_pipelines.vision.receptive_fields.axes import (
    Grid,
    rows_and_cols,
    sure_rows_and_cols,
    token_axis,
    token_grid,
)
from unitscope_pipelines.vision.receptive_fields.dependency import CLIPPED, Dependency, hull
from unitscope_pipelines.vision.receptive_fields.intervals import Intervals
from unitscope_pipelines.vision.receptive_fields.origin import Origin, Origins
from unitscope_pipelines.vision.recording.recording import record, split_call
from unitscope_schemas.errors import ModelError
from unitscope_schemas.geometry import Location, ReceptiveField, Size, Span
from unitscope_schemas.units import LayerSpec

Shape = tuple[int, int, int]
"""Channels, rows and columns of the network's input."""

_MOST_ADVISED = 2
"""Largest number of layers that an error advises to record instead."""


class Output(NamedTuple):
    """A layer's output for one image, with shapes but without values."""

    dependency: Dependency
    """Input pixels that each element depends on."""
    origin: Origin
    """Place in the picture where each element lies."""
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
    unclear = [name for name, (known, _) in watched.items() if known is not None and _is_unclear(known)]
    origins = _watched(model, unclear, image, Origins(image)) if unclear else {}
    layers: dict[str, LayerSpec | str] = {}
    for name in names:
        dependency, grids = watched[name]
        origin, _ = origins.get(name, watched[name])
        assert dependency is not None
        output = Output(dependency, dependency if origin is None else origin, grids)
        layers[name] = _layer(name, output, Size(*input_shape[1:]))
    return layers


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
    """Return whether the dependency does not tell which axes are rows, columns and tokens."""
    return dependency.dim() == 4 or (dependency.dim() == 5 and sure_rows_and_cols(dependency) is None)


def _layer(name: str, output: Output, size: Size) -> LayerSpec | str:
    """Return a layer with its theoretical field, or in words what it puts out instead of a map, tokens or a vector."""
    dependency, origin, grids = output
    shape = tuple(dependency.shape[2:])
    if dependency.dim() < 3 or dependency.shape[1] != 1:
        return (
            f"shape {tuple(dependency.shape[1:])} for one image, so its first axis is not the image (windows, or all "
            "tokens in one list)"
        )
    if len(shape) == 3 and (axes := rows_and_cols(origin, grids)):
        return _map_layer(name, dependency, size, channels_last=axes == (1, 2))
    if len(shape) == 2 and token_axis(origin) != 2:
        return _token_layer(name, dependency, size, token_grid(origin, grids))
    if len(shape) == 1:
        field = _whole_field(size, ((0, size.height),), ((0, size.width),))
        return LayerSpec(name=name, kind="vector", units=shape[0], grid=Size(1, 1), receptive_field=field)
    return (
        f"shape {shape} for one image, whose axes are neither those of a map (channel, row, col or row, col, channel) "
        "nor of tokens (token, channel) nor of a vector"
    )


def _map_layer(name: str, dependency: Dependency, size: Size, channels_last: bool) -> LayerSpec:
    """Return the layer of a map, by the hull of the dependencies of all its channels."""
    dependency = dependency.movedim(4, 2) if channels_last else dependency
    return LayerSpec(
        name=name,
        kind="map",
        units=dependency.shape[2],
        grid=Size(*dependency.shape[3:]),
        channels_last=channels_last,
        receptive_field=_field(hull(dependency, [1])[:, 0, 0], size),
    )


def _token_layer(name: str, dependency: Dependency, size: Size, grid: Size) -> LayerSpec:
    """Return the layer of tokens, whose last ones fill the grid in row order."""
    tokens, units = dependency.shape[2:]
    prefix = tokens - grid.height * grid.width
    bounds = hull(dependency, [2])[:, 0, prefix:, 0].reshape(-1, *grid)
    return LayerSpec(
        name=name, kind="tokens", units=units, grid=grid, prefix_tokens=prefix, receptive_field=_field(bounds, size)
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
    """Return the pixels of each position; a position that sees only padding gets the nearest pixel."""
    firsts = bounds[0].neg().nan_to_num(posinf=0).clamp(0, length - 1).long()
    ends = torch.maximum(bounds[1].nan_to_num(neginf=0).long(), firsts + 1)
    return tuple(zip(firsts.tolist(), ends.tolist(), strict=True))


def _steps(bounds: Float[Tensor, "bound position"], jumps: Float[Tensor, " position"]) -> tuple[int, int, int] | None:
    """Return start, size and stride if every position has the same size and lies one stride beyond the last."""
    starts, size, jump = -bounds[0], (bounds[0] + bounds[1])[0], jumps[0]
    even = starts[0] + jump * torch.arange(len(starts))
    if not (bounds.isfinite().all() and jump >= 1 and jump.frac() == 0):
        return None
    if not (torch.equal(starts, even) and torch.equal(bounds[1], even + size)):
        return None
    return int(starts[0]), int(size), int(jump)
