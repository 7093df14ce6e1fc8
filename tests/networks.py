"""Networks of one's own for tests: a file as a person would write it, small and with known shapes."""

from pathlib import Path

SOURCE = '''
import torch
from torch import nn
from torch.nn import functional as F

SMALL = {"input_size": (3, 64, 64), "crop_pct": 1.0, "mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25)}


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
