"""Recording of what layers put out, by forward hooks that are always removed."""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TypeVar

from jaxtyping import Float
from torch import Tensor, nn

from unitscope_schemas.errors import ModelError, listing

Images = Float[Tensor, "image channel row col"]
"""Pictures as the network takes them."""
Recorded = TypeVar("Recorded")
"""Type of what is recorded of each layer."""


def split_call(layer: str) -> tuple[str, int]:
    """Return module path and call number of a layer name: `block@1` is the second call of `block`."""
    path, at, call = layer.rpartition("@")
    return (path, int(call)) if at and call.isdecimal() else (layer, 0)


def output_tensor(output: object, layer: str) -> Tensor:
    """Return a module's output, or the first tensor of a tuple or mapping; raise ModelError if there is none."""
    if isinstance(output, Tensor):
        return output
    values = output.values() if isinstance(output, dict) else output if isinstance(output, tuple | list) else ()
    for value in values:
        if isinstance(value, Tensor):
            return value
    raise ModelError(f"layer {layer!r} puts out {type(output).__name__}, not a tensor; choose another layer")


@contextmanager
def record(
    model: nn.Module, layers: Sequence[str], keep: Callable[[str, Tensor], Recorded]
) -> Iterator[dict[str, Recorded]]:
    """Fill the mapping with `keep(layer, output)` in each forward of `model` within the context.

    `keep` runs in the hook, before the next module, so an in-place module behind the layer changes nothing.
    Raises ModelError for a layer that the model does not have.
    """
    modules = dict(model.named_modules())
    wanted: dict[str, dict[int, str]] = {}
    for layer in layers:
        path, call = split_call(layer)
        if path not in modules:
            raise ModelError(f"the model has no layer {path!r}; it has {listing(name for name in modules if name)}")
        wanted.setdefault(path, {})[call] = layer

    recorded: dict[str, Recorded] = {}
    calls: Counter[str] = Counter()

    def start(_module: nn.Module, _inputs: object) -> None:
        recorded.clear()
        calls.clear()

    def hook(path: str) -> Callable[[nn.Module, object, object], None]:
        def take(_module: nn.Module, _inputs: object, output: object) -> None:
            layer = wanted[path].get(calls[path])
            calls[path] += 1
            if layer is not None:
                recorded[layer] = keep(layer, output_tensor(output, layer))

        return take

    handles = [model.register_forward_pre_hook(start)]
    try:
        handles += [modules[path].register_forward_hook(hook(path)) for path in wanted]
        yield recorded
    finally:
        for handle in handles:
            handle.remove()


class _ForwardEnd(Exception):  # noqa: N818  (no error)
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
