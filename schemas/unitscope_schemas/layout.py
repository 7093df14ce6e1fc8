"""Every path inside an atlas, relative to its root, and the names that may stand in one.

Parts of a shard are named by the shard; parts of a sealed version end in the version's name, so a version that
readers have open is never written to. An atlas may be someone else's: names and paths that its documents hold are
input, of the types at the end.
"""

import hashlib
import re
from typing import Annotated

from pydantic import AfterValidator, StringConstraints

MANIFEST = "manifest.json"
VERSIONS = "versions"
"""Folder of the manifests of earlier versions."""
LOCK = "index.lock"
COACTIVATIONS = "kin"
"""Folder of the tables of how alike units are, each with a note of its digest."""
COMPARISONS = "comparisons"
"""Folder of the comparisons with other atlases."""
PEAKS = "peaks"
"""Folder of the peaks that scans recorded, which a bounded atlas has no more of once it is sealed."""
REMOVED = "removed"
"""Folder of the tables of images that were taken out by hand."""
VISUALS = "visuals"
"""Folder of the pictures made of units: they are of the model, so no version names them, and `gc` leaves them."""


def measured(atlas_key: str) -> str:
    """Return the path of the layers' receptive fields, measured once per atlas key."""
    return f"layers-{atlas_key[:16]}.json"


def receipt(shard: str) -> str:
    """Return the path of a shard's receipt, which says what the shard wrote; where it exists the shard is done."""
    return f"receipts/{shard}.json"


def files(shard: str) -> str:
    """Return the path of a shard's table of readable files."""
    return f"files/{shard}.parquet"


def scanned(shard: str) -> str:
    """Return the path of a shard's table of images whose forward ran."""
    return f"images/shard-{shard}.parquet"


def skipped(shard: str) -> str:
    """Return the path of a shard's table of files that are no usable image."""
    return f"skipped/shard-{shard}.parquet"


def peaks(layer: str, shard: str) -> str:
    """Return the path of the peaks of a layer's units on a shard's images."""
    return f"{PEAKS}/{layer}/{shard}.parquet"


def embeddings(layer: str, shard: str) -> str:
    """Return the path of a layer's pooled vectors of a shard's images."""
    return f"embeddings/{layer}/{shard}.parquet"


def images_of(version: str) -> str:
    """Return the path of a version's images table in format version 2."""
    return f"images/version-{version}.parquet"


def segment_images(segment: str, version: str) -> str:
    """Return the path of a segment's images, as they were when a version was sealed."""
    return f"images/{segment}-{version}.parquet"


def groups(version: str) -> str:
    """Return the path of a version's groups of near duplicates."""
    return f"groups/{version}.parquet"


def skipped_of(version: str) -> str:
    """Return the path of a version's table of files that are no usable image."""
    return f"skipped/version-{version}.parquet"


def ranked(layer: str, block: int, segment: str) -> str:
    """Return the path of the ranked peaks of a block of a layer's units on a segment's images."""
    return f"ranked/{layer}/{block:05d}-{segment}.parquet"


def units(layer: str, name: str) -> str:
    """Return the path of the statistics of a layer's units over the images of a version or segment."""
    return f"units/{layer}-{name}.parquet"


def unit_fields(layer: str, exemplar_count: int, version: str) -> str:
    """Name the effective boxes of a layer's units, measured on so many exemplars of each."""
    return f"fields/{layer}/{exemplar_count}-{version}.parquet"


def vectors(layer: str, segment: str) -> str:
    """Return the path of the vectors of all patches of a segment."""
    return f"patches/{layer}/vectors-{segment}.npy"


def index(layer: str, segment: str) -> str:
    """Return the path of the FAISS index over the vectors of a segment's patches."""
    return f"patches/{layer}/index-{segment}.faiss"


def numbers(segment: str, version: str) -> str:
    """Return the path of the numbers that a segment's images have in a version."""
    return f"numbers/{segment}-{version}.parquet"


def first_ranks(version: str) -> str:
    """Return the path of the DuckDB file with a version's first ranks."""
    return f"hot-ranks-{version}.duckdb"


def lookup_images(segment: str, version: str) -> str:
    """Return the path of the Arrow file with a segment's images, as they were when a version was sealed."""
    return f"hot-images/{segment}-{version}.arrow"


def lookup_files(segment: str, version: str) -> str:
    """Return the path of the Arrow file with the paths of a segment's files, as they were when a version was sealed."""
    return f"hot-files/{segment}-{version}.arrow"


