"""The same forward with fewer passes over memory: padding, convolution, batch norm and activation in one kernel.

One forward is watched to see which of these calls feed each other and nothing else. Later forwards run each such chain
as one kernel; modules, hooks and weights stay as they are.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from unitscope_pipelines.vision.recording.recording import record
from unitscope_schemas.errors import ModelError

CLOSE = 1e-4
"""Of a layer's largest value: how far the fused forward may be from the plain one; in float32 it is some 1e-6."""

LARGEST = 1e18
"""A fused ReLU turns NaN into 0, and a kernel widened by zeros spreads it; in a network of finite weights NaN comes
from overflow only. So nothing but batch norms is fused unless the watched convolutions stay twenty orders below it."""

_LOOKS = {"__get__", "dim", "size", "stride", "is_contiguous", "is_floating_point", "numel"}
"""Functions that read no values."""

_ACTIVATIONS: set[Any] = {
    *(F.relu, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_, F.relu6, F.hardtanh, F.silu, F.hardswish)
}


@dataclass
class Step:
    """One call of a forward, and the calls that use its output."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: Any = None
    uses: list["Step"] = field(default_factory=list)

    def argument(self, position: int, name: str, default: Any = None) -> Any:
        return self.args[position] if len(self.args) > position else self.kwargs.get(name, default)

    def only_use(self) -> "Step | None":
        """The call that takes the output as its first argument, if nothing else uses it."""
        if len(self.uses) == 1 and self.uses[0].args and self.uses[0].args[0] is self.output:
            return self.uses[0]
        return None


@dataclass(frozen=True)
class Chain:
    """A convolution that also pads, normalises and activates: what it does instead of the calls around it."""

    source: Tensor
    weight: Float[Tensor, "out in row col"]
    bias: Float[Tensor, " out"]
    padding: tuple[int, int]
    padded: bool
    normed: bool
    activation: Step | None

    @property
    def later_count(self) -> int:
        """How many later calls have nothing left to do."""
        return int(self.normed) + int(self.activation is not None)


class Fusions:
    """The chains of a model by their convolution's number in the forward, and the numbers of their paddings."""

    def __init__(self, chains: dict[int, Chain], pads: set[int]) -> None:
        self.chains = chains
        self.pads = pads
        self._packed: dict[tuple[int, torch.dtype], Tensor] = {}

    def __str__(self) -> str:
        normed = sum(chain.normed for chain in self.chains.values())
        activated = sum(chain.activation is not None for chain in self.chains.values())
        return f"{normed} batch norms, {activated} activations and {len(self.pads)} paddings fused"

    def running(self) -> AbstractContextManager[object]:
        """The context of one forward, in which chains run as single kernels."""
        return _Run(self) if self.chains else nullcontext()

    def convolve(self, number: int, image: Tensor, conv: Step) -> Tensor:
        """The output of a whole chain."""
        chain = self.chains[number]
        if torch.is_autocast_enabled(image.device.type):
            image = image.to(torch.get_autocast_dtype(image.device.type))
        weight, bias, padding = chain.weight.to(image.dtype), chain.bias.to(image.dtype), list(chain.padding)
        stride, dilation = _pair(conv.argument(3, "stride", 1)), _pair(conv.argument(5, "dilation", 1))
        groups = conv.argument(6, "groups", 1)
        if not _has_fused_kernel(image):
            alone, then = F.conv2d(image, weight, bias, stride, padding, dilation, groups), chain.activation
            return alone if then is None else then.function(alone, *then.args[1:], **then.kwargs)
        key = (number, image.dtype)
        if key not in self._packed:
            self._packed[key] = torch._C._nn.mkldnn_reorder_conv2d_weight(  # type: ignore[call-arg]
                weight.to_mkldnn(), padding, stride, dilation, groups, image.shape
            )
        name, limits = _attribute(chain.activation)
        output: Tensor = torch.ops.mkldnn._convolution_pointwise(
            image, self._packed[key], bias, padding, stride, dilation, groups, name, limits, ""
        )
        return output


