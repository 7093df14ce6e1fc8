"""The commands that ask an atlas: top, explain, neighbors, units."""

from pathlib import Path
from typing import Annotated

import typer

from unitscope.commands.app import app, tell, tell_kept, tell_stale
from unitscope.commands.options import AtlasArgument, FormatOption, JsonFlag, TrustFlag, VersionOption, WhereOption


@app.command()
def top(
    atlas: AtlasArgument,
    unit: Annotated[str, typer.Argument(metavar="LAYER:UNIT", help="for example _blocks.15:130")],
    k: Annotated[int, typer.Option("-k", min=1, max=1000, help="how many patches")] = 9,
    label: Annotated[str | None, typer.Option(help="only images of this label")] = None,
    where: WhereOption = None,
    quantile: Annotated[str | None, typer.Option(metavar="A..B", help="percentile band, for example 0.4..0.6")] = None,
    bands: Annotated[
        int | None, typer.Option(help="k patches from each of so many equal bands of the whole distribution")
    ] = None,
    per_image: Annotated[int, typer.Option(help="peaks of each image; more than its stored one run the model")] = 1,
    order: Annotated[str | None, typer.Option(help="desc, asc or random  [default: desc, within bands random]")] = None,
    seed: Annotated[int, typer.Option(help="of the random order")] = 0,
    duplicates: Annotated[str, typer.Option(help="near duplicates: collapse or expand")] = "collapse",
    style: FormatOption = "table",
    crops: Annotated[Path | None, typer.Option(help="write each patch as a PNG into this folder")] = None,
    sheet: Annotated[Path | None, typer.Option(help="write a contact sheet to this picture file")] = None,
    trust_code: TrustFlag = False,
    version: VersionOption = None,
    as_json: JsonFlag = False,
) -> None:
    """The patches that most excite a unit."""
    from unitscope.commands.output import show_rows
    from unitscope_schemas.answers.patches import PatchPage, PatchRow
    from unitscope_schemas.answers.relations import BandPage, BandRow
    from unitscope_schemas.questions import patch_query
    from unitscope_schemas.units import UnitId
    from unitscope_services.figures.sheet import patch_picture, unit_sheet
    from unitscope_services.queries.bands import bands as banded
    from unitscope_services.queries.local_maxima import several_patches
    from unitscope_services.queries.session import Session

    opened = Session(atlas, trust_code=trust_code, version=version)
    session = UnitId.parse(unit)
    order = order or ("desc" if bands is None else "random")
    query = patch_query(k, quantile, label, order, seed, duplicates, where=where or ())
    if bands is not None and per_image != 1:
        raise typer.BadParameter("--bands shows one peak of each image: leave out --per-image")
    page: PatchPage | BandPage
    if bands is None:
        page = several_patches(opened, session, query, per_image)
    else:
        page = banded(opened.atlas, session, bands, query)
    show_rows(page.rows, PatchRow if bands is None else BandRow, "json" if as_json else style, page)
    if page.note:
        tell(f"{unit}: {page.note}")
    tell_stale(page.stale_images)
    if crops is not None:
        crops.mkdir(parents=True, exist_ok=True)
        for row in page.rows:
            place = f"-{row.row}-{row.col}" if per_image > 1 else ""
            patch_picture(opened.atlas, session, row).save(crops / f"{row.rank:04d}-{row.image_id[:12]}{place}.png")
        tell(f"{len(page.rows)} patches written to {crops}")
    if sheet is not None:
        sheet.parent.mkdir(parents=True, exist_ok=True)
        unit_sheet(opened.atlas, page).save(sheet)
        tell(f"contact sheet written to {sheet}")


@app.command()
def explain(
    atlas: AtlasArgument,
    image: Annotated[str, typer.Argument(help="id, path in the corpus, or a picture file")],
    layer: Annotated[str | None, typer.Option(help="only units of this layer")] = None,
    k: Annotated[int, typer.Option("-k", min=1, max=1000, help="how many units")] = 20,
    label: Annotated[str | None, typer.Option(help="percentiles among the images of this label only")] = None,
    where: WhereOption = None,
    trust_code: TrustFlag = False,
    style: FormatOption = "table",
    version: VersionOption = None,
    as_json: JsonFlag = False,
) -> None:
    """The units that an image excites most unusually, by percentile over the corpus, or over what passes of it."""
    from unitscope.commands.output import show_rows
    from unitscope_schemas.answers.patches import ExplainRow
    from unitscope_services.atlas.image_filter import ImageFilter
    from unitscope_services.queries.session import Session

    session = Session(atlas, trust_code=trust_code, version=version)
    page = session.explain(session.find(image), layer, k, ImageFilter(label, tuple(where or ())))
    show_rows(page.rows, ExplainRow, "json" if as_json else style, page)
    if page.among is not None:
        tell(f"percentiles among the {page.among} images that pass")
    tell_stale(page.stale_images)
    tell_kept(page.kept)


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
    from unitscope.commands.output import show_rows
    from unitscope_schemas.answers.patches import NeighborRow
    from unitscope_schemas.geometry import Box
    from unitscope_services.atlas.image_filter import ImageFilter
    from unitscope_services.queries.session import Session

    session = Session(atlas, trust_code=trust_code, version=version)
    session.layer_of_embedding(layer)
    passing = ImageFilter(label, tuple(where or ()))
    page = session.neighbors(session.find(image), None if box is None else Box.parse(box), k, exact, passing)
    show_rows(page.rows, NeighborRow, "json" if as_json else style, page)
    if not page.search.exact:
        tell(f"approximate: recall@10 {page.search.recall_at_10:.3f}, measured at build time; --exact scans all")
    elif label or where:
        tell(page.search.index)


@app.command()
def units(
    atlas: AtlasArgument,
    layer: Annotated[str | None, typer.Argument(help="a layer of the atlas; with --label none means all")] = None,
    sort: Annotated[str, typer.Option(help="a column; with a leading minus descending")] = "channel",
    label: Annotated[str | None, typer.Option(help="those whose first images have this label most, with lift")] = None,
    style: FormatOption = "table",
    version: VersionOption = None,
    as_json: JsonFlag = False,
) -> None:
    """One row per unit of a layer: status, maximum, mean, quantiles, active share, top label."""
    from unitscope.commands.output import show_rows
    from unitscope_schemas.answers.patches import UnitRow
    from unitscope_schemas.answers.relations import SelectiveRow
    from unitscope_schemas.errors import UsageError
    from unitscope_services.atlas.atlas import Atlas
    from unitscope_services.queries.labels import selective_units
    from unitscope_services.queries.units import unit_page

    opened = Atlas(atlas, version=version)
    if label is not None:
        count = sum(one.spec.units for one in opened.manifest.layers)
        found = selective_units(opened, label, layer, limit=count)
        show_rows(found.rows, SelectiveRow, "json" if as_json else style, found)
        tell_stale(found.stale_images)
        return
    if layer is None:
        raise UsageError("units of which layer? name one, or ask for all layers by --label")
    page = unit_page(opened, layer, sort, limit=opened.layer(layer).spec.units)
    show_rows(page.rows, UnitRow, "json" if as_json else style, page)
    tell_stale(page.stale_images)
