"""The commands that look into a network: project, filters, eigen, sheet."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unitscope.commands.app import app, tell, tell_stale
from unitscope.commands.options import (
    AddressOption,
    AtlasArgument,
    DeviceOption,
    FormatOption,
    JsonFlag,
    LayersOption,
    ProgressOption,
    TrustFlag,
    UnitArgument,
    VersionOption,
    WorkersOption,
    asks,
    split_globs,
)
from unitscope_schemas.questions import EigenQuestion, ProjectionMethod, ProjectQuestion

if TYPE_CHECKING:
    from collections.abc import Sequence

    from unitscope_pipelines.storage.stores import Store
    from unitscope_schemas.answers.visuals import Visual


@app.command()
@asks(ProjectQuestion)
def project(
    atlas: AtlasArgument,
    units: Annotated[list[str], typer.Argument(metavar="LAYER:UNIT...", help="units, layers, or globs on layers")],
    question: ProjectQuestion,
    out: Annotated[
        Path | None,
        typer.Option(help="write each projection as a PNG into this folder; of several units a folder each"),
    ] = None,
    sheet: Annotated[
        Path | None, typer.Option(help="write patches and projections side by side to this .png, .svg or .html")
    ] = None,
    device: DeviceOption = "auto",
    workers: WorkersOption = None,
    address: AddressOption = None,
    trust_code: TrustFlag = False,
    style: FormatOption = "table",
    version: VersionOption = None,
    progress: ProgressOption = "auto",
    as_json: JsonFlag = False,
) -> None:
    """Project units' patches back to their pixels; made once, then kept in the atlas."""
    from unitscope.commands.output import show_rows
    from unitscope.commands.progress import shown
    from unitscope_pipelines.runs.visuals import project_units
    from unitscope_schemas.answers.visuals import VisualRow
    from unitscope_services.figures.drawing import check_ending, write_drawing
    from unitscope_services.figures.hierarchy import project_sheet
    from unitscope_services.figures.project import asked_exemplars, project_plan
    from unitscope_services.queries.session import Session
    from unitscope_services.queries.unit_selection import chosen_units
    from unitscope_services.queries.visuals import visual_row

    if sheet is not None:
        check_ending(sheet)
    session = Session(atlas, trust_code=trust_code, version=version)
    wanted = asked_exemplars(session.atlas, chosen_units(session.atlas, units, question.top), question.k)
    plan = project_plan(session, question.method, [chosen.unit.layer for chosen in wanted], device)
    with shown(progress) as report:
        stored = {visual.key.id: visual for visual in project_units(plan, wanted, report, workers, address)}
    made = [stored[plan.key(chosen.unit, exemplar).id] for chosen in wanted for exemplar in chosen.exemplars]
    rows = [visual_row(session.atlas, visual) for visual in made]
    show_rows(rows, VisualRow, "json" if as_json else style, {"rows": rows})
    for note in dict.fromkeys(f"{row.unit}: {note}" for row in rows for note in row.note.split("; ")[1:]):
        tell(note)
    tell_stale(session.atlas.manifest.stale_count)
    if out is not None:
        for chosen in wanted:
            folder = out if len(wanted) == 1 else out / str(chosen.unit)
            _write(session.atlas.store, [visual for visual in made if visual.key.target == chosen.unit], folder)
        tell(f"{len(rows)} projections written to {out}")
    if sheet is not None:
        write_drawing(project_sheet(session, [chosen.unit for chosen in wanted], question.method, question.k), sheet)
        tell(f"patches and projections written to {sheet}")


