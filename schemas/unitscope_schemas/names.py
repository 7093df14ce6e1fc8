"""Names and paths as documents of an atlas may hold them: an atlas may be someone else's, so it is input too."""

import re
from typing import Annotated

from pydantic import AfterValidator, StringConstraints

_CONTROL = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]")
_LONGEST_LAYER = 200
"""Most bytes of a layer's name, which names a folder."""


def layer_fault(name: str) -> str | None:
    """Return why a layer cannot have this name, None if it can: it names a folder of the atlas.

    >>> layer_fault("blocks.0@1")
    >>> layer_fault("a/b")
    "it has a '/'"
    """
    if name in ("", ".", ".."):
        return "it names no folder of its own"
    for character in "/\\":
        if character in name:
            return f"it has a {character!r}"
    if _CONTROL.search(name):
        return "it has a control character"
    try:
        length = len(name.encode())
    except UnicodeEncodeError:
        return "it is no text"
    return f"it is longer than {_LONGEST_LAYER} bytes" if length > _LONGEST_LAYER else None


def path_fault(path: str) -> str | None:
    """Return why a path is none inside an atlas, None if it is one: relative, with no step upwards.

    >>> path_fault("units/layer1-0123456789abcdef.parquet")
    >>> path_fault("../secret")
    'it leads out of the atlas'
    """
    if path.startswith(("/", "~")) or re.match("[A-Za-z]:", path):
        return "it is no relative path"
    if any(step in ("", ".", "..") for step in path.split("/")):
        return "it leads out of the atlas" if ".." in path.split("/") else "it has an empty step"
    return "it has a backslash or a control character" if "\\" in path or _CONTROL.search(path) else None


def _layer(name: str) -> str:
    if fault := layer_fault(name):
        raise ValueError(f"no name of a layer: {fault}")
    return name


def _path(path: str) -> str:
    if fault := path_fault(path):
        raise ValueError(f"no path of a part: {fault}")
    return path


Digest = Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]
"""SHA-256 in 64 hexadecimal digits."""
ShortDigest = Annotated[str, StringConstraints(pattern="^[0-9a-f]{16}$")]
"""First 16 digits of one, which name a version or a shard."""
LayerName = Annotated[str, AfterValidator(_layer)]
"""Name of a layer, which can name a folder."""
PartPath = Annotated[str, AfterValidator(_path)]
"""Path of a file inside an atlas."""
