"""Vision models of Transformers from a folder on this machine, with their own processor's preprocessing.

Nothing is fetched, no code of the folder runs, and weights are read from safetensors alone.
"""

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from unitscope_schemas.entries.model import Preprocessing
from unitscope_schemas.errors import ModelError, UsageError
from unitscope_schemas.geometry import Size

SCHEME = "hf"
_RESAMPLING = {2: "bilinear", 3: "bicubic"}
"""Words for Pillow's numbers of the ways to resize that are there."""
_SQUASHED_FROM = 384
"""Shorter side from which processors with a `crop_pct` resize to the input itself instead of cropping it (ConvNeXt)."""


def checked_folder(name: str) -> Path:
    """Return the folder of `hf:PATH`; raise UsageError if it is none, or holds no model."""
    folder = Path(name).absolute()
    if not (folder / "config.json").is_file():
        raise UsageError(
            f"hf:{name} is no folder with a config.json; models are read from this machine only: save it there, by "
            "save_pretrained, or download its repository"
        )
    return folder


def network_makers(folder: Path) -> tuple[Callable[[], nn.Module], Callable[[], nn.Module]]:
    """Return a function that makes the folder's network with random weights, and one with those of the folder.

    Raises UsageError where transformers is not installed, and ModelError for what is no vision model.
    """
    try:
        import transformers
    except ImportError:
        raise UsageError(
            f"model 'hf:{folder}' needs transformers; install the extra: pip install 'unitscope[transformers]'"
        ) from None
    config = _read(folder, transformers.AutoConfig.from_pretrained)
    named = next(iter(getattr(config, "architectures", None) or ()), "")
    kind = getattr(transformers, named, None) or _class_of(transformers.AutoModel, config, folder)
    vision = getattr(transformers, f"{kind.__name__.removesuffix('Model')}VisionModel", None)
    if vision is not None and hasattr(config, "vision_config"):
        config, kind = config.vision_config, vision  # the tower of a model of pictures and words
    parameters = [name for name in inspect.signature(kind.forward).parameters if name != "self"]
    if parameters[:1] != ["pixel_values"]:
        raise ModelError(
            f"hf:{folder} is a {kind.__name__}, which takes {parameters[0]} first; there are models that take "
            "pixel_values. Wrap others so that forward(images) takes a batch, and give that as file:PATH.py:FACTORY"
        )
    return partial(kind, config), partial(_pretrained, kind, config, folder)


def read_preprocessing(folder: Path) -> Preprocessing:
    """Return what the folder's own processor does to a picture; raise ModelError for what is not there here."""
    from transformers import AutoImageProcessor

    told = _read(folder, AutoImageProcessor.from_pretrained).to_dict()
    if not told.get("do_resize", True):
        raise ModelError(f"the processor of hf:{folder} does not resize; pictures of one size are needed")
    way = told.get("resample")
    if way not in _RESAMPLING:
        raise ModelError(f"the processor of hf:{folder} has resample {way}; there are 2, bilinear, and 3, bicubic")
    resize_px, size, squash = _sizes(told, folder)
    factor = float(told["rescale_factor"]) if told.get("do_rescale", True) else 1.0
    offset = 1.0 if told.get("rescale_offset") else 0.0
    mean, std = (told["image_mean"], told["image_std"]) if told.get("do_normalize", True) else ([0.0] * 3, [1.0] * 3)
    return Preprocessing(
        resize_px=resize_px,
        input=size,
        interpolation=_RESAMPLING[way],  # type: ignore[arg-type]
        mean=tuple((float(value) + offset) / factor for value in mean),
        std=tuple(float(value) / factor for value in std),
        squash=squash,
    )


def _sizes(told: Mapping[str, Any], folder: Path) -> tuple[int, Size, bool]:
    """Return the shorter side after the resize, the input's size, and whether the resize is to that very size."""
    size = {name: int(value) for name, value in dict(told.get("size") or {}).items() if value is not None}
    crop = {name: int(value) for name, value in dict(told.get("crop_size") or {}).items() if value is not None}
    cropped = Size(crop["height"], crop["width"]) if told.get("do_center_crop") and crop.keys() >= {"height"} else None
    if size.keys() >= {"height", "width"}:
        whole = Size(size["height"], size["width"])
        if cropped not in (None, whole):
            raise ModelError(f"the processor of hf:{folder} resizes to {size} and crops {crop}, which is not done")
        return min(whole), whole, True
    edge = size.get("shortest_edge")
    if edge is None:
        raise ModelError(f"the processor of hf:{folder} has size {size}; there are height and width, and shortest_edge")
    if told.get("crop_pct"):
        square = Size(edge, edge)
        return (edge, square, True) if edge >= _SQUASHED_FROM else (int(edge / told["crop_pct"]), square, False)
    return edge, cropped or Size(edge, edge), False


def _class_of(auto: Any, config: object, folder: Path) -> Any:
    """Return the class that Transformers has for a configuration; raise ModelError where it has none."""
    kind = auto._model_mapping.get(type(config))
    if kind is None:
        raise ModelError(f"hf:{folder} is of a kind ({type(config).__name__}) for which Transformers has no model")
    return kind[0] if isinstance(kind, tuple) else kind


def _pretrained(kind: Any, config: object, folder: Path) -> nn.Module:
    """Return the network with the folder's weights, in float32; raise ModelError if some are missing."""
    load = partial(kind.from_pretrained, config=config, use_safetensors=True, dtype="float32", output_loading_info=True)
    module, told = _read(folder, load)
    if missing := sorted(told["missing_keys"]):
        raise ModelError(
            f"hf:{folder} lacks {len(missing)} weights of {kind.__name__}, as {missing[0]}, which would be random"
        )
    network: nn.Module = module
    return network


def _read(folder: Path, read: Callable[..., Any]) -> Any:
    """Return what Transformers reads from a folder, never from elsewhere and without its code; raise ModelError."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity(50)  # a table of weights that belong to other parts is no news
    try:
        return read(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        raise ModelError(f"hf:{folder} cannot be loaded: {str(error).strip().splitlines()[0][:300]}") from None
    finally:
        logging.set_verbosity(level)
