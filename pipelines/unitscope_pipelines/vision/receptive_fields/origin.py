"""Homes: where in the picture each value lies, whatever of the rest was mixed into it.

Behind attention or a mean over the picture every value reaches everything, so its reach no longer tells a row from a
head or a channel. The home is computed on the same operations, but follows a value's own way: a token's home stays its
patch through all blocks.
"""

from collections.abc import MutableMapping
from functools import reduce
from typing import Any

import torch
from torch import Tensor, UntypedStorage
from torch.utils._pytree import tree_leaves

from unitscope_pipelines.vision.receptive_fields.dependency import (
    CLIPPED,
    JUMPS,
    PLANES,
    Reach,
    hull,
    nothing,
    spread,
    thin,
    union,
)
from unitscope_pipelines.vision.receptive_fields.interval_rules import everything, rule_for
from unitscope_pipelines.vision.receptive_fields.intervals import Intervals, by_identity
from unitscope_pipelines.vision.receptive_fields.operation import Call, Rule, is_tensor


class Homes(Intervals):  # type: ignore[no-untyped-call]
    """Within this mode, every operation on the image also computes the homes of its outputs."""

    def __init__(self, image: Tensor) -> None:
        self._filled: MutableMapping[UntypedStorage, Reach] = by_identity()
        super().__init__(image)

    def reach_of(self, tensor: Tensor) -> Reach | None:
        """A tensor's home, None if it has none; what is written over a value does not move it."""
        filled = self._filled.get(tensor.untyped_storage())
        return self._reaches.get(tensor, (None, None))[0] if filled is None else _seen_as(filled, tensor).clone()

    def _rule(self, function: Any) -> Rule:
        name = function._schema.name.removeprefix("aten::")
        known = _RULES.get(name.removesuffix("_") if name not in _RULES else name)
        return known or (_joined if torch.Tag.pointwise in function.tags else rule_for(function) or _own)

    def _note(self, call: Call, outputs: list[Tensor]) -> None:
        found = self._found(call)
        for place, output in enumerate(outputs):
            own = found[min(place, len(found) - 1)]
            own = own if own.shape[1:] == output.shape else spread(hull(own).reshape(PLANES), output.shape)
            memory = output.untyped_storage()
            if memory not in self._filled and self._is_fresh(memory) and _is_written_in_part(call, output):
                self._filled[memory] = nothing([memory.nbytes() // output.element_size()]).clone()
            if memory in self._filled:
                _seen_as(self._filled[memory], output).copy_(own)
            else:
                self._keep(output, own, None)

    def _is_fresh(self, memory: UntypedStorage) -> bool:
        """Whether nothing that lies in the picture was put there before."""
        return memory not in self._held or bool(self._held[memory][CLIPPED].isneginf().all())


def is_placed(home: Reach) -> bool:
    """Whether some values lie elsewhere than others."""
    values = thin(home)[: JUMPS.start].flatten(1)
    return values.numel() > 0 and not torch.equal(values, values[:, :1].expand_as(values))


def _placed(call: Call) -> list[Reach]:
    """The homes of those arguments whose values lie in several places."""
    tensors = [leaf for leaf in tree_leaves(call.arguments) if is_tensor(leaf) and leaf is not call.get("out")]
    return [home for tensor in tensors if is_placed(home := call.reach_of(tensor))]


def _is_written_in_part(call: Call, output: Tensor) -> bool:
    """Whether an operation put its output into a part of fresh memory, as padding in a circle does."""
    own = next(iter(call.arguments.values()))
    return own is output and output.numel() * output.element_size() < output.untyped_storage().nbytes()


def _seen_as(filled: Reach, tensor: Tensor) -> Reach:
    """Homes of a tensor's memory, as the tensor looks at it."""
    return filled.as_strided((PLANES, *tensor.shape), (filled.shape[1], *tensor.stride()), tensor.storage_offset())


def _joined(call: Call) -> Reach:
    """What is added to a map moves nothing: the narrowest of the homes, of parts that lie in several places."""
    placed = [spread(home, call.shape) for home in _placed(call)]
    return spread(reduce(torch.minimum, map(thin, placed)), call.shape) if placed else everything(call)


def _own(call: Call) -> Reach:
    """Of an operation that mixes along an axis or is unknown: the first argument of the output's shape."""
    alike = [home for home in _placed(call) if home.shape[1:] == call.output.shape]
    return alike[0] if alike else everything(call)


def _product(left: str, right: str) -> Rule:
    """A matrix product lies where its left side's rows do, or else where its right side's columns do."""

    def rule(call: Call) -> Reach:
        rows, cols = hull(call.reach(left), [-1]), hull(call.reach(right), [-2])
        return union([rows if is_placed(call.reach(left)) else cols], call.shape)

    return rule


def _queried(name: str) -> Rule:
    """Attention lies where its queries do."""

    def rule(call: Call) -> Reach:
        return spread(hull(call.reach(name), [-1]), call.shape)

    return rule


_RULES: dict[str, Rule] = {
    **dict.fromkeys(
        ("_softmax", "_safe_softmax", "_log_softmax", "cumsum", "native_layer_norm", "_fused_rms_norm"), _own
    ),
    **dict.fromkeys(("native_group_norm", "native_batch_norm", "_native_batch_norm_legit"), _own),
    "mm": _product("self", "mat2"),
    "bmm": _product("self", "mat2"),
    "addmm": _product("mat1", "mat2"),
    "baddbmm": _product("batch1", "batch2"),
    "_scaled_dot_product_flash_attention_for_cpu": _queried("query"),
    "_scaled_dot_product_flash_attention": _queried("query"),
    "_scaled_dot_product_efficient_attention": _queried("query"),
    "_scaled_dot_product_cudnn_attention": _queried("query"),
    "_native_multi_head_attention": _queried("query"),
    "_transformer_encoder_layer_fwd": _queried("src"),
}
"""Where an operation's home is another than its reach."""
