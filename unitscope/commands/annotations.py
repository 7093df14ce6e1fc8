"""The commands of what people write: annotate, annotations, collect, collections."""

from pathlib import Path
from typing import Annotated

import typer

from unitscope.commands.app import app, tell
from unitscope.commands.options import AtlasArgument, FormatOption, JsonFlag, asks
from unitscope_schemas.answers.annotations import AnnotateQuestion, AnnotationsQuestion, CollectQuestion

SubjectArgument = Annotated[str, typer.Argument(metavar="LAYER:UNIT|IMAGE", help="a unit, or an image by id or path")]
FolderOption = Annotated[
    Path | None,
    typer.Option(
        "--annotations", envvar="UNITSCOPE_ANNOTATIONS", help="folder of the annotations  [default: beside the atlas]"
    ),
]
ImportOption = Annotated[
    Path | None,
    typer.Option("--import", metavar="FILE", help="write what a file holds, which --format json or csv made"),
]


@app.command()
@asks(AnnotateQuestion)
def annotate(
    atlas: AtlasArgument,
    subject: SubjectArgument,
    question: AnnotateQuestion,
    folder: FolderOption = None,
    style: FormatOption = "table",
    as_json: JsonFlag = False,
) -> None:
    """Write a name, a note or tags of a unit or an image. They lie beside the atlas, and outlive its versions."""
    from unitscope.asking import local_author
    from unitscope.commands.output import show_rows
    from unitscope_schemas.answers.annotations import AnnotationRow
    from unitscope_services.queries.annotations import annotations as written
    from unitscope_services.queries.session import Session

    session = Session(atlas, annotations=folder)
    page = written.annotate(session, subject, question, local_author())
    show_rows(page.rows, AnnotationRow, "json" if as_json else style, page)
    tell(f"{subject}: {'written' if page.rows else 'nothing is said of it now'}")


@app.command()
@asks(AnnotationsQuestion)
def annotations(
    atlas: AtlasArgument,
    question: AnnotationsQuestion,
    folder: FolderOption = None,
    import_file: ImportOption = None,
    style: FormatOption = "table",
    as_json: JsonFlag = False,
) -> None:
    """List what people wrote about units and images, the last that was written first."""
    from unitscope.asking import local_author
    from unitscope.commands.output import show_rows
    from unitscope_schemas.answers.annotations import AnnotationRow
    from unitscope_services.annotations.imports import read_annotations
    from unitscope_services.queries.annotations import annotations as written
    from unitscope_services.queries.session import Session

    session = Session(atlas, annotations=folder)
    if import_file is not None:
        count = written.import_annotations(session, read_annotations(import_file), local_author())
        tell(f"written: {count} annotations of {import_file}")
    page = written.annotation_page(session, question)
    show_rows(page.rows, AnnotationRow, "json" if as_json else style, page)
    if not page.rows:
        tell("nothing is written that passes; unitscope annotate writes a name, a note or tags")


@app.command()
@asks(CollectQuestion)
def collect(
    atlas: AtlasArgument,
    collection: Annotated[str, typer.Argument(help="name of the collection, which is made if need be")],
    question: CollectQuestion,
    folder: FolderOption = None,
    import_file: ImportOption = None,
    style: FormatOption = "table",
    as_json: JsonFlag = False,
) -> None:
    """Put units and images into a collection, take them out, or arrange them."""
    from unitscope.asking import local_author
    from unitscope.commands.output import show_rows
    from unitscope_schemas.answers.annotations import CollectionItem
    from unitscope_services.annotations.imports import read_items
    from unitscope_services.queries.annotations import collections as written
    from unitscope_services.queries.session import Session

    session = Session(atlas, annotations=folder)
    if import_file is None:
        after = written.collect(session, collection, question, local_author())
    else:
        after = written.import_items(session, collection, read_items(import_file), local_author())
    if after is None:
        tell(f"deleted: the collection {collection}")
        return
    show_rows(after.rows, CollectionItem, "json" if as_json else style, after)
    tell(f"{collection}: {len(after.rows)} units and images")


@app.command()
def collections(
    atlas: AtlasArgument,
    collection: Annotated[str | None, typer.Argument(help="show the units and images of this one")] = None,
    folder: FolderOption = None,
    style: FormatOption = "table",
    as_json: JsonFlag = False,
) -> None:
    """List the collections of units and images, or what is in one."""
    from unitscope.commands.output import show_rows
    from unitscope_schemas.answers.annotations import CollectionItem, CollectionRow
    from unitscope_services.queries.annotations import collections as written
    from unitscope_services.queries.session import Session

    session, shown = Session(atlas, annotations=folder), "json" if as_json else style
    if collection is not None:
        one = written.collection(session, collection)
        show_rows(one.rows, CollectionItem, shown, one)
        return
    page = written.collection_page(session)
    show_rows(page.rows, CollectionRow, shown, page)
    if not page.rows:
        tell("there is no collection yet; unitscope collect makes one")
