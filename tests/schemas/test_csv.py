"""CSV for spreadsheets: no text in it is taken for a formula, and numbers stay numbers."""

import csv
import io
from dataclasses import dataclass

import pytest

from unitscope_schemas.formats import rows_as


@dataclass
class Row:
    """A row as answers have it."""

    path: str
    label: str | None
    labels: list[str]
    count: int
    score: float


def cells(row: Row, safe: bool) -> dict[str, str]:
    (read,) = csv.DictReader(io.StringIO(rows_as([row], Row, "csv", safe).decode(), newline=""))
    return read


@pytest.mark.parametrize(
    "text",
    ["=1+1", "+1+1", "-1+1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "=cmd|' /C calc'!A0", "＝1+1", "-", '=HYPERLINK("a")'],
)
def test_text_that_would_be_a_formula_begins_with_an_apostrophe(text: str) -> None:
    row = Row(text, text, [text], -1, -2.5)
    safe = cells(row, safe=True)
    assert (safe["path"], safe["label"]) == (f"'{text}", f"'{text}")
    assert safe["labels"].startswith('["')
    assert (safe["count"], safe["score"]) == ("-1", "-2.5")
    assert cells(row, safe=False)["path"] == text


@pytest.mark.parametrize("text", ["cat", "a=b", "", "-1", "+2.5", "-1e-3", "'x", "ü"])
def test_all_other_text_and_numbers_stay_as_they_are(text: str) -> None:
    row = Row(text, None, [], 1, 0.5)
    assert cells(row, safe=True) == cells(row, safe=False)
