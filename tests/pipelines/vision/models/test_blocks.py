"""Which layers are recorded by default: block outputs of every family, pinned."""

from contextlib import nullcontext

import pytest
import timm
import torch
from torch import nn
from torchvision import models

from unitscope_pipelines.vision.models.blocks import torchvision_blocks, usual_blocks

TORCHVISION = {
    "alexnet": (),
    "vgg16": (),
    "resnet18": (8, "layer1.0", "layer4.1"),
    "resnet50": (16, "layer1.0", "layer4.2"),
    "resnext50_32x4d": (16, "layer1.0", "layer4.2"),
    "densenet121": (4, "features.denseblock1", "features.denseblock4"),
    "googlenet": (9, "inception3a", "inception5b"),
    "inception_v3": (11, "Mixed_5b", "Mixed_7c"),
    "mobilenet_v2": (19, "features.0", "features.18"),
    "mobilenet_v3_small": (13, "features.0", "features.12"),
    "mnasnet0_5": (16, "layers.8.0", "layers.13.0"),
    "squeezenet1_0": (8, "features.3", "features.12"),
    "shufflenet_v2_x0_5": (16, "stage2.0", "stage4.3"),
    "efficientnet_b0": (16, "features.1.0", "features.7.0"),
    "efficientnet_v2_s": (40, "features.1.0", "features.6.14"),
    "regnet_y_400mf": (16, "trunk_output.block1.block1-0", "trunk_output.block4.block4-5"),
    "convnext_tiny": (18, "features.1.0", "features.7.2"),
    "swin_t": (12, "features.1.0", "features.7.1"),
    "swin_v2_t": (12, "features.1.0", "features.7.1"),
    "maxvit_t": (11, "blocks.0.layers.0", "blocks.3.layers.1"),
    "vit_b_16": (12, "encoder.layers.encoder_layer_0", "encoder.layers.encoder_layer_11"),
}

TIMM = {
    "test_resnet": (4, "layer1.0", "layer4.0"),
    "test_vit": (6, "blocks.0", "blocks.5"),
    "test_efficientnet": (5, "blocks.0.0", "blocks.4.0"),
    "test_convnext": (9, "stages.0.blocks.0", "stages.3.blocks.1"),
    "vgg11": (),
    "regnetx_002": (13, "s1.b1", "s4.b7"),
    "densenet121": (4, "features.denseblock1", "features.denseblock4"),
    "inception_v3": (11, "Mixed_5b", "Mixed_7c"),
    "inception_v4": (5, "features.2", "features.21"),
    "swin_tiny_patch4_window7_224": (12, "layers.0.blocks.0", "layers.3.blocks.1"),
    "vit_small_patch14_reg4_dinov2": (12, "blocks.0", "blocks.11"),
    "mixer_s32_224": (8, "blocks.0", "blocks.7"),
    "hrnet_w18_small": (4, "layer1.0", "stage4.0"),
    "tresnet_m": (21, "body.layer1.0", "body.layer4.2"),
    "coat_tiny": (14, "serial_blocks1.0", "parallel_blocks.5"),
    "nfnet_f0": (12, "stages.0.0", "stages.3.2"),
    "repvgg_a0": (21, "stages.0.0", "stages.3.0"),
    "selecsls42": (5, "features.1", "head.3"),
}


def ends(paths: tuple[str, ...]) -> tuple[object, ...]:
    return (len(paths), paths[0], paths[-1]) if paths else ()


@pytest.mark.parametrize("name", TORCHVISION)
def test_the_default_layers_of_torchvisions_families_are_block_outputs(name: str) -> None:
    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    # a regnet computes its widths from tensors
    with nullcontext() if name.startswith("regnet") else torch.device("meta"):
        module = models.get_model(name, **options)
    assert ends(torchvision_blocks(name, module)) == TORCHVISION[name]


@pytest.mark.parametrize("name", TIMM)
def test_the_default_layers_of_timms_families_are_block_outputs(name: str) -> None:
    with torch.device("meta"):
        module = timm.create_model(name)
    assert ends(usual_blocks(module)) == TIMM[name]


def test_norms_activations_and_lists_are_no_blocks() -> None:
    block = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU())
    stage = nn.Sequential(block, nn.BatchNorm2d(3), nn.Identity())
    network = nn.ModuleDict({"blocks": nn.ModuleList([stage, nn.ModuleList([block])])})
    assert usual_blocks(network) == ("blocks.0.0",)
