"""The trace of one value: from the picture's bytes to its rank, each link looked at, and the value recorded anew."""

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from unitscope_pipelines.storage.stores import Store, store_of
from unitscope_schemas import layout
from unitscope_schemas.answers.provenance import LinkState, Trace, TraceRow
from unitscope_schemas.entries.model import TOLERANCES
from unitscope_schemas.entries.part import Part
from unitscope_schemas.errors import ModelError, UnitscopeError
from unitscope_schemas.geometry import Location
from unitscope_schemas.manifest import BLOCK_UNITS, Receipt
from unitscope_schemas.questions import TraceQuestion
from unitscope_schemas.units import UnitId
from unitscope_schemas.versions import read_version
from unitscope_services.atlas.atlas import Atlas
from unitscope_services.atlas.rows import ImageEntry
from unitscope_services.encoding.encoder import Encoded
from unitscope_services.queries.session import Session

Content = TypeVar("Content")


@dataclass(frozen=True)
class Peak:
    """A stored peak of a unit on an image."""

    activation: float
    location: Location


def trace(session: Session, unit: UnitId, question: TraceQuestion) -> Trace:
    """Return the chain that the peak of a unit on an image hangs by, each link looked at now.

    No link ends the look at others but those that need it: without its picture nothing is recorded anew. Raises
    NotFoundError for a unit or image that is not in the atlas, UsageError where the model would run unknown code.
    """
    atlas = session.atlas
    atlas.unit(unit)
    image = atlas.find_image(question.image)
    chain = _Chain(session, unit, image)
    picture = chain.picture()
    chain.libraries()
    runs = chain.model()
    stored = chain.peak()
    rank = chain.rank(stored)
    chain.image()
    chain.shard()
    chain.manifest()
    now = chain.again(picture if runs else None, stored)
    manifest = atlas.manifest
    return Trace(
        unit=str(unit),
        image_id=image.image_id,
        path=image.path,
        version=atlas.version,
        atlas_key=manifest.atlas_key,
        digest=manifest.digest or "",
        stored=stored.activation if stored and math.isfinite(stored.activation) else None,
        now=now,
        rank=rank,
        rows=chain.rows,
    )


