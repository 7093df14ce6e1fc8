"""The store of optimised and projected pictures, shared by all versions of an atlas: write, list, read."""

import hashlib
import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version as installed_version

from PIL import Image
from pydantic import ValidationError

from unitscope_pipelines.storage.filesystem import File
from unitscope_pipelines.storage.parts import write_atomically, write_model
from unitscope_pipelines.storage.stores import Root, Store, store_of
from unitscope_schemas import layout
from unitscope_schemas.answers.visuals import Visual, VisualKey
from unitscope_schemas.errors import AtlasError, NotFoundError, ReadOnlyError, StorageError
from unitscope_schemas.geometry import Box, Location
from unitscope_schemas.units import Target

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


def check_writable(root: Root, command: str) -> None:
    """Raises ReadOnlyError, which names the command that would do, where this process cannot store pictures or
    tables; leaves nothing behind."""
    store, path = store_of(root), f"{layout.VISUALS}/try-{uuid.uuid4().hex}"
    try:
        write_atomically(root, path, lambda file: file.touch(), rows=0)
        store.delete([path])
    except StorageError as error:
        raise ReadOnlyError(
            f"this server cannot write into the atlas {store.name}; run the same on a machine that can, "
            f"with {command}, and the server shows its results"
        ) from error


def write_visual(root: Root, key: VisualKey, made: Made) -> Visual:
    """Store a picture under its key, losslessly, and then what is known about it; raises StorageError."""
    path = layout.visual_picture(key.target.layer, key.target.name, key.id)
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
    write_model(root, layout.visual(key.target.layer, key.target.name, key.id), visual)
    return visual


def find_visual(root: Root, key: VisualKey) -> Visual | None:
    """The picture of this key, if it is stored; raises AtlasError where its document is damaged."""
    return _read(store_of(root), layout.visual(key.target.layer, key.target.name, key.id))


def read_visual(root: Root, target: Target, name: str) -> Visual:
    """A picture of a unit or direction by its name; raises NotFoundError."""
    found = _read(store_of(root), layout.visual(target.layer, target.name, name)) if _NAME.fullmatch(name) else None
    if found is None:
        raise NotFoundError(f"no picture {name!r} of {target} is stored; list its visualisations")
    return found


def list_visuals(root: Root, target: Target) -> list[Visual]:
    """All stored pictures of a unit or direction: by kind, method, objective and seed."""
    store = store_of(root)
    found = [_read(store, path) for path in _documents(store, layout.visuals(target.layer, target.name))]
    return sorted((visual for visual in found if visual is not None), key=_order)


def layer_documents(root: Root | Store, layer: str) -> list[File]:
    """The documents of all stored pictures of a layer's units, in order of their paths."""
    files = store_of(root).walk(layout.visuals_of(layer))
    return sorted(file for file in files if file.path.endswith(".json"))


def layer_visuals(root: Root | Store, layer: str, documents: Sequence[File]) -> list[Visual]:
    """What the documents of a layer say, without those that are gone; raises AtlasError where one is damaged."""
    try:
        return [Visual.model_validate_json(data) for data in store_of(root).read_all([file.path for file in documents])]
    except ValidationError as error:
        reason = str(error).splitlines()[0]
        raise AtlasError(
            f"a document below {layout.visuals_of(layer)} is damaged: {reason}; unitscope verify names it"
        ) from None


def read_picture(root: Root, visual: Visual) -> bytes:
    """The PNG of a picture; raises AtlasError if it is not the one that was stored."""
    data = store_of(root).read(visual.picture.path)
    if data is None:
        raise AtlasError(f"picture {visual.picture.path} of atlas {root} is missing; delete its .json, and make it new")
    if hashlib.sha256(data).hexdigest() != visual.picture.sha256:
        raise AtlasError(f"picture {visual.picture.path} of atlas {root} is not the one that was stored; delete it")
    return data


def faulty_visuals(root: Root) -> dict[str, str]:
    """By path what is wrong with stored pictures: a document that cannot be read, a picture missing or changed."""
    faults, store = {}, store_of(root)
    for path in _documents(store, layout.VISUALS):
        try:
            visual = _read(store, path)
            if visual is None:
                continue
            if layout.visual(visual.key.target.layer, visual.key.target.name, visual.key.id) != path:
                raise AtlasError("lies under another picture's name")
            read_picture(root, visual)
        except AtlasError as error:
            faults[path] = str(error)
    return faults


def _documents(store: Store, folder: str) -> list[str]:
    return sorted(file.path for file in store.walk(folder) if file.path.endswith(".json"))


def _read(store: Store, path: str) -> Visual | None:
    data = store.read(path)
    try:
        return None if data is None else Visual.model_validate_json(data)
    except ValidationError as error:
        reason = str(error).splitlines()[0]
        raise AtlasError(f"{path} is damaged: {reason}; delete it, and make the picture again") from None


def _order(visual: Visual) -> tuple[str | int, ...]:
    key = visual.key
    return key.kind, key.method, key.objective, -1 if key.seed is None else key.seed, key.count, key.number, key.id
