"""The commands that take answers elsewhere: catalog, export."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from unitscope.commands.app import app, tell, tell_missing, tell_stale
from unitscope.commands.options import AtlasArgument, CorpusOption, JsonFlag


@app.command()
def catalog(
    atlases: Annotated[list[str], typer.Argument(metavar="ATLAS...", help="atlas directories")],
    out: Annotated[Path, typer.Option(help="DuckDB file to write or replace")] = Path("catalog.duckdb"),
    as_json: JsonFlag = False,
) -> None:
    """Write a DuckDB file of views over atlases, with the macro top_patches(layer, unit, k), for dashboards and SQL."""
    from unitscope.commands.output import show_facts
    from unitscope_pipelines.derived.sql_catalog import write_catalog

    part = write_catalog(atlases, out)
    show_facts({"catalog": str(out), "atlases": part.rows, "size_bytes": part.size_bytes}, as_json)


@app.command()
def export(
    atlas: AtlasArgument,
    out: Annotated[Path, typer.Option(help="folder to make; must not hold anything yet")],
    style: Annotated[
        Literal["parquet", "csv", "csv-safe", "arrow", "html"],
        typer.Option(
            "--format",
            help="tables of units and exemplars, csv-safe for spreadsheets, or pages that need no server",
        ),
    ] = "parquet",
    units: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LAYER:UNIT", help="only these, by commas or repeated; of layers live ones  [default: all]"
        ),
    ] = None,
    corpus: CorpusOption = None,
    k: Annotated[int, typer.Option("-k", min=1, max=1000, help="exemplars of each unit")] = 9,
    as_json: JsonFlag = False,
) -> None:
    """Write tables of units and their exemplars, or a bundle of pages; the folder appears when all is written."""
    from unitscope.commands.output import show_facts
    from unitscope_services.atlas.atlas import Atlas
    from unitscope_services.exports.bundle import write_bundle
    from unitscope_services.exports.tables import write_tables
    from unitscope_services.queries.unit_selection import chosen_units, every_unit

    opened = Atlas(atlas, corpus=corpus, public=style == "html")
    names = [word for option in units or () for word in option.split(",") if word]
    chosen = chosen_units(opened, names) if names else every_unit(opened)
    if style == "html":
        written = write_bundle(opened, chosen, out, k)
    else:
        written = write_tables(opened, chosen, out, "csv" if style == "csv-safe" else style, k, style == "csv-safe")
    missing = {"missing": list(written.missing) if as_json else len(written.missing)} if style == "html" else {}
    show_facts({"folder": str(out), "units": written.units, "exemplars": written.exemplars, **missing}, as_json)
    tell_stale(opened.manifest.stale_count)
    if style == "html":
        tell(f"open {out / 'index.html'}")
        tell_missing(written.missing)
