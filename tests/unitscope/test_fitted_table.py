"""Tables at every width: no number is cut, what leaves is said, and texts say that they are shortened."""

import importlib
import random
import sys
from collections.abc import Sequence
from dataclasses import is_dataclass
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
from rich.cells import cell_len

from unitscope.commands import output
from unitscope.commands.output import _cell, show_rows
from unitscope.fitted_table import fit
from unitscope_schemas.answers.statements import Statement
from unitscope_schemas.geometry import Box, Size

KINDS = {
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


@pytest.mark.parametrize("width", [80, 100, 120, 160])
@pytest.mark.parametrize(("module", "name"), ROWS, ids=[name for _, name in ROWS])
def test_every_number_of_every_table_is_shown_whole_or_its_column_is_named(
    module: str, name: str, width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, chance = getattr(importlib.import_module(module), name), random.Random(f"{name} {width}")
    rows = [made(kind, "", chance) for _ in range(4)]
    lines, said = shown(rows, kind, width, capsys, monkeypatch)
    left_out = said.removeprefix("without ").partition(":")[0].split(", ")
    text = "\n".join(lines)
    for field in get_type_hints(kind):
        values = [getattr(row, field) for row in rows]
        if field in left_out or (field in ("layer", "channel") and "unit" in left_out):
            continue
        for value in values:
            if isinstance(value, int | float | Box | Size) and value is not None:
                assert any(_cell(value) in line.replace(":", " ").split() for line in lines), (field, value, text)
    fitted = fit(output._columns(rows, kind), width)
    whole = sum(fitted.widths) + 2 * len(fitted.widths) - 2
    assert whole <= width or len(fitted.columns) <= 5
    assert max(map(cell_len, lines)) <= whole, text


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