@app.command()
def sheet(
    atlas: AtlasArgument,
    out: Annotated[Path, typer.Option(help="file to write: .png, .svg or .html")],
    layer_globs: LayersOption = None,
    units_per_layer: Annotated[int, typer.Option(min=1, max=12, help="the most striking units of each layer")] = 3,
    layer_count: Annotated[int, typer.Option(min=1, help="without --layers: so many from first to last")] = 6,
    method: Annotated[ProjectionMethod, typer.Option(help="method of the projections")] = "guided",
    optimised: Annotated[bool, typer.Option(help="with an input optimised for each unit")] = True,
    recipe: Annotated[str, typer.Option(help="of the optimised inputs")] = "olah2017",
    seed: Annotated[int, typer.Option(min=0, help="of the optimised inputs")] = 0,
    trust_code: TrustFlag = False,
    version: VersionOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Draw one figure of what layers look for, first to last: units with nine patches, projections, optimised input."""
    from unitscope.commands.output import show_facts
    from unitscope_services.figures.drawing import check_ending, write_drawing
    from unitscope_services.figures.hierarchy import PanelStyle, chosen_layers, hierarchy
    from unitscope_services.queries.session import Session

    check_ending(out)
    panel_style = PanelStyle(method, recipe if optimised else None, seed)
    session = Session(atlas, trust_code=trust_code, version=version)
    layers = chosen_layers(session.atlas, split_globs(layer_globs), layer_count)
    drawing = hierarchy(session, layers, units_per_layer, panel_style, tell)
    write_drawing(drawing, out)
    facts = {"sheet": str(out), "layers": len(layers), "pictures": len(drawing.tiles), "method": method}
    show_facts({**facts, "recipe": panel_style.recipe or "none shown", "seed": seed}, as_json)


@app.command()
def filters(
    atlas: AtlasArgument,
    layer: Annotated[
        str, typer.Option(help="a convolution of the model; first: the first layer with weights")
    ] = "first",
    out: Annotated[Path | None, typer.Option(help="write all filters to this .png, .svg or .html")] = None,
    style: FormatOption = "table",
    trust_code: TrustFlag = False,
    version: VersionOption = None,
    as_json: JsonFlag = False,
) -> None:
    """List the weights of the first layer as pictures, one for each unit."""
    from unitscope.commands.output import show_rows
    from unitscope_schemas.answers.visuals import FilterRow
    from unitscope_services.figures.conv_filters import filter_page, filter_sheet
    from unitscope_services.figures.drawing import check_ending, write_drawing
    from unitscope_services.queries.session import Session

    if out is not None:
        check_ending(out)
    session = Session(atlas, trust_code=trust_code, version=version)
    page = filter_page(session, layer)
    show_rows(page.rows, FilterRow, "json" if as_json else style, page)
    if out is not None:
        write_drawing(filter_sheet(session, page.layer), out)
        tell(f"{len(page.rows)} filters written to {out}")


@app.command()
@asks(EigenQuestion)
def eigen(
    atlas: AtlasArgument,
    unit: UnitArgument,
    question: EigenQuestion,
    out: Annotated[Path | None, typer.Option(help="write mean and components to this .png, .svg or .html")] = None,
    version: VersionOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Show the mean and principal components of a unit's patches, aligned at their peaks."""
    from unitscope.commands.output import show_facts
    from unitscope_schemas.units import UnitId
    from unitscope_services.figures.drawing import check_ending, write_drawing
    from unitscope_services.figures.eigen import eigen_patches, eigen_sheet
    from unitscope_services.queries.session import Session

    if out is not None:
        check_ending(out)
    session = Session(atlas, version=version)
    patches = eigen_patches(session, UnitId.parse(unit), question)
    shares = patches.shares.tolist()
    facts = {
        "unit": unit,
        "size_px": list(patches.size) if as_json else f"{patches.size.height} × {patches.size.width}",
        "patches": patches.used,
        "left_out": patches.left_out,
        "shares_of_variance": shares if as_json else ", ".join(f"{share:.3f}" for share in shares),
    }
    show_facts(facts, as_json)
    if out is not None:
        write_drawing(eigen_sheet(session, patches), out)
        tell(f"mean and components written to {out}")


def _write(store: "Store", projections: "Sequence[Visual]", folder: Path) -> None:
    """Write a unit's projections by rank."""
    from unitscope_pipelines.derived.visuals import read_picture
    from unitscope_schemas.errors import StorageError

    try:
        folder.mkdir(parents=True, exist_ok=True)
        for rank, visual in enumerate(projections):
            (folder / f"{rank:04d}-{visual.key.image_id}.png").write_bytes(read_picture(store, visual))
    except OSError as error:
        raise StorageError(f"cannot write to {folder}: {error.strerror}") from None
