"""The sealed versions of an atlas: sealing one, listing them, and deleting what no kept one needs."""

from collections import Counter
from dataclasses import dataclass
from pathlib import PurePosixPath

from unitscope_pipelines.storage.parts import (
    is_present,
    locked,
    read_manifest,
    remove_unfinished,
    sizes_in,
    write_model,
)
from unitscope_pipelines.storage.stores import Root, Store, store_of
from unitscope_schemas import layout
from unitscope_schemas.answers.served import VersionRow
from unitscope_schemas.errors import NotFoundError
from unitscope_schemas.manifest import Manifest, parse_manifest


@dataclass(frozen=True)
class Collected:
    """What `collect` deletes: earlier versions, and the files that only they or no version needed."""

    kept: list[str]
    versions: list[str]
    files: list[str]
    size_bytes: int


def seal(atlas: Root, manifest: Manifest) -> Manifest:
    """Make this the present version; the one before stays readable under its name. Call while holding the lock."""
    previous = read_manifest(atlas)
    if previous is not None and previous.version != manifest.version:
        write_model(atlas, layout.version(previous.version), previous)
    write_model(atlas, layout.MANIFEST, manifest)
    return manifest


def present_version(atlas: Root) -> Manifest:
    """The manifest of the present version; raises NotFoundError if none was sealed yet."""
    manifest = read_manifest(atlas)
    if manifest is None:
        raise NotFoundError(f"{atlas} holds no sealed atlas; run unitscope index first")
    return manifest


def sealed_versions(atlas: Root) -> list[Manifest]:
    """All versions, the present one first, then from the newest to the oldest."""
    present, store = present_version(atlas), store_of(atlas)
    files = [file for file in store.walk(layout.VERSIONS) if PurePosixPath(file.path).match(layout.version("*"))]
    earlier = [
        (manifest.created, file.modified_ns, manifest)
        for file in files
        if (manifest := _version_at(store, file.path)) is not None and manifest.version != present.version
    ]
    earlier.sort(key=lambda one: one[:2], reverse=True)
    return [present, *(manifest for *_, manifest in earlier)]


def version_rows(atlas: Root) -> list[VersionRow]:
    """All versions, the present one first, each with its size and with what deleting it alone would free."""
    versions = sealed_versions(atlas)
    sizes = [{part.path: part.size_bytes for part in manifest.parts()} for manifest in versions]
    naming = Counter(path for own in sizes for path in own)
    return [
        VersionRow(
            version=manifest.version,
            present=number == 0,
            created=manifest.created,
            images=manifest.corpus.image_count,
            removed=manifest.removed.table.rows if manifest.removed else 0,
            stale_images=manifest.stale_count,
            size_bytes=sum(own.values()),
            own_bytes=sum(size for path, size in own.items() if naming[path] == 1),
        )
        for number, (manifest, own) in enumerate(zip(versions, sizes, strict=True))
    ]


def kept_version(atlas: Root, version: str) -> Manifest | None:
    """An earlier version of this name with all its parts, if there is one."""
    store = store_of(atlas)
    manifest = _version_at(store, layout.version(version))
    if manifest is None:
        return None
    sizes = sizes_in(store)
    return manifest if all(is_present(sizes, part) for part in manifest.parts()) else None


def remove_ranked_peaks(atlas: Root) -> int:
    """Delete the peaks that a bounded atlas was ranked from, but for those that another sealed version names.

    Call only while holding the lock, after the seal: a run that is killed in between leaves them to the next one.
    """
    present = read_manifest(atlas)
    if present is None or present.keep is None:
        return 0
    store, sealed = store_of(atlas), {receipt.shard for receipt in present.shards}
    named = {part.path for manifest in sealed_versions(atlas) for part in manifest.parts()}
    peaks = [file.path for file in store.walk(layout.PEAKS)]
    ranked = [path for path in peaks if layout.shard_of_part(path) in sealed and path not in named]
    store.delete(ranked)
    return len(ranked)


def collect(atlas: Root, keep: int, dry_run: bool = False) -> Collected:
    """Delete all versions but the newest `keep`, and every part and receipt that none of these names.

    Shards that a killed run has finished but not sealed go too: their forwards would run again; so do those all of
    whose pictures have left the corpus. What shards hold about removed images stays as long as their files are in the
    corpus: without it every index run would scan these files again, and bringing one back would cost a forward.

    Files that no index run writes are left alone, but for what was derived from a version that goes. Manifests go
    first, then receipts, then parts, so that a killed run leaves no version without its parts; run again, it deletes
    the rest. A reader that still has a deleted version open meets missing parts at its next question. Costs a walk over
    the files of the atlas.
    """
    with locked(atlas):
        versions, store = sealed_versions(atlas), store_of(atlas)
        kept, dropped = versions[:keep], versions[keep:]
        needed = {part.path for manifest in kept for part in manifest.parts()}
        needed |= {layout.receipt(receipt.shard) for manifest in kept for receipt in manifest.shards}
        sizes = sizes_in(store)
        unnamed = sorted(path for path in sizes if layout.is_part(path) and path not in needed)
        manifests = [layout.version(manifest.version) for manifest in dropped]
        receipts = [path for path in unnamed if path.startswith("receipts/")]
        parts = [path for path in unnamed if not path.startswith("receipts/")]
        stay = {manifest.version for manifest in kept}
        derived = sorted(path for path in sizes if layout.version_of(path) not in (None, *stay))
        files = [*manifests, *receipts, *parts, *derived]
        found = Collected(
            [manifest.version for manifest in kept],
            [manifest.version for manifest in dropped],
            files,
            sum(sizes[path] for path in files),
        )
        if not dry_run:
            remove_unfinished(atlas)
            for paths in (manifests, receipts, parts, derived):
                store.delete(paths)
        return found


def _version_at(store: Store, path: str) -> Manifest | None:
    text = store.read(path)
    return None if text is None else parse_manifest(text.decode(errors="replace"), f"{store.root}/{path}")
