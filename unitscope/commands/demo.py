"""`unitscope demo`: from nothing to a served atlas, without a network."""

import os
from pathlib import Path
from typing import Annotated

import typer

from unitscope.commands.app import app, tell
from unitscope.commands.options import ProgressOption


@app.command()
def demo(
    corpus: Annotated[list[Path] | None, typer.Option(help="folder of your own pictures; repeatable")] = None,
    folder: Annotated[Path, typer.Option("--dir", help="where corpus, atlas and sheets go")] = Path("demo"),
    host: Annotated[str, typer.Option(help="address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="port to listen on")] = 8000,
    no_serve: Annotated[bool, typer.Option("--no-serve", help="stop when the atlas is made")] = False,
    progress: ProgressOption = "auto",
) -> None:
    """Index packaged photographs with packaged weights, show what some units like, and serve it."""
    from unitscope.commands.progress import shown
    from unitscope.photographs import packaged_photographs, photographs_in, write_tiles
    from unitscope_pipelines.indexing.config import IndexConfig
    from unitscope_pipelines.indexing.index import index
    from unitscope_schemas.questions import TopQuestion
    from unitscope_services.atlas.atlas import Atlas
    from unitscope_services.figures.sheet import units_sheet
    from unitscope_services.queries.exemplars import patches
    from unitscope_services.queries.unit_selection import striking_units
    from unitscope_services.server.links import Links
    from unitscope_services.server.settings import Settings
    from unitscope_services.web.serving import serve_atlases

    photographs = photographs_in(corpus) if corpus else packaged_photographs()
    pictures, atlas, sheet = folder / "corpus", folder / "atlas", folder / "striking-units.png"
    count = write_tiles(photographs, pictures)
    tell(f"{count} pictures from {len(photographs)} photographs in {pictures}")
    with shown(progress) as report:
        manifest = index(IndexConfig(corpus=os.fspath(pictures), atlas=os.fspath(atlas)), report)
    opened = Atlas(atlas)
    summary = opened.summary()
    typer.echo(f"{summary.images} images × {summary.units} units of {summary.layers} layers of {summary.model}")
    chosen = striking_units(opened)
    pages = [patches(opened, unit, TopQuestion()) for unit in chosen]
    for page in pages:
        best = page.rows[0]
        liked = ", ".join(dict.fromkeys(row.label or row.path for row in page.rows))
        typer.echo(f"{page.unit:>18}  {best.activation:7.3f}  {liked}")
    units_sheet(opened, pages).save(sheet)
    typer.echo(f"contact sheet: {sheet}")
    typer.echo(f"try: unitscope top {atlas} {chosen[0]} --sheet sheet.png")
    if manifest.corpus.skipped_count:
        tell(f"{manifest.corpus.skipped_count} files are no usable picture")
    if not no_serve:
        links, image = Links(opened.name, ""), pages[0].rows[0].image_id
        first_pages = [links.unit(*chosen[0]), links.image(image), links.live(unit=str(chosen[0]), image=image)]
        serve_atlases(Settings(atlases=(atlas,), corpora=(os.fspath(pictures),)), host, port, first_pages)
