"""Where the manifest of a version of an atlas is."""

from pathlib import Path

from schemas import layout
from schemas.errors import NotFoundError, UsageError, listing
from schemas.manifest import Manifest, parse_manifest


def read_version(root: Path, version: str | None = None) -> Manifest:
    """The manifest of a version by its name or the beginning of it, None: the present one.

    Raises NotFoundError that names the versions there are, UsageError if several begin so, FormatError and AtlasError
    as `parse_manifest` does.
    """
    path = root / layout.MANIFEST
    if not path.is_file():
        raise NotFoundError(f"{root} is no atlas: it has no {layout.MANIFEST}; write one with unitscope index")
    present = parse_manifest(path.read_text(errors="replace"), str(root))
    if version is None or version == present.version:
        return present
    names = sorted({present.version, *(path.stem for path in (root / layout.VERSIONS).glob("*.json"))})
    found = [name for name in names if version and name.startswith(version)]
    if len(found) > 1:
        raise UsageError(f"several versions of atlas {root} begin with {version!r}: {listing(found)}")
    if not found:
        raise NotFoundError(f"atlas {root} has no version {version!r}; it has {listing(names)}")
    if found == [present.version]:
        return present
    return parse_manifest((root / layout.version(found[0])).read_text(errors="replace"), str(root))
