"""Receptive fields of layers: the input pixels that can change their units, and those that mostly do."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from unitscope_pipelines.vision.receptive_fields.dead_leaves import Shape
from unitscope_pipelines.vision.receptive_fields.effective import PICTURE_COUNT, effective_sizes
from unitscope_pipelines.vision.receptive_fields.theoretical import like_input, theoretical_layers
from unitscope_pipelines.vision.recording.gradients import gradient_faults
from unitscope_schemas.geometry import Size
from unitscope_schemas.units import LayerSpec


def measure_layers(
    model: nn.Module,
    names: Sequence[str],
    input_shape: Shape,
    seed: int = 0,
    picture_count: int = PICTURE_COUNT,
) -> list[LayerSpec]:
    """Return grid, units and receptive field of each named layer, for inputs of (channel, row, col).

    A layer is a module path, with `@1` for the second call of a module. Its output for an image is a map (channel,
    row, col, or channels last), tokens (token, channel) or a vector. With `picture_count` 0 the effective field is
    left as large as the theoretical one, and so is that of a layer whose gradient something cuts, with the reason. The
    model's mode and gradients are left as they were. Raises ModelError for a layer that is not there, is not called,
    does not depend on the input, or puts out something else, for example the heads of attention.
    """
    with _settled(model):
        layers = theoretical_layers(model, names, input_shape)
        try:
            effective, faults = effective_sizes(model, layers, input_shape, seed, picture_count), {}
        except Exception:
            # only the effective field needs gradients: layers without one keep the theoretical, and say why
            faults = gradient_faults(model, names, like_input(model, torch.zeros(1, *input_shape)))
            if not faults:
                raise
            sound = [layer for layer in layers if layer.name not in faults]
            effective = effective_sizes(model, sound, input_shape, seed, picture_count) if sound else {}
    return [
        _with_effective(
            layer, effective.get(layer.name) or layer.receptive_field.of_height(None), faults.get(layer.name)
        )
        for layer in layers
    ]


def _with_effective(layer: LayerSpec, size: Size, fault: str | None) -> LayerSpec:
    """Return the layer with this height and width of its effective field, or with what kept it from being measured."""
    field = layer.receptive_field.model_copy(update={"effective": size, "unmeasured": fault})
    return layer.model_copy(update={"receptive_field": field})


@contextmanager
def _settled(model: nn.Module) -> Iterator[None]:
    """Hold the model in evaluation mode, without gradients of its weights, within the context; restore both."""
    modes = [(module, module.training) for module in model.modules()]
    gradients = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        model.eval()
        model.requires_grad_(False)  # not chained: networks override train without returning themselves
        yield
    finally:
        for module, training in modes:
            module.training = training
        for parameter, requires_grad in gradients:
            parameter.requires_grad_(requires_grad)
