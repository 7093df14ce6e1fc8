"""The way of a signal back through a network, from one activation to the pixels, by a rule at every ReLU.

A forward within a `ReluBackward` computes the same values; its backward follows the method's rule at every ReLU, be it
a module, a function or in place. Everything else sends signals back by its own derivative, which for convolutions is
the transposed filters, for max-pooling the switches, and for batch norm with fixed statistics its linear part.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from unitscope_schemas.questions import ProjectionMethod

RELU, MAX_POOLING, BATCH_NORM = "ReLU", "max-pooling", "batch norm"
"""Words for the operations that have a rule, or need none."""

GRADIENTS: tuple[ProjectionMethod, ...] = ("gradient", "gradient-x-input")
"""Methods that follow the derivative everywhere."""

_OPERATIONS = {
    **dict.fromkeys([f"{kind}max_pool{axes}d" for kind in ("", "adaptive_") for axes in (1, 2, 3)], MAX_POOLING),
    "batch_norm": BATCH_NORM,
    "gelu": "GELU",
    "silu": "SiLU",
    "mish": "Mish",
    "elu": "ELU",
    "leaky_relu": "leaky ReLU",
    "prelu": "PReLU",
    "hardswish": "hardswish",
    "hardsigmoid": "hardsigmoid",
    "sigmoid": "sigmoid",
    "tanh": "tanh",
    "softplus": "softplus",
    "softmax": "softmax",
    "layer_norm": "layer norm",
    "group_norm": "group norm",
    "instance_norm": "instance norm",
    "local_response_norm": "local response norm",
    "scaled_dot_product_attention": "attention",
    "multi_head_attention_forward": "attention",
}
"""Words for functions that are not linear, by the functions' names; ReLU is not among them."""


class ReluBackward(TorchFunctionMode):
    """Within this mode, ReLUs of a forward get the method's rule for the way back.

    `passed` counts the operations that a signal will pass and that are not linear, by name.
    """

    def __init__(self, method: ProjectionMethod) -> None:
        super().__init__()
        self.method = method
        self.passed: Counter[str] = Counter()

    def __torch_function__(
        self,
        function: Callable[..., object],
        _types: object,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> object:
        kwargs = kwargs or {}
        name = getattr(function, "__name__", "")
        if not (args and isinstance(args[0], Tensor) and args[0].requires_grad):
            return function(*args, **kwargs)
        limits = _limits(name, args, kwargs)
        if limits is None:
            operation = _OPERATIONS.get(name.removesuffix("_"))
            self.passed.update([operation] if operation else [])
            return function(*args, **kwargs)
        self.passed[RELU] += 1
        if self.method in GRADIENTS:
            return function(*args, **kwargs)
        rectified: Tensor = _Rectified.apply(args[0], limits, self.method == "guided")
        in_place = name.endswith("_") or kwargs.get("inplace", False)
        return args[0].copy_(rectified) if in_place else rectified


class _Rectified(torch.autograd.Function):
    """A ReLU whose signal back is rectified.

    It is so wherever the forward was (Zeiler & Fergus 2014, section 2.1), or passes only where the forward passed too
    (`guided`; Springenberg et al. 2014, section 3.4).
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor, limits: tuple[float, float | None], guided: bool) -> Tensor:
        low, high = limits
        ctx.guided = guided
        if guided:
            passed = values > low
            ctx.save_for_backward(passed if high is None else passed & (values < high))
        return values.clamp(low, high)

    @staticmethod
    def backward(ctx: Any, *signals: Tensor) -> tuple[Tensor, None, None]:
        rectified = signals[0].clamp(min=0)
        if ctx.guided:
            (passed,) = ctx.saved_tensors
            rectified = rectified.where(passed, 0)
        return rectified, None, None


def notes(method: ProjectionMethod, passed: Mapping[str, int]) -> tuple[str, ...]:
    """Return what was done otherwise than the papers say, because the network before the layer is another."""
    if method in GRADIENTS:
        return ()
    sentences = []
    if not passed.get(RELU):
        sentences.append("there is no ReLU before this layer, so nothing was rectified: this is the plain gradient")
    if not passed.get(MAX_POOLING):
        sentences.append("there is no max-pooling before this layer, so there are no switches: strides were transposed")
        if method == "deconvnet" and passed.get(RELU):
            # Springenberg et al. 2014, section 3.4
            sentences.append(
                "without switches a deconvnet shows the unit's weights, not the picture: guided shows the picture"
            )
    others = [name for name in passed if name not in (RELU, MAX_POOLING, BATCH_NORM)]
    if others:
        sentences.append(f"the derivative was used at what has no rule: {', '.join(sorted(others))}")
    return tuple(sentences)


def _limits(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[float, float | None] | None:
    """Return lower and upper end of a ReLU's values, the lower one always 0; None if the call is no ReLU."""

    def argument(position: int, keyword: str, default: float | None) -> Any:
        return args[position] if len(args) > position else kwargs.get(keyword, default)

    match name.removesuffix("_"):
        case "relu":
            low, high = 0, None
        case "relu6":
            low, high = 0, 6
        case "hardtanh":
            low, high = argument(1, "min_val", -1.0), argument(2, "max_val", 1.0)
        case "clamp" | "clip":
            low, high = argument(1, "min", None), argument(2, "max", None)
        case "clamp_min":
            low, high = argument(1, "min", None), None
        case _:
            return None
    if isinstance(low, Tensor) or isinstance(high, Tensor) or low != 0:
        return None
    return 0.0, None if high is None else float(high)