def lookup_of_2(version: str) -> tuple[str, str]:
    """Return the paths of what answers looked up in format version 2: a DuckDB and an Arrow file."""
    return f"hot-{version}.duckdb", f"hot-images-{version}.arrow"


def is_lookup_of_2(path: str) -> bool:
    """Tell whether a path is that of a lookup file of format version 2, which is named by the version that it is of."""
    return path == lookup_of_2(path[-23:-7])[0]


def version(name: str) -> str:
    """Return the path of the manifest of an earlier version; the present one's is MANIFEST."""
    return f"{VERSIONS}/{name}.json"


def removed(digest: str) -> str:
    """Return the path of a table of removed images, named by a digest of them."""
    return f"{REMOVED}/{digest}.parquet"


def visuals(layer: str, target: int | str) -> str:
    """Return the folder of the pictures of one unit by its channel, or of a direction by its name."""
    return f"{VISUALS}/{layer}/{target}"


def visuals_of(layer: str) -> str:
    """Return the folder of the pictures of all units and directions of a layer."""
    return f"{VISUALS}/{layer}"


def visual_picture(layer: str, target: int | str, name: str) -> str:
    """Return the path of the PNG of a unit's or direction's picture."""
    return f"{visuals(layer, target)}/{name}.png"


def visual(layer: str, target: int | str, name: str) -> str:
    """Return the path of what is known about a picture; where it exists the picture is complete."""
    return f"{visuals(layer, target)}/{name}.json"


def coactivation(version: str, layer: str, other_version: str, other_layer: str) -> str:
    """Return the path of the co-activation of a layer's units with those of another layer or atlas.

    No manifest names the table.
    """
    return f"{COACTIVATIONS}/{version}-{_digest(layer, other_version, other_layer)}.parquet"


def comparison(version: str, *names: str) -> str:
    """Return the path of the comparison of a version with what the names tell; no manifest names it."""
    return f"{COMPARISONS}/{version}-{_digest(*names)}.json"


def version_of(path: str) -> str | None:
    """Return the version that a file was derived from which no manifest names; None for all other files."""
    match = _DERIVED.fullmatch(path)
    return match["version"] if match else None


_NAME = "[0-9a-f]{16}"
_DERIVED = re.compile(rf"(kin|comparisons)/(?P<version>{_NAME})-{_NAME}[.](parquet|json)")
_PART = re.compile(
    rf"(files|removed)/{_NAME}[.]parquet"
    rf"|receipts/{_NAME}[.]json"
    rf"|(images|skipped)/(shard|version)-{_NAME}[.]parquet"
    rf"|(peaks|embeddings)/[^/]+/{_NAME}[.]parquet"
    rf"|ranked/[^/]+/[0-9]{{5}}-{_NAME}[.]parquet"
    rf"|units/[^/]+-{_NAME}[.]parquet"
    rf"|fields/[^/]+/[0-9]+-{_NAME}[.]parquet"
    rf"|(numbers|images)/{_NAME}-{_NAME}[.]parquet"
    rf"|groups/{_NAME}[.]parquet"
    rf"|patches/[^/]+/(vectors-{_NAME}[.]npy|index-{_NAME}[.]faiss)"
    rf"|hot-(ranks-)?{_NAME}[.]duckdb"
    rf"|hot-images-{_NAME}[.]arrow"
    rf"|hot-(images|files)/{_NAME}-{_NAME}[.]arrow"
)


_SHARD_PART = re.compile(
    rf"(files|(peaks|embeddings)/[^/]+)/(?P<name>{_NAME})[.]parquet|(images|skipped)/shard-(?P<other>{_NAME})[.]parquet"
)
_RECEIPT = re.compile(rf"receipts/({_NAME})[.]json")


def shard_of_part(path: str) -> str | None:
    """Return the shard that a path is a part of, None if it is no shard's."""
    match = _SHARD_PART.fullmatch(path)
    return match and (match["name"] or match["other"])


def shard_of_receipt(path: str) -> str | None:
    """Return the shard that a path is the receipt of, None if it is no receipt."""
    match = _RECEIPT.fullmatch(path)
    return match and match[1]


def is_part(path: str) -> bool:
    """Tell whether a path is that of a part that a manifest names, or of a receipt."""
    return _PART.fullmatch(path) is not None


def _digest(*names: str) -> str:
    return hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]


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
    # the whole network is called by no name: it is measured, and never stored, as no path has an empty step
    if name and (fault := layer_fault(name)):
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
