"""The commands about what sets units apart and what they share: labels, similar, facets, compare."""

from pathlib import Path
from typing import Annotated

import typer

from unitscope.commands.app import app, tell, tell_note, tell_stale
from unitscope.commands.options import (
    AddressOption,
    AtlasArgument,
    FormatOption,
    JsonFlag,
    ProgressOption,
    TrustFlag,
    UnitArgument,
    VersionOption,
    WorkersOption,
    asks,
)
from unitscope_schemas.questions import (
    CompareQuestion,
    FacetsQuestion,
    LabelsQuestion,
    SelectivityQuestion,
    SimilarQuestion,
)


@app.command()
@asks(LabelsQuestion)
def labels(
    atlas: AtlasArgument,
    unit: UnitArgument,
    question: LabelsQuestion,
    every: Annotated[bool, typer.Option("--all", help="over all ranks: the chance to peak above other images")] = False,
    style: FormatOption = "table",
    version: VersionOption = None,
    as_json: JsonFlag = False,
) -> None:
    """List the labels that excite a unit: share of its first ranks with lift and interval, or over all ranks."""
    from unitscope.commands.output import show_rows
    from unitscope_schemas.answers.patches import LabelRow
    from unitscope_schemas.answers.relations import SelectivityRow
    from unitscope_schemas.errors import UsageError
    from unitscope_schemas.units import UnitId
    from unitscope_services.atlas.atlas import Atlas
    from unitscope_services.queries import labels as label_queries

    opened, unit_id = Atlas(atlas, version=version), UnitId.parse(unit)
    if every:
        if question.ranks is not None or question.quantile is not None:
            raise UsageError("--all counts all ranks: leave out --ranks and --quantile")
        over_all = label_queries.selectivity(opened, unit_id, SelectivityQuestion(k=question.k))
        show_rows(over_all.rows, SelectivityRow, "json" if as_json else style, over_all)
        tell_note(over_all.note)
        return
    page = label_queries.labels(opened, unit_id, question)
    show_rows(page.rows, LabelRow, "json" if as_json else style, page)
    tell_note(page.note)
    tell_stale(page.stale_images)


@app.command()
@asks(SimilarQuestion)
def similar(
    atlas: AtlasArgument,
    unit: UnitArgument,
    question: SimilarQuestion,
    workers: WorkersOption = None,
    address: AddressOption = None,
    trust_code: TrustFlag = False,
    progress: ProgressOption = "auto",
    style: FormatOption = "table",
    version: VersionOption = None,
    as_json: JsonFlag = False,
) -> None:
    """List the units most like a unit. Co-activation of a layer is computed once and stored in the atlas."""
    from unitscope.commands.output import show_rows
    from unitscope.commands.progress import shown
    from unitscope_schemas.answers.relations import SimilarRow
    from unitscope_schemas.units import UnitId
    from unitscope_services.queries.session import Session
    from unitscope_services.queries.similar import similar as similar_units

    session, unit_id = Session(atlas, trust_code=trust_code, version=version), UnitId.parse(unit)
    if question.by == "coactivation":
        from unitscope_pipelines.derived.coactivation import LayerPair, SealedAtlas, find_coactivation
        from unitscope_pipelines.runs.coactivation import OnCluster

        session.atlas.unit(unit_id)
        sealed, pair = (
            SealedAtlas(session.atlas.store, session.atlas.manifest),
            LayerPair(unit_id.layer, question.among or unit_id.layer),
        )
        with shown(progress) as report:
            find_coactivation(sealed, sealed, [pair], OnCluster(report, workers, address))
    page = similar_units(session, unit_id, question)
    show_rows(page.rows, SimilarRow, "json" if as_json else style, page)
    nothing = "nothing to compare: its peaks are all equal, or its weights 0"
    tell(f"{unit}: {page.note if page.rows else nothing}")


@app.command()
@asks(FacetsQuestion)
def facets(
    atlas: AtlasArgument,
    unit: UnitArgument,
    question: FacetsQuestion,
    style: FormatOption = "table",
    version: VersionOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Show a unit's first images in groups that look alike where it peaks: one unit, maybe several things."""
    from unitscope.commands.output import show_rows
    from unitscope_schemas.answers.relations import FacetRow
    from unitscope_schemas.units import UnitId
    from unitscope_services.queries.facets import facets as unit_facets
    from unitscope_services.queries.session import Session

    page = unit_facets(Session(atlas, version=version), UnitId.parse(unit), question)
    show_rows(page.rows, FacetRow, "json" if as_json else style, page)
    if page.note:
        tell(f"{unit}: {page.note}")
    if page.silhouette is not None:
        tell(f"{unit}: {page.facets} facets of {page.exemplars} images, silhouette {page.silhouette:.2f}")
    tell_stale(page.stale_images)


@app.command()
@asks(CompareQuestion)
def compare(
    a: Annotated[str, typer.Argument(help="atlas directory or s3://…; keeps the result")],
    b: Annotated[str, typer.Argument(help="atlas of the same pictures, or the same one again for two layers")],
    question: CompareQuestion,
    out: Annotated[Path | None, typer.Option(metavar="FILE.json|parquet|csv|arrow|ndjson")] = None,
    workers: WorkersOption = None,
    address: AddressOption = None,
    progress: ProgressOption = "auto",
    style: FormatOption = "table",
    as_json: JsonFlag = False,
) -> None:
    """Compare two atlases unit by unit: best match with runner-up, rank correlation, shared first images.

    The table shows layers; all other formats and --out have one row per unit.
    """
    from unitscope.commands.output import show_rows, write_rows
    from unitscope.commands.progress import shown
    from unitscope_pipelines.derived.coactivation import SealedAtlas
    from unitscope_pipelines.derived.compare import compare as run_compare
    from unitscope_pipelines.runs.coactivation import OnCluster
    from unitscope_schemas.answers.relations import LayerMatch, MatchRow

    first, second = SealedAtlas.present(a), SealedAtlas.present(b)
    with shown(progress) as report:
        comparison = run_compare(first, second, OnCluster(report, workers, address), (question.layer, question.layer_b))
    if as_json or style != "table":
        show_rows(comparison.rows, MatchRow, "json" if as_json else style, comparison)
    else:
        show_rows(comparison.layers, LayerMatch, "table", comparison)
    tell(
        f"{comparison.shared_images} images are in both: of {comparison.a.images} and of {comparison.b.images}; "
        f"id {comparison.id}"
    )
    if out is not None:
        write_rows(out, comparison.rows, MatchRow, comparison)
        tell(f"{len(comparison.rows)} units written to {out}")
