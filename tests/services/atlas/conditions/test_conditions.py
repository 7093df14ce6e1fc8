"""Conditions on metadata: every relation on columns of every type, exactly or with a clear error (entries 20, 23)."""

import json

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from unitscope_schemas.errors import UsageError
from unitscope_services.atlas.conditions.comparison import holds
from unitscope_services.atlas.conditions.conditions import Condition

WHOLE = pa.array([1, 2, None, 2**63 - 1, -(2**63)])
REAL = pa.array([0.1, 2.0, None, 1e300])
TRUTH = pa.array([True, False, None])
TEXT = pa.array(["00123", "123", "1.10", "cat", "caterpillar", "a,b", None], pa.large_string())
DATE = pa.array(
    [
        *("2020-01-02", "2020-01-02T10:00:00", "2020-01-03 00:00:00+02:00", "unknown", None),
        "2021-05-01T00:00:00.123456789",
    ],
    pa.large_string(),
)


def documents(*values: object) -> pa.Array:
    return pa.array([None if value is None else json.dumps(value).encode() for value in values], pa.large_binary())


MIXED = documents(2012, "unknown", 2013.5, None, [1, "a"], {"k": 1}, True, "18446744073709551615", "NaN")


def passing(condition: str, values: pa.Array, column: str = "n") -> list[int]:
    return np.flatnonzero(holds(Condition.parse(condition, [column]), values)).tolist()


@pytest.mark.parametrize("relation", ["=", "!=", "<", "<=", ">", ">="])
@pytest.mark.parametrize(
    "number",
    [
        *("1", "1.0", "1.5", "-0.5", "+2", "9007199254740993", "9223372036854775807", "9223372036854775808"),
        *("9223372036854775806.5", "-9223372036854775808", "-9223372036854775809", "-9223372036854775808.5", "1e30"),
    ],
)
def test_conditions_on_whole_numbers_of_any_size_are_those_of_exact_arithmetic(relation: str, number: str) -> None:
    values = pa.array([1, 2, None, 9007199254740992, 9007199254740993, 2**63 - 1, -(2**63)])
    exact = pa.table({"n": values})
    operator = {"!=": "<>"}.get(relation, relation)
    assert len(exact)
    plain = f"{float(number):.0f}" if "e" in number else number
    rows = duckdb.sql(
        f"SELECT i FROM (SELECT n, row_number() OVER () - 1 AS i FROM exact) "
        f"WHERE n::DECIMAL(38, 2) {operator} {plain}::DECIMAL(38, 2)"
    ).fetchall()
    assert passing(f"n{relation}{number}", values) == sorted(row for (row,) in rows)


@pytest.mark.parametrize(
    ("condition", "values", "rows"),
    [
        ("n<1e999999999", WHOLE, [0, 1, 3, 4]),
        ("n>-inf", WHOLE, [0, 1, 3, 4]),
        ("n=1e400", WHOLE, []),
        (f"n<{'9' * 1900}", WHOLE, [0, 1, 3, 4]),
        ("n in 1,2", WHOLE, [0, 1]),
        ("n not in 1", WHOLE, [1, 3, 4]),
        ("n is null", WHOLE, [2]),
        ("n IS  NOT null", WHOLE, [0, 1, 3, 4]),
        ("n=0.1", REAL, [0]),
        ("n<1e400", REAL, [0, 1, 3]),
        ("n>=2", REAL, [1, 3]),
        ("n=true", TRUTH, [0]),
        ("n!=true", TRUTH, [1]),
        ("n in true,false", TRUTH, [0, 1]),
        ("n is null", TRUTH, [2]),
        ("n=123", TEXT, [1]),
        ("n=00123", TEXT, [0]),
        ("n>=100", TEXT, [0, 1]),
        ("n<2", TEXT, [2]),
        ('n in "a,b",cat', TEXT, [3, 5]),
        ("n in (cat, 123)", TEXT, [1, 3]),
        ("n^=cat", TEXT, [3, 4]),
        ("n!=cat", TEXT, [0, 1, 2, 4, 5]),
        ("n not in cat,123", TEXT, [0, 2, 4, 5]),
        ("n>=2020-01-02", DATE, [0, 1, 2, 5]),
        ("n<=2020-01-02", DATE, [0, 1, 2]),
        ("n>2020-01-02", DATE, [5]),
        ("n<2020-01-02T10:00", DATE, [0]),
        ("n>=2021", DATE, [5]),
        ("n<2020-02", DATE, [0, 1, 2]),
        ("n=2020-01-02", DATE, [0, 1, 2]),
        ("n=2020-01-02T10:00:00", DATE, [1]),
        ("n>2021-05-01T00:00:00.123456788", DATE, [5]),
        ("n^=2020-01", DATE, [0, 1, 2]),
        ("n=unknown", DATE, [3]),
        ("n>=2013", MIXED, [2, 7]),
        ("n=2012", MIXED, [0]),
        ("n=unknown", MIXED, [1]),
        ("n=a", MIXED, [4]),
        ("n in 1,unknown", MIXED, [1, 4]),
        ("n!=a", MIXED, [0, 1, 2, 5, 6, 7, 8]),
        ("n>18446744073709551614", MIXED, [7]),
        ("n is null", MIXED, [3]),
        ("n==1", WHOLE, [0]),
        ("n <> 1", WHOLE, [1, 3, 4]),
        ("n=a=b", pa.array(["a=b", "a", None], pa.large_string()), [0]),
        ("n=\x00", pa.array(["\x00", "a"], pa.large_string()), [0]),
    ],
)
def test_conditions_hold_where_the_value_compares(condition: str, values: pa.Array, rows: list[int]) -> None:
    assert passing(condition, values) == rows


@pytest.mark.parametrize(
    ("condition", "values", "said"),
    [
        ("n=many", WHOLE, "holds numbers; 'many' is none"),
        ("n=nan", REAL, "'nan' is none"),
        ("n=0x10", WHOLE, "'0x10' is none"),
        ("n>\x00", WHOLE, "is none"),
        ("n^=1", WHOLE, "holds numbers"),
        ("n>=m", TEXT, "no number and no date to compare with 'm'"),
        ("n>=5", DATE, "no number and no date to compare with '5'"),
        ("n>=2020-01-01", documents("a", "b"), "texts are compared by"),
        ("n=yes", TRUTH, "true or false, not 'yes'"),
        ("n>true", TRUTH, "only =, != and in"),
        ("n", WHOLE, "is no condition"),
        ("n in", WHOLE, "is no condition"),
        ("n in ()", WHOLE, "needs values"),
        ("=3", WHOLE, "is no condition"),
        ("n is null x", WHOLE, "is no condition"),
        (f"n={'9' * 3000}", WHOLE, "at most 2000 characters"),
        ("n=\udcff", TEXT, "no UTF-8 text"),
        ("m>=1", WHOLE, "no metadata column 'm'; there are n"),
        ("m is null", WHOLE, "no metadata column 'm'"),
    ],
)
def test_conditions_that_cannot_hold_are_refused_in_words(condition: str, values: pa.Array, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        passing(condition, values)


@pytest.mark.parametrize("column", ["a in b", "year is", "x=y", "a>=b", " padded ", "is null", "a"])
def test_conditions_name_columns_of_any_name(column: str) -> None:
    assert passing(f"{column}=2", WHOLE, column) == [1]
    assert passing(f"{column} is null", WHOLE, column) == [2]
    assert passing(f"{column} in 1,2", WHOLE, column) == [0, 1]
