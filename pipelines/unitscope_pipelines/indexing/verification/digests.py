"""The files of an atlas against their digests: the parts of all versions, and every document that has one."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from pydantic import BaseModel

from unitscope_pipelines.derived.coactivation import note_of, open_coactivation
from unitscope_pipelines.derived.visuals import faulty_visuals
from unitscope_pipelines.indexing.verification.fault import Fault
from unitscope_pipelines.storage.parts import read_measured, read_model
from unitscope_pipelines.storage.stores import Store
from unitscope_schemas import layout
from unitscope_schemas.answers.relations import Comparison
from unitscope_schemas.entries.document import is_sealed
from unitscope_schemas.entries.part import Part
from unitscope_schemas.errors import AtlasError, FormatError
from unitscope_schemas.manifest import Manifest, MeasuredLayers, Receipt, parse_manifest

_DIGESTED_AT_ONCE = 8
"""Count of parts that are digested at once: an object store takes some hundredths of a second to answer for each."""


class Digests:
    """What a look at every file of an atlas found."""

    def __init__(self, store: Store, manifest: Manifest) -> None:
        self.store, self.manifest = store, manifest
        self.faults: list[Fault] = []
        self.unsealed: list[str] = []
        """Documents of earlier unitscopes, which hold no digest of themselves."""
        self.earlier: list[Manifest] = []
        self._documents()
        self.parts = list({part.path: part for one in (manifest, *self.earlier) for part in one.parts()}.values())
        with ThreadPoolExecutor(_DIGESTED_AT_ONCE, thread_name_prefix="digest") as threads:
            self.faults += filter(None, threads.map(partial(_part_fault, store), self.parts))
        self.faults += [Fault("picture of a unit", path, what) for path, what in faulty_visuals(store).items()]

    @property
    def broken(self) -> set[str]:
        """Paths of what is not as it was sealed."""
        return {fault.where for fault in self.faults}

    def _documents(self) -> None:
        """Look at all documents: each is its own, and says what the manifest says."""
        receipts = {layout.receipt(receipt.shard): receipt for receipt in self.manifest.shards}
        measured = layout.measured(self.manifest.atlas_key)
        self._read(layout.MANIFEST, self._manifest)
        for path in sorted(file.path for file in self.store.walk()):
            folder = path.split("/")[0]
            if folder == layout.VERSIONS and path.endswith(".json"):
                self._read(path, self._manifest, self.earlier)
            elif path in receipts:
                self._read(path, partial(self._receipt, receipts[path]))
            elif path == measured:
                self._read(path, self._layers)
            elif folder == layout.COMPARISONS and path.endswith(".json"):
                self._read(path, partial(read_model, kind=Comparison))
            elif folder == layout.COACTIVATIONS and path.endswith(".parquet"):
                self._table(path)
        missing = [path for path in receipts if self.store.stamp(path) is None]
        self.faults += [
            Fault("document", path, "is missing; an index run would scan its shard again") for path in missing
        ]
        if self.store.stamp(measured) is None:
            self.faults.append(Fault("document", measured, "is missing; unitscope index measures the layers again"))

    def _read(self, path: str, read: Callable[[bytes], object], into: list[Manifest] | None = None) -> None:
        data = self.store.read(path) or b""
        try:
            document = read(data)
        except (ValueError, AtlasError, FormatError) as error:
            self.faults.append(Fault("document", path, str(error)))
            return
        if not is_sealed(data.decode(errors="replace")):
            self.unsealed.append(path)
        if into is not None and isinstance(document, Manifest):
            into.append(document)

    def _manifest(self, data: bytes) -> Manifest:
        return parse_manifest(data.decode(errors="replace"), self.store.name)

    def _receipt(self, receipt: Receipt, data: bytes) -> BaseModel:
        stored = read_model(data, Receipt)
        if (stored if receipt.peaks else stored.without_peaks()) != receipt:
            raise ValueError("it is not the receipt that the manifest holds")
        return stored

    def _layers(self, data: bytes) -> BaseModel:
        stored = read_model(data, MeasuredLayers)
        if read_measured(self.store, self.manifest.atlas_key) is None:
            raise ValueError("it is of another model")
        if stored.layers != [entry.spec for entry in self.manifest.layers]:
            raise ValueError("its layers are not those that the manifest holds")
        return stored

    def _table(self, path: str) -> None:
        """Look at a table that no manifest names, but a note of its own."""
        note = note_of(path)
        if self.store.stamp(note) is None:
            self.unsealed.append(path)
            return
        known = len(self.faults)
        self._read(note, partial(read_model, kind=Part))
        try:
            open_coactivation(self.store, path)
        except AtlasError as error:
            self.faults += [Fault("part", path, str(error))] if len(self.faults) == known else []


def _part_fault(store: Store, part: Part) -> Fault | None:
    try:
        digest = store.digest(part.path)
    except AtlasError as error:
        return Fault("part", part.path, str(error))
    except OSError as error:
        return Fault("part", part.path, f"cannot be read: {error.strerror}")
    return None if digest == part.sha256 else Fault("part", part.path, "its bytes are not those that were sealed")