class _Chain:
    """The links that were looked at so far, in their order."""

    def __init__(self, session: Session, unit: UnitId, image: ImageEntry) -> None:
        self.session, self.unit, self.entry = session, unit, image
        self.atlas: Atlas = session.atlas
        self.store: Store = store_of(self.atlas.root)
        """Store without checks of its own: a broken part is a link here, and no error."""
        self.receipt = next((one for one in self.atlas.manifest.shards if one.shard == image.shard), None)
        self.rows: list[TraceRow] = []

    def picture(self) -> Encoded | None:
        """Look at the picture's bytes and at how they became the network's input; None where they are others."""
        entry = self.entry
        try:
            data = self.atlas.originals.read(entry.address)
        except (OSError, UnitscopeError):
            self._add("picture", "broken", "it is gone, or cannot be read from here", entry.image_id)
            return None
        if hashlib.sha256(data).hexdigest() != entry.image_id:
            self._add("picture", "broken", "it was edited since it was indexed", entry.image_id)
            return None
        self._add("picture", "holds", f"{len(data):,} bytes of {entry.path}", entry.image_id)
        try:
            picture = self.session.encoder.read(data)
        except UnitscopeError as error:
            self._add("placement", "broken", str(error))
            return None
        before, now = self.atlas.placement(entry), picture.placement
        text = f"{entry.format}, {entry.mode}, {now.image.height} × {now.image.width}, resized to "
        text += f"{now.resized.height} × {now.resized.width}, from row {now.crop.row}, column {now.crop.col}"
        self._add("placement", "holds" if before == now else "broken", text if before == now else f"was {before}")
        pixels = picture.prepared.pixels.contiguous().numpy()
        shape = " × ".join(map(str, pixels.shape))
        self._add("input", "computed", f"{shape} {pixels.dtype}", hashlib.sha256(pixels.tobytes()).hexdigest())
        return picture

    def libraries(self) -> None:
        """Look at the libraries and the code that recorded the value, beside those that are here."""
        from unitscope_pipelines.vision.images.libraries import code_digest, library_versions

        recorded, here = self.receipt.libraries if self.receipt else {}, library_versions()
        others = [f"{name} {was}, here {here[name]}" for name, was in recorded.items() if here.get(name, was) != was]
        words = ", ".join(f"{name} {recorded[name]}" for name in recorded if "/" not in name)
        if not recorded:
            self._add("libraries", "unknown", "which ones recorded it was not noted")
        else:
            self._add("libraries", "differs" if others else "holds", "; ".join(others) or words)
        code, now = self.receipt.code if self.receipt else None, code_digest()
        if code is None:
            self._add("code", "unknown", "the code that recorded it was not noted")
        else:
            was, is_here = recorded.get("unitscope"), here["unitscope"]
            what = f"unitscope {was}" if code == now else f"unitscope {was} recorded it, here is {is_here}, {now[:12]}…"
            other: LinkState = "broken" if was == is_here else "differs"
            self._add("code", "holds" if code == now else other, what, code)

    def model(self) -> bool:
        """Look at the weights, and at the code of a model that brings its own."""
        entry = self.atlas.manifest.model
        digest, name = entry.weights_digest, self.atlas.model_name
        try:
            self.session.encoder.load()
        except ModelError as error:
            changed = str(error).startswith("the code of")
            what = "are no longer those that recorded it" if "no longer" in str(error) else "cannot be loaded here"
            self._add("weights", "unknown" if changed else "broken", f"{entry.weights} of {name} {what}", digest)
            if changed:
                self._add("model code", "broken", f"the code of {name} has changed", (*entry.code_digests, None)[0])
            return False
        self._add("weights", "holds", f"{entry.weights} of {name}", digest)
        for code in entry.code_digests:
            self._add("model code", "holds", f"a file of code of {name}", code)
        return True

    def peak(self) -> Peak | None:
        """Look at the part that holds the peak, and at its row."""
        part = self.receipt.peaks.get(self.unit.layer) if self.receipt else None
        if self.receipt is None or part is None:
            self._add("peak", "unknown", "the atlas keeps first ranks alone, and no peaks")
            return None
        row = self.unit.channel * self.receipt.forward_count + self.entry.shard_row
        return self._row("peak", part, row, partial(self._read_peak, self.receipt, part))

    def rank(self, peak: Peak | None) -> int | None:
        """Look at the part that holds the rank, and whether it says what the peak says."""
        segment, image = self.atlas.place_of(self.entry.image)
        part = segment.layers[self.unit.layer].ranked[self.unit.channel // BLOCK_UNITS]
        found: list[int] = []

        def read() -> Peak | None:
            with self.store.hold(part) as path:
                chosen = (pc.field("unit") == self.unit.channel) & (pc.field("image") == image)
                table = pq.read_table(path, filters=chosen, partitioning=None)
            if not table.num_rows:
                return None
            found.append(table["rank"][0].as_py())
            return Peak(table["activation"][0].as_py(), Location(table["row"][0].as_py(), table["col"][0].as_py()))

        ranked = self._row("rank", part, None, read)
        added = self.rows[-1]
        if not found or added.state == "broken":
            if added.state != "broken":
                added.state, added.what = "unknown", "the image has no stored rank for this unit"
            return None
        added.row = self.atlas.first_row(self.unit, segment) + found[0]
        rank = found[0]
        if ranked is not None and len(self.atlas.manifest.segments) > 1:
            activation = np.array([ranked.activation], np.float32)
            rank = int(self.atlas.ranked(self.unit).ranks(np.array([self.entry.image]), activation)[0])
        added.what = f"rank {rank}, {added.what}"
        if peak is not None and ranked != peak:
            added.state, added.what = "broken", f"{added.what}: not what was recorded"
        return rank

    def image(self) -> None:
        """Look at the row of the images table that names the image by its number."""
        number = self.entry.image
        segment, row = self.atlas.place_of(number)
        part = segment.tables.images

        def read() -> str:
            with self.store.hold(part) as path:
                ids = pq.read_table(path, columns=["image_id"], partitioning=None)["image_id"]
            return str(ids[row])

        named = self._row("image", part, row, read)
        if named is not None:
            self.rows[-1].what = f"image {number} is {named[:12]}…"
            self.rows[-1].state = "holds" if named == self.entry.image_id else "broken"

    def shard(self) -> None:
        """Say which shard recorded the value, and how."""
        if self.receipt is None:
            self._add("shard", "broken", f"shard {self.entry.shard} is not in the manifest")
            return
        path = layout.receipt(self.receipt.shard)
        is_own = self.receipt.atlas_key == self.atlas.manifest.atlas_key
        self._add("shard", "holds" if is_own else "broken", self.receipt.forward, self.receipt.atlas_key, path)

    def manifest(self) -> None:
        """Look at the manifest once more: it names every part by its digest."""
        opened, version = self.atlas.manifest, self.atlas.version
        try:
            stored = read_version(self.store, version)
        except UnitscopeError:
            self._add("manifest", "broken", "it is damaged, or gone", opened.digest, layout.MANIFEST)
            return
        same = stored.digest == opened.digest
        what = f"version {version}, sealed {opened.created}" if same else "it is not the one that was opened"
        self._add("manifest", "holds" if same else "broken", what, opened.digest, layout.MANIFEST)

    def again(self, picture: Encoded | None, stored: Peak | None) -> float | None:
        """Record the value anew from the picture, and compare."""
        if picture is None:
            self._add("again", "unknown", "not recorded anew: picture, weights or code are not as they were")
            return None
        peaks = self.session.encoder.cells(picture)[self.unit.layer]
        values = peaks["activation"].to_numpy()
        row = peaks.slice(self.unit.channel, 1).to_pylist()[0]
        now, location = float(row["activation"]), Location(row["row"], row["col"])
        if stored is None:
            self._add("again", "computed", f"now {now:.6g} at row {location.row}, column {location.col}")
            return now if math.isfinite(now) else None
        finite = values[np.isfinite(values)]
        scale = max(abs(stored.activation), float(np.abs(finite).mean()) if len(finite) else 0.0, 1e-30)
        tolerance = scale * TOLERANCES[self.session.atlas.manifest.precision]
        same = now == stored.activation or abs(now - stored.activation) <= tolerance
        same = same or (math.isnan(now) and math.isnan(stored.activation))
        moved = now == stored.activation and location != stored.location
        what = f"stored {stored.activation:.6g}, now {now:.6g}"
        what += f"; at {tuple(stored.location)}, now at {tuple(location)}" if moved else ""
        self._add("again", "holds" if same and not moved else "broken", what)
        return now if math.isfinite(now) else None

    def _read_peak(self, receipt: Receipt, part: Part) -> Peak:
        block, position = divmod(self.unit.channel, BLOCK_UNITS)
        with self.store.hold(part) as path, pq.ParquetFile(path, pre_buffer=False) as file:
            table = file.read_row_group(block, columns=["activation", "row", "col"], use_threads=False)
        cell = table.slice(position * receipt.forward_count + self.entry.shard_row, 1).to_pylist()[0]
        return Peak(cell["activation"] + 0.0, Location(cell["row"], cell["col"]))  # as it is ranked: −0 is 0

    def _row(self, link: str, part: Part, row: int | None, read: Callable[[], Content]) -> Content | None:
        """Look at a part and read a row of it; None where the part is not as it was sealed."""
        try:
            whole = self.store.digest(part.path) == part.sha256
        except (OSError, UnitscopeError):
            whole = False
        content = None
        if whole:
            try:
                content = read()
            except (OSError, ValueError, LookupError, pa.ArrowException, UnitscopeError):
                whole = False
        what = "its bytes are not those that were sealed"
        if whole:
            what = f"{content.activation:.6g} at {tuple(content.location)}" if isinstance(content, Peak) else ""
        self._add(link, "holds" if whole else "broken", what, part.sha256, part.path)
        self.rows[-1].row = row
        return content

    def _add(self, link: str, state: LinkState, what: str, digest: str | None = None, path: str | None = None) -> None:
        self.rows.append(TraceRow(link=link, state=state, digest=digest, path=path, row=None, what=what))
