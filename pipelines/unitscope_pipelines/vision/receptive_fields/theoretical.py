"""Theoretical fields: what each layer puts out, and the input pixels that can change it."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unitscope_pipelines.vision.receptive_fields.axes import rows_and_cols, sure_rows_and_cols, token_axis, token_grid
from unitscope_pipelines.vision.receptive_fields.dependency import CLIPPED, Reach, hull
from unitscope_pipelines.vision.receptive_fields.intervals import Intervals
from unitscope_pipelines.vision.receptive_fields.origin import Homes
from unitscope_pipelines.vision.recording.recording import record, split_call
from unitscope_schemas.errors import ModelError
from unitscope_schemas.geometry import Location, ReceptiveField, Size, Span
from unitscope_schemas.units import LayerSpec

Shape = tuple[int, int, int]

_MOST_ADVISED = 2


class Output(NamedTuple):
    """A layer's output for one image: what its elements see, where they lie, and grids of convolutions before it."""

    reach: Reach
    home: Reach
    conv_grids: Sequence[tuple[int, int]]


def theoretical_layers(model: nn.Module, names: Sequence[str], input_shape: Shape) -> list[LayerSpec]:
    """The named layers with their theoretical fields; raises ModelError for one that cannot be recorded."""
    layers = []
    for name, found in _measured(model, names, input_shape).items():
        if isinstance(found, str):
            raise ModelError(f"layer {name!r} puts out {found}; {_advice(model, name, input_shape)}")
        layers.append(found)
    return layers


def like_input(model: nn.Module, pictures: Tensor) -> Tensor:
    """The pictures on the model's device and in its precision."""
    parameter = next((one for one in model.parameters() if one.is_floating_point()), pictures)
    return pictures.to(parameter.device, parameter.dtype)


def _advice(model: nn.Module, name: str, input_shape: Shape) -> str:
    """The nearest layers around one that can be recorded in its place."""
    around: list[str] = []
    path = split_call(name)[0]
    while len(around) < _MOST_ADVISED and (path := path.rpartition(".")[0]):
        try:
            found = _measured(model, [path], input_shape)[path]
        except ModelError:
            continue
        if isinstance(found, LayerSpec):
            around.append(path)
    return f"record {' or '.join(around)} around it" if around else "choose another layer"


def _measured(model: nn.Module, names: Sequence[str], input_shape: Shape) -> dict[str, LayerSpec | str]:
    """Each named layer, or in words what it puts out if that cannot be recorded; ModelError if it has no output."""
    image = like_input(model, torch.zeros(1, *input_shape))
    seen = _watched(model, names, image, Intervals(image))
    for name in names:
        if name not in seen:
            raise ModelError(f"layer {name!r} was not called in a forward; choose another layer or call")
        reach, _ = seen[name]
        if reach is None or bool(reach[CLIPPED].isneginf().all()):
            raise ModelError(f"layer {name!r} does not depend on the input; choose another layer")
    still_open = [name for name, (reach, _) in seen.items() if reach is not None and _is_open(reach)]
    homes = _watched(model, still_open, image, Homes(image)) if still_open else {}
    layers: dict[str, LayerSpec | str] = {}
    for name in names:
        reach, grids = seen[name]
        home, _ = homes.get(name, seen[name])
        assert reach is not None
        output = Output(reach, reach if home is None else home, grids)
        layers[name] = _layer(name, output, Size(*input_shape[1:]))
    return layers


def _watched(
    model: nn.Module, names: Sequence[str], image: Tensor, watch: Intervals
) -> dict[str, tuple[Reach | None, list[tuple[int, int]]]]:
    """Each layer's reach, or home, in one forward, and the grids of the convolutions before it."""

    def keep(_name: str, output: Tensor) -> tuple[Reach | None, list[tuple[int, int]]]:
        return watch.reach_of(output), list(watch.grids)

    with torch.no_grad(), record(model, names, keep) as recorded, watch:
        model(image)
    return dict(recorded)


def _is_open(reach: Reach) -> bool:
    """Whether what elements see does not tell which axes are rows, columns and tokens."""
    return reach.dim() == 4 or (reach.dim() == 5 and sure_rows_and_cols(reach) is None)


def _layer(name: str, output: Output, size: Size) -> LayerSpec | str:
    """A layer with its theoretical field, or in words what it puts out instead of a map, tokens or a vector."""
    reach, home, grids = output
    shape = tuple(reach.shape[2:])
    if reach.dim() < 3 or reach.shape[1] != 1:
        return (
            f"shape {tuple(reach.shape[1:])} for one image, so its first axis is not the image (windows, or all "
            "tokens in one list)"
        )
    if len(shape) == 3 and (axes := rows_and_cols(home, grids)):
        last = axes == (1, 2)
        reach = reach.movedim(4, 2) if last else reach
        field = _field(hull(reach, [1])[:, 0, 0], size)
        rows_cols = Size(*reach.shape[3:])
        return LayerSpec(
            name=name, kind="map", units=reach.shape[2], grid=rows_cols, channels_last=last, receptive_field=field
        )
    if len(shape) == 2 and token_axis(home) != 2:
        grid = token_grid(home, grids)
        prefix = shape[0] - grid.height * grid.width
        field = _field(hull(reach, [2])[:, 0, prefix:, 0].reshape(-1, *grid), size)
        return LayerSpec(
            name=name, kind="tokens", units=shape[1], grid=grid, prefix_tokens=prefix, receptive_field=field
        )
    if len(shape) == 1:
        field = _whole_field(size, ((0, size.height),), ((0, size.width),))
        return LayerSpec(name=name, kind="vector", units=shape[0], grid=Size(1, 1), receptive_field=field)
    return (
        f"shape {shape} for one image, whose axes are neither those of a map (channel, row, col or row, col, channel) "
        "nor of tokens (token, channel) nor of a vector"
    )


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
