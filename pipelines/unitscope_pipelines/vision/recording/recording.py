"""Recording of what layers put out, by forward hooks that are always removed."""

from collections import Counter
from collections.abc import Callable, Collection, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import fields, is_dataclass
from typing import NamedTuple, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unitscope_schemas.errors import ModelError, listing

Images = Float[Tensor, "image channel row col"]
"""Pictures as the network takes them."""
Recorded = TypeVar("Recorded")
"""Type of what is recorded of each layer."""


class OutputName(NamedTuple):
    """A layer's name in its parts: which module, which of its calls, and which of the tensors that it puts out."""

    path: str
    call: int
    number: int | None = None
    """Number among the call's floating-point tensors; None for its only one, or its first."""


def split_call(layer: str, paths: Container[str] | None = None) -> OutputName:
    """Return the parts of a layer's name: `block@1` is the second call of `block`, `fpn@out2` its third tensor.

    `paths` are the modules there are; a module that is itself called `block@1` is meant where there is no `block`.
    """
    head, _, number = layer.rpartition("@out")
    heads: list[tuple[str, int | None]] = [(head, int(number))] if head and number.isdecimal() else []
    ways = []
    for name, output in [*heads, (layer, None)]:
        path, _, call = name.rpartition("@")
        ways += [OutputName(path, int(call), output)] if path and call.isdecimal() else []
        ways.append(OutputName(name, 0, output))
    return next((way for way in ways if paths is None or way.path in paths), ways[0])


def output_tensors(output: object) -> list[Tensor]:
    """Return the floating-point tensors that a module puts out, in order, out of whatever holds them."""
    if isinstance(output, Tensor):
        return [output] if output.is_floating_point() else []
    return [tensor for value in _values(output) for tensor in output_tensors(value)]


def output_tensor(output: object, layer: str, number: int | None = None) -> Tensor:
    """Return a module's output: that tensor by number, or the first of a tuple or mapping.

    Raises ModelError if there is none.
    """
    if number is None and isinstance(output, Tensor):
        return output
    tensors = output_tensors(output)
    if number is None:
        tensors = [value for value in _values(output) if isinstance(value, Tensor)] or tensors
    if (number or 0) < len(tensors):
        return tensors[number or 0]
    if number is not None and tensors:
        raise ModelError(f"layer {layer!r} is not there: its module puts out {len(tensors)} tensors, from @out0")
    raise ModelError(f"layer {layer!r} puts out {type(output).__name__}, not a tensor; choose another layer")


def _values(output: object) -> list[object]:
    """Return what a tuple, list, mapping or data class holds; nothing for anything else."""
    if isinstance(output, Mapping):
        return list(output.values())
    if isinstance(output, tuple | list):
        return list(output)
    if is_dataclass(output):
        return [getattr(output, field.name) for field in fields(output)]
    return []


def hooked_modules(model: nn.Module) -> dict[str, nn.Module]:
    """Return the modules whose outputs hooks can see, by path: all but those that TorchScript runs."""
    return {path: module for path, module in model.named_modules() if not isinstance(module, torch.jit.ScriptModule)}


@contextmanager
def record(
    model: nn.Module, layers: Sequence[str], keep: Callable[[str, Tensor], Recorded]
) -> Iterator[dict[str, Recorded]]:
    """Fill the mapping with `keep(layer, output)` in each forward of `model` within the context.

    `keep` runs in the hook, before the next module, so an in-place module behind the layer changes nothing.
    Raises ModelError for a layer that the model does not have.
    """
    modules = hooked_modules(model)
    wanted: dict[str, dict[int, list[tuple[str, int | None]]]] = {}
    for layer in layers:
        path, call, number = split_call(layer, modules)
        if path not in modules:
            raise ModelError(f"the model has no layer {path!r}; it has {listing(name for name in modules if name)}")
        wanted.setdefault(path, {}).setdefault(call, []).append((layer, number))

    recorded: dict[str, Recorded] = {}
    calls: Counter[str] = Counter()

    def start(_module: nn.Module, _inputs: object) -> None:
        recorded.clear()
        calls.clear()

    def hook(path: str) -> Callable[[nn.Module, object, object], None]:
        def take(_module: nn.Module, _inputs: object, output: object) -> None:
            call = calls[path]
            calls[path] += 1
            for layer, number in wanted[path].get(call, ()):
                recorded[layer] = keep(layer, output_tensor(output, layer, number))

        return take

    handles = [model.register_forward_pre_hook(start)]
    try:
        handles += [modules[path].register_forward_hook(hook(path)) for path in wanted]
        yield recorded
    finally:
        for handle in handles:
            handle.remove()


class _ForwardEnd(BaseException):
    """Ends a forward from within a hook: what comes after the layer is not computed."""


def outputs_of(model: nn.Module, layers: Collection[str], images: Images) -> dict[str, Float[Tensor, "..."]]:
    """Return the outputs of these layers; the forward ends at the last of them.

    Outputs are copies, as an in-place module behind a layer would change what it put out. Raises ModelError for a layer
    that is not called in a forward.
    """
    outputs: dict[str, Tensor] = {}
    names = sorted(set(layers))

    def keep(layer: str, output: Tensor) -> None:
        outputs[layer] = output.clone()
        if len(outputs) == len(names):
            raise _ForwardEnd

    with record(model, names, keep), suppress(_ForwardEnd):
        model(images)
    for name in names:
        if name not in outputs:
            raise ModelError(f"layer {name!r} was not called in a forward; choose another layer or call")
    return outputs


def output_of(model: nn.Module, layer: str, images: Images) -> Float[Tensor, "..."]:
    """Return one layer's output; the forward ends there. Raises ModelError for a layer that is not called in it."""
    return outputs_of(model, [layer], images)[layer]
