"""Latents of a layer: what a sparse autoencoder, or another coder, makes of its output, recorded as a layer."""

from collections.abc import Callable, Iterator, Mapping, Sequence

from jaxtyping import Float
from torch import Tensor, nn

from unitscope_pipelines.vision.models.factories import SCHEME, Factory, load_factory
from unitscope_pipelines.vision.receptive_fields.receptive_fields import measure_layers
from unitscope_pipelines.vision.recording.owners_code import owners_code
from unitscope_pipelines.vision.recording.peaks import channel_axis
from unitscope_pipelines.vision.recording.recording import output_tensor
from unitscope_schemas.errors import ModelError, UsageError

SUFFIX = ".latents"
"""End of the name of latents, behind the name of their layer."""


class Latents(nn.Module):
    """A module that applies a coder to a layer's output.

    The coder sees the channels on the last axis, and gives as many axes back.
    """

    def __init__(self, layer: str, coder: nn.Module, channel_axis: int) -> None:
        super().__init__()
        self.layer, self.coder, self.channel_axis = layer, coder, channel_axis

    def forward(self, output: Float[Tensor, "image ..."]) -> Float[Tensor, "image ..."]:
        """Return the latents of a layer's output, channels on the axis where the output has them."""
        vectors = output.movedim(self.channel_axis, -1)
        with owners_code(f"the latents of {self.layer}, given channels last, shape {tuple(vectors.shape)},"):
            coded = output_tensor(self.coder(vectors), f"{self.layer}{SUFFIX}")
        if coded.shape[:-1] != vectors.shape[:-1]:
            raise ModelError(
                f"the latents of {self.layer} have shape {tuple(coded.shape)} for an output of {tuple(vectors.shape)}; "
                "only the last axis may change"
            )
        return coded.movedim(-1, self.channel_axis)


class WithLatents(nn.Module):
    """A network whose layers' latents run in its forward; they are called `LAYER.latents`, all else as before."""

    def __init__(self, network: nn.Module, latents: Mapping[str, Latents]) -> None:
        super().__init__()
        self.network, self.latents = network, nn.ModuleList(latents.values())
        for layer, module in latents.items():
            network.get_submodule(layer).register_forward_hook(_running(module))

    def forward(self, images: Float[Tensor, "image channel row col"]) -> object:
        """Return what the network puts out."""
        return self.network(images)

    def named_modules(
        self, memo: set[nn.Module] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Module]]:
        """Yield modules by the network's own paths.

        A Sequential cannot take latents as a child without running them.
        """
        seen = set() if memo is None else memo
        yield prefix, self
        dot = f"{prefix}." if prefix else ""
        for path, module in self.network.named_modules(seen, "", remove_duplicate):
            if path:
                yield dot + path, module
        for latents in self.latents:
            assert isinstance(latents, Latents)
            yield from latents.named_modules(seen, f"{dot}{latents.layer}{SUFFIX}", remove_duplicate)


def load_coders(requests: Sequence[str], trusted: bool) -> dict[str, Factory]:
    """Return the factories of requests `LAYER=file:path.py:factory` by layer.

    Raises UsageError for another form, for two requests of one layer, and for code that is not trusted.
    """
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
    """Return the network with a coder on each of the layers; raise ModelError for a layer that is not there."""
    measured = measure_layers(network, list(coders), input_shape, picture_count=0)
    latents = {}
    for spec, (layer, factory) in zip(measured, coders.items(), strict=True):
        coder = factory.make()
        if not isinstance(coder, nn.Module):
            raise ModelError(f"{factory.spec!r} gave {type(coder).__name__}, not a torch.nn.Module")
        latents[layer] = Latents(layer, coder, channel_axis(spec))
    return WithLatents(network, latents)


def _running(latents: Latents) -> Callable[[nn.Module, object, object], None]:
    """Return the hook that runs latents on a layer's output."""

    def run(_module: nn.Module, _inputs: object, output: object) -> None:
        latents(output_tensor(output, latents.layer))

    return run
