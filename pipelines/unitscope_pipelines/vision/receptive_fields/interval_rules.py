"""Rules of dependency: small functions, and a table of which operation follows which.

A rule may be too wide, never too narrow: an operation without a rule, and an argument that its rule does not read,
count with the hull of all their elements.
"""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._pytree import tree_map

from unitscope_pipelines.vision.receptive_fields.dependency import (
    CLIPPED,
    JUMPS,
    PLANES,
    UNCLIPPED,
    Dependency,
    hull,
    nothing,
    spread,
    thin,
    union,
    whole,
)
from unitscope_pipelines.vision.receptive_fields.operation import Operation, Rule, tensors_in
from unitscope_pipelines.vision.receptive_fields.window_rules import binned, convolution, interpolated, padded, pooled

_TARGETS = ("index", "indices")
"""Arguments that say where to move values, rather than which."""


def everything(operation: Operation, *dependencies: Dependency) -> Dependency:
    """Let any output depend on any element of any argument."""
    return spread(union(map(whole, dependencies), []), operation.shape)


def _pointwise(operation: Operation, *dependencies: Dependency) -> Dependency:
    """Let an output depend on the elements of the arguments that lie at its own position."""
    return union(dependencies, operation.shape)


def _same(operation: Operation, dependency: Dependency) -> Dependency:
    """Let an output depend on what the first argument's element depends on."""
    return spread(dependency, operation.shape)


def _constant(operation: Operation, _overwritten: Dependency) -> Dependency:
    """Let outputs depend on nothing: they are new values, whatever the first argument holds."""
    return nothing(operation.shape)


def _copied(operation: Operation, _overwritten: Dependency, source: Dependency) -> Dependency:
    """Let an output depend on what is copied over the first argument's element."""
    return spread(source, operation.shape)


def _reshaped(operation: Operation, dependency: Dependency) -> Dependency:
    """Keep elements in their order under another shape; a view as another type has other elements."""
    same = dependency[0].numel() == operation.output.numel()
    return _in_order(dependency, operation.shape) if same else everything(operation, dependency)


def _in_order(dependency: Dependency, shape: Sequence[int]) -> Dependency:
    """Return the dependency of the same elements, in the same order, under another shape."""
    return dependency.reshape(PLANES, *shape)


def _moved(operation: Operation, *dependencies: Dependency) -> list[Dependency]:
    """Move elements by running the operation itself on every plane of the dependencies."""
    targets = tensors_in([operation.arguments.get(name) for name in _TARGETS])
    moving = MOVED.tensors(operation)
    moved = []
    for plane in range(PLANES):
        stead = {id(tensor): dependency[plane] for tensor, dependency in zip(moving, dependencies, strict=True)}
        stead |= {id(target): target.cpu() for target in targets}
        arguments = tree_map(lambda leaf, stead=stead: stead.get(id(leaf), leaf), dict(operation.arguments))
        outputs = operation.function(**arguments)
        moved.append([outputs] if isinstance(outputs, Tensor) else list(outputs))
    return [_stacked(planes) for planes in zip(*moved, strict=True)]


def _stacked(planes: Sequence[Tensor]) -> Dependency:
    """Return planes of one shape as a dependency that is thin where they are."""
    return spread(torch.cat([thin(plane.unsqueeze(0)) for plane in planes]), planes[0].shape)


def _reduced(operation: Operation, dependency: Dependency) -> Dependency:
    """Let an output depend on all elements along the reduced axes (default: all axes)."""
    axes = [] if operation.arguments.get("dim") is None else operation.integers("dim")
    return _in_order(hull(dependency, axes or None), operation.shape)


def _along(operation: Operation, dependency: Dependency) -> Dependency:
    """Let an output of softmax and the like depend on all elements along `dim`."""
    return spread(hull(dependency, [operation.integer("dim")]), operation.shape)


def _layer_norm(operation: Operation, dependency: Dependency) -> Dependency:
    """Let an output depend on its element, and on all that it is normalised with."""
    axes = range(-len(operation.integers("normalized_shape")), 0)
    return union([dependency, hull(dependency, axes)], operation.shape)


