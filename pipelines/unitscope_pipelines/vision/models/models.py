"""Models by spec (`efficientnet-lite:0`, `timm:resnet18`): module, preprocessing, default layers, digests."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from unitscope_pipelines.vision.models.architectures import build
from unitscope_pipelines.vision.models.globs import matches
from unitscope_pipelines.vision.models.latents import SUFFIX, hang_latents, load_coders
from unitscope_pipelines.vision.models.weights import located, seeded, weights_digest
from unitscope_schemas.errors import ModelError, UsageError, listing
from unitscope_schemas.manifest import ModelEntry, Preprocessing

DEFAULT_SPEC = "efficientnet-lite:0"
"""Spec of the model that is used unless another is named."""


@dataclass(frozen=True)
class VisionModel:
    """A frozen network in evaluation mode with all that is needed to run it on a picture."""

    entry: ModelEntry
    """What a manifest says of the model."""
    module: nn.Module
    preprocessing: Preprocessing
    blocks: tuple[str, ...]
    """Module paths of the blocks whose outputs are recorded by default."""

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Return channels, rows and columns of the input."""
        return self.preprocessing.channels, *self.preprocessing.input


def load_model(
    spec: str = DEFAULT_SPEC, weights: str = "default", latents: Sequence[str] = (), trust_code: bool = False
) -> VisionModel:
    """Build the model of `SCHEME:NAME` with weights `default`, `random:SEED` or a state-dict file.

    `latents` are `LAYER=file:path.py:factory`, each recorded as `LAYER.latents`. Raises UsageError for an unknown
    spec and for code of a file that is not trusted, and ModelError for weights that do not fit.
    """
    coders = load_coders(latents, trust_code)
    # weights are plain tensors even if the first forward, in inference mode, is what loads them
    with torch.inference_mode(False), seeded(weights):
        built = build(spec, weights, trust_code)
        module = _frozen(built.module)
        if coders:
            shape = built.preprocessing.channels, *built.preprocessing.input
            module = _frozen(hang_latents(module, coders, shape))
    digests = [built.code_digest, *(coder.digest for coder in coders.values())]
    entry = ModelEntry(
        spec=built.spec,
        weights=located(weights),
        weights_digest=weights_digest(module),
        latents=tuple(f"{layer}={coder.spec}" for layer, coder in coders.items()),
        code_digests=tuple(digest for digest in digests if digest is not None),
    )
    return VisionModel(entry, module, built.preprocessing, built.blocks)


def reload_model(entry: ModelEntry, trust_code: bool = False) -> VisionModel:
    """Load the model of a manifest; raise ModelError if its weights or code are no longer those of the manifest."""
    model = load_model(entry.spec, entry.weights, entry.latents, trust_code)
    if model.entry.code_digests != entry.code_digests:
        raise ModelError(f"the code of {entry.spec} has changed; restore it, or index into a new directory")
    if model.entry.weights_digest != entry.weights_digest:
        raise ModelError(
            f"weights {entry.weights!r} of {entry.spec} are no longer those of the atlas "
            f"({entry.weights_digest[:12]}…); restore them, or index into a new directory"
        )
    return model


_PLAIN = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
"""Kinds of modules that are recorded by default in a network without blocks."""


def choose_layers(model: VisionModel, globs: Sequence[str] = ()) -> list[str]:
    """Return the names of the layers that match the globs, and of all latents, in the order of the forward.

    The default is the outputs of blocks or, in a network without any, of convolutions, transposed ones too, and of
    linear layers.
    A glob matches a module path component by component (`layer*.1`), `**` any number of components. A module
    called several times gives `name@0`, `name@1`. Raises UsageError for a glob that matches nothing.
    """
    calls = _calls(model)
    kinds = dict(model.module.named_modules())
    per_path = Counter(path for path, _ in calls)
    named = [(path, f"{path}@{call}" if per_path[path] > 1 else path) for path, call in calls]
    latents = {f"{request.partition('=')[0]}{SUFFIX}" for request in model.entry.latents}
    chosen = {name for path, name in named if path in latents}
    if not globs:
        blocks = {name for path, name in named if path in model.blocks}
        plain = [(path, name) for path, name in named if f"{SUFFIX}." not in path]
        chosen |= blocks or {name for path, name in plain if isinstance(kinds[path], _PLAIN)}
    for glob in globs:
        hits = {name for path, name in named if matches(path, glob) or name == glob}
        if not hits:
            raise UsageError(f"no layer matches {glob!r}; the model has {listing(name for _, name in named)}")
        chosen |= hits
    return [name for _, name in named if name in chosen]


def _frozen(module: nn.Module) -> nn.Module:
    """Put the module into evaluation mode, without gradients of its weights and with channels last in memory."""
    return module.eval().requires_grad_(False).to(memory_format=torch.channels_last)


def _calls(model: VisionModel) -> list[tuple[str, int]]:
    """Return every module call of one forward in order: path and number of the call."""
    counts: Counter[str] = Counter()
    calls: list[tuple[str, int]] = []

    def hook(path: str) -> Callable[[nn.Module, object, object], None]:
        def take(_module: nn.Module, _inputs: object, _output: object) -> None:
            calls.append((path, counts[path]))
            counts[path] += 1

        return take

    handles = [module.register_forward_hook(hook(path)) for path, module in model.module.named_modules() if path]
    try:
        with torch.inference_mode():
            model.module(torch.zeros(1, *model.input_shape))
    finally:
        for handle in handles:
            handle.remove()
    return calls
