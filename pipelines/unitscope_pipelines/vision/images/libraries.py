"""The libraries that decode, resize and run, by their installed versions."""

import hashlib
import sys
from functools import cache
from importlib.metadata import version
from pathlib import Path

from PIL import features

_ALWAYS = ("unitscope", "torch", "torchvision", "torchcodec", "numpy", "pillow")
_IF_USED = ("timm", "transformers", "tifffile")
_CODECS = ("libjpeg_turbo", "webp", "zlib", "jpg_2000", "libtiff")
"""Decoders within Pillow, by its names for them."""


def library_versions() -> dict[str, str]:
    """Return the versions of the libraries that values depend on, decoders within Pillow as `pillow/NAME`.

    torchcodec decodes JPEG by a libjpeg-turbo of its own, which its version stands for.
    """
    named = {name: version(name) for name in (*_ALWAYS, *(name for name in _IF_USED if name in sys.modules))}
    return named | {f"pillow/{name}": found for name in _CODECS if (found := _codec(name)) is not None}


@cache
def code_digest() -> str:
    """Return the SHA-256 over the code of this package, which decides recorded values, file by file in order of paths.

    It tells more than a version or a commit: it changes with every edit, sealed or not.
    """
    folder = Path(__file__).parents[2]
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(
            f"{path.relative_to(folder).as_posix()} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode()
        )
    return digest.hexdigest()


def _codec(name: str) -> str | None:
    """Return the version of a decoder within Pillow, None where there is none."""
    if name == "libjpeg_turbo":
        return str(features.version_feature(name)) if features.check_feature(name) else None
    known = features.check_module(name) if name in features.modules else features.check_codec(name)
    if not known:
        return None
    return str(features.version_module(name) if name in features.modules else features.version_codec(name))
