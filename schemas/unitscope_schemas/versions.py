"""Where the manifest of a version of an atlas is."""

from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Protocol

from unitscope_schemas import layout
from unitscope_schemas.errors import NotFoundError, UsageError, listing
from unitscope_schemas.manifest import Manifest, parse_manifest


class NamedFile(Protocol):
    """A file that has a path inside its atlas."""

    @property
    def path(self) -> str:
        """The file's path, relative to the root of the atlas."""


class Documents(Protocol):
    """An atlas whose documents can be read, wherever it lies."""

    @property
    def address(self) -> object:
        """The folder or address of the atlas, for messages."""

    def read(self, path: str) -> bytes | None:
        """Return a document's bytes, None if there is none."""

    def walk(self, folder: str = "") -> Iterable[NamedFile]:
        """List all files below a folder."""


def read_version(atlas: Documents, version: str | None = None) -> Manifest:
    """Return the manifest of a version by its name or the beginning of it, None: the present one.

    Raises NotFoundError that names the versions there are, UsageError if several begin so, FormatError and AtlasError
    as `parse_manifest` does.
    """
    present = _manifest_at(atlas, layout.MANIFEST)
    version = version and version.lower()
    if version is None or version == present.version:
        return present
    earlier = {PurePosixPath(file.path).stem for file in atlas.walk(layout.VERSIONS) if file.path.endswith(".json")}
    names = sorted({present.version, *earlier})
    matches = [name for name in names if version and name.startswith(version)]
    if len(matches) > 1:
        raise UsageError(f"several versions of atlas {atlas.address} begin with {version!r}: {listing(matches)}")
    if not matches:
        raise NotFoundError(f"atlas {atlas.address} has no version {version!r}; it has {listing(names)}")
    return present if matches == [present.version] else _manifest_at(atlas, layout.version(matches[0]))


def _manifest_at(atlas: Documents, path: str) -> Manifest:
    text = atlas.read(path)
    if text is None:
        raise NotFoundError(f"{atlas.address} is no atlas: it has no {path}; write one with unitscope index")
    return parse_manifest(text.decode(errors="replace"), str(atlas.address))
