"""The commands that ask an atlas: top, explain, neighbors, units, images, trace."""

from pathlib import Path
from typing import Annotated

import typer

from unitscope.commands.app import app, tell, tell_kept, tell_missing, tell_stale
from unitscope.commands.options import (
    AtlasArgument,
    CorpusOption,
    FormatOption,
    ImageArgument,
    JsonFlag,
    TrustFlag,
    UnitArgument,
    VersionOption,
    asks,
)
from unitscope_schemas.questions import (
    BandsQuestion,
    ExplainQuestion,
    ImagesQuestion,
    NeighborsQuestion,
    SelectiveQuestion,
    SkippedQuestion,
    TopQuestion,
    TraceQuestion,
    UnitsQuestion,
)


@app.command()
@asks(TopQuestion)
def top(
    atlas: AtlasArgument,
    unit: UnitArgument,
    question: TopQuestion,
    bands: Annotated[
        int | None,
        typer.Option(help="k patches from each of so many equal bands of the whole distribution, in random order"),
    ] = None,
    style: FormatOption = "table",
    crops: Annotated[Path | None, typer.Option(help="write each patch as a PNG into this folder")] = None,
    sheet: Annotated[Path | None, typer.Option(help="write a contact sheet to this picture file")] = None,
    pictures: Annotated[bool, typer.Option("--pictures", help="show the patches in the terminal")] = False,
    corpus: CorpusOption = None,
    trust_code: TrustFlag = False,
    version: VersionOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Show the patches that most excite a unit."""
    from unitscope.commands.output import show_pictures, show_rows
    from unitscope_schemas.answers.patches import PatchPage, PatchRow
    from unitscope_schemas.answers.relations import BandPage, BandRow
    from unitscope_schemas.errors import UsageError
    from unitscope_schemas.units import UnitId
    from unitscope_services.figures.blanks import missing_pictures, patch_tile
    from unitscope_services.figures.sheet import unit_sheet
    from unitscope_services.queries import exemplars, local_maxima
    from unitscope_services.queries.session import Session

    if pictures and (as_json or style != "table"):
        raise UsageError("--pictures is for people: leave out --json and --format, or write files with --crops")
    session, unit_id = Session(atlas, trust_code=trust_code, version=version, corpus=corpus), UnitId.parse(unit)
    page: PatchPage | BandPage
    if bands is None:
        page = local_maxima.top(session, unit_id, question)
    else:
        page = exemplars.bands(session.atlas, unit_id, _banded(bands, question))
    show_rows(page.rows, PatchRow if bands is None else BandRow, "json" if as_json else style, page)
    if page.note:
        tell(f"{unit}: {page.note}")
    tell_stale(page.stale_images)
    if pictures:
        show_pictures(
            [patch_tile(session.atlas, unit_id, row).picture for row in page.rows],
            [f"{row.rank} {row.activation:.4g}" for row in page.rows],
        )
    if crops is not None:
        crops.mkdir(parents=True, exist_ok=True)
        for row in page.rows:
            location = f"-{row.row}-{row.col}" if question.per_image > 1 else ""
            tile = patch_tile(session.atlas, unit_id, row)
            gone = "-missing" if tile.missing else ""
            tile.picture.save(crops / f"{row.rank:04d}-{row.image_id[:12]}{location}{gone}.png")
        tell(f"{len(page.rows)} patches written to {crops}")
    if sheet is not None:
        sheet.parent.mkdir(parents=True, exist_ok=True)
        unit_sheet(session.atlas, page).save(sheet)
        tell(f"contact sheet written to {sheet}")
    if crops is not None or sheet is not None or pictures:
        tell_missing(missing_pictures(session.atlas, page.rows))


@app.command()
@asks(ExplainQuestion)
def explain(
    atlas: AtlasArgument,
    image: ImageArgument,
    question: ExplainQuestion,
    trust_code: TrustFlag = False,
    style: FormatOption = "table",
    version: VersionOption = None,
    as_json: JsonFlag = False,
) -> None:
    """List the units that an image excites most unusually, by percentile over the corpus, or over what passes of it."""
    from unitscope.commands.output import show_rows
    from unitscope_schemas.answers.patches import ExplainRow
    from unitscope_services.queries.session import Session

    session = Session(atlas, trust_code=trust_code, version=version)
    page = session.explain(session.find(image), question)
    show_rows(page.rows, ExplainRow, "json" if as_json else style, page)
    if page.among is not None:
        tell(f"percentiles among the {page.among} images that pass")
    tell_stale(page.stale_images)
    tell_kept(page.kept)


@app.command()
@asks(NeighborsQuestion)
def neighbors(
    atlas: AtlasArgument,
    image: ImageArgument,
    question: NeighborsQuestion,
    trust_code: TrustFlag = False,
    style: FormatOption = "table",
    version: VersionOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Find the nearest patches of the corpus, one per image."""
    from unitscope.commands.output import show_rows
    from unitscope_schemas.answers.patches import NeighborRow
    from unitscope_services.queries.session import Session

    session = Session(atlas, trust_code=trust_code, version=version)
    page = session.neighbors(session.find(image), question)
    show_rows(page.rows, NeighborRow, "json" if as_json else style, page)
    if not page.search.exact:
        tell(f"approximate: recall@10 {page.search.recall_at_10:.3f}, measured at build time; --exact scans all")
    elif question.label or question.where:
        tell(page.search.index)


@app.command()
@asks(UnitsQuestion)
def units(
    atlas: AtlasArgument,
    question: UnitsQuestion,
    layer: Annotated[str | None, typer.Argument(help="a layer of the atlas; with --label none means all")] = None,
    label: Annotated[str | None, typer.Option(help="those whose first images have this label most, with lift")] = None,
    style: FormatOption = "table",
    version: VersionOption = None,
    as_json: JsonFlag = False,
) -> None:
    """List one row per unit of a layer: status, maximum, mean, quantiles, active share, top label."""
    from unitscope.commands.output import show_rows
    from unitscope_schemas.answers.patches import UnitRow
    from unitscope_schemas.answers.relations import SelectiveRow
    from unitscope_schemas.errors import UsageError
    from unitscope_services.atlas.atlas import Atlas
    from unitscope_services.queries.labels import selective_units
    from unitscope_services.queries.units import unit_page

    opened = Atlas(atlas, version=version)
    if label is not None:
        selective = selective_units(opened, SelectiveQuestion(label=label, layer=layer, k=question.k))
        show_rows(selective.rows, SelectiveRow, "json" if as_json else style, selective)
        tell_stale(selective.stale_images)
        return
    if layer is None:
        raise UsageError("units of which layer? name one, or ask for all layers by --label")
    page = unit_page(opened, layer, question)
    show_rows(page.rows, UnitRow, "json" if as_json else style, page)
    tell_stale(page.stale_images)


@app.command()
@asks(ImagesQuestion)
def images(
    atlas: AtlasArgument,
    question: ImagesQuestion,
    skipped: Annotated[
        bool, typer.Option("--skipped", help="instead the files that are no usable image, with the reasons")
    ] = False,
    style: FormatOption = "table",
    version: VersionOption = None,
    as_json: JsonFlag = False,
) -> None:
    """List the images of the corpus: all, those that pass, those with conflicts or duplicates; or skipped files."""
    from unitscope.commands.output import show_rows
    from unitscope_schemas.answers.served import ImageRow, SkippedRow
    from unitscope_schemas.errors import UsageError
    from unitscope_services.atlas.atlas import Atlas
    from unitscope_services.queries.images import image_page, skipped_page

    opened = Atlas(atlas, version=version)
    if not skipped:
        page = image_page(opened, question)
        show_rows(page.rows, ImageRow, "json" if as_json else style, page)
        tell(f"{len(page.rows)} of {opened.catalogue.count} images")
        return
    shared = set(SkippedQuestion.model_fields)
    if others := question.model_fields_set - shared:
        raise UsageError(f"--skipped lists files that are no image: leave out {', '.join(sorted(others))}")
    files = skipped_page(opened, SkippedQuestion(**question.model_dump(include=shared)))
    show_rows(files.rows, SkippedRow, "json" if as_json else style, files)
    tell(f"{len(files.rows)} of {len(opened.skipped)} skipped files")


@app.command()
def trace(
    atlas: AtlasArgument,
    unit: Annotated[str, typer.Argument(metavar="LAYER:UNIT|SHA256", help="a unit, or first digits of any digest")],
    image: Annotated[
        str | None, typer.Argument(help="with a unit: an image by id, first digits of it, or path")
    ] = None,
    corpus: CorpusOption = None,
    trust_code: TrustFlag = False,
    style: FormatOption = "table",
    version: VersionOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Show what a stored value rests on, from the picture's bytes to its rank, and record it anew.

    Of a digest it shows what it is, and which answers rest on it. Exits with 4 where a link is broken.
    """
    from unitscope.commands.output import show_rows
    from unitscope_schemas.answers.provenance import DigestRow, TraceRow
    from unitscope_schemas.errors import UsageError, listing
    from unitscope_schemas.units import UnitId
    from unitscope_services.queries.provenance.digests import digests, is_digest
    from unitscope_services.queries.provenance.trace import trace as trace_peak
    from unitscope_services.queries.session import Session

    session = Session(atlas, trust_code=trust_code, version=version, corpus=corpus)
    if image is None:
        if not is_digest(unit):
            raise UsageError(f"{unit!r} on which image? name one; or give the first digits of a SHA-256 alone")
        page = digests(session.atlas, unit)
        show_rows(page.rows, DigestRow, "json" if as_json else style, page)
        return
    chain = trace_peak(session, UnitId.parse(unit), TraceQuestion(image=image))
    show_rows(chain.rows, TraceRow, "json" if as_json else style, chain)
    tell(f"version {chain.version}, manifest {chain.digest[:16]}…, atlas key {chain.atlas_key[:16]}…")
    if chain.stored is not None and chain.now is not None:
        tell(f"{chain.unit} on {chain.path}: stored {chain.stored:.6g}, now {chain.now:.6g}")
    if chain.broken:
        tell(f"broken: {listing(chain.broken)}")
        raise typer.Exit(4)


def _banded(bands: int, question: TopQuestion) -> BandsQuestion:
    """Return the question for patches of each band that the options of `top` state; raises UsageError."""
    from unitscope_schemas.errors import UsageError

    shared = {name: getattr(question, name) for name in question.model_fields_set & set(BandsQuestion.model_fields)}
    if others := question.model_fields_set - set(BandsQuestion.model_fields):
        raise UsageError(f"--bands covers the whole distribution: leave out {', '.join(sorted(others))}")
    return BandsQuestion(**{"k": question.k, **shared, "bands": bands})
