"""Check an atlas: bytes against digests, tables against what they were made of, rows against a new forward."""

from dataclasses import dataclass
from pathlib import Path

from unitscope_pipelines.indexing.ranking.unit_fields import FieldMeasurer
from unitscope_pipelines.indexing.sealing.versions import present_version
from unitscope_pipelines.indexing.verification.digests import Digests
from unitscope_pipelines.indexing.verification.fault import Fault
from unitscope_pipelines.indexing.verification.forwards import RunAgain, sampled, scan_plan
from unitscope_pipelines.indexing.verification.layers import layer_faults, unit_field_faults
from unitscope_pipelines.indexing.verification.picture_check import look_at_pictures
from unitscope_pipelines.indexing.verification.tables import TableCheck
from unitscope_pipelines.storage.originals import Originals
from unitscope_pipelines.storage.stores import AtlasAddress, Store, store_of
from unitscope_pipelines.storage.tombstones import present_images
from unitscope_schemas.errors import ModelError, listing
from unitscope_schemas.manifest import Manifest
from unitscope_schemas.progress import Report


@dataclass(frozen=True)
class Verdict:
    """What was checked, and the faults of it."""

    part_count: int
    picture_count: int
    """Count of the picture files that were looked at."""
    image_count: int
    """Count of the images whose forward was run again."""
    cell_count: int
    """Count of the peaks that were recorded again."""
    largest_drift: float
    """Largest difference of an activation from the stored one, relative to the activation."""
    faults: list[Fault]
    note: str = ""
    """Sentences on how much was checked, and on what could not be, and why."""


def verify(
    atlas: AtlasAddress | Store,
    sample: int,
    seed: int,
    corpus: str | Path | None = None,
    trust_code: bool = False,
    quick: bool = False,
    report: Report = lambda _: None,
) -> Verdict:
    """Check everything that an atlas says of itself.

    Every part of every version and every document is digested, every picture too. All tables are made again from what
    shards recorded, layers are measured again, and so are the boxes of `sample` units of each layer that has them;
    `sample` random images are run through the network and all of their peaks compared. One fault ends no other look,
    but for what can only be read from a broken part. With `quick` a picture's file is compared by size and time of
    change, and neither tables nor boxes are made again.
    """
    store = store_of(atlas)
    manifest = present_version(store)
    digests = Digests(store, manifest)
    faults, broken = list(digests.faults), digests.broken
    named_by = [*manifest.image_parts(), *([manifest.removed.table] if manifest.removed else [])]
    if any(part.path in broken for part in named_by):
        note = "no picture was looked at, and no forward run again: the table that names them is broken"
        return Verdict(len(digests.parts), 0, 0, 0, 0.0, faults, note)
    tables = TableCheck(store, manifest, broken, report)
    if not quick:
        faults += tables.faults()
    root = manifest.corpus.root if corpus is None else str(corpus)
    images = present_images(manifest, store)
    looked = look_at_pictures(Originals(root), images, quick, report)
    faults += [Fault("picture", path, what) for path, what in looked.faults.items()]
    again = RunAgain(store, manifest, broken)
    notes = _notes(manifest, digests, tables, quick)
    try:
        measurer = FieldMeasurer(scan_plan(manifest, store, root, trust_code), manifest.batch_dependence is not None)
    except ModelError as error:
        faults.append(Fault("model", manifest.model.spec, str(error)))
    else:
        faults += layer_faults(manifest, measurer.scanner.model)
        if not quick:
            faults += unit_field_faults(manifest, store, measurer, sample, seed, broken)
        if not manifest.batch_dependence:  # where values depend on a picture's batch or on chance none repeats them
            left = [image for image in sampled(images, sample, seed) if image.path not in looked.faults]
            again.compare(measurer.scanner, left)
    if not manifest.batch_dependence:
        notes.append(f"{again.image_count} of {images.num_rows} images were run again")
    if again.left_out:
        notes.append(f"peaks of {listing(sorted(again.left_out))} were not compared: their tables are broken")
    return Verdict(
        part_count=len(digests.parts),
        picture_count=looked.count,
        image_count=again.image_count,
        cell_count=again.cell_count,
        largest_drift=again.largest_drift,
        faults=faults + again.faults,
        note="; ".join(notes),
    )


def _notes(manifest: Manifest, digests: Digests, tables: TableCheck, quick: bool) -> list[str]:
    """Return sentences on what was not looked at, and why."""
    notes = []
    if quick:
        notes.append("pictures were compared by size and time alone, and no table was made again")
    if digests.unsealed:
        named = listing(digests.unsealed, most=3)
        notes.append(f"a changed byte in {named} would not be seen: an earlier unitscope wrote no digest into it")
    if manifest.keep is not None and not quick:
        notes.append("ranks were not made again, only looked through: a bounded atlas has no peaks")
    elif tables.left_out:
        named = listing(sorted(tables.left_out), most=3)
        notes.append(f"{named} could not be made again, for parts that they are made of are broken")
    if manifest.batch_dependence:
        notes.append(f"no forward was run again: {manifest.batch_dependence}")
    return notes
