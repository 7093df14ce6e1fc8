"""The output of commands on stdout: tables for people, files and JSON for programs."""

import re
import sys
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

from unitscope.commands.options import TableStyle
from unitscope_schemas.answers.statements import Statement
from unitscope_schemas.errors import StorageError, UsageError, listing
from unitscope_schemas.geometry import Box, Size

if TYPE_CHECKING:
    from unitscope_pipelines.indexing.verification.verify import Verdict


_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
"""Characters that end a line, steer a terminal or turn the direction of writing; names of files may hold them."""


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
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    names = [name for name in get_type_hints(kind) if any(_cell(getattr(row, name)) for row in rows)]
    if "labels" in names and all(len(row.labels) < 2 for row in rows):
        names.remove("labels")
    for name in names:
        numeric = any(isinstance(getattr(row, name), int | float) for row in rows)
        table.add_column(name, justify="right" if numeric else "left", no_wrap=name != "path", overflow="fold")
    for row in rows:
        cells = {name: _cell(getattr(row, name)) for name in names}
        cells |= {name: cells[name][:12] for name in ("image_id", "digest") if name in cells}
        table.add_row(*map(Text, cells.values()))  # as they are: a name may look like rich's own marks
    terminal = sys.stdout.isatty()
    Console(width=None if terminal else 4_000, highlight=False, soft_wrap=not terminal).print(table)


def _cell(value: Any) -> str:
    match value:
        case None:
            return ""
        case float():
            return f"{value:.5g}"
        case Size():
            return f"{value.height}×{value.width}"
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
