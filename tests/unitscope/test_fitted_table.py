"""Tables at every width: no number is cut, what leaves is said, and texts say that they are shortened."""

import ast
import csv
import importlib
import io
import random
import sys
from collections.abc import Sequence
from dataclasses import is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
from rich.cells import cell_len

from unitscope import commands
from unitscope.commands import output
from unitscope.commands.output import show_rows
from unitscope.fitted_table import Fitted, cell_lines, fit
from unitscope_schemas.answers.statements import Statement
from unitscope_schemas.formats import rows_as
from unitscope_schemas.geometry import Box, Size

KINDS = {
    "unitscope_schemas.answers.annotations": ["AnnotationRow", "CollectionItem", "CollectionRow"],
    "unitscope_schemas.answers.patches": ["PatchRow", "NeighborRow", "ExplainRow", "UnitRow", "LabelRow"],
    "unitscope_schemas.answers.relations": [
        *("BandRow", "FacetRow", "SimilarRow", "MatchRow", "LayerMatch", "SelectiveRow", "SelectivityRow"),
    ],
    "unitscope_schemas.answers.served": ["LayerRow", "ImageRow", "SkippedRow", "VersionRow"],
    "unitscope_schemas.answers.provenance": ["TraceRow", "DigestRow"],
    "unitscope_schemas.answers.visuals": ["VisualRow", "FilterRow"],
    "unitscope_pipelines.indexing.laws": ["StageCost"],
    "unitscope.commands.serve": ["KeyRow"],
    "unitscope.doctor": ["Check"],
}
ROWS = [(module, name) for module, names in KINDS.items() for name in names]


def made(kind: Any, name: str, chance: random.Random) -> Any:
    """A value of a type, as long as such a thing gets."""
    if kind is bool:
        return chance.random() < 0.5
    if kind is int:
        return chance.choice([0, 7, 292, 48_210, 1_000_000, 3_119_000_000])
    if kind is float:
        return chance.choice([0.0, 1.0, -0.00093, 9.3e-10, 123_456.789, 0.333333333, -2.5e17])
    if kind is str:
        texts = {
            "layer": "features.denseblock4.denselayer16",
            "path": f"corpus/字字/{'folder/' * chance.randint(0, 9)}picture-{chance.randint(0, 999)}.jpg",
            "image_id": f"{chance.getrandbits(256):064x}",
            "version": f"{chance.getrandbits(64):016x}",
            "created": "2026-11-30T20:16:43+00:00",
        }
        return texts.get(name, chance.choice(["live", "a text of several words " * chance.randint(1, 5), "x" * 70]))
    if kind is Box:
        return Box(0, 12, 1_080, 1_920)
    if kind is Size:
        return Size(1_080, 1_920)
    origin, inside = get_origin(kind), get_args(kind)
    if origin is Literal:
        return chance.choice(inside)
    if origin is UnionType or type(None) in inside:
        known = [one for one in inside if one is not type(None)]
        return None if chance.random() < 0.2 else made(known[0], name, chance)
    if origin is list:
        return [made(inside[0], name, chance) for _ in range(chance.randint(0, 3))]
    if origin is dict:
        return {"year": 1999, "kind": "a word"}
    if kind is Statement:
        return Statement("a/b.jpg", ("cat",), {"year": 1})
    if is_dataclass(kind):
        return kind(**{field: made(own, field, chance) for field, own in get_type_hints(kind).items()})
    raise AssertionError(f"no value is known of {kind}")


def shown(
    rows: Sequence[Any], kind: type, width: int | None, capsys: pytest.CaptureFixture[str], patch: pytest.MonkeyPatch
) -> tuple[list[str], str]:
    """The lines that a terminal of so many columns shows, and what is said beside."""
    patch.setenv("COLUMNS", str(width or 80))
    patch.setattr(sys.stdout, "isatty", lambda: width is not None, raising=False)
    show_rows(rows, kind, "table", None)
    told = capsys.readouterr()
    return told.out.replace("\x1b[1m", "").replace("\x1b[0m", "").splitlines(), told.err


def shown_cells(lines: Sequence[str], fitted: Fitted) -> dict[str, list[str]]:
    """The cells of a printed table by column, cut where columns stand: one for each row, its first line."""
    spans, start = {}, 0
    for column, width in zip(fitted.columns, fitted.widths, strict=True):
        spans[column.name] = slice(start, start + width)
        start += width + 2
    head = max(len(column.header.split("\n")) for column in fitted.columns)
    firsts, line = [], head
    for cells in zip(*(column.cells for column in fitted.columns), strict=True):
        firsts.append(lines[line])
        line += max(len(cell_lines(cell, width)) for cell, width in zip(cells, fitted.widths, strict=True))
    assert line == len(lines)
    return {name: [within(first, span) for first in firsts] for name, span in spans.items()}


