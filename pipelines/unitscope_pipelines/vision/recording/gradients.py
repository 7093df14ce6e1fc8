"""Gradients that do not come back from a layer to the pixels: which layer cuts them, and how, in words."""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from unitscope_pipelines.vision.recording.memory import is_short_memory
from unitscope_pipelines.vision.recording.owners_code import in_one_line
from unitscope_pipelines.vision.recording.recording import Images, hooked_modules, output_of, output_tensors, record
from unitscope_schemas.errors import ModelError, UnitscopeError


@contextmanager
def cuts_named(model: nn.Module, layers: Collection[str], images: Images) -> Iterator[None]:
    """Raise ModelError within the context, naming what cuts the gradient, for what fails as these layers have none.

    What fails for another reason goes through as it is.
    """
    try:
        yield
    except UnitscopeError:
        raise
    except Exception as error:
        if is_short_memory(error):
            raise
        faults = gradient_faults(model, layers, images[:1].detach())
        if not faults:
            raise
        layer, fault = next(iter(faults.items()))
        raise ModelError(
            f"no gradient comes back from layer {layer!r} to the pixels: {fault}; take that out of the network's code"
        ) from error


def gradient_faults(model: nn.Module, layers: Collection[str], image: Images) -> dict[str, str]:
    """Return in words what cuts the gradient between pixels and each of these layers that has none, by layer.

    `image` is one picture as the network takes it.
    """
    leaf = image.clone().requires_grad_()
    try:
        with torch.enable_grad(), record(model, list(layers), lambda _, output: output.clone()) as outputs:
            model(leaf.clone())
    except UnitscopeError:
        raise
    except Exception as error:  # the network's own code; what it says is the answer
        if is_short_memory(error):
            raise
        return dict.fromkeys(layers, f"the forward does not run with gradients ({in_one_line(error)})")
    faults = {}
    for layer, output in outputs.items():
        if not output.requires_grad:
            faults[layer] = _first_cut(model, layer, image)
        elif fault := _backward_fault(output, leaf):
            faults[layer] = f"{_first_broken(model, layer, image)} {fault}"
    return faults


def _backward_fault(output: Tensor, leaf: Tensor) -> str | None:
    """Return what an output's gradient fails with on its way to the leaf; None if it arrives."""
    try:
        torch.autograd.grad(output.sum(), leaf, retain_graph=True, allow_unused=True)
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # noqa: BLE001  (a derivative of the network's own may raise anything)
        if "modified by an inplace operation" in str(error):
            return "values that its derivative needs are overwritten in place"
        return f"there is no derivative ({in_one_line(error)})"
    return None


def _first_broken(model: nn.Module, layer: str, image: Images) -> str:
    """Return in words the first layer of a forward, up to `layer`, whose gradient fails."""
    leaf = image.clone().requires_grad_()
    outputs: list[tuple[str, Tensor]] = []

    def hook(path: str) -> Callable[[nn.Module, object, object], None]:
        def take(_module: nn.Module, _inputs: object, output: object) -> None:
            outputs.extend((path, tensor.clone()) for tensor in output_tensors(output) if tensor.requires_grad)

        return take

    handles = [module.register_forward_hook(hook(path)) for path, module in hooked_modules(model).items() if path]
    try:
        with torch.enable_grad():
            output_of(model, layer, leaf.clone())
    finally:
        for handle in handles:
            handle.remove()
    broken = [path for path, output in outputs if _backward_fault(output, leaf)][:1]
    return f"before or in layer {(broken or [layer])[0]!r}"


def _first_cut(model: nn.Module, layer: str, image: Images) -> str:
    """Return in words the first place of a forward, up to `layer`, that lets no gradient through."""
    stack: list[str] = []
    cuts: list[str] = []
    last: list[str] = []

    def start(path: str) -> Callable[[nn.Module, object, object], None]:
        def hook(_module: nn.Module, args: object, kwargs: object) -> None:
            if not cuts and stack and not torch.is_grad_enabled():
                cuts.append(f"{_words(stack[-1])} switches gradients off (torch.no_grad or torch.inference_mode)")
            elif not cuts and stack and _tensors((args, kwargs)) and not _needs_gradient((args, kwargs)):
                cuts.append(f"{_words(stack[-1])} cuts it {_between(last, path)}")
            stack.append(path)

        return hook

    def end(path: str) -> Callable[[nn.Module, object, object, object], None]:
        def hook(_module: nn.Module, args: object, kwargs: object, output: object) -> None:
            stack.pop()
            if _needs_gradient(output):
                last.append(path)
            elif not cuts and output_tensors(output) and _needs_gradient((args, kwargs)):
                cuts.append(f"{_words(path)} puts out values without one")

        return hook

    handles = []
    for path, module in hooked_modules(model).items():
        handles.append(module.register_forward_pre_hook(start(path), with_kwargs=True))
        handles.append(module.register_forward_hook(end(path), with_kwargs=True))
    try:
        with torch.enable_grad(), suppress(ModelError):
            output_of(model, layer, image.clone().requires_grad_().clone())
    finally:
        for handle in handles:
            handle.remove()
    return cuts[0] if cuts else f"layer {layer!r} puts out values without one"


def _between(last: list[str], path: str) -> str:
    """Return in words a place in a forward by the last layer before it, if there is one, and the next."""
    return f"between layers {last[-1]!r} and {path!r}" if last else f"before layer {path!r}"


def _words(path: str) -> str:
    """Return a module by its path, or the network itself."""
    return f"layer {path!r}" if path else "the network's own forward"


def _tensors(values: object) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor) and leaf.is_floating_point()]


def _needs_gradient(values: object) -> bool:
    return any(tensor.requires_grad for tensor in _tensors(values))
