"""How an operation's outputs reach back to the input: small rules, and a table of which operation follows which.

Every rule may be too wide, none too narrow: an operation without a rule, and an argument that its rule does not
read, count with the hull of all their elements.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from unitscope_pipelines.vision.receptive_fields.dependency import (
    CLIPPED,
    JUMPS,
    PLANES,
    UNCLIPPED,
    Reach,
    hull,
    nothing,
    spread,
    thin,
    union,
)
from unitscope_pipelines.vision.receptive_fields.operation import Call, Rule, is_tensor
from unitscope_pipelines.vision.receptive_fields.window_rules import binned, convolution, interpolated, padded, pooled


def everything(call: Call) -> Reach:
    """Any output may depend on any element of any argument."""
    reaches = [hull(call.reach_of(leaf)).reshape(PLANES) for leaf in tree_leaves(call.arguments) if is_tensor(leaf)]
    return spread(union(reaches, []), call.shape)


def _pointwise(call: Call) -> Reach:
    tensors = [leaf for leaf in tree_leaves(call.arguments) if is_tensor(leaf)]
    return union([call.reach_of(tensor) for tensor in tensors if tensor is not call.get("out")], call.shape)


def _first(call: Call) -> Reach:
    return call.reach(next(iter(call.arguments)))


def _same(call: Call) -> Reach:
    return spread(_first(call), call.shape)


def _constant(call: Call) -> Reach:
    """New values, whatever the first argument holds."""
    _first(call)
    return nothing(call.shape)


def _copied(call: Call) -> Reach:
    _first(call)
    return spread(call.reach("src"), call.shape)


def _reshaped(call: Call) -> Reach:
    """The same elements in the same order; a view as another type has others."""
    reach = _first(call)
    return _same_order(reach, call.shape) if reach[0].numel() == call.output.numel() else everything(call)


def _same_order(reach: Reach, shape: Sequence[int]) -> Reach:
    return reach.reshape(PLANES, *shape)


def _moved(call: Call) -> list[Reach]:
    """Data movement: the operation itself, applied to every plane."""
    moving = [leaf for name in call.arguments for leaf in tree_leaves(call[name]) if is_tensor(leaf)]
    moving = [tensor for tensor in moving if not any(tensor is place for place in _places(call))]
    reaches = [call.reach_of(tensor) for tensor in moving]
    moved = []
    for plane in range(PLANES):
        stead = {id(place): place.cpu() for place in _places(call)}
        stead |= {id(tensor): reach[plane] for tensor, reach in zip(moving, reaches, strict=True)}
        outputs = call.function(**tree_map(lambda leaf, stead=stead: stead.get(id(leaf), leaf), call.arguments))
        moved.append([outputs] if is_tensor(outputs) else list(outputs))
    return [_stacked(planes) for planes in zip(*moved, strict=True)]


def _places(call: Call) -> list[Tensor]:
    """Tensors that say where to move, rather than what."""
    return [leaf for name in ("index", "indices") for leaf in tree_leaves(call.get(name)) if is_tensor(leaf)]


def _stacked(planes: Sequence[Tensor]) -> Reach:
    return spread(torch.cat([thin(plane.unsqueeze(0)) for plane in planes]), planes[0].shape)


def _reduced(call: Call) -> Reach:
    axes = call.get("dim")
    axes = [axes] if isinstance(axes, int) else axes or None
    return _same_order(hull(_first(call), axes), call.shape)


def _along(call: Call) -> Reach:
    """Softmax and the like: every element sees all elements along `dim`."""
    return spread(hull(_first(call), [call["dim"]]), call.shape)


def _layer_norm(call: Call) -> Reach:
    reach = call.reach("input")
    return union([reach, hull(reach, range(-len(call["normalized_shape"]), 0))], call.shape)


def _group_norm(call: Call) -> Reach:
    reach, groups = call.reach("input"), call["group"]
    grouped = reach.reshape(PLANES, call.shape[0], groups, -1, *call.shape[2:])
    return _same_order(hull(grouped, range(2, grouped.dim() - 1)).expand_as(grouped), call.shape)


def _batch_norm(call: Call) -> Reach:
    """Fixed statistics carry; batch statistics (instance norm) are a hull per channel."""
    reach = call.reach("input")
    if not call.get("training", False):
        return reach
    return spread(hull(reach, [axis for axis in range(len(call.shape)) if axis != 1]), call.shape)


def _product(left: str, right: str, added: str | None = None) -> Rule:
    """A matrix product: the hull over the contracted axis."""

    def rule(call: Call) -> Reach:
        terms = [hull(call.reach(left), [-1]), hull(call.reach(right), [-2])]
        return union(terms + ([call.reach(added)] if added else []), call.shape)

    return rule


def _attention(call: Call) -> Reach:
    """Each query sees all keys and values."""
    query, key, value = call.reach("query"), call.reach("key"), call.reach("value")
    return union([hull(query, [-1]), hull(key, [-2, -1]), hull(value, [-2])], call.shape)


def _attention_block(call: Call) -> Reach:
    """Fused multi-head attention or encoder layer: every token of an image sees all its tokens."""
    names = [name for name in ("src", "query", "key", "value") if name in call.arguments]
    return union([hull(call.reach(name), [-2, -1]) for name in names], call.shape)


def _mirrored(call: Call) -> Reach:
    """Padding with copies of the edge: the copies' true reach, at the unclipped place of padding."""
    (moved,), placed = _moved(call), padded(call)
    return torch.cat([moved[CLIPPED], placed[UNCLIPPED], placed[JUMPS]])


