"""Options that several commands share."""

from typing import Annotated, Literal

import typer

AtlasArgument = Annotated[str, typer.Argument(help="atlas directory, or s3://…")]
LayersOption = Annotated[
    list[str] | None,
    typer.Option("--layers", help="globs on module paths, by commas or repeated  [default: block outputs]"),
]
JsonFlag = Annotated[bool, typer.Option("--json", help="print exactly one JSON document")]
DryRunFlag = Annotated[bool, typer.Option("--dry-run", help="say what would be done, and do nothing")]
VersionOption = Annotated[
    str | None, typer.Option("--version", help="an earlier version, by its name or the beginning of it")
]
LatentsOption = Annotated[
    list[str] | None,
    typer.Option(metavar="LAYER=file:PATH.py:FACTORY", help="a dictionary's latents as units of LAYER.latents"),
]
TrustFlag = Annotated[
    bool,
    typer.Option("--trust-code", help="run the files of code that a model or latents name; only if you trust them"),
]
ProgressOption = Annotated[
    Literal["auto", "bar", "log", "json", "none"],
    typer.Option(help="a bar, a line every ten seconds, JSON lines, or nothing"),
]
WhereOption = Annotated[
    list[str] | None,
    typer.Option(metavar="COLUMN=VALUE", help="only images of this metadata; repeatable; numbers also >= <= > <"),
]
TableStyle = Literal["table", "json", "ndjson", "csv", "arrow", "parquet"]
FormatOption = Annotated[TableStyle, typer.Option("--format", help="how to print the rows")]


def split_globs(options: list[str] | None) -> tuple[str, ...]:
    """Layer globs, however they were given."""
    return tuple(glob for option in options or () for glob in option.split(",") if glob)
