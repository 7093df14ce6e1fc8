"""Latents of a layer: what a sparse autoencoder, or another dictionary, makes of its output, recorded as a layer."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from unitscope_pipelines.vision.models.factories import SCHEME, Factory, load_factory
from unitscope_pipelines.vision.receptive_fields.receptive_fields import measure_layers
from unitscope_pipelines.vision.recording.recording import output_tensor
from unitscope_schemas.errors import ModelError, UsageError

SUFFIX = ".latents"


class Latents(nn.Module):
    """Applies a coder to a layer's output, whose channels it sees on the last axis, and gives as many axes back."""

    def __init__(self, layer: str, coder: nn.Module, channels_first: bool) -> None:
        super().__init__()
        self.layer, self.coder, self.channels_first = layer, coder, channels_first

    def forward(self, output: Tensor) -> Tensor:
        vectors = output.permute(0, 2, 3, 1) if self.channels_first else output
        found = output_tensor(self.coder(vectors), f"{self.layer}{SUFFIX}")
        if found.shape[:-1] != vectors.shape[:-1]:
            raise ModelError(
                f"the latents of {self.layer} have shape {tuple(found.shape)} for an output of {tuple(vectors.shape)}; "
                "only the last axis may change"
            )
        return found.permute(0, 3, 1, 2) if self.channels_first else found


class WithLatents(nn.Module):
    """A network whose layers' latents run in its forward; they are called `LAYER.latents`, all else as before."""

    def __init__(self, network: nn.Module, latents: Mapping[str, Latents]) -> None:
        super().__init__()
        self.network, self.latents = network, nn.ModuleList(latents.values())
        for layer, own in latents.items():
            network.get_submodule(layer).register_forward_hook(_running(own))

    def forward(self, images: Tensor) -> Any:
        return self.network(images)

    def named_modules(
        self, memo: set[nn.Module] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Module]]:
        """Modules by the network's own paths: a Sequential cannot take latents as a child without running them."""
        seen = set() if memo is None else memo
        yield prefix, self
        dot = f"{prefix}." if prefix else ""
        for path, module in self.network.named_modules(seen, "", remove_duplicate):
            if path:
                yield dot + path, module
        for own in self.latents:
            assert isinstance(own, Latents)
            yield from own.named_modules(seen, f"{dot}{own.layer}{SUFFIX}", remove_duplicate)


def load_coders(requests: Sequence[str], trusted: bool) -> dict[str, Factory]:
    """The factories of `LAYER=file:path.py:factory`, by layer; raises UsageError."""
    coders: dict[str, Factory] = {}
    for request in requests:
        layer, equals, spec = request.partition("=")
        if not equals or not layer or not spec.startswith(SCHEME):
            raise UsageError(f"latents {request!r} are not LAYER=file:PATH.py:FACTORY")
        if layer in coders:
            raise UsageError(f"layer {layer!r} has latents already; a layer takes one dictionary")
        coders[layer] = load_factory(spec, trusted)
    return coders


def hang_latents(network: nn.Module, coders: Mapping[str, Factory], input_shape: tuple[int, int, int]) -> WithLatents:
    """The network with a coder on each of the layers; raises ModelError for a layer that is not there."""
    measured = measure_layers(network, list(coders), input_shape, picture_count=0)
    latents = {}
    for spec, (layer, factory) in zip(measured, coders.items(), strict=True):
        coder = factory.make()
        if not isinstance(coder, nn.Module):
            raise ModelError(f"{factory.spec!r} gave {type(coder).__name__}, not a torch.nn.Module")
        latents[layer] = Latents(layer, coder, spec.kind == "map" and not spec.channels_last)
    return WithLatents(network, latents)


def _running(latents: Latents) -> Any:
    def run(_module: nn.Module, _inputs: Any, output: Any) -> None:
        latents(output_tensor(output, latents.layer))

    return run
