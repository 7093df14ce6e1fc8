"""The sealed versions of an atlas: sealing one, listing them, and deleting what no kept one needs."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipelines.storage import is_present, locked, read_manifest, remove_unfinished, write_model
from schemas import layout
from schemas.errors import NotFoundError
from schemas.manifest import Manifest, parse_manifest
from schemas.web import VersionRow


@dataclass(frozen=True)
class Collected:
    """What `collect` deletes: earlier versions, and the files that only they or no version needed."""

    kept: list[str]
    versions: list[str]
    files: list[str]
    size_bytes: int


def seal(atlas: Path, manifest: Manifest) -> Manifest:
    """Make this the present version; the one before stays readable under its name. Call while holding the lock."""
    previous = read_manifest(atlas)
    if previous is not None and previous.version != manifest.version:
        write_model(atlas, layout.version(previous.version), previous)
    write_model(atlas, layout.MANIFEST, manifest)
    return manifest


def present_version(atlas: Path) -> Manifest:
    """The manifest of the present version; raises NotFoundError if none was sealed yet."""
    manifest = read_manifest(atlas)
    if manifest is None:
        raise NotFoundError(f"{atlas} holds no sealed atlas; run unitscope index first")
    return manifest


def sealed_versions(atlas: Path) -> list[Manifest]:
    """All versions, the present one first, then from the newest to the oldest."""
    present = present_version(atlas)
    earlier = [
        parse_manifest(path.read_text(errors="replace"), str(path)) for path in (atlas / layout.VERSIONS).glob("*.json")
    ]
    earlier.sort(key=lambda manifest: (manifest.created, _superseded_ns(atlas, manifest)), reverse=True)
    return [present, *(manifest for manifest in earlier if manifest.version != present.version)]


def version_rows(atlas: Path) -> list[VersionRow]:
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


def kept_version(atlas: Path, version: str) -> Manifest | None:
    """An earlier version of this name with all its parts, if there is one."""
    path = atlas / layout.version(version)
    if not path.is_file():
        return None
    manifest = parse_manifest(path.read_text(errors="replace"), str(path))
    return manifest if all(is_present(atlas, part) for part in manifest.parts()) else None


def collect(atlas: Path, keep: int, dry_run: bool = False) -> Collected:
    """Delete all versions but the newest `keep`, and every part and receipt that none of these names.

    Shards that a killed run has finished but not sealed go too: their forwards would run again. Files that no index
    run writes are left alone, but for what was derived from a version that goes. Manifests go first, then receipts,
    then parts, so that a killed run leaves no version without its parts; run again, it deletes the rest. A reader that
    still has a deleted version open meets missing parts at its next question. Costs a walk over the files of the atlas.
    """
    with locked(atlas):
        versions = sealed_versions(atlas)
        kept, dropped = versions[:keep], versions[keep:]
        needed = {part.path for manifest in kept for part in manifest.parts()}
        needed |= {layout.receipt(receipt.shard) for manifest in kept for receipt in manifest.shards}
        unnamed = sorted(path for path in _parts(atlas) if path not in needed)
        unnamed.sort(key=lambda path: not path.startswith("receipts/"))
        stay = {manifest.version for manifest in kept}
        derived = sorted(path for path in _files(atlas) if layout.version_of(path) not in (None, *stay))
        files = [*(layout.version(manifest.version) for manifest in dropped), *unnamed, *derived]
        found = Collected(
            [manifest.version for manifest in kept],
            [manifest.version for manifest in dropped],
            files,
            sum((atlas / path).stat().st_size for path in files),
        )
        if not dry_run:
            remove_unfinished(atlas)
            for path in files:
                (atlas / path).unlink()
        return found


def _parts(atlas: Path) -> Iterator[str]:
    return filter(layout.is_part, _files(atlas))


def _files(atlas: Path) -> Iterator[str]:
    for path in atlas.rglob("*"):
        if path.is_file() and not path.is_symlink():
            yield path.relative_to(atlas).as_posix()


def _superseded_ns(atlas: Path, manifest: Manifest) -> int:
    return (atlas / layout.version(manifest.version)).stat().st_mtime_ns
