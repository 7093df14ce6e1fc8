"""The commands that make pictures of units and directions, and list them: optimise, visualisations."""

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
    ProgressOption,
    TrustFlag,
    VersionOption,
    WorkersOption,
    asks,
)
from unitscope_schemas.questions import OptimiseQuestion

if TYPE_CHECKING:
    from collections.abc import Sequence

    from unitscope_pipelines.storage.stores import Store
    from unitscope_schemas.answers.visuals import Visual


@app.command("optimize", hidden=True)
@app.command()
@asks(OptimiseQuestion, leave_out=("direction",))
def optimise(
    atlas: AtlasArgument,
    units: Annotated[
        list[str],
        typer.Argument(
            metavar="LAYER:UNIT...",
            help="units, layers or globs on layers; or, as the objective is, classes or a layer",
        ),
    ],
    question: OptimiseQuestion,
    direction: Annotated[
        Path | None, typer.Option(help="file .npy or .json of a number for each unit of the layer")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="also write to this PNG; several pictures to this folder")] = None,
    device: DeviceOption = "auto",
    workers: WorkersOption = None,
    address: AddressOption = None,
    trust_code: TrustFlag = False,
    style: FormatOption = "table",
    version: VersionOption = None,
    progress: ProgressOption = "auto",
    as_json: JsonFlag = False,
) -> None:
    """Make inputs that excite units, classes or a direction most, judged beside the corpus. Nothing is made twice."""
    from unitscope.commands.output import show_rows
    from unitscope.commands.progress import shown
    from unitscope_pipelines.runs.visuals import optimise_units
    from unitscope_schemas.answers.visuals import VisualRow
    from unitscope_services.figures.optimise import optimise_plan
    from unitscope_services.queries.session import Session
    from unitscope_services.queries.visuals import visual_row

    session = Session(atlas, trust_code=trust_code, version=version)
    if direction is not None:
        question = question.model_copy(update={"direction": _read_vector(direction)})
    plan, chosen = optimise_plan(session, units, question, device)
    with shown(progress) as report:
        made = list(optimise_units(plan, chosen, report, workers, address))
    order = {unit: position for position, unit in enumerate(chosen)}
    made.sort(key=lambda visual: (order[visual.key.target], visual.key.number))
    rows = [visual_row(session.atlas, visual) for visual in made]
    show_rows(rows, VisualRow, "json" if as_json else style, {"rows": rows})
    for row in rows:
        if row.note:
            tell(f"{row.unit}: {row.note}")
    tell_stale(session.atlas.manifest.stale_count)
    if out is not None:
        _write(session.atlas.store, made, out)


@app.command()
def visualisations(
    atlas: AtlasArgument,
    unit: Annotated[str, typer.Argument(metavar="LAYER:UNIT", help="for example _blocks.15:130, or LAYER:direction-…")],
    style: FormatOption = "table",
    version: VersionOption = None,
    as_json: JsonFlag = False,
) -> None:
    """List the stored pictures of a unit or direction, each with the activation it reaches beside the corpus."""
    from unitscope.commands.output import show_rows
    from unitscope_schemas.answers.visuals import VisualRow
    from unitscope_schemas.units import parse_target
    from unitscope_services.atlas.atlas import Atlas
    from unitscope_services.queries.visuals import visualisations as list_visualisations

    page = list_visualisations(Atlas(atlas, version=version), parse_target(unit))
    show_rows(page.rows, VisualRow, "json" if as_json else style, page)
    tell_stale(page.stale_images)


def _read_vector(file: Path) -> tuple[float, ...]:
    """Return the numbers of a file; raises UsageError for what is none."""
    import json

    import numpy as np

    from unitscope_schemas.errors import UsageError

    try:
        numbers = json.loads(file.read_text()) if file.suffix == ".json" else np.load(file, allow_pickle=False)
        vector = np.asarray(numbers, np.float64)
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(f"direction {file} cannot be read as .npy or .json: {error}") from None
    if vector.ndim != 1:
        raise UsageError(f"direction {file} has {vector.ndim} dimensions; it is a row of numbers, one for each unit")
    return tuple(vector.tolist())


def _write(store: "Store", made: "Sequence[Visual]", out: Path) -> None:
    """Write one picture to a file, several into a folder by unit."""
    from unitscope_pipelines.derived.visuals import read_picture
    from unitscope_schemas.errors import StorageError

    several = len(made) != 1 or out.is_dir() or not out.suffix
    try:
        (out if several else out.parent).mkdir(parents=True, exist_ok=True)
        for visual in made:
            name = f"{'-'.join(map(str, visual.key.target))}-{visual.key.method}-{visual.key.id[:8]}.png"
            (out / name if several else out).write_bytes(read_picture(store, visual))
    except OSError as error:
        raise StorageError(f"cannot write to {out}: {error.strerror}") from None
    tell(f"{len(made)} pictures written to {out}")
