"""Fusing of a forward into fewer passes over memory: padding, convolution, batch norm, activation in one kernel.

One forward is watched to see which of these calls feed each other and nothing else. Later forwards run each such chain
as one kernel; modules, hooks and weights stay as they are.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from unitscope_pipelines.vision.recording.chains import ACTIVATIONS, Chain, Step, find_chain, kernel_activation
from unitscope_pipelines.vision.recording.recording import record
from unitscope_schemas.errors import ModelError

CLOSE = 3e-5
"""Share of a layer's largest value by which the fused forward may differ on two pictures, so that on others it is not
more than 1e-4; usually it is some 1e-6."""

LARGEST = 1e18
"""Largest output of the watched convolutions for which more than batch norms is fused.

A fused ReLU turns NaN into 0, and a kernel widened by zeros spreads it; in a network of finite weights NaN comes from
overflow only, which is twenty orders above this.
"""

_READS_NO_VALUES = {"__get__", "dim", "size", "stride", "is_contiguous", "is_floating_point", "numel"}
"""Names of functions that read no values of their tensors."""

Images = Float[Tensor, "image channel row col"]
"""Inputs of the network, or of a convolution in it."""


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
        """Return the context of one forward, in which chains run as single kernels."""
        return _Run(self) if self.chains else nullcontext()

    def convolve(self, number: int, image: Images, conv: Step) -> Float[Tensor, "image out out_row out_col"]:
        """Return the output of a whole chain, where `conv` is the call of its convolution."""
        chain = self.chains[number]
        if torch.is_autocast_enabled(image.device.type):
            image = image.to(torch.get_autocast_dtype(image.device.type))
        weight, bias, padding = chain.weight.to(image.dtype), chain.bias.to(image.dtype), list(chain.padding)
        stride, dilation = conv.pair(3, "stride", 1), conv.pair(5, "dilation", 1)
        groups = int(conv.number(6, "groups", 1))
        if torch.is_grad_enabled() or not _has_fused_kernel(image):
            convolved, activation = F.conv2d(image, weight, bias, stride, padding, dilation, groups), chain.activation
            if activation is None:
                return convolved
            activated = activation.function(convolved, *activation.args[1:], **activation.kwargs)
            assert isinstance(activated, Tensor)
            return activated
        key = (number, image.dtype)
        if key not in self._packed:
            self._packed[key] = torch._C._nn.mkldnn_reorder_conv2d_weight(  # type: ignore[call-arg]
                weight.to_mkldnn(), padding, stride, dilation, groups, image.shape
            )
        name, limits = kernel_activation(chain.activation)
        output: Tensor = torch.ops.mkldnn._convolution_pointwise(
            image, self._packed[key], bias, padding, stride, dilation, groups, name, limits, ""
        )
        return output


def find_fusions(model: nn.Module, layers: Sequence[str], images: Images) -> Fusions:
    """Return the chains that can be fused while these layers are recorded; none if that would change what is recorded.

    A chain ends before an output that is recorded as a layer or used twice.
    """
    watch = _Watch()
    with torch.no_grad(), record(model, layers, lambda _, output: watch.use(output)), watch:
        watch.use(model(images))
    calm = all(_largest(conv) < LARGEST for conv in watch.convolutions)
    chains, pads = {}, set()
    for number, conv in enumerate(watch.convolutions):
        pad = next((index for index, pad in enumerate(watch.paddings) if calm and pad.only_use() is conv), None)
        chain = find_chain(conv, None if pad is None else watch.paddings[pad], calm)
        if chain is not None and (chain.padded or chain.later_count):
            chains[number] = chain
            pads |= {pad} if pad is not None and chain.padded else set()
    fusions = Fusions(chains, pads)
    return fusions if _agree(model, layers, images, fusions) else Fusions({}, set())


class _Watch(TorchFunctionMode):
    """Within this mode, outputs of paddings, convolutions, batch norms and activations are followed to their uses."""

    def __init__(self) -> None:
        super().__init__()
        self.paddings: list[Step] = []
        self.convolutions: list[Step] = []
        self._makers: dict[int, Step] = {}

    def __torch_function__(
        self,
        function: Callable[..., object],
        _types: object,
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        step = Step(function, args, kwargs or {})
        if getattr(function, "__name__", "") not in _READS_NO_VALUES:
            self.use((args, kwargs), step)
        step.output = function(*args, **step.kwargs)
        if function is F.pad:
            self.paddings.append(step)
        if function is F.conv2d:
            self.convolutions.append(step)
        if function in (F.pad, F.conv2d, F.batch_norm) or function in ACTIVATIONS:
            self._makers[id(step.output)] = step  # an in-place activation makes it anew
        return step.output

    def use(self, values: object, step: Step | None = None) -> None:
        """Note that a call uses these values, or that they are recorded or returned."""
        for value in tree_leaves(values):
            if isinstance(value, Tensor) and id(value) in self._makers:
                self._makers[id(value)].uses.append(step or Step(record, (), {}))


class _Run(TorchFunctionMode):
    """Within this mode, chains run at their convolutions; calls whose work is done there, or will be, do nothing."""

    def __init__(self, fusions: Fusions) -> None:
        super().__init__()
        self.fusions = fusions
        self._calls: Counter[Callable[..., object]] = Counter()
        self._unpadded: dict[int, object] = {}
        self._done: dict[int, tuple[Tensor, int]] = {}

    def __torch_function__(
        self,
        function: Callable[..., object],
        _types: object,
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        number = self._calls[function]
        self._calls[function] += 1
        if function is F.pad and number in self.fusions.pads:
            self._unpadded[id(args[0])] = args[0]
            return args[0]
        if function is F.conv2d and number in self.fusions.chains:
            return self._convolve(number, Step(function, args, kwargs or {}))
        if (function is F.batch_norm or function in ACTIVATIONS) and id(args[0]) in self._done:
            output, left = self._done.pop(id(args[0]))
            if left > 1:
                self._done[id(output)] = (output, left - 1)
            if left:
                return output
        return function(*args, **(kwargs or {}))

    def _convolve(self, number: int, conv: Step) -> Tensor:
        """Run the whole chain of a convolution; raise ModelError where the forward is not the one that was watched."""
        chain = self.fusions.chains[number]
        image = self._unpadded.pop(id(conv.args[0]), None) if chain.padded else conv.args[0]
        if not isinstance(image, Tensor) or conv.argument(1, "weight") is not chain.source:
            raise ModelError("the forward takes another way for these images than for those it was tried with")
        output = self.fusions.convolve(number, image, conv)
        self._done[id(output)] = (output, chain.later_count)
        return output


def _has_fused_kernel(image: Tensor) -> bool:
    """Return whether this processor has a kernel that convolves and activates at once in the image's precision."""
    if image.device.type != "cpu" or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    if image.dtype == torch.float16:
        return bool(torch.ops.mkldnn._is_mkldnn_fp16_supported())
    return image.dtype != torch.bfloat16 or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _largest(conv: Step) -> float:
    """Return the largest magnitude of a convolution's output."""
    assert isinstance(conv.output, Tensor)
    return float(conv.output.abs().max())


def _agree(model: nn.Module, layers: Sequence[str], images: Images, fusions: Fusions) -> bool:
    """Return whether the fused forward puts out the same as the plain one, up to rounding."""
    outputs = []
    for context in (nullcontext(), fusions.running()):
        with torch.no_grad(), record(model, layers, lambda _, output: output.clone()) as recorded, context:
            model(images)
        outputs.append(dict(recorded))
    plain, fused = outputs
    return all(_is_close(fused[name], plain[name]) for name in plain)


def _is_close(fused: Tensor, plain: Tensor) -> bool:
    """Return whether two outputs differ by no more than `CLOSE` of the largest finite value; NaN equals NaN."""
    largest = float(plain.nan_to_num(posinf=0, neginf=0).abs().max())
    return torch.allclose(fused, plain, rtol=0, atol=CLOSE * largest, equal_nan=True)
