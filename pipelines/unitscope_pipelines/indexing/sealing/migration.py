"""Versions of an atlas in format version 2, written anew in the present one: manifests and tables of images alone."""

from dataclasses import dataclass

from unitscope_pipelines.indexing.sealing.first_ranks import build_first_ranks
from unitscope_pipelines.indexing.sealing.image_tables import write_groups, write_image_tables
from unitscope_pipelines.indexing.sealing.versions import sealed_versions
from unitscope_pipelines.storage.long_tables.long_table import LongTable
from unitscope_pipelines.storage.parts import write_model
from unitscope_pipelines.storage.segments.images import version_images
from unitscope_pipelines.storage.stores import AtlasAddress, Store, store_of
from unitscope_schemas import layout
from unitscope_schemas.manifest import Manifest


@dataclass(frozen=True)
class Migration:
    """The count of an atlas's versions, and of those that were, or would be, brought to the present format."""

    versions: int
    migrated: int


def migrate(atlas: AtlasAddress | Store, dry_run: bool = False) -> Migration:
    """Bring all versions of an atlas to the present format, each under its own name, the present one last.

    Runs no forward, and writes no ranks and no vectors: costs a read and a write of each version's images. What only
    the earlier format needs stays until `gc`. A run that is killed leaves every version readable in one format or the
    other; run again, it goes on. Raises FormatError for a format from which no migration leads.
    """
    store = store_of(atlas)
    versions, old = _versions(store)
    if old and not dry_run:
        with store.locked():
            versions, old = _versions(store)
            for manifest in reversed(old):
                is_present = manifest.version == versions[0].version
                path = layout.MANIFEST if is_present else layout.version(manifest.version)
                write_model(store, path, _renewed(manifest, store))
    return Migration(len(versions), len(old))


def _versions(store: Store) -> tuple[list[Manifest], list[Manifest]]:
    """Return all versions, the present one first, and those that were sealed in the format before."""
    versions = sealed_versions(store)
    return versions, [manifest for manifest in versions if manifest.groups is None]


def _renewed(manifest: Manifest, store: Store) -> Manifest:
    """Write the tables of a version's images as they are today, and return the manifest that names them."""
    images, built, (segment,) = LongTable.of(version_images(manifest, store)), manifest.built, manifest.segments
    segments = [segment.model_copy(update={"tables": write_image_tables(store, segment.name, built, images)})]
    ranks = manifest.first_ranks
    if layout.is_lookup_of_2(ranks.path):
        ranks = build_first_ranks(store, built, segments)
    update = {"segments": segments, "groups": write_groups(store, built, images), "first_ranks": ranks, "unread": []}
    return manifest.model_copy(update=update)
