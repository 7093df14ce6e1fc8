"""What a digest is of: parts, pictures, weights, code, keys and versions of an atlas, by the beginning of it."""

import re
from collections.abc import Iterator

from unitscope_schemas.answers.provenance import DigestPage, DigestRow
from unitscope_schemas.entries.segment import Segment
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
    yield DigestRow("part", manifest.skipped.sha256, manifest.skipped.path, "the list of skipped files")
    yield DigestRow("part", manifest.first_ranks.sha256, manifest.first_ranks.path, "first ranks")
    if manifest.groups is not None:
        yield DigestRow("part", manifest.groups.sha256, manifest.groups.path, "every answer that leaves out duplicates")
    for part in manifest.unread:
        yield DigestRow("part", part.sha256, part.path, "no answer: an earlier unitscope reads it")
    for segment in manifest.segments:
        yield from _of_segment(segment, len(manifest.segments) > 1)
    if manifest.removed is not None:
        yield DigestRow("part", manifest.removed.table.sha256, manifest.removed.table.path, "which images are left out")
    for entry in manifest.layers:
        name = entry.spec.name
        yield DigestRow("part", entry.units.sha256, entry.units.path, f"statistics and percentiles of {name}")
        if entry.fields is not None:
            yield DigestRow("part", entry.fields.sha256, entry.fields.path, f"boxes of {name}")
    for receipt in manifest.shards:
        count = receipt.forward_count
        for part in receipt.parts():
            yield DigestRow("part", part.sha256, part.path, f"the {count} images that shard {receipt.shard} scanned")


def _of_segment(segment: Segment, is_one_of_several: bool) -> Iterator[DigestRow]:
    """Yield the parts of a segment."""
    where = f" on the {segment.image_count} images of segment {segment.name}" if is_one_of_several else ""
    if segment.numbers is not None:
        yield DigestRow("part", segment.numbers.sha256, segment.numbers.path, f"every rank{where}")
    yield DigestRow("part", segment.tables.images.sha256, segment.tables.images.path, f"every answer{where}")
    for part, held in ((segment.tables.lookup, "every row of an image"), (segment.tables.files, "paths of files")):
        if part is not None:
            yield DigestRow("part", part.sha256, part.path, f"{held}{where}")
    vectors, index = segment.patches.vectors, segment.patches.index
    yield DigestRow("part", vectors.sha256, vectors.path, f"nearest patches, facets{where}")
    if index is not None:
        yield DigestRow("part", index.sha256, index.path, f"nearest patches, unless exact{where}")
    for layer, ranked in segment.layers.items():
        units = ranked.units
        if is_one_of_several:
            yield DigestRow("part", units.sha256, units.path, f"percentiles of {layer}{where}")
        for block, part in enumerate(ranked.ranked):
            first, last = block * BLOCK_UNITS, min((block + 1) * BLOCK_UNITS, units.rows) - 1
            yield DigestRow("part", part.sha256, part.path, f"patches of {layer}:{first} to {last}{where}")
