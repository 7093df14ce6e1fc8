"""The commands that keep an atlas up: remove, compact, versions, revert, gc, migrate, doctor."""

from pathlib import Path
from typing import Annotated

import typer

from unitscope.commands.app import app, tell
from unitscope.commands.options import AtlasArgument, DryRunFlag, FormatOption, JsonFlag, ProgressOption, TrustFlag


@app.command()
def remove(
    atlas: AtlasArgument,
    images: Annotated[list[str], typer.Argument(metavar="IMAGE...", help="ids, beginnings of ids, or paths")],
    restore: Annotated[bool, typer.Option("--restore", help="bring removed images back")] = False,
    dry_run: DryRunFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Take images out of every answer, at once and for all later index runs; their files are not touched."""
    from unitscope.commands.output import show_facts
    from unitscope_pipelines.indexing import upkeep

    change = upkeep.restore if restore else upkeep.remove
    removal = change(atlas, images, dry_run)
    done = "restored" if restore else "removed"
    facts = {
        done: removal.images if as_json else len(removal.images),
        "images": removal.image_count,
        "version": removal.version,
        "stale": removal.stale_count,
    }
    show_facts({**facts, "dry_run": dry_run} if as_json else facts, as_json)
    if not as_json:
        for image in removal.images:
            tell(f"{'would be ' * dry_run}{done}: {image.image_id[:12]} {image.path}")
    if removal.waiting:
        tell(f"{len(removal.waiting)} of them are in no table of this version: unitscope index brings them back")
    if removal.stale_count:
        tell(
            f"ranks, percentiles and statistics still count {removal.stale_count}; "
            f"unitscope compact {atlas} renews them"
        )


@app.command()
def compact(
    atlas: AtlasArgument,
    workers: Annotated[int | None, typer.Option(help="ranking processes  [default: one per core]")] = None,
    dry_run: DryRunFlag = False,
    progress: ProgressOption = "auto",
    as_json: JsonFlag = False,
) -> None:
    """Rebuild ranks, statistics and patch index without removed images, as a new version; runs no forward."""
    from unitscope.commands.output import show_facts
    from unitscope.commands.progress import shown
    from unitscope_pipelines.indexing.compaction import compact as run_compact
    from unitscope_pipelines.indexing.sealing.versions import present_version

    before = present_version(atlas)
    with shown(progress) as report:
        after = before if dry_run else run_compact(atlas, workers, report)
    facts = {
        "version": after.version,
        "images": after.corpus.image_count,
        "tombstones": before.stale_count,
        "rebuilt": after.version != before.version,
    }
    show_facts(facts, as_json)


@app.command()
def versions(atlas: AtlasArgument, style: FormatOption = "table", as_json: JsonFlag = False) -> None:
    """List the sealed versions of an atlas, the present one first; --version opens others, revert makes one present."""
    from unitscope.commands.output import show_rows
    from unitscope_pipelines.indexing.sealing.versions import version_rows
    from unitscope_schemas.answers.served import VersionRow

    rows = version_rows(atlas)
    show_rows(rows, VersionRow, "json" if as_json else style, {"rows": rows})


@app.command()
def revert(
    atlas: AtlasArgument,
    version: Annotated[str, typer.Argument(help="an earlier version, by its name or the beginning of it")],
    dry_run: DryRunFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Make an earlier version the present one again, for everyone who asks; the present one stays beside it."""
    from unitscope.commands.output import show_facts
    from unitscope_pipelines.indexing.upkeep import revert as run_revert

    done = run_revert(atlas, version, dry_run)
    facts = {
        "version": done.version,
        "before": done.before,
        "images": done.image_count,
        "stale": done.stale_count,
    }
    show_facts({**facts, "dry_run": dry_run} if as_json else facts, as_json)
    if not as_json and done.version == done.before:
        tell("it is the present version already")


@app.command()
def gc(
    atlas: AtlasArgument,
    keep: Annotated[int, typer.Option(min=1, help="how many of the newest versions stay")],
    dry_run: DryRunFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Delete all but the newest versions, and every part and receipt that none of these names."""
    from unitscope.commands.output import show_facts
    from unitscope_pipelines.indexing.sealing.versions import collect

    collected = collect(atlas, keep, dry_run)
    facts = {
        "kept": collected.kept if as_json else len(collected.kept),
        "versions": collected.versions if as_json else len(collected.versions),
        "files": collected.files if as_json else len(collected.files),
        "bytes": collected.size_bytes,
    }
    show_facts({**facts, "dry_run": dry_run} if as_json else facts, as_json)
    if not as_json:
        tell(f"{'would delete' if dry_run else 'deleted'} {len(collected.files)} files, {collected.size_bytes:,} bytes")


@app.command()
def migrate(atlas: AtlasArgument, dry_run: DryRunFlag = False, as_json: JsonFlag = False) -> None:
    """Bring all versions of an atlas to the present format, without a forward; exit 6 where no way leads there."""
    from unitscope.commands.output import show_facts
    from unitscope_pipelines.indexing.sealing.migration import migrate as bring_up
    from unitscope_schemas.manifest import FORMAT_VERSION

    done = bring_up(atlas, dry_run)
    facts = {"format_version": FORMAT_VERSION, "versions": done.versions, "migrated": done.migrated}
    show_facts({**facts, "dry_run": dry_run} if as_json else facts, as_json)
    if as_json:
        return
    if not done.migrated:
        tell(f"{'there would be ' * dry_run}nothing to migrate: every version has the present format")
    elif not dry_run:
        tell("unitscope gc deletes what only the format of before needed")


@app.command()
def doctor(
    folder: Annotated[Path, typer.Option(help="where atlases are to be written")] = Path(),
    as_json: JsonFlag = False,
) -> None:
    """Check the installation by using each thing once; every fault says what would mend it; exit 4 on faults."""
    from unitscope.commands.output import show_rows
    from unitscope.doctor import Check
    from unitscope.doctor import doctor as run_doctor

    checks = run_doctor(folder)
    show_rows(checks, Check, "json" if as_json else "table", {"checks": checks})
    if not all(check.ok for check in checks):
        raise typer.Exit(4)


@app.command()
def verify(
    atlas: AtlasArgument,
    sample: Annotated[int, typer.Option(help="images whose forward is run again")] = 8,
    seed: Annotated[int, typer.Option(help="of the random choice")] = 0,
    corpus: Annotated[str | None, typer.Option(help="folder or s3://… below which the pictures are now")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="read no picture, and make no table again")] = False,
    trust_code: TrustFlag = False,
    progress: ProgressOption = "auto",
    as_json: JsonFlag = False,
) -> None:
    """Check all files by their digests, tables and layers by making them again, some images by a new forward.

    Exits with 4 on faults.
    """
    from unitscope.commands.output import show_verdict
    from unitscope.commands.progress import shown
    from unitscope_pipelines.indexing.verification.verify import verify as run_verify

    with shown(progress) as report:
        verdict = run_verify(atlas, sample, seed, corpus, trust_code, quick, report)
    show_verdict(verdict, as_json)
    if verdict.note:
        tell(verdict.note)
    if verdict.faults:
        raise typer.Exit(4)
