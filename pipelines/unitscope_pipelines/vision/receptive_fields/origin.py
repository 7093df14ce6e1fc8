"""Origins say where in the picture each value lies, whatever of the rest was mixed into it.

Behind attention or a mean over the picture every value depends on everything, so its dependency no longer tells a row
from a head or a channel. The origin is computed on the same operations and has the same ten planes, but follows a
value's own way: a token's origin stays its patch through all blocks.
"""

from collections.abc import Mapping
from functools import reduce

import torch
from torch import Tensor
from torch._ops import OpOverload

from unitscope_pipelines.vision.receptive_fields.dependency import (
    JUMPS,
    Dependency,
    hull,
    spread,
    thin,
    union,
    whole,
)
from unitscope_pipelines.vision.receptive_fields.interval_rules import everything, rule_for
from unitscope_pipelines.vision.receptive_fields.intervals import Intervals
from unitscope_pipelines.vision.receptive_fields.operation import Operation, Rule

Origin = Dependency
"""Planes of a dependency that follow a value's own way."""


class Origins(Intervals):  # type: ignore[no-untyped-call]
    """Within this mode, every operation on the image also computes the origins of its outputs."""

    def dependency_of(self, tensor: Tensor) -> Origin | None:
        """Return a tensor's origin, None if it has none; what is written over a value does not move it."""
        if tensor.untyped_storage() in self._written:
            return super().dependency_of(tensor)
        return self._dependencies.get(tensor, (None, None))[0]

    def _rule(self, function: OpOverload) -> Rule:
        """Return the rule of origin of an operation."""
        name = function._schema.name.removeprefix("aten::")
        known = _RULES.get(name.removesuffix("_") if name not in _RULES else name)
        return known or (_JOINED if torch.Tag.pointwise in function.tags else rule_for(function) or _FIRST_PLACED)

    def _note(self, operation: Operation, dependencies: Mapping[int, Origin], outputs: list[Tensor]) -> None:
        """Remember the origins of an operation's outputs."""
        results, _ = self._apply(operation, dependencies)
        for index, output in enumerate(outputs):
            result = results[min(index, len(results) - 1)]
            result = result if result.shape[1:] == output.shape else spread(whole(result), output.shape)
            if not self._write(operation, output, result):
                self._keep(output, result, None)


def is_placed(origin: Origin) -> bool:
    """Return whether some values lie elsewhere than others."""
    values = thin(origin)[: JUMPS.start].reshape(JUMPS.start, -1)
    return values.numel() > 0 and not torch.equal(values, values[:, :1].expand_as(values))


def _joined(operation: Operation, *origins: Origin) -> Origin:
    """Keep the narrowest origin of those that lie in several places: what is added to a map moves nothing."""
    placed = [spread(origin, operation.shape) for origin in origins if is_placed(origin)]
    if not placed:
        return everything(operation, *origins)
    return spread(reduce(torch.minimum, map(thin, placed)), operation.shape)


def _first_placed(operation: Operation, *origins: Origin) -> Origin:
    """Keep the origin of the first placed argument of the output's shape, where axes are mixed or nothing is known."""
    shape = operation.output.shape
    alike = (origin for origin in origins if origin.shape[1:] == shape and is_placed(origin))
    first = next(alike, None)
    return everything(operation, *origins) if first is None else first


def _product(operation: Operation, left: Origin, right: Origin) -> Origin:
    """Let a matrix product lie where its left side's rows do, or else where its right side's columns do."""
    rows, cols = hull(left, [-1]), hull(right, [-2])
    return union([rows if is_placed(left) else cols], operation.shape)


def _queried(operation: Operation, query: Origin) -> Origin:
    """Let attention lie where its queries do."""
    return spread(hull(query, [-1]), operation.shape)


_JOINED = Rule(None, _joined, but=("out",))
"""Rule of pointwise operations."""
_FIRST_PLACED = Rule(None, _first_placed, but=("out",))
"""Rule of operations that mix along an axis, and of unknown ones."""
_QUERIED = Rule(("query",), _queried)
"""Rule of attention."""

_RULES: dict[str, Rule] = {
    "_softmax": _FIRST_PLACED,
    "_safe_softmax": _FIRST_PLACED,
    "_log_softmax": _FIRST_PLACED,
    "cumsum": _FIRST_PLACED,
    "native_layer_norm": _FIRST_PLACED,
    "_fused_rms_norm": _FIRST_PLACED,
    "native_group_norm": _FIRST_PLACED,
    "native_batch_norm": _FIRST_PLACED,
    "_native_batch_norm_legit": _FIRST_PLACED,
    "mm": Rule(("self", "mat2"), _product),
    "bmm": Rule(("self", "mat2"), _product),
    "addmm": Rule(("mat1", "mat2"), _product),
    "baddbmm": Rule(("batch1", "batch2"), _product),
    "_scaled_dot_product_flash_attention_for_cpu": _QUERIED,
    "_scaled_dot_product_flash_attention": _QUERIED,
    "_scaled_dot_product_efficient_attention": _QUERIED,
    "_scaled_dot_product_cudnn_attention": _QUERIED,
    "_native_multi_head_attention": _QUERIED,
    "_transformer_encoder_layer_fwd": Rule(("src",), _queried),
}
"""Rules of operations whose origin is another than their dependency."""