def within(line: str, span: slice) -> str:
    """What stands between two places of a line on a terminal, where some characters are two places wide."""
    places = [character for character in line for _ in range(cell_len(character))]
    gaps = [*places[max(0, span.start - 2) : span.start], *places[span.stop : span.stop + 2]]
    assert set(gaps) <= {" "}, f"{line!r} runs into the next column"
    return "".join(places[span]).strip()


@pytest.mark.parametrize("width", [80, 100, 120, 160])
@pytest.mark.parametrize(("module", "name"), ROWS, ids=[name for _, name in ROWS])
def test_every_number_of_every_table_is_that_of_the_csv_or_its_column_is_named(
    module: str, name: str, width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rounded to five digits, as `--format` says; whole numbers, boxes and sizes as they are."""
    kind, chance = getattr(importlib.import_module(module), name), random.Random(f"{name} {width}")
    rows = [made(kind, "", chance) for _ in range(4)]
    lines, said = shown(rows, kind, width, capsys, monkeypatch)
    fitted = fit(output._columns(rows, kind), width)
    cells = shown_cells(lines, fitted)
    written = list(csv.DictReader(io.StringIO(rows_as(rows, kind, "csv").decode())))
    named = {*said.removeprefix("without ").partition(":")[0].split(", ")}
    for field, annotation in get_type_hints(kind).items():
        types = {annotation, *get_args(annotation)}
        if not types & {int, float, Box, Size} or get_origin(annotation) in (list, dict):
            continue
        if field == "channel" and "layer" in get_type_hints(kind):
            values = [cell.rpartition(":")[2] for cell in cells["unit"]] if "unit" in cells else None
        else:
            values = cells.get(field)
        if values is None:
            own = [row for row in written if any(row[column] for column in row if column.startswith(field))]
            assert not own or field in named or "unit" in named, field
            continue
        for value, row in zip(values, written, strict=True):
            assert_same_number(value, [row[column] for column in csv_columns(field, types)], types)
    assert sum(fitted.widths) + 2 * len(fitted.widths) - 2 <= width or len(fitted.columns) <= 5


def csv_columns(field: str, types: set[Any]) -> list[str]:
    """The columns of a CSV that hold a field; a box and a size have one for each side."""
    sides = next((kind._fields for kind in (Box, Size) if kind in types), None)
    return [field] if sides is None else [f"{field}_{side}" for side in sides]


def assert_same_number(shown_value: str, written: list[str], types: set[Any]) -> None:
    if Size in types:
        assert shown_value == "×".join(reversed(written)).strip("×"), (shown_value, written)
    elif float in types and written[0]:
        exact = float(written[0])
        assert float(shown_value) == float(f"{exact:.5g}"), (shown_value, written)
        assert abs(float(shown_value) - exact) <= 0.5e-4 * abs(exact) * (1 + 1e-9), (shown_value, written)
    else:
        assert shown_value == ",".join(written).strip(","), (shown_value, written)


def test_every_table_that_a_command_prints_is_among_them() -> None:
    """Read from the commands themselves: the types of the rows that they show."""
    shown_kinds = set[str]()
    for file in Path(commands.__path__[0]).glob("*.py"):
        for call in ast.walk(ast.parse(file.read_text())):
            if isinstance(call, ast.Call) and ast.unparse(call.func) == "show_rows":
                shown_kinds |= {node.id for node in ast.walk(call.args[1]) if isinstance(node, ast.Name)}
    rows_named = {name for name in shown_kinds if name[0].isupper()}
    assert len(rows_named) > 20
    assert rows_named == {name for _, name in ROWS}


@pytest.mark.parametrize("width", [80, 100, 120, 160])
def test_facts_are_shown_whole_whatever_the_width(
    width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of `index --plan`, `verify`, `gc` and others: a name and a value on each line."""
    monkeypatch.setenv("COLUMNS", str(width))
    facts = {"images": 3_119_000_000, "part_bytes": 93_446_219, "largest_drift": 9.3e-10, "scan_seconds": 48_210.5}
    output.show_facts(facts, as_json=False)
    found = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [words[0] for words in found] == [*facts]
    assert [float(words[1].replace(",", "")) for words in found] == [*facts.values()]


def test_a_pipe_gets_every_column_and_every_text_whole(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = importlib.import_module("unitscope_schemas.answers.patches").PatchRow
    rows = [made(kind, "", random.Random(number)) for number in range(5)]
    lines, said = shown(rows, kind, None, capsys, monkeypatch)
    assert said == ""
    assert len(lines) == 6
    for row in rows:
        assert any(row.path in line for line in lines)


def test_rank_and_path_of_a_patch_are_there_at_eighty_columns(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = importlib.import_module("unitscope_schemas.answers.patches").PatchRow
    rows = [made(kind, "", random.Random(number)) for number in range(5)]
    lines, said = shown(rows, kind, 80, capsys, monkeypatch)
    assert lines[0].split()[:2] == ["rank", "path"] or lines[0].split()[:3] == ["rank", "image_id", "path"]
    assert "padding" in said
    assert "--format csv" in said
    for row in rows:
        assert any(row.path[-8:] in line for line in lines)
