"""The commands that ask an atlas: top, explain, neighbors, units."""

from pathlib import Path
from typing import Annotated

import typer

from unitscope.command import app, tell, tell_stale
from unitscope.options import AtlasArgument, FormatOption, JsonFlag, TrustFlag, VersionOption, WhereOption


@app.command()
def top(
    atlas: AtlasArgument,
    unit: Annotated[str, typer.Argument(metavar="LAYER:UNIT", help="for example _blocks.15:130")],
    k: Annotated[int, typer.Option("-k", min=1, max=1000, help="how many patches")] = 9,
    label: Annotated[str | None, typer.Option(help="only images of this label")] = None,
    where: WhereOption = None,
    quantile: Annotated[str | None, typer.Option(metavar="A..B", help="percentile band, for example 0.4..0.6")] = None,
    order: Annotated[str, typer.Option(help="desc, asc or random")] = "desc",
    seed: Annotated[int, typer.Option(help="of the random order")] = 0,
    duplicates: Annotated[str, typer.Option(help="near duplicates: collapse or expand")] = "collapse",
    style: FormatOption = "table",
    crops: Annotated[Path | None, typer.Option(help="write each patch as a PNG into this folder")] = None,
    sheet: Annotated[Path | None, typer.Option(help="write a contact sheet to this picture file")] = None,
    version: VersionOption = None,
    as_json: JsonFlag = False,
) -> None:
    """The patches that most excite a unit."""
    from schemas.units import UnitId
    from schemas.web import PatchRow
    from services.atlas import Atlas
    from services.questions import patch_query
    from services.sheet import patch_picture, unit_sheet
    from services.units import patches
    from unitscope.output import show_rows

    opened = Atlas(atlas, version=version)
    asked = UnitId.parse(unit)
    page = patches(opened, asked, patch_query(k, quantile, label, order, seed, duplicates, where=where or ()))
    show_rows(page.rows, PatchRow, "json" if as_json else style, page)
    if page.note:
        tell(f"{unit}: {page.note}")
    tell_stale(page.stale_images)
    if crops is not None:
        crops.mkdir(parents=True, exist_ok=True)
        for row in page.rows:
            patch_picture(opened, asked, row).save(crops / f"{row.rank:04d}-{row.image_id[:12]}.png")
        tell(f"{len(page.rows)} patches written to {crops}")
    if sheet is not None:
        sheet.parent.mkdir(parents=True, exist_ok=True)
        unit_sheet(opened, page).save(sheet)
        tell(f"contact sheet written to {sheet}")


@app.command()
def explain(
    atlas: AtlasArgument,
    image: Annotated[str, typer.Argument(help="id, path in the corpus, or a picture file")],
    layer: Annotated[str | None, typer.Option(help="only units of this layer")] = None,
    k: Annotated[int, typer.Option("-k", min=1, max=1000, help="how many units")] = 20,
    trust_code: TrustFlag = False,
    style: FormatOption = "table",
    version: VersionOption = None,
    as_json: JsonFlag = False,
) -> None:
    """The units that an image excites most unusually, by percentile over the corpus."""
    from schemas.web import ExplainRow
    from services.subjects import Asked
    from unitscope.output import show_rows

    asked = Asked(atlas, trust_code=trust_code, version=version)
    page = asked.explain(asked.find(image), layer, k)
    show_rows(page.rows, ExplainRow, "json" if as_json else style, page)
    tell_stale(page.stale_images)


@app.command()
def neighbors(
    atlas: AtlasArgument,
    image: Annotated[str, typer.Argument(help="id, path in the corpus, or a picture file")],
    box: Annotated[str | None, typer.Option(metavar="T,L,B,R", help="part of the picture  [default: all seen]")] = None,
    layer: Annotated[str | None, typer.Option(help="must be the embedded layer")] = None,
    k: Annotated[int, typer.Option("-k", min=1, max=1000, help="how many images")] = 9,
    exact: Annotated[bool, typer.Option("--exact", help="scan all vectors instead of asking the index")] = False,
    label: Annotated[str | None, typer.Option(help="only images of this label")] = None,
    where: WhereOption = None,
    trust_code: TrustFlag = False,
    style: FormatOption = "table",
    version: VersionOption = None,
    as_json: JsonFlag = False,
) -> None:
    """The nearest patches of the corpus, one per image."""
    from schemas.geometry import Box
    from schemas.web import NeighborRow
    from services.filters import Filter
    from services.subjects import Asked
    from unitscope.output import show_rows

    asked = Asked(atlas, trust_code=trust_code, version=version)
    asked.layer_of_embedding(layer)
    passing = Filter(label, tuple(where or ()))
    page = asked.neighbors(asked.find(image), None if box is None else Box.parse(box), k, exact, passing)
    show_rows(page.rows, NeighborRow, "json" if as_json else style, page)
    if not page.search.exact:
        tell(f"approximate: recall@10 {page.search.recall_at_10:.3f}, measured at build time; --exact scans all")
    elif label or where:
        tell(page.search.index)


@app.command()
def units(
    atlas: AtlasArgument,
    layer: Annotated[str, typer.Argument(help="a layer of the atlas")],
    sort: Annotated[str, typer.Option(help="a column; with a leading minus descending")] = "channel",
    style: FormatOption = "table",
    version: VersionOption = None,
    as_json: JsonFlag = False,
) -> None:
    """One row per unit of a layer: status, maximum, mean, quantiles, active share, top label."""
    from schemas.web import UnitRow
    from services.atlas import Atlas
    from services.units import unit_page
    from unitscope.output import show_rows

    opened = Atlas(atlas, version=version)
    page = unit_page(opened, layer, sort, limit=opened.layer(layer).spec.units)
    show_rows(page.rows, UnitRow, "json" if as_json else style, page)
    tell_stale(page.stale_images)