def _has_fused_kernel(image: Tensor) -> bool:
    """Whether this processor has a kernel that convolves and activates at once in the image's precision."""
    if image.device.type != "cpu" or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    return image.dtype != torch.bfloat16 or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def find_fusions(model: nn.Module, layers: Sequence[str], images: Float[Tensor, "image channel row col"]) -> Fusions:
    """The chains that can be fused while these layers are recorded; none if that would change what is recorded.

    A chain ends before an output that is recorded as a layer or used twice.
    """
    watch = _Watch()
    with torch.no_grad(), record(model, layers, lambda _, output: watch.use(output)), watch:
        watch.use(model(images))
    calm = all(float(conv.output.abs().max()) < LARGEST for conv in watch.convolutions)
    chains, pads = {}, set()
    for number, conv in enumerate(watch.convolutions):
        pad = next((at for at, pad in enumerate(watch.paddings) if calm and pad.only_use() is conv), None)
        chain = _chain(conv, None if pad is None else watch.paddings[pad], calm)
        if chain is not None and (chain.padded or chain.later_count):
            chains[number] = chain
            pads |= {pad} if pad is not None and chain.padded else set()
    fusions = Fusions(chains, pads)
    return fusions if _agree(model, layers, images, fusions) else Fusions({}, set())


class _Watch(TorchFunctionMode):
    """Follows the outputs of paddings, convolutions, batch norms and activations to their uses."""

    def __init__(self) -> None:
        super().__init__()
        self.paddings: list[Step] = []
        self.convolutions: list[Step] = []
        self._makers: dict[int, Step] = {}

    def __torch_function__(self, function: Any, _types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        step = Step(function, args, kwargs or {})
        if function.__name__ not in _LOOKS:
            self.use((args, kwargs), step)
        step.output = function(*args, **step.kwargs)
        if function is F.pad:
            self.paddings.append(step)
        if function is F.conv2d:
            self.convolutions.append(step)
        if function in (F.pad, F.conv2d, F.batch_norm) or function in _ACTIVATIONS:
            self._makers[id(step.output)] = step  # an in-place activation makes it anew
        return step.output

    def use(self, values: Any, step: Step | None = None) -> None:
        """Note that a call uses these values, or that they are recorded or returned."""
        for value in tree_leaves(values):
            if isinstance(value, Tensor) and id(value) in self._makers:
                self._makers[id(value)].uses.append(step or Step(record, (), {}))


class _Run(TorchFunctionMode):
    """Runs chains at their convolutions and lets the calls pass whose work is done, or still to be done, there."""

    def __init__(self, fusions: Fusions) -> None:
        super().__init__()
        self.fusions = fusions
        self._calls: Counter[Any] = Counter()
        self._unpadded: dict[int, Tensor] = {}
        self._done: dict[int, tuple[Tensor, int]] = {}

    def __torch_function__(self, function: Any, _types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        number = self._calls[function]
        self._calls[function] += 1
        if function is F.pad and number in self.fusions.pads:
            self._unpadded[id(args[0])] = args[0]
            return args[0]
        if function is F.conv2d and number in self.fusions.chains:
            conv, chain = Step(function, args, kwargs or {}), self.fusions.chains[number]
            image = self._unpadded.pop(id(args[0]), None) if chain.padded else args[0]
            if image is None or conv.argument(1, "weight") is not chain.source:
                raise ModelError("the forward takes another way for these images than for those it was tried with")
            output = self.fusions.convolve(number, image, conv)
            self._done[id(output)] = (output, chain.later_count)
            return output
        if (function is F.batch_norm or function in _ACTIVATIONS) and id(args[0]) in self._done:
            output, left = self._done.pop(id(args[0]))
            if left > 1:
                self._done[id(output)] = (output, left - 1)
            if left:
                return output
        return function(*args, **(kwargs or {}))


def _chain(conv: Step, pad: Step | None, calm: bool) -> Chain | None:
    """What can be done in one kernel with a convolution; None if its weights are computed from the images."""
    source, padding, bias = conv.argument(1, "weight"), conv.argument(4, "padding", 0), conv.argument(2, "bias")
    if not isinstance(source, nn.Parameter) or isinstance(padding, str):
        return None
    weight, padding = source.detach(), _pair(padding)
    bias = torch.zeros_like(weight[:, 0, 0, 0]) if bias is None else bias.detach()
    end, norm = conv, conv.only_use()
    if norm is not None and _is_fixed_norm(norm):
        end = norm
        weight, bias = _folded(weight, bias, norm)
    activation = end.only_use() if calm else None
    if activation is not None and activation.function in _ACTIVATIONS:
        activation = Step(activation.function, (None, *activation.args[1:]), activation.kwargs)
    else:
        activation = None
    if (
        pad is not None
        and (sides := _sides(pad))
        and (_is_even(sides) or _pair(conv.argument(5, "dilation", 1)) == [1, 1])
    ):
        left, right, top, bottom = sides
        height, width = max(top, bottom), max(left, right)
        weight = F.pad(weight, (width - left, width - right, height - top, height - bottom))
        padding = [padding[0] + height, padding[1] + width]
    else:
        pad = None
    return Chain(source, weight, bias, (padding[0], padding[1]), pad is not None, end is norm, activation)


def _folded(weight: Tensor, bias: Tensor, norm: Step) -> tuple[Tensor, Tensor]:
    """Weights and bias of a convolution that does the batch norm behind it too, computed in float64."""
    mean, variance = norm.argument(1, "running_mean").double(), norm.argument(2, "running_var").double()
    gain, shift = norm.argument(3, "weight"), norm.argument(4, "bias")
    scale = (variance + norm.argument(7, "eps", 1e-5)).rsqrt() * (1 if gain is None else gain.double())
    bias = (bias - mean) * scale + (0 if shift is None else shift.double())
    return (weight * scale[:, None, None, None]).float(), bias.float()


def _is_fixed_norm(step: Step) -> bool:
    """Whether a call is a batch norm with running statistics."""
    running = step.argument(1, "running_mean") is not None and not step.argument(5, "training", False)
    return step.function is F.batch_norm and running


def _sides(pad: Step) -> list[int] | None:
    """Left, right, top and bottom of a padding with zeros, else None."""
    sides, mode, value = list(pad.argument(1, "pad")), pad.argument(2, "mode", "constant"), pad.argument(3, "value")
    return sides if len(sides) == 4 and min(sides) >= 0 and mode == "constant" and not value else None


def _is_even(sides: list[int]) -> bool:
    return sides[0] == sides[1] and sides[2] == sides[3]


def _pair(value: Any) -> list[int]:
    return [value, value] if isinstance(value, int) else list(value)


def _attribute(activation: Step | None) -> tuple[str, list[float]]:
    """What the kernel calls an activation, and its limits."""
    if activation is None:
        return "none", []
    if activation.function is F.relu6:
        return "hardtanh", [0.0, 6.0]
    if activation.function is F.hardtanh:
        limits = activation.argument(1, "min_val", -1.0), activation.argument(2, "max_val", 1.0)
        return "hardtanh", [float(limit) for limit in limits]
    return {F.silu: "swish", F.hardswish: "hardswish"}.get(activation.function, "relu"), []


def _agree(model: nn.Module, layers: Sequence[str], images: Tensor, fusions: Fusions) -> bool:
    """Whether the fused forward puts out the same as the plain one, up to rounding."""
    outputs = []
    for context in (nullcontext(), fusions.running()):
        with torch.no_grad(), record(model, layers, lambda _, output: output.clone()) as recorded, context:
            model(images)
        outputs.append(dict(recorded))
    plain, fused = outputs
    return all(_is_close(fused[name], plain[name]) for name in plain)


def _is_close(fused: Tensor, plain: Tensor) -> bool:
    largest = float(plain.nan_to_num(posinf=0, neginf=0).abs().max())
    return torch.allclose(fused, plain, rtol=0, atol=CLOSE * largest, equal_nan=True)
