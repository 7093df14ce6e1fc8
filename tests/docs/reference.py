"""The pages of docs/reference, made from the code: `python -m tests.docs.reference` writes them."""

import ast
import inspect
import re
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import typer

import unitscope
import unitscope_schemas
import unitscope_services
from unitscope.cli import app
from unitscope.client import Client
from unitscope.commands import demo, export, optimise, project, questions, relations, upkeep  # noqa: F401
from unitscope.opened_atlas import OpenedAtlas
from unitscope_services.server.settings import Settings
from unitscope_services.web.app import create_app
from unitscope_services.web.documentation import describe, operations

FOLDER = Path(__file__).parent.parent.parent / "docs" / "reference"
_WIDTH = 110
_MADE = "*Made from the code by `python -m tests.docs.reference`; a test holds it to the code.*"


def pages() -> dict[str, str]:
    """Return every page of the reference by its file name."""
    return {"commands.md": commands(), "api.md": api(), "python.md": python()}


def commands() -> str:
    """Return the page of the command line: what each command's `--help` prints."""
    group = typer.main.get_command(app)
    parts = ["# Commands", _MADE]
    for name, command in sorted(group.commands.items()):  # type: ignore[attr-defined]
        context = type(command).context_class(
            command, info_name=f"unitscope {name}", terminal_width=_WIDTH, max_content_width=_WIDTH
        )
        lines = [line.rstrip() for line in command.get_help(context).strip().splitlines()]
        parts += [f"## {name}", "\n".join(["```text", *lines, "```"])]
    return _joined(parts)


def api() -> str:
    """Return the page of the API: every operation with its parameters and its answer, and every model."""
    document = describe(create_app(Settings(atlases=("atlas",))))
    parts = [
        "# API",
        _MADE,
        "Every server has the same at `/openapi.json`, for programs. Errors are problem details (RFC 9457). Addresses "
        "of rows answer `.csv`, `.ndjson`, `.arrow` and `.parquet` too.",
    ]
    for tag, entries in operations(document).items():
        if entries:
            parts += [f"## {tag}", *(part for entry in entries for part in _operation(entry))]
    parts.append("## Models")
    meanings = field_meanings()
    for name, schema in sorted(document["components"]["schemas"].items()):
        parts += [f"### {name}", *_model(schema, meanings.get(name, {}))]
    return _joined(parts)


def python() -> str:
    """Return the page of the Python interface: `open_atlas`, what it returns, and `Client`."""
    parts = ["# Python", _MADE, "## unitscope.open_atlas", *_callable("unitscope.open_atlas", unitscope.open_atlas)]
    for title, kind in (
        (f"unitscope.open_atlas(…) -> {OpenedAtlas.__name__}", OpenedAtlas),
        ("unitscope.Client", Client),
    ):
        parts += [f"## {title}", _text(kind)]
        for name, function in methods(kind):
            parts += [f"### {name}", *_callable(name, function)]
    return _joined(parts)


def field_meanings() -> dict[str, dict[str, str]]:
    """Return by class and field the strings that stand below the fields."""
    found: dict[str, dict[str, str]] = {}
    for package in (unitscope_schemas, unitscope_services):
        for file in Path(package.__path__[0]).rglob("*.py"):
            for kind in ast.walk(ast.parse(file.read_text())):
                if isinstance(kind, ast.ClassDef):
                    found.setdefault(kind.name, {}).update(_strings_below(kind))
    return found


def _strings_below(kind: ast.ClassDef) -> Iterator[tuple[str, str]]:
    for field, text in pairwise(kind.body):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(text, ast.Expr):
            value = text.value
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                yield field.target.id, inspect.cleandoc(value.value)


def methods(kind: type) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Yield a class's public methods in the order in which they are written."""
    for name, member in vars(kind).items():
        if inspect.isfunction(member) and not name.startswith("_"):
            yield name, member


def _callable(name: str, function: Callable[..., Any]) -> list[str]:
    signature = inspect.signature(function)
    parameters = [parameter for parameter in signature.parameters.values() if parameter.name != "self"]
    text = name.rpartition(".")[2] + str(signature.replace(parameters=parameters))
    short = re.sub(r"\b(?:[a-z_]+\.)+(?=[A-Z])", "", text.replace("pyarrow.lib.", ""))
    if len(short) > _WIDTH:
        inner, _, returned = short.partition("(")[2].rpartition(")")
        short = "\n".join([short.partition("(")[0] + "(", *(f"    {part}," for part in _split(inner)), f"){returned}"])
    return [f"```python\n{short}\n```", _text(function)]


def _split(parameters: str) -> Iterator[str]:
    """Yield parameters one by one; commas within brackets and quotes belong to them."""
    depth, start = 0, 0
    for position, mark in enumerate(parameters):
        depth += (mark in "[(") - (mark in "])")
        if mark == "," and not depth:
            yield parameters[start:position].strip()
            start = position + 1
    yield parameters[start:].strip()


def _text(subject: Any) -> str:
    return inspect.getdoc(subject) or ""


def _operation(entry: dict[str, Any]) -> Iterator[str]:
    yield f"### {entry['method']} `{entry['path']}`"
    yield entry.get("description", "")
    parameters = [parameter for parameter in entry.get("parameters", []) if parameter["in"] != "header"]
    if parameters:
        rows = [
            [f"`{one['name']}`", one["in"], _kind(one["schema"]), _default(one["schema"]), one.get("description", "")]
            for one in parameters
        ]
        yield _table(["parameter", "in", "type", "default", "meaning"], rows)
    bodies = [
        _kind(content.get("schema", {})) or kind
        for kind, content in entry.get("requestBody", {}).get("content", {}).items()
    ]
    if bodies:
        yield f"Body: {', '.join(dict.fromkeys(bodies))}"
    for status, response in entry["responses"].items():
        if status.startswith("2"):
            kinds = [_kind(content.get("schema", {})) for content in response.get("content", {}).values()]
            yield f"Answer {status}: {', '.join(dict.fromkeys(filter(None, kinds[:1]))) or response['description']}"


def _model(schema: dict[str, Any], meanings: dict[str, str]) -> Iterator[str]:
    yield schema.get("description", "")
    if "enum" in schema:
        yield _kind(schema)
    needed = schema.get("required", [])
    rows = [
        [
            f"`{name}`",
            _kind(field),
            "" if name in needed else _default(field),
            field.get("description") or meanings.get(name, ""),
        ]
        for name, field in schema.get("properties", {}).items()
    ]
    if rows:
        yield _table(["field", "type", "default", "meaning"], rows)


def _kind(schema: dict[str, Any]) -> str:
    """Return a schema's type in few words."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema or "oneOf" in schema:
        return " or ".join(dict.fromkeys(map(_kind, schema.get("anyOf") or schema["oneOf"])))
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    if "prefixItems" in schema:
        return f"({', '.join(map(_kind, schema['prefixItems']))})"
    if "items" in schema:
        return f"list of {_kind(schema['items'])}"
    bounds = [f"{sign} {schema[name]}" for name, sign in _BOUNDS.items() if name in schema]
    return " ".join([schema.get("type", ""), ", ".join(bounds)]).strip()


_BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}


def _default(schema: dict[str, Any]) -> str:
    return f"`{schema['default']}`" if "default" in schema else ""


def _table(heads: list[str], rows: list[list[str]]) -> str:
    cells = [heads, ["---"] * len(heads), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in row) + " |" for row in cells
    )


def _joined(parts: list[str]) -> str:
    return "\n\n".join(part for part in parts if part) + "\n"


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    for file_name, text in pages().items():
        (FOLDER / file_name).write_text(text)
