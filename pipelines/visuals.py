"""The store of optimised and projected pictures, shared by all versions of an atlas: write, list, read."""

import hashlib
import re
from dataclasses import dataclass
from importlib.metadata import version as installed_version
from pathlib import Path
from tempfile import TemporaryFile

from PIL import Image
from pydantic import ValidationError

from pipelines.storage import write_atomically, write_model
from schemas import layout
from schemas.errors import AtlasError, NotFoundError, ReadOnlyError
from schemas.geometry import Box, Location
from schemas.units import UnitId
from schemas.visuals import Visual, VisualKey

_LIBRARIES = ("unitscope", "torch", "numpy", "pillow")
_NAME = re.compile("[0-9a-f]{32}")


@dataclass(frozen=True)
class Made:
    """A picture that was made just now, and what is known about it; see `schemas.visuals.Visual`."""

    picture: Image.Image
    activation: float | None = None
    location: Location | None = None
    box: Box | None = None
    notes: tuple[str, ...] = ()
    seconds: float = 0.0


def check_writable(root: Path) -> None:
    """Raises ReadOnlyError where this process cannot store pictures; leaves nothing behind."""
    folder = root / layout.VISUALS
    try:
        folder.mkdir(exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ReadOnlyError(
            f"this server cannot write into the atlas {root.name}: {error.strerror}; run the same on a machine that "
            "can, for example with unitscope optimise, and the server shows its results"
        ) from None


def write_visual(root: Path, key: VisualKey, made: Made) -> Visual:
    """Store a picture under its key, losslessly, and then what is known about it; raises StorageError."""
    path = layout.visual_picture(key.layer, key.channel, key.id)
    part = write_atomically(root, path, lambda file: made.picture.save(file, "PNG"), rows=1)
    visual = Visual(
        key=key,
        picture=part,
        activation=made.activation,
        location=made.location,
        box=made.box,
        notes=made.notes,
        libraries={library: installed_version(library) for library in _LIBRARIES},
        seconds=round(made.seconds, 3),
    )
    write_model(root, layout.visual(key.layer, key.channel, key.id), visual)
    return visual


def find_visual(root: Path, key: VisualKey) -> Visual | None:
    """The picture of this key, if it is stored; raises AtlasError where its document is damaged."""
    path = root / layout.visual(key.layer, key.channel, key.id)
    return _read(path) if path.is_file() else None


def read_visual(root: Path, unit: UnitId, name: str) -> Visual:
    """A unit's picture by its name; raises NotFoundError."""
    path = root / layout.visual(*unit, name)
    if not _NAME.fullmatch(name) or not path.is_file():
        raise NotFoundError(f"no picture {name!r} of unit {unit} is stored; list the unit's visualisations")
    return _read(path)


def list_visuals(root: Path, unit: UnitId) -> list[Visual]:
    """All stored pictures of a unit: by kind, method, objective and seed."""
    found = [_read(path) for path in (root / layout.visuals(*unit)).glob("*.json")]
    return sorted(found, key=_order)


def read_picture(root: Path, visual: Visual) -> bytes:
    """The PNG of a picture; raises AtlasError if it is not the one that was stored."""
    try:
        data = (root / visual.picture.path).read_bytes()
    except OSError as error:
        raise AtlasError(f"picture {visual.picture.path} of atlas {root} cannot be read: {error.strerror}") from None
    if hashlib.sha256(data).hexdigest() != visual.picture.sha256:
        raise AtlasError(f"picture {visual.picture.path} of atlas {root} is not the one that was stored; delete it")
    return data


def faulty_visuals(root: Path) -> dict[str, str]:
    """By path what is wrong with stored pictures: a document that cannot be read, a picture missing or changed."""
    faults = {}
    for path in sorted((root / layout.VISUALS).rglob("*.json")):
        try:
            visual = _read(path)
            if layout.visual(*visual.key.unit, visual.key.id) != path.relative_to(root).as_posix():
                raise AtlasError("lies under another picture's name")
            read_picture(root, visual)
        except AtlasError as error:
            faults[path.relative_to(root).as_posix()] = str(error)
    return faults


def _read(path: Path) -> Visual:
    try:
        return Visual.model_validate_json(path.read_bytes())
    except (ValidationError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise AtlasError(f"{path} is damaged: {reason}; delete it, and make the picture again") from None


def _order(visual: Visual) -> tuple[str | int, ...]:
    key = visual.key
    return key.kind, key.method, key.objective, -1 if key.seed is None else key.seed, key.count, key.number, key.id
