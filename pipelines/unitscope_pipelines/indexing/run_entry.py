"""What a manifest says about the run that seals it."""

from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version as installed_version
from typing import Any, NamedTuple

from unitscope_pipelines.indexing.plan import Plan
from unitscope_pipelines.indexing.sealing.removed import conflict_count, label_count, write_removed
from unitscope_pipelines.indexing.sealing.versions import NewVersion
from unitscope_pipelines.storage.long_tables.long_table import LongTable
from unitscope_pipelines.vision.images.pictures import summed_notes
from unitscope_schemas.entries.corpus import CorpusEntry
from unitscope_schemas.manifest import Receipt, Removed


class RunEntry(NamedTuple):
    """What a manifest says about the run that seals it, by the manifest's names."""

    unitscope_version: str
    created: str
    corpus: CorpusEntry
    shards: list[Receipt]
    forward_count: int
    config: dict[str, Any]
    batch_dependence: str | None
    removed: Removed | None


def run_entry(plan: Plan, version: NewVersion) -> RunEntry:
    """Return what the manifest says about this run; writes the table of removed images where no version names it."""
    finished = {receipt.shard for receipt in plan.finished}
    images, receipts = version.images, version.receipts
    return RunEntry(
        unitscope_version=installed_version("unitscope"),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        corpus=CorpusEntry(
            root=plan.listing.root,
            roots=plan.listing.roots,
            image_count=images.images.num_rows,
            file_count=images.file_count,
            skipped_count=images.skipped.num_rows,
            ignored_count=plan.listing.ignored_count,
            others=dict(plan.listing.others),
            notes=[*plan.listing.notes, *summed_notes(_notes(images.images))],
            label_count=label_count(images.images.batches(["labels"])),
            conflict_count=conflict_count(images.images.batches(["statements"])),
            repeated_count=plan.listing.repeated_count,
        ),
        shards=[receipt if plan.keep is None else receipt.without_peaks() for receipt in receipts],
        forward_count=sum(receipt.forward_count for receipt in receipts if receipt.shard not in finished),
        config=plan.config.model_dump(mode="json"),
        batch_dependence=plan.batch_dependence,
        removed=_removed_entry(plan, version.name),
    )


def _notes(images: LongTable) -> Iterator[str]:
    """Yield what was done to each picture besides decoding, of those to which something was."""
    for batch in images.batches(["notes"]):
        yield from batch["notes"].drop_null().to_pylist()


def _removed_entry(plan: Plan, version: str) -> Removed | None:
    """Return what is out of a version that holds no tombstone."""
    if plan.previous is not None:
        before = plan.previous.removed
        return before and before.model_copy(update={"stale": 0, "built": version})
    if not plan.removed.num_rows:
        return None
    return Removed(table=write_removed(plan.store, plan.removed), stale=0, built=version)
