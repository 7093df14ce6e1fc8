"""Oracles of receptive fields that share no code with them: NaN propagation and gradients."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import combinations

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from unitscope_pipelines.vision.recording.embedding import as_map
from unitscope_pipelines.vision.recording.recording import record, split_call
from unitscope_schemas.geometry import Box, Location, Size
from unitscope_schemas.units import LayerSpec

Shape = tuple[int, int, int]


class _ReachedError(Exception):
    """Ends a forward at the layer that is looked at."""


def nan_maps(model: nn.Module, layers: Sequence[LayerSpec], images: Tensor) -> dict[str, Tensor]:
    """Where each layer's units are NaN (image, row, col), without running what comes behind the last of them."""
    found: dict[str, Tensor] = {}
    calls: Counter[str] = Counter()
    wanted: dict[str, list[LayerSpec]] = {}
    for layer in layers:
        wanted.setdefault(split_call(layer.name)[0], []).append(layer)

    def look(path: str, output: object) -> None:
        tensors = [value for value in tree_leaves(output) if isinstance(value, Tensor)]
        for layer in wanted[path]:
            _, call, number = split_call(layer.name)
            if call == calls[path]:
                found[layer.name] = as_map(tensors[number or 0], layer).isnan().any(1)
        calls[path] += 1
        if len(found) == len(layers):
            raise _ReachedError

    modules = dict(model.named_modules())
    handles = [
        modules[path].register_forward_hook(lambda _module, _inputs, output, path=path: look(path, output))
        for path in wanted
    ]
    try:
        with torch.no_grad(), suppress(_ReachedError):
            model(images)
    finally:
        for handle in handles:
            handle.remove()
    return found


Probe = tuple[frozenset[Box], bool]
"""Boxes, and whether all around them is filled with NaN, or they are."""


def nan_probes(boxes: dict[Location, Box], size: Size) -> Iterator[tuple[Probe, set[Location]]]:
    """What to fill with NaN, and locations that must stay numbers if it is the outside, else must turn NaN.

    The edges of boxes that lie apart are filled in one picture, otherwise each row and column of the input alone.
    """
    for location, box in boxes.items():
        yield (frozenset([box]), True), {location}
    apart = all(not _meet(one, other) for one, other in combinations(boxes.values(), 2))
    for side in range(4):
        edges = {location: _edge(box, side, box if apart else Box(0, 0, *size)) for location, box in boxes.items()}
        if apart:
            yield (frozenset(edges.values()), False), set(edges)
        else:
            yield from (((frozenset([edge]), False), {location}) for location, edge in edges.items())


def _edge(box: Box, side: int, within: Box) -> Box:
    """The first or last row (sides 0 and 2) or column (1 and 3) of a box, as long as `within`."""
    top, left, bottom, right = within
    place = box[side] - (side > 1)
    return Box(place, left, place + 1, right) if side % 2 == 0 else Box(top, place, bottom, place + 1)


def _meet(one: Box, other: Box) -> bool:
    return one.top < other.bottom and other.top < one.bottom and one.left < other.right and other.left < one.right


def assert_boxes_hold_for_nan(
    model: nn.Module, layers: Sequence[LayerSpec], input_shape: Shape, tight: bool = True
) -> None:
    """NaN in the first or last row or column of a location's box reaches it, NaN around the box does not.

    Checked at the corners and the centre of each layer's grid; unless `tight`, a box may be too wide. Layers, named
    in the order of the forward, share the probes of equal boxes, and each probe runs to the last layer that it is for.
    """
    expected: dict[Probe, dict[int, set[Location]]] = {}
    for number, layer in enumerate(layers):
        last = Location(layer.grid.height - 1, layer.grid.width - 1)
        corners = [Location(row, col) for row in (0, last.row) for col in (0, last.col)]
        checked = [*corners, Location(layer.grid.height // 2, layer.grid.width // 2)]
        boxes = {location: layer.receptive_field.box_at(location) for location in checked}
        for probe, locations in nan_probes(boxes, Size(*input_shape[1:])):
            if tight or probe[1]:
                expected.setdefault(probe, {}).setdefault(number, set()).update(locations)
    probes = sorted(expected, key=lambda probe: max(expected[probe]))
    for first in range(0, len(probes), 4):
        batch = probes[first : first + 4]
        images = torch.randn(len(batch), *input_shape)
        for image, (filled, outside) in zip(images, batch, strict=True):
            inside = torch.zeros(input_shape[1:], dtype=torch.bool)
            for top, left, bottom, right in filled:
                inside[top:bottom, left:right] = True
            image[:, inside != outside] = torch.nan
        looked_at = sorted({number for probe in batch for number in expected[probe]})
        maps = nan_maps(model, [layers[number] for number in looked_at], images)
        for place, probe in enumerate(batch):
            for number, locations in expected[probe].items():
                for location in locations:
                    reached = bool(maps[layers[number].name][place][location])
                    assert reached != probe[1], f"{layers[number].name} {location}: {probe}"


def gradient_support(model: nn.Module, layer: LayerSpec, input_shape: Shape, location: Location) -> Box | None:
    """The smallest box around the input pixels that have a gradient."""
    image = torch.rand(1, *input_shape).requires_grad_()
    with record(model, [layer.name], lambda _, output: output) as outputs:
        model(image)
    as_map(outputs[layer.name], layer)[0, :, location.row, location.col].sum().backward()
    assert image.grad is not None
    touched = image.grad[0].abs().sum(0) > 0
    rows, cols = touched.any(1).nonzero(), touched.any(0).nonzero()
    if not len(rows):
        return None
    return Box(int(rows[0]), int(cols[0]), int(rows[-1]) + 1, int(cols[-1]) + 1)
