"""Where the manifest of a version of an atlas is."""

from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Protocol

from unitscope_schemas import layout
from unitscope_schemas.errors import NotFoundError, UsageError, listing
from unitscope_schemas.manifest import Manifest, parse_manifest


class File(Protocol):
    @property
    def path(self) -> str: ...


class Documents(Protocol):
    """An atlas whose documents can be read, wherever it lies."""

    @property
    def root(self) -> object: ...

    def read(self, path: str) -> bytes | None: ...

    def walk(self, folder: str = "") -> Iterable[File]: ...


def read_version(atlas: Documents, version: str | None = None) -> Manifest:
    """The manifest of a version by its name or the beginning of it, None: the present one.

    Raises NotFoundError that names the versions there are, UsageError if several begin so, FormatError and AtlasError
    as `parse_manifest` does.
    """
    present = _manifest_at(atlas, layout.MANIFEST)
    if version is None or version == present.version:
        return present
    earlier = {PurePosixPath(file.path).stem for file in atlas.walk(layout.VERSIONS) if file.path.endswith(".json")}
    names = sorted({present.version, *earlier})
    found = [name for name in names if version and name.startswith(version)]
    if len(found) > 1:
        raise UsageError(f"several versions of atlas {atlas.root} begin with {version!r}: {listing(found)}")
    if not found:
        raise NotFoundError(f"atlas {atlas.root} has no version {version!r}; it has {listing(names)}")
    return present if found == [present.version] else _manifest_at(atlas, layout.version(found[0]))


def _manifest_at(atlas: Documents, path: str) -> Manifest:
    text = atlas.read(path)
    if text is None:
        raise NotFoundError(f"{atlas.root} is no atlas: it has no {path}; write one with unitscope index")
    return parse_manifest(text.decode(errors="replace"), str(atlas.root))
