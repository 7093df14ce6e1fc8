"""Chains of calls that one kernel can do: padding, convolution, batch norm and activation."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

ACTIVATIONS: set[Callable[..., object]] = {
    *(F.relu, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_, F.relu6, F.hardtanh, F.silu, F.hardswish)
}
"""Activations that the fused kernel knows."""


@dataclass
class Step:
    """One call of a forward, and the calls that use its output."""

    function: Callable[..., object]
    args: tuple[object, ...]
    kwargs: Mapping[str, object]
    output: object = None
    uses: list["Step"] = field(default_factory=list)
    """Calls that take the output; a recording and the end of the forward count as calls too."""

    def argument(self, position: int, name: str, default: object = None) -> object:
        """Return an argument by its position or name, or the default if it is not given."""
        return self.args[position] if len(self.args) > position else self.kwargs.get(name, default)

    def tensor(self, position: int, name: str) -> Tensor | None:
        """Return an argument that is a tensor, or None."""
        value = self.argument(position, name)
        assert value is None or isinstance(value, Tensor)
        return value

    def number(self, position: int, name: str, default: int | float) -> int | float:
        """Return an argument that is a number."""
        value = self.argument(position, name, default)
        assert isinstance(value, int | float)
        return value

    def pair(self, position: int, name: str, default: int) -> list[int]:
        """Return an argument of two axes as rows and columns; a single number stands for both."""
        value = self.argument(position, name, default)
        return list(value) if isinstance(value, Sequence) else [int(self.number(position, name, default))] * 2

    def only_use(self) -> "Step | None":
        """Return the call that takes the output as its first argument, if nothing else uses it."""
        if len(self.uses) == 1 and self.uses[0].args and self.uses[0].args[0] is self.output:
            return self.uses[0]
        return None


@dataclass(frozen=True)
class Chain:
    """A convolution that also pads, normalises and activates: what it does instead of the calls around it."""

    source: Tensor
    """Weight of the convolution as the module holds it, by which the call is known again."""
    weight: Float[Tensor, "out in row col"]
    """Weight with batch norm and padding folded in."""
    bias: Float[Tensor, " out"]
    """Bias with batch norm folded in."""
    padding: tuple[int, int]
    """Rows and columns of zeros on each side."""
    padded: bool
    """Whether the padding before it is folded in."""
    normed: bool
    """Whether the batch norm behind it is folded in."""
    activation: Step | None
    """Call of the activation behind it, without its values."""

    @property
    def later_count(self) -> int:
        """Return how many later calls have nothing left to do."""
        return int(self.normed) + int(self.activation is not None)


def find_chain(conv: Step, pad: Step | None, calm: bool) -> Chain | None:
    """Return what one kernel can do with a convolution; None if its weights are computed from the images.

    `pad` is the padding that feeds it and nothing else. Activations are left alone unless the network is `calm`, that
    is, far from overflow.
    """
    source, bias = conv.argument(1, "weight"), conv.tensor(2, "bias")
    if not isinstance(source, nn.Parameter) or isinstance(conv.argument(4, "padding", 0), str):
        return None
    weight, padding = source.detach(), conv.pair(4, "padding", 0)
    bias = torch.zeros_like(weight[:, 0, 0, 0]) if bias is None else bias.detach()
    end, norm = conv, conv.only_use()
    if norm is not None and _is_fixed_norm(norm):
        end = norm
        weight, bias = _folded(weight, bias, norm)
    activation = end.only_use() if calm else None
    if activation is not None and activation.function in ACTIVATIONS:
        activation = Step(activation.function, (None, *activation.args[1:]), activation.kwargs)
    else:
        activation = None
    sides = None if pad is None else _sides(pad)
    if sides and not _is_even(sides) and conv.pair(5, "dilation", 1) != [1, 1]:
        sides = None
    if sides:
        left, right, top, bottom = sides
        height, width = max(top, bottom), max(left, right)
        weight = F.pad(weight, (width - left, width - right, height - top, height - bottom))
        padding = [padding[0] + height, padding[1] + width]
    return Chain(source, weight, bias, (padding[0], padding[1]), bool(sides), end is norm, activation)


def kernel_activation(activation: Step | None) -> tuple[str, list[float]]:
    """Return what the fused kernel calls an activation, and its limits."""
    if activation is None:
        return "none", []
    if activation.function is F.relu6:
        return "hardtanh", [0.0, 6.0]
    if activation.function is F.hardtanh:
        limits = activation.number(1, "min_val", -1.0), activation.number(2, "max_val", 1.0)
        return "hardtanh", [float(limit) for limit in limits]
    names: dict[Callable[..., object], str] = {F.silu: "swish", F.hardswish: "hardswish"}
    return names.get(activation.function, "relu"), []


def _folded(
    weight: Float[Tensor, "out in row col"], bias: Float[Tensor, " out"], norm: Step
) -> tuple[Float[Tensor, "out in row col"], Float[Tensor, " out"]]:
    """Return weight and bias of a convolution that does the batch norm behind it too, computed in float64."""
    mean, variance = norm.tensor(1, "running_mean"), norm.tensor(2, "running_var")
    gain, shift = norm.tensor(3, "weight"), norm.tensor(4, "bias")
    assert mean is not None and variance is not None
    scale = (variance.double() + norm.number(7, "eps", 1e-5)).rsqrt() * (1 if gain is None else gain.double())
    bias = (bias - mean.double()) * scale + (0 if shift is None else shift.double())
    return (weight * scale[:, None, None, None]).float(), bias.float()


def _is_fixed_norm(step: Step) -> bool:
    """Return whether a call is a batch norm with running statistics."""
    running = step.argument(1, "running_mean") is not None and not step.argument(5, "training", False)
    return step.function is F.batch_norm and running


def _sides(pad: Step) -> list[int] | None:
    """Return left, right, top and bottom of a padding with zeros, else None."""
    sides, mode, value = pad.argument(1, "pad"), pad.argument(2, "mode", "constant"), pad.argument(3, "value")
    if not isinstance(sides, Sequence) or len(sides) != 4 or min(sides) < 0 or mode != "constant" or value:
        return None
    return list(sides)


def _is_even(sides: list[int]) -> bool:
    """Return whether a padding is the same left and right, and above and below."""
    return sides[0] == sides[1] and sides[2] == sides[3]
