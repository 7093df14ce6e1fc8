"""The output of commands on stdout: tables for people, files and JSON for programs."""

import os
import re
import sys
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

from unitscope.commands.app import tell
from unitscope.commands.options import TableStyle
from unitscope.fitted_table import Column, Fitted, aligned, cell_lines, fit
from unitscope_schemas.answers.statements import Statement
from unitscope_schemas.errors import StorageError, UsageError, listing
from unitscope_schemas.geometry import Box, Size

if TYPE_CHECKING:
    from PIL.Image import Image

    from unitscope_pipelines.indexing.verification.verify import Verdict


_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
"""Characters that end a line, steer a terminal or turn the direction of writing; names of files may hold them."""
_WHOLE = (
    "unit",
    "subject",
    "layer",
    "match",
    "image_id",
    "digest",
    "sha256",
    "version",
    "key",
    "created",
    "status",
    "stage",
    "size",
)
"""Columns of texts that say something only as a whole."""


def show_rows(rows: Sequence[Any], kind: type, style: TableStyle, document: Any) -> None:
    """Print rows as a table for people or write them as a file; `json` prints the whole document."""
    from unitscope_schemas.formats import TableFormat, json_bytes, rows_as

    if style == "table":
        _show_table(rows, kind)
    elif style == "json":
        sys.stdout.write(json_bytes(document).decode() + "\n")
    else:
        file_format: TableFormat = "csv" if style == "csv-safe" else style
        sys.stdout.buffer.write(rows_as(rows, kind, file_format, safe=style == "csv-safe"))


def show_pictures(pictures: Sequence["Image"], captions: Sequence[str]) -> None:
    """Print pictures side by side, as the terminal can."""
    from rich.console import Console

    from unitscope.terminal_pictures import picture_rows, takes_pictures

    as_pictures = sys.stdout.isatty() and takes_pictures(os.environ)
    sys.stdout.write(picture_rows(pictures, captions, Console().width, as_pictures))


def write_rows(out: Path, rows: Sequence[Any], kind: type, document: Any) -> None:
    """Write rows as a file, in the format of its suffix; raises UsageError and StorageError."""
    from unitscope_schemas.formats import FORMATS, json_bytes, rows_as

    style = next((name for name in FORMATS if out.suffix == f".{name}"), None)
    if style is None:
        raise UsageError(f"{out} has no known suffix; there are {listing(f'.{name}' for name in FORMATS)}")
    content = json_bytes(document) + b"\n" if style == "json" else rows_as(rows, kind, style)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_bytes(content)
    except OSError as error:
        raise StorageError(f"cannot write {out}: {error.strerror}") from None


def show_facts(facts: Mapping[str, Any], as_json: bool) -> None:
    """Print a few named values."""
    from unitscope_schemas.formats import json_bytes

    if as_json:
        sys.stdout.write(json_bytes(dict(facts)).decode() + "\n")
        return
    width = max(map(len, facts))
    for name, value in facts.items():
        sys.stdout.write(f"{name:<{width}}  {_fact(name, value)}\n")


def show_verdict(verdict: "Verdict", as_json: bool) -> None:
    """Print what a verification checked and found."""
    facts = {
        "parts": verdict.part_count,
        "pictures": verdict.picture_count,
        "images": verdict.image_count,
        "cells": verdict.cell_count,
        "largest_drift": verdict.largest_drift,
        "faults": [fault.__dict__ for fault in verdict.faults] if as_json else len(verdict.faults),
    }
    show_facts(facts, as_json)
    if not as_json:
        for fault in verdict.faults:
            sys.stdout.write(f"{fault.kind}  {fault.where}: {fault.what}\n")


def _fact(name: str, value: object) -> str:
    """Return a value with what a person needs to judge it; its name says its unit."""
    if not isinstance(value, int | float):
        return str(value)
    if name.endswith("_bytes"):
        return f"{value:,}  ({value / 1e9:,.2f} GB)"
    if name.endswith("_seconds"):
        return f"{value:,}  ({timedelta(seconds=round(value))})"
    return f"{value:,}"


def _show_table(rows: Sequence[Any], kind: type) -> None:
    """Print rows for people: on a terminal what fits it, elsewhere every column whole."""
    from rich.console import Console

    terminal = sys.stdout.isatty()
    fitted = fit(_columns(rows, kind), Console().width if terminal else None)
    lines = [_line([name.split("\n") for name in (column.header for column in fitted.columns)], fitted)]
    for cells in zip(*(column.cells for column in fitted.columns), strict=True):
        lines.append(_line([cell_lines(cell, wide) for cell, wide in zip(cells, fitted.widths, strict=True)], fitted))
    bold, plain = ("\x1b[1m", "\x1b[0m") if terminal else ("", "")
    sys.stdout.write("\n".join([f"{bold}{lines[0]}{plain}", *lines[1:]]) + "\n")
    if fitted.left_out:
        tell(f"without {', '.join(fitted.left_out)}: a wider terminal, or --format csv, shows all")


def _columns(rows: Sequence[Any], kind: type) -> list[Column]:
    """Return the columns that hold something; a layer and its channel are one, as commands take them."""
    names = [name for name in get_type_hints(kind) if any(_cell(getattr(row, name)) for row in rows)]
    if "labels" in names and all(len(row.labels) < 2 for row in rows):
        names.remove("labels")
    values = {name: [getattr(row, name) for row in rows] for name in names}
    if "layer" in values and "channel" in values:
        units = [f"{layer}:{channel}" for layer, channel in zip(values["layer"], values["channel"], strict=True)]
        values = {("unit" if name == "layer" else name): own for name, own in values.items() if name != "channel"}
        values["unit"] = units
    return [_column(name, own) for name, own in values.items()]


def _column(name: str, values: Sequence[Any]) -> Column:
    is_numbers = any(isinstance(value, int | float | Box) for value in values)
    return Column(
        name,
        tuple(_shortened(name, _cell(value)) for value in values),
        at_right=is_numbers or name == "unit",
        is_whole=is_numbers or name in _WHOLE or any(isinstance(value, Size) for value in values),
    )


def _shortened(name: str, cell: str) -> str:
    """Return the first digits of what is a digest, which name it well enough; all else is whole."""
    is_digest = name in ("image_id", "digest") or (name == "subject" and ":" not in cell)
    return cell[:12] if is_digest else cell


def _line(cells: Sequence[Sequence[str]], fitted: Fitted) -> str:
    """Return cells side by side, each of one line or several: numbers at the right, all else at the left."""
    height = max(map(len, cells), default=0)
    lines = []
    for number in range(height):
        texts = [own[number] if number < len(own) else "" for own in cells]
        filled = [
            aligned(text, wide, column.at_right)
            for text, wide, column in zip(texts, fitted.widths, fitted.columns, strict=True)
        ]
        lines.append("  ".join(filled).rstrip())
    return "\n".join(lines)


def _cell(value: Any) -> str:
    match value:
        case None:
            return ""
        case float():
            return f"{value:.5g}"
        case Size():
            return f"{value.width}×{value.height}"
        case Box():
            return ",".join(map(str, value))
        case list():
            return ", ".join(map(_cell, value))
        case dict():
            return ", ".join(f"{name}={item}" for name, item in value.items())
        case Statement():
            said = {**({"label": " ".join(value.labels)} if value.labels else {}), **value.metadata}
            return f"{value.path}: {_cell(said)}"
        case _:
            return _CONTROL.sub(lambda found: repr(found[0])[1:-1], str(value))
