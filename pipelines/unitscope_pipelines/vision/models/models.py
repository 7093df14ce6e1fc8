"""Models by spec (`efficientnet-lite:0`, `timm:resnet18`): module, preprocessing, default layers, digests."""

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn

from unitscope_pipelines.vision.models.architectures import build
from unitscope_pipelines.vision.models.freezing import WRAPPING, cast, freeze
from unitscope_pipelines.vision.models.globs import matches
from unitscope_pipelines.vision.models.latents import SUFFIX, hang_latents, load_coders
from unitscope_pipelines.vision.models.weights import fill_from_file, located, seeded, weights_digest
from unitscope_pipelines.vision.recording.owners_code import owners_code
from unitscope_pipelines.vision.recording.recording import hooked_modules, output_tensors, split_call
from unitscope_schemas.entries.model import DEFAULT_SPEC, ModelEntry, Preprocessing
from unitscope_schemas.errors import ModelError, UsageError, listing
from unitscope_schemas.layout import layer_fault


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
        shape = built.preprocessing.channels, *built.preprocessing.input
        notes = fill_from_file(built.module, weights)
        module = freeze(built.module, built.spec)
        notes += cast(module, built.spec, shape)
        if coders:
            module = freeze(hang_latents(module, coders, shape), built.spec)
    digests = [built.code_digest, *(coder.digest for coder in coders.values())]
    entry = ModelEntry(
        spec=built.spec,
        weights=located(weights),
        weights_digest=weights_digest(module),
        latents=tuple(f"{layer}={coder.spec}" for layer, coder in coders.items()),
        code_digests=tuple(digest for digest in digests if digest is not None),
        notes=notes,
    )
    return VisionModel(entry, module, built.preprocessing, built.blocks)


def reload_model(entry: ModelEntry, trust_code: bool = False) -> VisionModel:
    """Load the model of a manifest; raise ModelError if its weights or code are no longer those of the manifest."""
    model = load_model(entry.spec, entry.weights, entry.latents, trust_code)
    if changed := changed_code(entry, model.entry):
        raise ModelError(f"the code of {listing(changed)} has changed; restore it, or index into a new directory")
    if model.entry.weights_digest != entry.weights_digest:
        latents = f", or those of its latents {listing(entry.latents)}," if entry.latents else ""
        raise ModelError(
            f"weights {entry.weights!r} of {entry.spec}{latents} are no longer those of the atlas "
            f"({entry.weights_digest[:12]}…); restore them, or index into a new directory"
        )
    return model


def changed_code(before: ModelEntry, now: ModelEntry) -> list[str]:
    """Return what of a model's own code is other than it was: the specs of its network and latents, as they are named.

    Where there are more or fewer files than before, it is all of them.
    """
    names = ([now.spec] if len(now.code_digests) > len(now.latents) else []) + list(now.latents)
    if len(before.code_digests) != len(now.code_digests):
        return names or [now.spec]
    digests = zip(names, before.code_digests, now.code_digests, strict=True)
    return [name for name, was, is_now in digests if was != is_now]


_PLAIN = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
"""Kinds of modules that are recorded by default in a network without blocks."""


def choose_layers(model: VisionModel, globs: Sequence[str] = ()) -> list[str]:
    """Return the names of the layers that match the globs, and of all latents, in the order of the forward.

    The default is the outputs of blocks or, in a network without any, of convolutions, transposed ones too, and of
    linear layers.
    A glob matches a module path component by component (`layer*.1`), `**` any number of components. A module
    called several times gives `name@0`, `name@1`, one that puts out several tensors `name@out0`, `name@out1`. Raises
    UsageError for a glob that matches nothing, and ModelError where there is nothing to choose from, or where a chosen
    layer's name cannot name a folder.
    """
    calls = _calls(model)
    kinds = dict(model.module.named_modules())
    per_path = Counter(call.path for call in calls)
    named = [(call.path, name) for call in calls for name in _output_names(call, per_path[call.path] > 1, kinds.keys())]
    latents = {f"{request.partition('=')[0]}{SUFFIX}" for request in model.entry.latents}
    chosen = {name for path, name in named if path in latents}
    if not globs:
        blocks = {name for path, name in named if path in model.blocks}
        plain = [(path, name) for path, name in named if f"{SUFFIX}." not in path]
        chosen |= blocks or {name for path, name in plain if isinstance(kinds[path], _PLAIN)}
    for glob in globs:
        exact = {name for _, name in named if name == glob}
        hits = exact or {name for path, name in named if matches(path, glob) or matches(name, glob)}
        if not hits:
            raise UsageError(f"no layer matches {glob!r}; the model has {listing(name for _, name in named)}")
        chosen |= hits
    if not chosen:
        raise _no_layers(model, [name for _, name in named])
    for name in sorted(chosen):
        if fault := layer_fault(name):
            raise ModelError(f"layer {name!r} cannot be recorded, as layers name folders: {fault}; rename the module")
    return [name for _, name in named if name in chosen]


class _Call(NamedTuple):
    """One call of a module in a forward."""

    path: str
    number: int
    tensor_count: int
    """Count of the floating-point tensors that it put out."""


def _output_names(call: _Call, is_repeated: bool, paths: Collection[str]) -> list[str]:
    """Return the names of what a call puts out; a path that reads like another module's call names its call too."""
    is_ambiguous = split_call(call.path, paths) != (call.path, 0, None)
    name = f"{call.path}@{call.number}" if is_repeated or is_ambiguous else call.path
    return [name] if call.tensor_count < 2 else [f"{name}@out{number}" for number in range(call.tensor_count)]


def _no_layers(model: VisionModel, called: Sequence[str]) -> ModelError:
    """Return the error of a network that has no layers to record by default."""
    if called:
        return ModelError(
            f"{model.entry.spec} calls neither blocks nor convolutions nor linear layers, so none are recorded by "
            f"default; name layers: it has {listing(called)}"
        )
    scripts = [path for path, module in model.module.named_modules() if isinstance(module, torch.jit.ScriptModule)]
    hidden = f" that hooks can see ({listing(scripts)} are TorchScript)" if scripts else ""
    return ModelError(
        f"{model.entry.spec} calls no modules{hidden} in a forward, so there are no layers to record; build it of "
        "plain modules (nn.Conv2d for functional.conv2d), and return that from the factory"
    )


def _calls(model: VisionModel) -> list[_Call]:
    """Return every module call of one forward in order; raise ModelError for a network that runs on no batch."""
    counts: Counter[str] = Counter()
    calls: list[_Call] = []

    def hook(path: str) -> Callable[[nn.Module, object, object], None]:
        def take(_module: nn.Module, _inputs: object, output: object) -> None:
            calls.append(_Call(path, counts[path], len(output_tensors(output))))
            counts[path] += 1

        return take

    modules = hooked_modules(model.module).items()
    handles = [module.register_forward_hook(hook(path)) for path, module in modules if path]
    try:
        what = f"a forward of {model.entry.spec} on a batch of shape {(1, *model.input_shape)}"
        with torch.inference_mode(), owners_code(what, WRAPPING):
            model.module(torch.zeros(1, *model.input_shape))
    finally:
        for handle in handles:
            handle.remove()
    return calls
