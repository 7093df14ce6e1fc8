"""The command that serves atlases, and those of the keys that it asks for."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from unitscope.commands.app import app, tell
from unitscope.commands.options import FormatOption, TrustFlag

key = typer.Typer(help="The keys that a server asks for: make one, list them, take one away.", no_args_is_help=True)
app.add_typer(key, name="key")

KeyFileOption = Annotated[
    Path,
    typer.Option("--key-file", envvar="UNITSCOPE_KEY_FILE", help="file that serve --key-file reads"),
]
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="whose key it is")]
_FILE = Path("unitscope-keys")


@app.command()
def serve(
    atlases: Annotated[list[str], typer.Argument(help="atlas directories, or s3://…")],
    host: Annotated[str, typer.Option(help="address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="port to listen on; 0 takes a free one")] = 8000,
    key_file: Annotated[Path | None, typer.Option(help="who may ask; unitscope key new NAME writes one")] = None,
    anonymous_read: Annotated[bool, typer.Option("--anonymous-read", help="let anyone read")] = False,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            envvar="UNITSCOPE_ALLOWED_HOST",
            help="name that readers ask it by, *.NAME for all below one; numbers and localhost are always allowed",
        ),
    ] = None,
    grace: Annotated[float, typer.Option(min=0, help="seconds that requests have to end when it is stopped")] = 10.0,
    rate: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="requests a second that each key or address may send to a process, ten seconds' worth at once; 0: no "
            "limit  [default: 50; on this machine without keys no limit]",
        ),
    ] = None,
    preload: Annotated[
        bool | None,
        typer.Option(
            "--preload/--no-preload",
            help="load what runs models before it answers, which takes seconds: else the first picture from outside "
            "waits for it  [default: where others or keys may ask]",
        ),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="processes that answer; each opens all atlases")] = 1,
    trust_code: TrustFlag = False,
    no_check: Annotated[
        bool, typer.Option("--no-check", help="do not compare parts with their digests when they are first read")
    ] = False,
    corpus: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ROOT",
            help="folder whose pictures may be shown, or where they are now, of all atlases or, as NAME=ROOT, of one; "
            "repeatable  [default: each atlas's own folder]",
        ),
    ] = None,
    annotations: Annotated[
        Path | None,
        typer.Option(
            envvar="UNITSCOPE_ANNOTATIONS",
            help="folder for names, notes and collections that people write  [default: beside each atlas]",
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
    from unitscope_services.web.serving import bound_native_threads, is_loopback, serve_atlases, usual_rate

    bound_native_threads()
    from unitscope_services.server.settings import Settings

    settings = Settings(
        atlases=tuple(atlases),
        key_file=key_file,
        anonymous_read=anonymous_read,
        allowed_hosts=tuple(allowed_host or ()),
        trust_code=trust_code,
        check_parts=not no_check,
        corpora=tuple(corpus or ()),
        annotations=annotations,
        cache=cache,
        cache_gb=cache_gb,
        grace_s=grace,
        requests_per_s=usual_rate(host, key_file is not None) if rate is None else rate,
        preload=not (is_loopback(host) and key_file is None) if preload is None else preload,
    )
    serve_atlases(settings, host, port, process_count=workers)


@dataclass(frozen=True)
class KeyRow:
    """A row says what a key may do; the key itself is stored nowhere."""

    name: str
    scopes: str


@key.command()
def new(
    name: NameArgument,
    scope: Annotated[
        Literal["read", "compute", "annotate", "admin"],
        typer.Option(
            help="what it allows: reading; also running the model, for uploads and jobs; also writing names, notes and "
            "collections; also all"
        ),
    ] = "read",
    key_file: KeyFileOption = _FILE,
) -> None:
    """Make a key and print it, once: the file, which is made if need be, holds only its hash."""
    from unitscope_services.server.access.key_file import make_key

    typer.echo(make_key(key_file, name, scope))
    tell(f"this is the only time that the key of {name} is shown; {key_file} holds its hash, and servers know it now")


@key.command("list")
def list_keys(key_file: KeyFileOption = _FILE, style: FormatOption = "table") -> None:
    """List the names and scopes of the keys in a file."""
    from unitscope.commands.output import show_rows
    from unitscope_services.server.access.key_file import read_keys

    rows = [KeyRow(known.name, ",".join(sorted(known.scopes))) for known in read_keys(key_file)]
    show_rows(rows, KeyRow, style, {"rows": rows})


@key.command()
def remove(name: NameArgument, key_file: KeyFileOption = _FILE) -> None:
    """Take a key away: servers that read the file refuse it from their next request on."""
    from unitscope_services.server.access.key_file import remove_key

    remove_key(key_file, name)
    tell(f"removed: {name}")
