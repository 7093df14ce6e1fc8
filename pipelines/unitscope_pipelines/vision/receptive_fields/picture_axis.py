"""The axis of the images in a layer's output, found by running one picture, another, and both."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unitscope_pipelines.vision.recording.recording import record

_CLOSE = 1e-3
"""Share of the largest value by which a picture's values may differ beside another picture: rounding is far below."""

Output = Float[Tensor, "..."]
"""A layer's output for one picture or several."""


class PictureAxis(NamedTuple):
    """Where the images lie in a layer's output."""

    axis: int = 0
    """Axis of the images."""
    windows: int = 1
    """Number of entries that each image has on it."""
    inside: bool = False
    """Whether a window's images lie side by side, rather than an image's windows."""

    def first(self, values: Float[Tensor, "plane ..."]) -> Float[Tensor, "plane 1 ..."]:
        """Return planes of one picture's output with the image's axis first; windows are the axis behind it."""
        moved = values.movedim(self.axis + 1, 1)
        return moved if self.windows == 1 else moved.unsqueeze(1)


def picture_axes(
    model: nn.Module,
    shapes: Mapping[str, Sequence[int]],
    pictures: Float[Tensor, "2 channel row col"],
) -> dict[str, PictureAxis | str]:
    """Return the axis of the images in each layer's output, or in words why there is none.

    `shapes` are those of the outputs for one picture. The axis is the one that is twice as long for two pictures.
    Where a picture has several entries on it, the values of each picture alone tell how they are interleaved.
    """
    both = _recorded(model, list(shapes), pictures, values=False)
    axes: dict[str, PictureAxis | str] = {}
    for name, shape in shapes.items():
        axes[name] = _doubled(list(shape), list(both[name].shape)) if name in both else _lost(shape)
    folded = [name for name, axis in axes.items() if isinstance(axis, PictureAxis) and axis.windows > 1]
    if folded:
        runs = [_recorded(model, folded, batch, values=True) for batch in (pictures[:1], pictures[1:], pictures)]
        for name in folded:
            axis = axes[name]
            assert isinstance(axis, PictureAxis)
            axes[name] = _interleaved(axis, *(run[name] for run in runs))
    return axes


def _recorded(model: nn.Module, names: Sequence[str], pictures: Output, values: bool) -> dict[str, Output]:
    """Return the outputs of a forward, or without `values` tensors of their shapes that hold nothing."""
    with (
        torch.no_grad(),
        record(model, names, lambda _, output: output.clone() if values else output.to("meta")) as outputs,
    ):
        model(pictures)
    return dict(outputs)


def _lost(shape: Sequence[int]) -> str:
    return f"shape {tuple(shape)} for one picture, and is not called for two"


def _doubled(one: list[int], two: list[int]) -> PictureAxis | str:
    """Return the axis that is twice as long for two pictures as for one, or in words that there is none."""
    longer = [axis for axis, (before, after) in enumerate(zip(one, two, strict=False)) if before != after]
    if len(one) == len(two) and len(longer) == 1 and two[longer[0]] == 2 * one[longer[0]] > 0:
        return PictureAxis(longer[0], one[longer[0]])
    return f"shape {tuple(one)} for one picture and {tuple(two)} for two, so none of its axes is that of the pictures"


def _interleaved(axis: PictureAxis, first: Output, second: Output, both: Output) -> PictureAxis | str:
    """Return the axis with the order of its entries, by which of each picture's own come back beside the other's."""
    alone = torch.stack([first, second])
    largest = float(alone.nan_to_num(posinf=0, neginf=0).abs().max())
    fitting = []
    for inside in (False, True):
        sizes = (axis.windows, 2) if inside else (2, axis.windows)
        shape = [*both.shape[: axis.axis], *sizes, *both.shape[axis.axis + 1 :]]
        pair = both.reshape(shape).movedim(axis.axis + inside, 0)
        if torch.allclose(pair, alone, rtol=0, atol=_CLOSE * largest, equal_nan=True):
            fitting.append(axis._replace(inside=inside))
    if len(fitting) == 1:
        return fitting[0]
    return f"{axis.windows} entries for each picture on axis {axis.axis}, of which it cannot be told whose each is"
