"""The command that serves atlases."""

from pathlib import Path
from typing import Annotated

import typer

from unitscope.commands.app import app
from unitscope.commands.options import TrustFlag


@app.command()
def serve(
    atlases: Annotated[list[str], typer.Argument(help="atlas directories, or s3://…")],
    host: Annotated[str, typer.Option(help="address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="port to listen on; 0 takes a free one")] = 8000,
    key_file: Annotated[Path | None, typer.Option(help="lines of: name scope[,scope] sha256-of-the-key")] = None,
    anonymous_read: Annotated[bool, typer.Option("--anonymous-read", help="let anyone read")] = False,
    grace: Annotated[float, typer.Option(min=0, help="seconds that requests have to end when it is stopped")] = 10.0,
    workers: Annotated[int, typer.Option(min=1, help="processes that answer; each opens all atlases")] = 1,
    trust_code: TrustFlag = False,
    corpus: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ROOT",
            help="folder whose pictures may be shown, or where they are now, of all atlases or, as NAME=ROOT, of one; "
            "repeatable  [default: each atlas's own folder]",
        ),
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(envvar="UNITSCOPE_CACHE", help="folder for parts of atlases at s3://")
    ] = None,
    cache_gb: Annotated[
        float | None, typer.Option(envvar="UNITSCOPE_CACHE_GB", help="most that it holds  [default: 10]")
    ] = None,
) -> None:
    """Serve atlases as an API and as pages. Listens on this machine only, unless keys say who may ask."""
    from unitscope_services.server.settings import Settings
    from unitscope_services.web.serving import serve_atlases

    settings = Settings(
        atlases=tuple(atlases),
        key_file=key_file,
        anonymous_read=anonymous_read,
        trust_code=trust_code,
        corpora=tuple(corpus or ()),
        cache=cache,
        cache_gb=cache_gb,
        grace_s=grace,
    )
    serve_atlases(settings, host, port, process_count=workers)
