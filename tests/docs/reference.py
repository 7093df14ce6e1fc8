"""The pages of docs/reference, made from the code: `python -m tests.docs.reference` writes them."""

import ast
import functools
import inspect
import operator
import re
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import typer

import unitscope
import unitscope_schemas
import unitscope_services
from unitscope.cli import app
from unitscope.client import Client
from unitscope.opened_atlas import OpenedAtlas
from unitscope.pictured import Pictured
from unitscope.questions import Questions, Unit
from unitscope_schemas.question import Question
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
    parts = ["# Commands", _MADE]
    for name, command in _commands(typer.main.get_command(app)):
        context = type(command).context_class(
            command, info_name=f"unitscope {name}", terminal_width=_WIDTH, max_content_width=_WIDTH
        )
        lines = [line.rstrip() for line in command.get_help(context).strip().splitlines()]
        parts += [f"## {name}", "\n".join(["```text", *lines, "```"])]
    return _joined(parts)


def _commands(group: Any, before: str = "") -> Iterator[tuple[str, Any]]:
    """Yield commands with their names, those of a group behind it."""
    for name, command in sorted(group.commands.items()):
        if command.hidden:  # another spelling
            continue
        yield before + name, command
        if hasattr(command, "commands"):
            yield from _commands(command, f"{before}{name} ")


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
    """Return the page of the Python interface: `open_atlas`, `Client`, and the questions that both answer."""
    parts = ["# Python", _MADE]
    for title, maker, kind in (
        ("unitscope.open_atlas", unitscope.open_atlas, OpenedAtlas),
        ("unitscope.Client", Client, Client),
    ):
        further = [item for item in methods(kind) if item[0] not in dict(methods(Questions))]
        parts += [f"## {title}", *_callable(title, maker)]
        parts.append("It answers all questions below" + (", and:" if further else "."))
        for name, function in further:
            parts += [f"### {name}", *_callable(name, function)]
    parts += ["## Questions", _text(Questions)]
    for name, function in methods(Questions):
        parts += [f"### {name}", *_callable(name, function)]
    for title, kind in (("Units", Unit), ("Rows with pictures", Pictured)):
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


def _callable(name: str, function: Callable[..., Any]) -> Iterator[str]:
    signature = inspect.signature(function)
    parameters = [
        parameter.replace(annotation=_unmarked(parameter.annotation))
        for parameter in signature.parameters.values()
        if parameter.name != "self"
    ]
    returned = "" if inspect.isclass(function) else f" -> {_written(signature.return_annotation)}"
    words = [str(parameter).replace("unitscope_schemas.geometry.", "") for parameter in parameters]
    if any(parameter.kind is parameter.KEYWORD_ONLY for parameter in parameters):
        words.insert(sum(parameter.kind is not parameter.KEYWORD_ONLY for parameter in parameters), "*")
    text = f"{name.rpartition('.')[2]}({', '.join(words)}){returned}"
    if len(text) > _WIDTH:
        text = "\n".join([name.rpartition(".")[2] + "(", *(f"    {word}," for word in words), f"){returned}"])
    yield f"```python\n{text}\n```"
    yield _text(function)
    rows = list(_meanings(function))
    if rows:
        yield _table(["argument", "meaning"], rows)


def _meanings(method: Callable[..., Any]) -> Iterator[list[str]]:
    """Yield the fields of the question that a method asks, each with what its model says of it."""
    for parameter in inspect.signature(getattr(method, "__wrapped__", method)).parameters.values():
        if inspect.isclass(parameter.annotation) and issubclass(parameter.annotation, Question):
            for name, field in parameter.annotation.model_fields.items():
                yield [f"`{name}`", field.description or ""]


def _unmarked(annotation: Any) -> Any:
    """Return a type without what pydantic is told beside it."""
    if get_origin(annotation) is Annotated:
        return _unmarked(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return functools.reduce(operator.or_, map(_unmarked, get_args(annotation)))
    if get_origin(annotation) is tuple:
        return tuple.__class_getitem__(tuple(map(_unmarked, get_args(annotation))))
    return annotation


def _written(annotation: Any) -> str:
    if isinstance(annotation, str) or annotation is None:
        return str(annotation)
    return re.sub(r"^(pyarrow)\.lib\.", r"\1.", inspect.formatannotation(annotation))


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