def _table(*rows: tuple[Rule, str]) -> dict[str, Rule]:
    return {name: rule for rule, names in rows for name in names.split()}


RULES = _table(
    (_same, "clone _to_copy detach alias lift_fresh contiguous native_dropout hardswish _prelu_kernel prelu tril triu"),
    (_constant, "fill zero zeros_like ones_like empty_like full_like rand_like randn_like new_zeros new_ones new_empty "
            "new_full new_empty_strided"),
    (_copied, "copy"),
    (_reshaped, "view _unsafe_view _reshape_alias reshape flatten unsqueeze squeeze"),
    (everything, "as_strided view_as_real view_as_complex _fft_r2c _fft_c2r _fft_c2c"),
    (_moved, "cat stack roll flip index index_select gather repeat pixel_shuffle pixel_unshuffle channel_shuffle "
             "im2col upsample_nearest1d upsample_nearest2d _upsample_nearest_exact1d _upsample_nearest_exact2d "
             "split_with_sizes unbind rot90"),
    (padded, "constant_pad_nd"),
    (_mirrored, "reflection_pad1d reflection_pad2d replication_pad1d replication_pad2d"),
    (_along, "_softmax _safe_softmax _log_softmax cumsum sort topk"),
    (_layer_norm, "native_layer_norm _fused_rms_norm"),
    (_group_norm, "native_group_norm"),
    (_batch_norm, "native_batch_norm cudnn_batch_norm miopen_batch_norm _native_batch_norm_legit "
                  "_native_batch_norm_legit_no_training _batch_norm_no_update"),
    (convolution, "convolution _convolution"),
    (pooled, "max_pool2d_with_indices max_pool3d_with_indices avg_pool1d avg_pool2d avg_pool3d"),
    (binned, "_adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_max_pool2d adaptive_max_pool3d"),
    (interpolated(1), "upsample_linear1d upsample_bilinear2d _upsample_bilinear2d_aa"),
    (interpolated(2), "upsample_bicubic2d _upsample_bicubic2d_aa"),
    (_product("self", "mat2"), "mm bmm"),
    (_product("mat1", "mat2", "self"), "addmm"),
    (_product("batch1", "batch2", "self"), "baddbmm"),
    (_attention, "_scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_flash_attention "
                 "_scaled_dot_product_efficient_attention _scaled_dot_product_cudnn_attention"),
    (_attention_block, "_native_multi_head_attention _transformer_encoder_layer_fwd"),
)  # fmt: skip
"""Rules by operation, its in-place form included; views, pointwise operations and reductions need no entry."""


def rule_for(function: Any) -> Rule | None:
    """The rule of an operation, None if there is none."""
    name = function._schema.name.removeprefix("aten::")
    name = name.removesuffix("_") if name not in RULES else name
    if name in RULES:
        return RULES[name]
    if torch.Tag.pointwise in function.tags:
        return _pointwise
    if torch.Tag.reduction in function.tags:
        return _reduced
    return _moved if function.is_view else None
