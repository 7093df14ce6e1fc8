"""The store of optimised and projected pictures, shared by all versions of an atlas: write, list, read."""

import hashlib
import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from unitscope_pipelines.storage.parts import read_model, write_atomically, write_model
from unitscope_pipelines.storage.stored_file import StoredFile
from unitscope_pipelines.storage.stores import Store
from unitscope_pipelines.vision.images.libraries import library_versions
from unitscope_schemas import layout
from unitscope_schemas.answers.visuals import Visual, VisualKey
from unitscope_schemas.entries.model import Preprocessing
from unitscope_schemas.errors import AtlasError, NotFoundError, ReadOnlyError, StorageError
from unitscope_schemas.geometry import Box, Location
from unitscope_schemas.units import Target

_NAME = re.compile("[0-9a-f]{32}")


@dataclass(frozen=True)
class NewPicture:
    """A picture that was made just now, and what is known about it; see `Visual`."""

    picture: Image.Image
    activation: float | None = None
    location: Location | None = None
    box: Box | None = None
    notes: tuple[str, ...] = ()
    seconds: float = 0.0


def shown_note(preprocessing: Preprocessing) -> tuple[str, ...]:
    """Return what to say where a picture cannot show all channels of the network's input."""
    count, shown = preprocessing.channels, preprocessing.shown_channels
    if count in (1, 3):
        return ()
    return (f"shows the channels {', '.join(map(str, shown))} of 0 to {count - 1} as red, green and blue",)


def check_writable(store: Store, command: str) -> None:
    """Raise ReadOnlyError, which names the command that would do, where this process cannot store pictures or tables.

    Leaves nothing behind.
    """
    path = f"{layout.VISUALS}/try-{uuid.uuid4().hex}"
    try:
        write_atomically(store, path, lambda file: file.touch(), rows=0)
        store.delete([path])
    except StorageError as error:
        raise ReadOnlyError(
            f"this server cannot write into the atlas {store.name}; run the same on a machine that can, "
            f"with {command}, and the server shows its results"
        ) from error


def write_visual(store: Store, key: VisualKey, made: NewPicture) -> Visual:
    """Store a picture under its key, losslessly, and then what is known about it; raises StorageError."""
    path = layout.visual_picture(key.target.layer, key.target.name, key.id)
    part = write_atomically(store, path, lambda file: made.picture.save(file, "PNG"), rows=1)
    visual = Visual(
        key=key,
        picture=part,
        activation=made.activation,
        location=made.location,
        box=made.box,
        notes=made.notes,
        libraries=library_versions(),
        seconds=round(made.seconds, 3),
    )
    write_model(store, layout.visual(key.target.layer, key.target.name, key.id), visual)
    return visual


def find_visual(store: Store, key: VisualKey) -> Visual | None:
    """Return the picture of this key, None unless it is stored; raises AtlasError where its document is damaged."""
    return _read(store, layout.visual(key.target.layer, key.target.name, key.id))


def find_visuals(store: Store, keys: Sequence[VisualKey]) -> list[Visual] | None:
    """Return the pictures of these keys, None unless all of them are stored."""
    visuals = [visual for key in keys if (visual := find_visual(store, key)) is not None]
    return visuals if len(visuals) == len(keys) else None


def read_visual(store: Store, target: Target, name: str) -> Visual:
    """Return a picture of a unit or direction by its name; raises NotFoundError."""
    visual = _read(store, layout.visual(target.layer, target.name, name)) if _NAME.fullmatch(name) else None
    if visual is None:
        raise NotFoundError(f"no picture {name!r} of {target} is stored; list its visualisations")
    return visual


def list_visuals(store: Store, target: Target) -> list[Visual]:
    """Return all stored pictures of a unit or direction, by kind, method, objective and seed."""
    visuals = [_read(store, path) for path in _documents(store, layout.visuals(target.layer, target.name))]
    return sorted((visual for visual in visuals if visual is not None), key=_order)


def layer_documents(store: Store, layer: str) -> list[StoredFile]:
    """Return the documents of all stored pictures of a layer's units, in order of their paths."""
    files = store.walk(layout.visuals_of(layer))
    return sorted(file for file in files if file.path.endswith(".json"))


def layer_visuals(store: Store, layer: str, documents: Sequence[StoredFile]) -> list[Visual]:
    """Read the documents of a layer, without those that are gone; raises AtlasError where one is damaged."""
    try:
        return [read_model(data, Visual) for data in store.read_all([file.path for file in documents])]
    except ValueError as error:
        raise AtlasError(
            f"a document below {layout.visuals_of(layer)} is damaged: {error}; unitscope verify names it"
        ) from None


def read_picture(store: Store, visual: Visual) -> bytes:
    """Read the PNG of a picture; raises AtlasError if it is not the one that was stored."""
    picture = f"picture {visual.picture.path} of atlas {store.address}"
    data = store.read(visual.picture.path)
    if data is None:
        raise AtlasError(f"{picture} is missing; delete its .json, and make it new")
    if hashlib.sha256(data).hexdigest() != visual.picture.sha256:
        raise AtlasError(f"{picture} is not the one that was stored; delete it")
    return data


def faulty_visuals(store: Store) -> dict[str, str]:
    """Return what is wrong with stored pictures by path: an unreadable document, a missing or changed picture."""
    faults = {}
    for path in _documents(store, layout.VISUALS):
        try:
            visual = _read(store, path)
            if visual is None:
                continue
            if layout.visual(visual.key.target.layer, visual.key.target.name, visual.key.id) != path:
                raise AtlasError("lies under another picture's name")
            read_picture(store, visual)
        except AtlasError as error:
            faults[path] = str(error)
    return faults


def _documents(store: Store, folder: str) -> list[str]:
    return sorted(file.path for file in store.walk(folder) if file.path.endswith(".json"))


def _read(store: Store, path: str) -> Visual | None:
    data = store.read(path)
    try:
        return None if data is None else read_model(data, Visual)
    except ValueError as error:
        raise AtlasError(f"{path} is damaged: {error}; delete it, and make the picture again") from None


def _order(visual: Visual) -> tuple[str | int, ...]:
    key = visual.key
    return key.kind, key.method, key.objective, -1 if key.seed is None else key.seed, key.count, key.number, key.id
