"""Every path inside an atlas, relative to its root, and nothing else.

Parts of a shard are named by the shard; parts of a sealed version end in the version's name, so a version that
readers have open is never written to.
"""

import hashlib
import re

MANIFEST = "manifest.json"
VERSIONS = "versions"
"""Folder of the manifests of earlier versions."""
LOCK = "index.lock"
COMPARISONS = "comparisons"
"""Folder of the comparisons with other atlases."""
PEAKS = "peaks"
"""Folder of what scans found, which a bounded atlas has no more of once it is sealed."""
SHARD_FOLDERS = ("files", "images", "skipped", "peaks", "embeddings", "receipts")


def measured(atlas_key: str) -> str:
    """Receptive fields of the layers, measured once per atlas key."""
    return f"layers-{atlas_key[:16]}.json"


def receipt(shard: str) -> str:
    """What a finished shard wrote; its presence means the shard is done."""
    return f"receipts/{shard}.json"


def files(shard: str) -> str:
    return f"files/{shard}.parquet"


def scanned(shard: str) -> str:
    return f"images/shard-{shard}.parquet"


def skipped(shard: str) -> str:
    return f"skipped/shard-{shard}.parquet"


def peaks(layer: str, shard: str) -> str:
    return f"{PEAKS}/{layer}/{shard}.parquet"


def embeddings(layer: str, shard: str) -> str:
    return f"embeddings/{layer}/{shard}.parquet"


def images_of(version: str) -> str:
    return f"images/version-{version}.parquet"


def skipped_of(version: str) -> str:
    return f"skipped/version-{version}.parquet"


def ranked(layer: str, block: int, version: str) -> str:
    return f"ranked/{layer}/{block:05d}-{version}.parquet"


def units(layer: str, version: str) -> str:
    return f"units/{layer}-{version}.parquet"


def vectors(layer: str, version: str) -> str:
    return f"patches/{layer}/vectors-{version}.npy"


def index(layer: str, version: str) -> str:
    return f"patches/{layer}/index-{version}.faiss"


def hot(version: str) -> str:
    return f"hot-{version}.duckdb"


def hot_images(version: str) -> str:
    return f"hot-images-{version}.arrow"


def version(name: str) -> str:
    """The manifest of an earlier version; the present one's is MANIFEST."""
    return f"{VERSIONS}/{name}.json"


REMOVED = "removed"
"""Folder of the tables of images that were taken out by hand."""


def removed(digest: str) -> str:
    return f"{REMOVED}/{digest}.parquet"


VISUALS = "visuals"
"""Folder of the pictures made of units: they are of the model, so no version names them, and `gc` leaves them."""


def visuals(layer: str, target: int | str) -> str:
    """Folder of the pictures of one unit by its channel, or of a direction by its name."""
    return f"{VISUALS}/{layer}/{target}"


def visuals_of(layer: str) -> str:
    """Folder of the pictures of all units and directions of a layer."""
    return f"{VISUALS}/{layer}"


def visual_picture(layer: str, target: int | str, name: str) -> str:
    return f"{visuals(layer, target)}/{name}.png"


def visual(layer: str, target: int | str, name: str) -> str:
    """What is known about a picture; its presence means the picture is complete."""
    return f"{visuals(layer, target)}/{name}.json"


def kin(version: str, layer: str, other_version: str, other_layer: str) -> str:
    """Likeness of a layer's units of a version with those of another layer or atlas; named by no manifest."""
    return f"kin/{version}-{_digest(layer, other_version, other_layer)}.parquet"


def comparison(version: str, *names: str) -> str:
    """A version compared with what the names tell; named by no manifest."""
    return f"{COMPARISONS}/{version}-{_digest(*names)}.json"


def version_of(path: str) -> str | None:
    """The version that a file was derived from which no manifest names; None for all other files."""
    found = _DERIVED.fullmatch(path)
    return found["version"] if found else None


_NAME = "[0-9a-f]{16}"
_DERIVED = re.compile(rf"(kin|comparisons)/(?P<version>{_NAME})-{_NAME}[.](parquet|json)")
_PART = re.compile(
    rf"(files|removed)/{_NAME}[.]parquet"
    rf"|receipts/{_NAME}[.]json"
    rf"|(images|skipped)/(shard|version)-{_NAME}[.]parquet"
    rf"|(peaks|embeddings)/[^/]+/{_NAME}[.]parquet"
    rf"|ranked/[^/]+/[0-9]{{5}}-{_NAME}[.]parquet"
    rf"|units/[^/]+-{_NAME}[.]parquet"
    rf"|patches/[^/]+/(vectors-{_NAME}[.]npy|index-{_NAME}[.]faiss)"
    rf"|hot-{_NAME}[.]duckdb"
    rf"|hot-images-{_NAME}[.]arrow"
)


_SHARD_PART = re.compile(
    rf"(files|(peaks|embeddings)/[^/]+)/(?P<name>{_NAME})[.]parquet|(images|skipped)/shard-(?P<other>{_NAME})[.]parquet"
)
_RECEIPT = re.compile(rf"receipts/({_NAME})[.]json")


def shard_of_part(path: str) -> str | None:
    """The shard that a path is a part of, if it is one."""
    found = _SHARD_PART.fullmatch(path)
    return found and (found["name"] or found["other"])


def shard_of_receipt(path: str) -> str | None:
    """The shard that a path is the receipt of, if it is one."""
    found = _RECEIPT.fullmatch(path)
    return found and found[1]


def is_part(path: str) -> bool:
    """Whether a path is one of those above that a manifest names, or a receipt."""
    return _PART.fullmatch(path) is not None


def _digest(*names: str) -> str:
    return hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]
