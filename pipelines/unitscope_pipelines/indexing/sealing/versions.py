"""The sealed versions of an atlas: naming and sealing one, listing them, and deleting what none that stays needs."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import PurePosixPath

import pyarrow as pa
import pyarrow.compute as pc

from unitscope_pipelines.indexing.sealing.version_images import VersionImages
from unitscope_pipelines.storage.long_tables.long_table import ROWS_AT_ONCE, LongTable
from unitscope_pipelines.storage.parts import is_present, read_manifest, remove_unfinished, sizes_in, write_model
from unitscope_pipelines.storage.stores import AtlasAddress, Store, store_of
from unitscope_schemas import layout, tables
from unitscope_schemas.answers.served import VersionRow
from unitscope_schemas.entries.document import digest_of
from unitscope_schemas.errors import NotFoundError
from unitscope_schemas.manifest import Manifest, Receipt, parse_manifest

_NAMING = ["image_id", "path", "other_paths", "address", "label", "metadata", "modified_ns"]
"""Columns of the images table that decide a version's name."""
_SAID = ["labels", "statements"]
"""Columns that do so where they say more than `label`: the versions of other atlases keep their names."""


@dataclass(frozen=True)
class NewVersion:
    """What a run seals: the images, the shards that know of them, and the name that follows."""

    name: str
    images: VersionImages
    receipts: tuple[Receipt, ...]

    @classmethod
    def of(cls, atlas_key: str, keep: int | None, images: VersionImages, receipts: Iterable[Receipt]) -> "NewVersion":
        """Name a version, and leave out shards all of whose pictures have left the corpus: `gc` can delete them."""
        known = tuple(receipt for receipt in receipts if receipt.shard in images.shards)
        return cls(version_name(atlas_key, keep, images), images, known)


@dataclass(frozen=True)
class Garbage:
    """What `collect` deletes: earlier versions, and the files that only they or no version needed."""

    kept: list[str]
    """Names of the versions that stay."""
    versions: list[str]
    """Names of the versions that are deleted."""
    files: list[str]
    """Paths of the files that are deleted."""
    size_bytes: int


def version_name(atlas_key: str, keep: int | None, images: VersionImages) -> str:
    """Return the digest of what a version holds, so that the same corpus and model give the same version."""
    digest = hashlib.sha256(atlas_key.encode())
    if keep is not None:
        digest.update(f"top:{keep}".encode())
    found, skipped = images.images, images.skipped
    said = [*_NAMING, *(_SAID if _says_more_than_one_label(found) else [])]
    of_images = {name: found.batches([name]) for name in said}
    of_skipped = {name: iter(skipped.select([name]).to_batches(ROWS_AT_ONCE)) for name in tables.SKIPPED.names}
    for text in chain(_json_pieces(of_images), _json_pieces(of_skipped)):
        digest.update(text.encode())
    return digest.hexdigest()[:16]


def _json_pieces(columns: Mapping[str, Iterator[pa.RecordBatch]]) -> Iterator[str]:
    """Yield the JSON object that holds columns as lists, in pieces, so that no memory holds the text."""
    for number, (name, batches) in enumerate(columns.items()):
        yield f"{', ' if number else '{'}{json.dumps(name)}: ["
        for place, batch in enumerate(batch for batch in batches if batch.num_rows):
            yield f"{', ' if place else ''}{json.dumps(batch[name].to_pylist())[1:-1]}"
        yield "]"
    yield "}"


def _says_more_than_one_label(images: LongTable) -> bool:
    return any(
        (pc.max(pc.list_value_length(batch["labels"])).as_py() or 0) > 1
        or batch["statements"].null_count < batch.num_rows
        for batch in images.batches(_SAID)
    )


def seal(store: Store, manifest: Manifest) -> Manifest:
    """Make this the present version; the one before stays readable under its name. Call while holding the lock."""
    previous = read_manifest(store)
    if previous is not None and previous.version != manifest.version:
        write_model(store, layout.version(previous.version), previous)
    write_model(store, layout.MANIFEST, manifest)
    return manifest.model_copy(update={"digest": digest_of(manifest.model_dump_json(indent=1))})


def present_version(atlas: AtlasAddress | Store) -> Manifest:
    """Return the manifest of the present version; raises NotFoundError if none was sealed yet."""
    store = store_of(atlas)
    manifest = read_manifest(store)
    if manifest is None:
        raise NotFoundError(f"{store.address} holds no sealed atlas; run unitscope index first")
    return manifest


