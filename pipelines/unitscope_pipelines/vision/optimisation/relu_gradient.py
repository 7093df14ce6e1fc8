"""Gradients through rectifiers that are shut, so that a unit that starts dead can come to life (lucid's trick)."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

_RELU: set[Callable[..., object]] = {F.relu, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_}
"""Functions that are a ReLU without an upper bound."""


class ReluGradient(TorchFunctionMode):
    """Within this mode, rectifiers (ReLU, ReLU6, hard tanh; modules or functions) pass gradients where all is shut.

    Forwards are unchanged. For a picture whose gradient at a rectifier is zero everywhere, what would open it passes.
    """

    def __torch_function__(
        self,
        function: Callable[..., object],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> object:
        kwargs = dict(kwargs or {})
        bounds = _bounds(function, args, kwargs)
        if bounds is None:
            return function(*args, **kwargs)
        values = args[0] if args else kwargs["input"]
        position = 3 if function is F.hardtanh else 1
        in_place = (
            function in (torch.relu_, Tensor.relu_) or kwargs.get("inplace") or any(args[position : position + 1])
        )
        if not in_place:
            return _Clamped.apply(values, *bounds)
        return values.copy_(_Clamped.apply(values.clone(), *bounds))


class _Clamped(torch.autograd.Function):
    """A clamp between two bounds whose gradient passes where it would open what is shut."""

    @staticmethod
    def forward(context: Any, values: Tensor, low: float, high: float) -> Tensor:
        context.save_for_backward(values)
        context.low, context.high = low, high
        return values.clamp(low, high)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (values,), gradient = context.saved_tensors, gradients[0]
        below, above = values <= context.low, values >= context.high
        plain = gradient * ~(below | above)
        # what is optimised goes against the gradient: a positive one would push a shut rectifier further down
        opening = gradient * ~((below & (gradient > 0)) | (above & (gradient < 0)))
        shut = plain.flatten(1).norm(dim=1) == 0
        return torch.where(shut.view(-1, *[1] * (values.dim() - 1)), opening, plain), None, None


def _bounds(
    function: Callable[..., object], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[float, float] | None:
    """Return the bounds between which a rectifier lets values through; None for every other function."""
    if function in _RELU:
        return 0.0, float("inf")
    if function is F.relu6:
        return 0.0, 6.0
    if function is F.hardtanh:
        low = args[1] if len(args) > 1 else kwargs.get("min_val", -1.0)
        return float(low), float(args[2] if len(args) > 2 else kwargs.get("max_val", 1.0))
    return None
