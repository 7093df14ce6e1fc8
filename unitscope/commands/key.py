"""The commands of the keys that a server asks for: new, list, remove."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from unitscope.commands.app import app, tell
from unitscope.commands.options import FormatOption

key = typer.Typer(help="The keys that a server asks for: make one, list them, take one away.", no_args_is_help=True)
app.add_typer(key, name="key")

KeyFileOption = Annotated[
    Path,
    typer.Option("--key-file", envvar="UNITSCOPE_KEY_FILE", help="file that serve --key-file reads"),
]
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="whose key it is")]
_FILE = Path("unitscope-keys")


@dataclass(frozen=True)
class KeyRow:
    """A row says what a key may do; the key itself is stored nowhere."""

    name: str
    scopes: str


@key.command()
def new(
    name: NameArgument,
    scope: Annotated[
        Literal["read", "compute", "admin"],
        typer.Option(help="what it allows: reading; also running the model, for uploads and jobs; also all"),
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
