"""The options that several commands share, and those that the model of a question gives."""

import functools
import inspect
from collections.abc import Callable, Iterator
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
from pydantic.fields import FieldInfo

from unitscope_schemas.question import Metavar, Question

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
CorpusOption = Annotated[
    str | None, typer.Option(metavar="ROOT", help="folder or s3://… below which the pictures are now")
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
TableStyle = Literal["table", "json", "ndjson", "csv", "csv-safe", "arrow", "parquet"]
FormatOption = Annotated[
    TableStyle,
    typer.Option(
        "--format",
        help="how to print the rows; a table rounds to five digits, all else has every one; csv-safe is for "
        "spreadsheets: no text is taken for a formula",
    ),
]


UnitArgument = Annotated[str, typer.Argument(metavar="LAYER:UNIT", help="for example _blocks.15:130")]
ImageArgument = Annotated[str, typer.Argument(help="id, path in the corpus, or a picture file")]
WorkersOption = Annotated[int | None, typer.Option(help="processes  [default: as many as fit]")]
AddressOption = Annotated[str | None, typer.Option(help="address of a running Ray cluster")]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu or cuda")]
Command = Callable[..., None]


def asks(model: type[Question], leave_out: tuple[str, ...] = ()) -> Callable[[Command], Command]:
    """Give a command that takes a `question` the fields of its model as options, with their ranges and help.

    Fields to `leave_out` are options of the command's own, which it adds to the question itself.
    """
    fields = {name: field for name, field in model.model_fields.items() if name not in leave_out}

    def spell_out(command: Command) -> Command:
        @functools.wraps(command)
        def run(context: typer.Context, **values: object) -> None:
            given = {name: values.pop(name) for name in fields}
            source = context.get_parameter_source
            said = {name: value for name, value in given.items() if getattr(source(name), "name", "") != "DEFAULT"}
            command(question=model.model_validate(said), **values)

        signature = inspect.signature(command, eval_str=True)
        parameters = [inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)]
        for parameter in signature.parameters.values():
            plain = parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            parameters += _options(fields) if parameter.name == "question" else [plain]
        run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        run.question = model  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters} | {"return": None}
        return run

    return spell_out


def _options(fields: dict[str, FieldInfo]) -> Iterator[inspect.Parameter]:
    """Yield an option for each field, the number of rows first."""
    for name, field in sorted(fields.items(), key=lambda item: item[0] != "k"):
        metavar = next((detail.text for detail in field.metadata if isinstance(detail, Metavar)), None)
        option = typer.Option(
            "-k" if name == "k" else f"--{name.replace('_', '-')}",
            help=(field.description or "").replace("`", ""),
            metavar=metavar,
            min=_bound(field, "ge"),
            max=_bound(field, "le"),
        )
        kind: Any = str if metavar and get_origin(field.annotation) is not tuple else _option_type(field.annotation)
        default = inspect.Parameter.empty if field.is_required() else field.default
        if default in (None, ()):
            default, kind = None, kind | None
        annotation = Annotated[kind, option]
        yield inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _bound(field: FieldInfo, name: str) -> float | None:
    """Return the least (`ge`) or greatest (`le`) value that a field takes, None where there is none."""
    bounds: list[float] = [getattr(constraint, name) for constraint in field.metadata if hasattr(constraint, name)]
    return bounds[0] if bounds else None


def _option_type(annotation: Any) -> Any:
    """Return the type that a command line reads for a field: a list for a tuple, the only one of a type or None."""
    if get_origin(annotation) in (Union, UnionType):
        (annotation,) = (part for part in get_args(annotation) if part is not type(None))
        return _option_type(annotation)
    if get_origin(annotation) is Annotated:
        return _option_type(get_args(annotation)[0])
    if get_origin(annotation) is tuple:
        return list[str]
    return annotation


def split_globs(options: list[str] | None) -> tuple[str, ...]:
    """Return layer globs, split at commas, however they were given."""
    return tuple(glob for option in options or () for glob in option.split(",") if glob)
