"""The commands that take answers elsewhere: catalog, export."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from unitscope.command import app, tell, tell_stale
from unitscope.options import AtlasArgument, JsonFlag


@app.command()
def catalog(
    atlases: Annotated[list[str], typer.Argument(metavar="ATLAS...", help="atlas directories")],
    out: Annotated[Path, typer.Option(help="DuckDB file to write or replace")] = Path("catalog.duckdb"),
    as_json: JsonFlag = False,
) -> None:
    """A DuckDB file of views over atlases, with the macro top_patches(layer, unit, k), for dashboards and SQL."""
    from pipelines.sql_views import write_catalog
    from unitscope.output import show_facts

    part = write_catalog(atlases, out)
    show_facts({"catalog": str(out), "atlases": part.rows, "size_bytes": part.size_bytes}, as_json)


@app.command()
def export(
    atlas: AtlasArgument,
    out: Annotated[Path, typer.Option(help="folder to make; must not hold anything yet")],
    style: Annotated[
        Literal["parquet", "csv", "arrow", "html"],
        typer.Option("--format", help="tables of units and exemplars, or pages that need no server"),
    ] = "parquet",
    units: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LAYER:UNIT", help="only these, by commas or repeated; of layers live ones  [default: all]"
        ),
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, max=1000, help="exemplars of each unit")] = 9,
    as_json: JsonFlag = False,
) -> None:
    """Tables of units and their exemplars, or a bundle of pages; the folder appears when all is written."""
    from services.answers.chosen import chosen_units, every_unit
    from services.answers.exports import write_tables
    from services.opened.atlas import Atlas
    from services.pages.bundle import write_bundle
    from unitscope.output import show_facts

    opened = Atlas(atlas)
    names = [word for option in units or () for word in option.split(",") if word]
    chosen = chosen_units(opened, names) if names else every_unit(opened)
    written = write_bundle(opened, chosen, out, k) if style == "html" else write_tables(opened, chosen, out, style, k)
    show_facts({"folder": str(out), "units": written.units, "exemplars": written.exemplars}, as_json)
    tell_stale(opened.manifest.stale_count)
    if style == "html":
        tell(f"open {out / 'index.html'}")
