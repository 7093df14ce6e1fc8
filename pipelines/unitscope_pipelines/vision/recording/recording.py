"""Recording what layers put out, by forward hooks that are always removed."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from torch import Tensor, nn

from unitscope_schemas.errors import ModelError, listing

Kept = TypeVar("Kept")


def split_call(layer: str) -> tuple[str, int]:
    """Module path and call number of a layer name: `block@1` is the second call of `block`."""
    path, at, call = layer.rpartition("@")
    return (path, int(call)) if at and call.isdecimal() else (layer, 0)


def output_tensor(output: Any, layer: str) -> Tensor:
    """A module's output; of a tuple or mapping the first tensor. Raises ModelError if there is none."""
    if isinstance(output, Tensor):
        return output
    values = output.values() if isinstance(output, dict) else output if isinstance(output, tuple | list) else ()
    for value in values:
        if isinstance(value, Tensor):
            return value
    raise ModelError(f"layer {layer!r} puts out {type(output).__name__}, not a tensor; choose another layer")


@contextmanager
def record(model: nn.Module, layers: Sequence[str], keep: Callable[[str, Tensor], Kept]) -> Iterator[dict[str, Kept]]:
    """Within the context, each forward of `model` fills the mapping with `keep(layer, output)`.

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

    recorded: dict[str, Kept] = {}
    calls: Counter[str] = Counter()

    def start(_module: nn.Module, _inputs: Any) -> None:
        recorded.clear()
        calls.clear()

    def hook(path: str) -> Callable[[nn.Module, Any, Any], None]:
        def take(_module: nn.Module, _inputs: Any, output: Any) -> None:
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


class _Reached(Exception):  # noqa: N818  (no error: it ends the forward)
    """The layer's output, thrown out of the forward: what comes after it is not computed."""

    def __init__(self, output: Tensor) -> None:
        self.output = output


def output_of(model: nn.Module, layer: str, images: Tensor) -> Tensor:
    """One layer's output; the forward ends there. Raises ModelError for a layer that is not called in it."""

    def keep(_name: str, output: Tensor) -> None:
        raise _Reached(output)

    try:
        with record(model, [layer], keep):
            model(images)
    except _Reached as reached:
        return reached.output
    raise ModelError(f"layer {layer!r} was not called in a forward; choose another layer or call")
