"""Classes that a model tells apart: the layer whose units are their logits, and their names."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor, nn

from unitscope_pipelines.vision.models.models import VisionModel
from unitscope_pipelines.vision.receptive_fields.receptive_fields import measure_layers
from unitscope_pipelines.vision.recording.recording import hooked_modules, output_tensor
from unitscope_schemas.entries.model import ModelEntry
from unitscope_schemas.errors import NotFoundError, UsageError, listing
from unitscope_schemas.units import LayerSpec, UnitId


@dataclass(frozen=True)
class Classes:
    """The classes of a model, one for each unit of its last layer."""

    model: str
    """Spec of the model, for messages."""
    layer: LayerSpec
    """Layer that puts out what the model does."""
    labels: tuple[str, ...]
    """Names of the classes in the order of the units; empty where none are known."""

    def unit(self, reference: str) -> UnitId:
        """Return the unit of a class by its index or label, in whatever case.

        Raises NotFoundError that says what there is.
        """
        if reference.isdecimal() and int(reference) < self.layer.units:
            return UnitId(self.layer.name, int(reference))
        wanted = reference.casefold()
        matches = [index for index, label in enumerate(self.labels) if wanted in _spellings(label)]
        if len(matches) == 1:
            return UnitId(self.layer.name, matches[0])
        known = f"its output has the classes 0 to {self.layer.units - 1}"
        if len(matches) > 1:
            raise NotFoundError(
                f"several classes of {self.model} are called {reference!r}: {listing(matches)}; give one"
            )
        if not self.labels:
            raise NotFoundError(f"{self.model} has no class {reference!r}: {known}, whose labels are not known")
        near = get_close_matches(wanted, [spelling for label in self.labels for spelling in _spellings(label)], 3)
        hint = f"; did you mean {listing(near)}?" if near else ""
        raise NotFoundError(f"{self.model} has no class {reference!r}: {known}, each also by its label{hint}")


def classes_of(model: VisionModel) -> Classes:
    """Return the classes of a model; raise UsageError if its output is no vector that one of its modules puts out."""
    name = _output_layer(model)
    (layer,) = measure_layers(model.module, [name], model.input_shape, picture_count=0)
    if layer.kind != "vector":
        raise UsageError(f"{model.entry.spec} puts out no vector of classes but {name}; optimise units of that layer")
    labels = class_labels(model.entry)
    return Classes(model.entry.spec, layer, labels if len(labels) == layer.units else ())


def class_labels(model: ModelEntry) -> tuple[str, ...]:
    """Return the labels that weights published with a model were trained for, in order; none for all other weights."""
    scheme, _, name = model.spec.partition(":")
    if model.weights != "default" or scheme not in ("efficientnet-lite", "torchvision", "timm"):
        return ()
    if scheme == "timm":
        return _timm_labels(name)
    from torchvision import models

    # EfficientNet-Lite was trained on ImageNet, in the same order
    weights: Any = models.get_model_weights(name if scheme == "torchvision" else "efficientnet_b0")
    return tuple(weights["DEFAULT"].meta.get("categories", ()))


def _timm_labels(name: str) -> tuple[str, ...]:
    """Return the labels of the part of ImageNet that a model of timm was trained for; none if it was another set."""
    import timm
    from timm.data.imagenet_info import ImageNetInfo, infer_imagenet_subset

    config = timm.get_pretrained_cfg(name)
    subset = None if config is None else infer_imagenet_subset(config.to_dict())  # type: ignore[no-untyped-call]
    return tuple(ImageNetInfo(subset).label_descriptions()) if subset else ()


def _spellings(label: str) -> list[str]:
    """Return a label as a whole and each of the names in it that commas part, in small letters."""
    return list(dict.fromkeys([label.casefold(), *(name.strip() for name in label.casefold().split(","))]))


def _output_layer(model: VisionModel) -> str:
    """Return the name of the innermost module call whose output is the model's very output."""
    calls: Counter[str] = Counter()
    outputs: list[tuple[str, int, object]] = []

    def hook(path: str) -> Callable[[nn.Module, object, object], None]:
        def take(_module: nn.Module, _inputs: object, output: object) -> None:
            outputs.append((path, calls[path], output))
            calls[path] += 1

        return take

    modules = hooked_modules(model.module).items()
    handles = [module.register_forward_hook(hook(path)) for path, module in modules if path]
    try:
        with torch.inference_mode():
            image = torch.zeros(1, *model.input_shape)
            last = output_tensor(model.module(image), "output")
    finally:
        for handle in handles:
            handle.remove()
    for path, call, output in outputs:
        if isinstance(output, Tensor) and output is last:
            return f"{path}@{call}" if calls[path] > 1 else path
    raise UsageError(
        f"the output of {model.entry.spec} is computed behind all of its modules, so none of them has its classes; "
        "optimise units of a layer"
    )