def _group_norm(operation: Operation, dependency: Dependency) -> Dependency:
    """Let an output depend on all elements of its group of channels."""
    shape, group_count = operation.shape, operation.integer("group")
    grouped = dependency.reshape(PLANES, shape[0], group_count, shape[1] // group_count, *shape[2:])
    return _in_order(hull(grouped, range(2, grouped.dim() - 1)).expand_as(grouped), shape)


def _batch_norm(operation: Operation, dependency: Dependency) -> Dependency:
    """Keep the dependency under fixed statistics; batch statistics (instance norm) are a hull per channel."""
    if not operation.flag("training"):
        return dependency
    axes = [axis for axis in range(len(operation.shape)) if axis != 1]
    return spread(hull(dependency, axes), operation.shape)


def _product(operation: Operation, left: Dependency, right: Dependency, added: Dependency | None = None) -> Dependency:
    """Let a matrix product depend on the hull over the contracted axis, and on what is added to it."""
    terms = [hull(left, [-1]), hull(right, [-2])]
    return union(terms if added is None else [*terms, added], operation.shape)


def _attention(operation: Operation, query: Dependency, key: Dependency, value: Dependency) -> Dependency:
    """Let each query's output depend on all keys and values."""
    return union([hull(query, [-1]), hull(key, [-2, -1]), hull(value, [-2])], operation.shape)


def _attention_block(operation: Operation, *dependencies: Dependency) -> Dependency:
    """Let every token behind fused attention, or a fused encoder layer, depend on all tokens of its image."""
    return union([hull(dependency, [-2, -1]) for dependency in dependencies], operation.shape)


def _mirrored(operation: Operation, dependency: Dependency) -> Dependency:
    """Pad with copies of the edge: they have their true dependency, and padding's unclipped box."""
    (moved,), constant = _moved(operation, dependency), padded(operation, dependency)
    return torch.cat([moved[CLIPPED], constant[UNCLIPPED], constant[JUMPS]])


def _table(*rows: tuple[Rule, str]) -> dict[str, Rule]:
    """Return the rules by the names of operations, which stand apart by spaces in each row."""
    return {name: rule for rule, names in rows for name in names.split()}


EVERYTHING = Rule(None, everything)
"""Rule of an operation of which nothing is known."""
POINTWISE = Rule(None, _pointwise, but=("out",))
"""Rule of operations whose outputs depend on the elements at their own position."""
REDUCED = Rule((0,), _reduced)
"""Rule of sums, means, maxima and the like."""
MOVED = Rule(None, _moved, but=_TARGETS)
"""Rule of operations that move elements and change none."""

RULES = _table(
    (Rule((0,), _same), "clone _to_copy detach alias lift_fresh contiguous native_dropout hardswish _prelu_kernel "
                        "prelu tril triu"),
    (Rule((0,), _constant), "fill zero zeros_like ones_like empty_like full_like rand_like randn_like new_zeros "
                            "new_ones new_empty new_full new_empty_strided"),
    (Rule((0, "src"), _copied), "copy"),
    (Rule((0,), _reshaped), "view _unsafe_view _reshape_alias reshape flatten unsqueeze squeeze"),
    (EVERYTHING, "as_strided view_as_real view_as_complex _fft_r2c _fft_c2r _fft_c2c"),
    (MOVED, "cat stack roll flip index index_select gather repeat pixel_shuffle pixel_unshuffle channel_shuffle "
            "im2col upsample_nearest1d upsample_nearest2d _upsample_nearest_exact1d _upsample_nearest_exact2d "
            "split_with_sizes unbind rot90"),
    (Rule(("self",), padded), "constant_pad_nd"),
    (Rule(("self",), _mirrored), "reflection_pad1d reflection_pad2d replication_pad1d replication_pad2d"),
    (Rule((0,), _along), "_softmax _safe_softmax _log_softmax cumsum sort topk"),
    (Rule(("input",), _layer_norm), "native_layer_norm _fused_rms_norm"),
    (Rule(("input",), _group_norm), "native_group_norm"),
    (Rule(("input",), _batch_norm), "native_batch_norm cudnn_batch_norm miopen_batch_norm _native_batch_norm_legit "
                                    "_native_batch_norm_legit_no_training _batch_norm_no_update"),
    (Rule(("input",), convolution), "convolution _convolution"),
    (Rule(("self",), pooled), "max_pool2d_with_indices max_pool3d_with_indices avg_pool1d avg_pool2d avg_pool3d"),
    (Rule(("self",), binned), "_adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_max_pool2d adaptive_max_pool3d"),
    (Rule(("self",), partial(interpolated, radius=1)), "upsample_linear1d upsample_bilinear2d "
                                                       "_upsample_bilinear2d_aa"),
    (Rule(("self",), partial(interpolated, radius=2)), "upsample_bicubic2d _upsample_bicubic2d_aa"),
    (Rule(("self", "mat2"), _product), "mm bmm"),
    (Rule(("mat1", "mat2", "self"), _product), "addmm"),
    (Rule(("batch1", "batch2", "self"), _product), "baddbmm"),
    (Rule(("query", "key", "value"), _attention), "_scaled_dot_product_flash_attention_for_cpu "
        "_scaled_dot_product_flash_attention _scaled_dot_product_efficient_attention "
        "_scaled_dot_product_cudnn_attention"),
    (Rule(("src", "query", "key", "value"), _attention_block), "_native_multi_head_attention "
                                                               "_transformer_encoder_layer_fwd"),
)  # fmt: skip
"""Rules by operation, its in-place form included; views, pointwise operations and reductions need no entry."""


def rule_for(function: OpOverload) -> Rule | None:
    """Return the rule of an operation, None if there is none."""
    name = function._schema.name.removeprefix("aten::")
    name = name.removesuffix("_") if name not in RULES else name
    if name in RULES:
        return RULES[name]
    if torch.Tag.pointwise in function.tags:
        return POINTWISE
    if torch.Tag.reduction in function.tags:
        return REDUCED
    return MOVED if function.is_view else None
