"""Networks of one's own for tests: a file as a person would write it, small and with known shapes."""

from pathlib import Path

SOURCE = '''
import torch
from torch import nn
from torch.nn import functional as F

SMALL = {"input_size": (3, 64, 64), "crop_pct": 1.0, "mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25)}

TINY = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}


def mlp():
    """A plain network on 28 × 28 grey pictures."""
    layers = nn.Flatten(), nn.Linear(784, 20), nn.ReLU(), nn.Linear(20, 6)
    return nn.Sequential(*layers), {"input_size": (1, 28, 28), "crop_pct": 1.0, "mean": 0.5, "std": 0.5}


class Twice(nn.Module):
    """One convolution, called twice, with an in-place activation between."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 4, stride=4)
        self.conv = nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8, 5)

    def forward(self, image):
        first = self.conv(F.relu_(self.stem(image)))
        return self.head(self.conv(F.relu_(first)).mean((2, 3)))


def twice():
    return Twice(), SMALL


def swin():
    """Two stages of shifted windows on maps with channels last."""
    from timm.models.swin_transformer import SwinTransformer

    return SwinTransformer(img_size=64, window_size=4, embed_dim=16, depths=(2, 2), num_heads=(2, 2)), SMALL


def vit():
    """A class token, four register tokens and 4 × 4 patches."""
    from timm.models.vision_transformer import VisionTransformer

    return VisionTransformer(img_size=64, embed_dim=32, depth=2, num_heads=2, reg_tokens=4), SMALL


def registers():
    """DINOv2's small network with a class and four register tokens, at 5 × 5 patches of 14 pixels."""
    import timm

    return timm.create_model("vit_small_patch14_reg4_dinov2", img_size=70), {**SMALL, "input_size": (3, 70, 70)}


class Encoder(nn.Module):
    """Patches in a transformer as torch makes it by default: tokens first, then images."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 32, 16, stride=16)
        self.layers = nn.ModuleList(nn.TransformerEncoderLayer(32, 2, 64) for _ in range(2))

    def forward(self, images):
        tokens = self.patches(images).flatten(2).permute(2, 0, 1)
        for layer in self.layers:
            tokens = layer(tokens)
        return tokens.mean(0)


def sequence_first():
    return Encoder(), SMALL


class UNet(nn.Module):
    """Down twice, up twice by transposed convolutions, with skips."""

    def __init__(self, channels=3):
        super().__init__()
        self.enter = nn.Conv2d(channels, 8, 3, padding=1)
        self.down1 = nn.Conv2d(8, 12, 3, stride=2, padding=1)
        self.down2 = nn.Conv2d(12, 16, 3, stride=2, padding=1)
        self.up1 = nn.ConvTranspose2d(16, 12, 2, stride=2)
        self.join1 = nn.Conv2d(24, 12, 3, padding=1)
        self.up2 = nn.ConvTranspose2d(12, 8, 4, stride=2, padding=1)
        self.join2 = nn.Conv2d(16, 8, 3, padding=1)

    def forward(self, images):
        top = F.relu(self.enter(images))
        middle = F.relu(self.down1(top))
        bottom = F.relu(self.down2(middle))
        middle = F.relu(self.join1(torch.cat([self.up1(bottom), middle], 1)))
        return self.join2(torch.cat([self.up2(middle), top], 1))


def unet():
    return UNet(), SMALL


def twelve_channels():
    """A network on twelve bands."""
    return UNet(12), {**SMALL, "input_size": (12, 64, 64), "mean": (0.5,) * 12, "std": (0.25,) * 12}


def detector():
    """Faster R-CNN, which takes a batch of pictures of one size too."""
    from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_320_fpn

    return fasterrcnn_mobilenet_v3_large_320_fpn(weights=None, weights_backbone=None, min_size=64, max_size=64), SMALL


def hiera():
    """Tokens in the order of their mask units, pooled once."""
    from timm.models.hiera import Hiera

    return Hiera(
        img_size=(64, 64), embed_dim=16, num_heads=1, stages=(1, 1), q_pool=1, mask_unit_size=(4, 4), num_classes=5
    ), SMALL


def maxvit():
    """Blocks of convolutions, windows and grids."""
    from timm.models.maxxvit import MaxxVit, MaxxVitCfg

    config = MaxxVitCfg(embed_dim=(32, 64), depths=(1, 1), block_type=("M", "M"), stem_width=(8, 16))
    return MaxxVit(config, img_size=64, num_classes=5), SMALL


def hf_vit():
    from transformers import ViTConfig, ViTModel

    return ViTModel(ViTConfig(image_size=64, patch_size=16, **TINY)), SMALL


def hf_clip():
    from transformers import CLIPVisionConfig, CLIPVisionModel

    return CLIPVisionModel(CLIPVisionConfig(image_size=64, patch_size=16, **TINY)), SMALL


def hf_dinov2():
    from transformers import Dinov2WithRegistersConfig, Dinov2WithRegistersModel

    config = Dinov2WithRegistersConfig(image_size=70, patch_size=14, **TINY)
    return Dinov2WithRegistersModel(config), {**SMALL, "input_size": (3, 70, 70)}


def hf_swin():
    from transformers import SwinConfig, SwinModel

    return SwinModel(
        SwinConfig(image_size=64, patch_size=4, embed_dim=16, depths=[2, 2], num_heads=[2, 2], window_size=4)
    ), SMALL


def hf_segformer():
    from transformers import SegformerConfig, SegformerModel

    return SegformerModel(
        SegformerConfig(
            num_encoder_blocks=2, depths=[1, 1], sr_ratios=[2, 1], hidden_sizes=[16, 32], patch_sizes=[7, 3],
            strides=[4, 2], num_attention_heads=[1, 2], mlp_ratios=[2, 2],
        )
    ), SMALL


class Dictionary(nn.Module):
    """A sparse autoencoder: latents first, then what they rebuild."""

    def __init__(self, width, count):
        super().__init__()
        self.encoder, self.decoder = nn.Linear(width, count), nn.Linear(count, width)

    def forward(self, vectors):
        latents = torch.relu(self.encoder(vectors))
        return latents, self.decoder(latents)


def of_stem():
    return Dictionary(8, 24)


def of_tokens():
    return Dictionary(32, 48)


def of_windows():
    return Dictionary(16, 40)


def wrong():
    return nn.Flatten()


def nothing():
    return "a text"
'''


def write_networks(folder: Path) -> Path:
    """The file, under a name that no package has."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "networks_of_mine.py"
    path.write_text(SOURCE)
    return path