def sealed_versions(atlas: AtlasAddress | Store) -> list[Manifest]:
    """Return all versions, the present one first, then from the newest to the oldest."""
    store = store_of(atlas)
    present = present_version(store)
    files = [file for file in store.walk(layout.VERSIONS) if PurePosixPath(file.path).match(layout.version("*"))]
    earlier = [
        (manifest.created, file.modified_ns, manifest)
        for file in files
        if (manifest := _version_at(store, file.path)) is not None and manifest.version != present.version
    ]
    earlier.sort(key=lambda item: item[:2], reverse=True)
    return [present, *(manifest for *_, manifest in earlier)]


def version_rows(atlas: AtlasAddress | Store) -> list[VersionRow]:
    """Return all versions, the present one first, each with its size and with what deleting it alone would free."""
    versions = sealed_versions(atlas)
    sizes = [{part.path: part.size_bytes for part in manifest.parts()} for manifest in versions]
    naming = Counter(path for part_bytes in sizes for path in part_bytes)
    return [
        VersionRow(
            version=manifest.version,
            digest=manifest.digest or "",
            present=number == 0,
            created=manifest.created,
            images=manifest.corpus.image_count,
            removed=manifest.removed.table.rows if manifest.removed else 0,
            stale_images=manifest.stale_count,
            size_bytes=sum(part_bytes.values()),
            own_bytes=sum(size for path, size in part_bytes.items() if naming[path] == 1),
        )
        for number, (manifest, part_bytes) in enumerate(zip(versions, sizes, strict=True))
    ]


def complete_version(store: Store, version: str) -> Manifest | None:
    """Return the earlier version of this name, None unless it is there with all its parts."""
    manifest = _version_at(store, layout.version(version))
    if manifest is None:
        return None
    sizes = sizes_in(store)
    return manifest if all(is_present(sizes, part) for part in manifest.parts()) else None


def remove_ranked_peaks(store: Store) -> int:
    """Delete and count the peaks that a bounded atlas was ranked from, but for those that another version names.

    Call only while holding the lock, after the seal: a run that is killed in between leaves them to the next one.
    """
    present = read_manifest(store)
    if present is None or present.keep is None:
        return 0
    sealed = {receipt.shard for receipt in present.shards}
    named = {part.path for manifest in sealed_versions(store) for part in manifest.parts()}
    peaks = [file.path for file in store.walk(layout.PEAKS)]
    ranked = [path for path in peaks if layout.shard_of_part(path) in sealed and path not in named]
    store.delete(ranked)
    return len(ranked)


def collect(atlas: AtlasAddress | Store, keep: int, dry_run: bool = False) -> Garbage:
    """Delete all versions but the newest `keep`, and every part and receipt that none of these names.

    Shards that a killed run has finished but not sealed go too: their forwards would run again; so do those all of
    whose pictures have left the corpus. What shards hold about removed images stays as long as their files are in the
    corpus: without it every index run would scan these files again, and bringing one back would cost a forward.

    Files that no index run writes are left alone, but for what was derived from a version that goes. Manifests go
    first, then receipts, then parts, so that a killed run leaves no version without its parts; run again, it deletes
    the rest. A reader that still has a deleted version open meets missing parts at its next question. Costs a walk over
    the files of the atlas.
    """
    store = store_of(atlas)
    with store.locked():
        versions = sealed_versions(store)
        stays, goes = versions[:keep], versions[keep:]
        needed = {part.path for manifest in stays for part in manifest.parts()}
        needed |= {layout.receipt(receipt.shard) for manifest in stays for receipt in manifest.shards}
        sizes = sizes_in(store)
        unnamed = sorted(path for path in sizes if layout.is_part(path) and path not in needed)
        manifests = [layout.version(manifest.version) for manifest in goes]
        receipts = [path for path in unnamed if path.startswith("receipts/")]
        parts = [path for path in unnamed if not path.startswith("receipts/")]
        names = {name for manifest in stays for name in (manifest.version, manifest.compared_as)}
        derived = sorted(path for path in sizes if layout.version_of(path) not in (None, *names))
        files = [*manifests, *receipts, *parts, *derived]
        if not dry_run:
            remove_unfinished(store)
            for paths in (manifests, receipts, parts, derived):
                store.delete(paths)
        return Garbage(
            kept=[manifest.version for manifest in stays],
            versions=[manifest.version for manifest in goes],
            files=files,
            size_bytes=sum(sizes[path] for path in files),
        )


def _version_at(store: Store, path: str) -> Manifest | None:
    text = store.read(path)
    return None if text is None else parse_manifest(text.decode(errors="replace"), f"{store.address}/{path}")
