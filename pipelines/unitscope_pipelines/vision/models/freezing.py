"""Freezing of a network as its builder gave it: evaluation mode, no gradients, float32, channels last in memory."""

import copy
from collections.abc import Iterator
from itertools import chain

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from unitscope_pipelines.vision.recording.owners_code import owners_code
from unitscope_schemas.errors import ModelError, listing

WRAPPING = (
    "forward(images) takes one batch (image, channel, row, col): wrap the model in a module whose forward does, or "
    "name its input_size in the data config, and return that from a factory, file:PATH.py:FACTORY"
)
"""What to do about a network that does not run on a batch of pictures."""


def freeze(module: nn.Module, spec: str) -> nn.Module:
    """Return the network on the CPU in evaluation mode, without gradients, channels last where a tensor has four axes.

    A network that torch compiled is taken as it was before. Raises ModelError for TorchScript, whose layers run where
    no hook sees them, for quantised and lazy weights, and for a network that refuses evaluation mode.
    """
    module = _plain(module, spec)
    if any(tensor.is_inference() for tensor in _tensors(module)):
        module = copy.deepcopy(module)  # what was built in inference mode could never carry a gradient
    with owners_code(f"putting {spec} into evaluation mode"):
        # none of these is chained: networks override train without returning themselves
        module.eval()
        module.requires_grad_(False)
        module.to("cpu")
    for tensor in _tensors(module):
        if tensor.dim() == 4:
            tensor.data = tensor.data.contiguous(memory_format=torch.channels_last)
    return module


def cast(module: nn.Module, spec: str, input_shape: tuple[int, int, int]) -> tuple[str, ...]:
    """Cast a network that does not run on pictures of float32 to float32; return in words what was cast.

    A network whose weights have other types, and that sees to them itself, stays as it is. Raises ModelError for one
    that runs in neither way.
    """
    others = {parameter.dtype for parameter in module.parameters() if parameter.is_floating_point()} - {torch.float32}
    if not others:
        return ()
    try:
        _run(module, input_shape)
    except RuntimeError:
        module.float()
        with owners_code(f"a forward of {spec} on a batch of shape {(1, *input_shape)}", WRAPPING):
            _run(module, input_shape)
        kinds = listing(sorted(str(kind).removeprefix("torch.") for kind in others))
        return (f"weights of {kinds} were cast to float32, in which the network runs",)
    return ()


def _run(module: nn.Module, input_shape: tuple[int, int, int]) -> None:
    with torch.inference_mode():
        module(torch.zeros(1, *input_shape))


def _plain(module: nn.Module, spec: str) -> nn.Module:
    """Return the network before compilation; raise ModelError for one whose layers or weights cannot be had."""
    before = getattr(module, "_orig_mod", None)
    module = before if isinstance(before, nn.Module) else module
    if isinstance(module, torch.jit.ScriptModule):
        raise ModelError(
            f"{spec} is TorchScript (scripted or traced), whose layers run where they cannot be recorded; build the "
            "network from its Python class, fill it with the script's state_dict(), and return that from the factory"
        )
    lazy = [
        name
        for name, tensor in chain(module.named_parameters(), module.named_buffers())
        if isinstance(tensor, UninitializedParameter | UninitializedBuffer)
    ]
    if lazy:
        raise ModelError(f"{spec} has no weights yet: {listing(lazy)} are lazy; run one batch in the factory first")
    unread = [
        name for name, tensor in module.state_dict().items() if isinstance(tensor, Tensor) and not _has_values(tensor)
    ]
    if unread:
        raise ModelError(f"{spec} has weights that cannot be read: {listing(unread)}; give it plain ones in memory")
    return module


def _has_values(tensor: Tensor) -> bool:
    """Return whether a tensor's values can be read as plain numbers: none on the meta device, sparse or quantised."""
    return tensor.layout == torch.strided and not tensor.is_quantized and not tensor.is_meta


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    """Return all parameters and buffers."""
    return chain(module.parameters(), module.buffers())
