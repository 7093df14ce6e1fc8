"""The commands that look into a network: project, filters, eigen, sheet."""

from pathlib import Path
from typing import Annotated

import typer

from unitscope.command import app, tell
from unitscope.options import (
    AtlasArgument,
    FormatOption,
    JsonFlag,
    LayersOption,
    TrustFlag,
    VersionOption,
    split_globs,
)

UnitArgument = Annotated[str, typer.Argument(metavar="LAYER:UNIT", help="for example _blocks.15:130")]


@app.command()
def project(
    atlas: AtlasArgument,
    unit: UnitArgument,
    method: Annotated[str, typer.Option(help="deconvnet, guided or gradient")] = "deconvnet",
    k: Annotated[int, typer.Option("-k", min=1, max=1000, help="how many patches")] = 9,
    out: Annotated[Path | None, typer.Option(help="write each projection as a PNG into this folder")] = None,
    sheet: Annotated[
        Path | None, typer.Option(help="write patches and projections side by side to this .png, .svg or .html")
    ] = None,
    style: FormatOption = "table",
    trust_code: TrustFlag = False,
    version: VersionOption = None,
    as_json: JsonFlag = False,
) -> None:
    """A unit's patches projected back to their pixels; made once, then kept in the atlas."""
    from schemas.units import UnitId
    from schemas.visuals import VisualRow
    from services.drawing import check_ending, write_drawing
    from services.hierarchy import Strip, lay_out, unit_panel
    from services.projections import checked_method, projections
    from services.subjects import Asked
    from unitscope.output import show_rows

    if sheet is not None:
        check_ending(sheet)
    asked, wanted = Asked(atlas, trust_code=trust_code, version=version), UnitId.parse(unit)
    page = projections(asked, wanted, method, k)
    show_rows(page.rows, VisualRow, "json" if as_json else style, page)
    for note in dict.fromkeys(note for row in page.rows for note in row.note.split("; ")[1:]):
        tell(f"{unit}: {note}")
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        for rank, row in enumerate(page.rows):
            (out / f"{rank:04d}-{row.image_id}.png").write_bytes((atlas / row.path).read_bytes())
        tell(f"{len(page.rows)} projections written to {out}")
    if sheet is not None:
        panel = unit_panel(asked, wanted, checked_method(method), k)
        write_drawing(lay_out(asked.atlas, [Strip(asked.atlas.layer(wanted.layer).spec, (panel,))]), sheet)
        tell(f"patches and projections written to {sheet}")


@app.command()
def sheet(
    atlas: AtlasArgument,
    out: Annotated[Path, typer.Option(help="file to write: .png, .svg or .html")],
    layer_globs: LayersOption = None,
    units_per_layer: Annotated[int, typer.Option(min=1, max=12, help="the most striking units of each layer")] = 3,
    layer_count: Annotated[int, typer.Option(min=1, help="without --layers: so many from first to last")] = 6,
    method: Annotated[str, typer.Option(help="of the projections: deconvnet, guided or gradient")] = "guided",
    trust_code: TrustFlag = False,
    version: VersionOption = None,
    as_json: JsonFlag = False,
) -> None:
    """One figure of what layers look for, first to last: units with nine patches and their projections."""
    from services.drawing import check_ending, write_drawing
    from services.hierarchy import chosen_layers, lay_out, layer_strip
    from services.projections import checked_method
    from services.subjects import Asked
    from unitscope.output import show_facts

    check_ending(out)
    asked, way = Asked(atlas, trust_code=trust_code, version=version), checked_method(method)
    strips = []
    for layer in chosen_layers(asked.atlas, split_globs(layer_globs), layer_count):
        strips.append(layer_strip(asked, layer, units_per_layer, way))
        tell(f"{layer}: {', '.join(str(panel.unit) for panel in strips[-1].panels) or 'no live unit'}")
    drawing = lay_out(asked.atlas, strips)
    write_drawing(drawing, out)
    units = sum(len(strip.panels) for strip in strips)
    show_facts({"sheet": str(out), "layers": len(strips), "units": units, "method": method}, as_json)
