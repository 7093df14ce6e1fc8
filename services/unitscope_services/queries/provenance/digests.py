"""What a digest is of: parts, pictures, weights, code, keys and versions of an atlas, by the beginning of it."""

import re
from collections.abc import Iterator

from unitscope_schemas.answers.provenance import DigestPage, DigestRow
from unitscope_schemas.errors import NotFoundError, UsageError
from unitscope_schemas.manifest import BLOCK_UNITS, Manifest
from unitscope_services.atlas.atlas import Atlas

LEAST_DIGITS, MOST_DIGITS = 4, 64
_PREFIX = re.compile(f"[0-9a-f]{{{LEAST_DIGITS},{MOST_DIGITS}}}")
_MOST_IMAGES = 100
"""Most images that are listed of one beginning."""


def is_digest(text: str) -> bool:
    """Tell whether a text can be the beginning of a digest."""
    return _PREFIX.fullmatch(text.lower()) is not None


def digests(atlas: Atlas, prefix: str) -> DigestPage:
    """Return everything of an opened version whose digest begins so, and which answers rest on it.

    Raises UsageError for what can be no digest, NotFoundError where nothing begins so.
    """
    if not is_digest(prefix):
        raise UsageError(f"{prefix!r} is no digest: give {LEAST_DIGITS} to {MOST_DIGITS} hexadecimal digits of one")
    prefix = prefix.lower()
    rows = [row for row in _known(atlas.manifest) if row.digest.startswith(prefix)]
    rows += [
        DigestRow("image", image.image_id, image.path, "every answer that shows this picture")
        for image in atlas.catalogue.beginning(prefix, _MOST_IMAGES)
    ]
    if not rows:
        raise NotFoundError(f"nothing of version {atlas.version} has a digest that begins with {prefix}")
    return DigestPage(prefix=prefix, rows=rows)


def _known(manifest: Manifest) -> Iterator[DigestRow]:
    """Yield what the manifest names by a digest."""
    everything = "every answer of this version"
    if manifest.digest:
        yield DigestRow("manifest", manifest.digest, f"version {manifest.version}", everything)
    yield DigestRow("atlas key", manifest.atlas_key, manifest.model.spec.partition(":")[0], everything)
    yield DigestRow("weights", manifest.model.weights_digest, manifest.model.weights, "every activation")
    for number, digest in enumerate(manifest.model.code_digests):
        yield DigestRow("code", digest, f"file {number} of the model's own code", "every activation")
    for code in sorted({receipt.code for receipt in manifest.shards if receipt.code}):
        yield DigestRow("code", code, "unitscope's own, which recorded", "the activations of its shards")
    yield DigestRow("part", manifest.images.sha256, manifest.images.path, everything)
    yield DigestRow("part", manifest.skipped.sha256, manifest.skipped.path, "the list of skipped files")
    lookup = manifest.lookup
    held = "labels, paths" if lookup.ranks else "first ranks, labels, paths"
    yield DigestRow("part", lookup.database.sha256, lookup.database.path, held)
    yield DigestRow("part", lookup.images.sha256, lookup.images.path, "every row of an image")
    if lookup.ranks is not None:
        yield DigestRow("part", lookup.ranks.sha256, lookup.ranks.path, "first ranks")
    patches = manifest.patches
    yield DigestRow("part", patches.vectors.sha256, patches.vectors.path, "nearest patches, facets")
    if patches.index is not None:
        yield DigestRow("part", patches.index.sha256, patches.index.path, "nearest patches, unless exact")
    if manifest.removed is not None:
        yield DigestRow("part", manifest.removed.table.sha256, manifest.removed.table.path, "which images are left out")
    for entry in manifest.layers:
        name = entry.spec.name
        yield DigestRow("part", entry.units.sha256, entry.units.path, f"statistics and percentiles of {name}")
        for block, part in enumerate(entry.ranked):
            last = min((block + 1) * BLOCK_UNITS, entry.spec.units) - 1
            yield DigestRow("part", part.sha256, part.path, f"patches of {name}:{block * BLOCK_UNITS} to {last}")
        if entry.fields is not None:
            yield DigestRow("part", entry.fields.sha256, entry.fields.path, f"boxes of {name}")
    for receipt in manifest.shards:
        count = receipt.forward_count
        for part in receipt.parts():
            yield DigestRow("part", part.sha256, part.path, f"the {count} images that shard {receipt.shard} scanned")
