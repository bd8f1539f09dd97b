"""Random expressions over random rows give what DuckDB gives, but for the differences that docs/expressions.md names.

Those are written into the DuckDB form here: numbers with a point are doubles (`2.5e0`), what is an error there is NULL
here (`try(...)`), and there is no NaN (`nullif(..., 'nan')`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any
from zoneinfo import ZoneInfo

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from ringmain.flows.attributes import Attributes
from ringmain.flows.block import Block
from ringmain.flows.expression import Scope, compile_expression
from ringmain.model.schemas import READING, SERIES
from tests.flows.recording import batch

ZONE = "Europe/Berlin"
START = 1_774_735_200_000_000_000  # 2026-03-28 22:00 UTC: a day of 23 hours begins an hour later

SERIES_KNOWN: list[dict[str, Any]] = [
    {"id": 0, "key": "a/b/c", "unit": "W", "medium": "gas", "place": "area-1/ss-2"},
    {"id": 1, "key": "B/é", "unit": None, "medium": "electricity", "place": None},
    {"id": 2, "key": "x%y", "unit": "kW", "medium": None, "place": "area-1"},
    {"id": 3, "key": "12.5", "unit": "", "medium": "gas", "place": "a//b/"},
]


@dataclass(frozen=True)
class Both:
    """An expression in our words and in DuckDB's."""

    ours: str
    duck: str


def both(text: str, *parts: Both, attempt: bool = False, number: bool = False) -> Both:
    """`{}` in the text stands for the parts. `attempt`: may fail in DuckDB; `number`: may give NaN there."""
    ours = text.format(*(part.ours for part in parts))
    duck = text.format(*(part.duck for part in parts))
    if attempt:
        duck = f"try({duck})"
    return Both(f"({ours})", f"nullif({duck}, 'nan'::double)" if number else f"({duck})")


def constant(value: Any) -> Both:
    if value is None:
        return Both("NULL", "NULL")
    if isinstance(value, bool):
        return Both(str(value), str(value))
    if isinstance(value, int):
        return Both(f"({value})", f"({value}::bigint)")
    if isinstance(value, float):
        return Both(f"({value!r})", f"({value!r}::double)")
    quoted = "'" + value.replace("'", "''") + "'"
    return Both(quoted, quoted)


def column(name: str) -> Both:
    return Both(name, name)


WORDS = ["gas", "electricity", "W", "area-1", "a", "", "é", "it's", "a%b", "x_y", "12.5", "-3", "/"]
PATTERNS = ["%", "gas", "g%", "%s", "%ea%", "_as", "a%/%c", "%é", "", "%%", "area-_%", ".*", "B/%"]
numbers = st.sampled_from([0.0, 1.0, -1.5, 2.5, 1e300, 0.1, -3.0, 7.0]).map(constant)
wholes = st.sampled_from([0, 1, -1, 2, 3, 255, -7, 2**40, 2**62]).map(constant)
words = st.sampled_from(WORDS).map(constant)
DIGITS = ["12.5", "-12.5", "13.5", "9007199254740993", "-9007199254740993", " 7 ", "+4", "1e3", "1e300", "0.5", ".5", "7.",
          "9223372036854775808", "1e", "--1", "1 2", "+", "1e999", "-0"]  # fmt: skip
digits = st.sampled_from(DIGITS).map(constant)


@cache
def number(depth: int) -> st.SearchStrategy[Both]:
    leaf = st.one_of(numbers, st.just(column("value")))
    if depth == 0:
        return leaf
    one, whole, truth = number(depth - 1), integer(depth - 1), boolean(depth - 1)
    return st.one_of(
        leaf,
        st.tuples(st.sampled_from("+-*/%"), one, one).map(
            lambda it: both("{} " + it[0] + " {}", it[1], it[2], number=True)
        ),
        st.tuples(whole, one).map(lambda it: both("{} / {}", *it, number=True)),
        st.tuples(whole, whole).map(lambda it: both("{} / {}", *it, number=True)),
        one.map(lambda it: both("-{}", it)),
        st.tuples(st.sampled_from(["abs", "floor", "ceil", "trunc", "round"]), one).map(
            lambda it: both(it[0] + "({})", it[1])
        ),
        st.tuples(one, st.integers(-2, 4)).map(lambda it: both(f"round({{}}, {it[1]})", it[0])),
        one.map(lambda it: both("sqrt({})", it, attempt=True, number=True)),
        st.tuples(st.sampled_from(["least", "greatest", "coalesce"]), one, one).map(
            lambda it: both(it[0] + "({}, {})", it[1], it[2])
        ),
        st.tuples(one, one).map(lambda it: both("nullif({}, {})", *it)),
        st.tuples(truth, one, one).map(lambda it: both("case when {} then {} else {} end", *it)),
        st.tuples(truth, one, truth, one).map(
            lambda it: both("case when {} then {} when {} then {} end", *it)
        ),
        st.tuples(whole, one).map(lambda it: both("case {} when 0 then {} end", *it)),
        digits.map(lambda it: Both(f"cast({it.ours} as double)", f"try_cast({it.duck} as double)")),
        text(depth - 1).map(lambda it: Both(f"cast({it.ours} as double)", f"try_cast({it.duck} as double)")),
        whole.map(lambda it: both("cast({} as double)", it)),
    )


@cache
def integer(depth: int) -> st.SearchStrategy[Both]:
    leaf = st.one_of(wholes, st.just(column("quality")))
    if depth == 0:
        return leaf
    one, other, truth = integer(depth - 1), text(depth - 1), boolean(depth - 1)
    return st.one_of(
        leaf,
        st.tuples(st.sampled_from(["+", "-", "*", "%", "//"]), one, one).map(
            lambda it: both("{} " + it[0] + " {}", it[1], it[2], attempt=True)
        ),
        st.tuples(st.sampled_from("&|"), one, one).map(lambda it: both("{} " + it[0] + " {}", it[1], it[2])),
        one.map(lambda it: both("-{}", it, attempt=True)),
        one.map(lambda it: both("~{}", it)),
        one.map(lambda it: both("abs({})", it, attempt=True)),
        other.map(lambda it: both("length({})", it)),
        other.map(lambda it: Both(f"cast({it.ours} as bigint)", f"try_cast({it.duck} as bigint)")),
        digits.map(lambda it: Both(f"cast({it.ours} as bigint)", f"try_cast({it.duck} as bigint)")),
        number(depth - 1).map(lambda it: both("cast({} as bigint)", it, attempt=True)),
        st.tuples(one, one).map(lambda it: both("greatest({}, {})", *it)),
        st.tuples(one, one).map(lambda it: both("coalesce({}, {})", *it)),
        st.tuples(truth, one, one).map(lambda it: both("if({}, {}, {})", *it)),
        st.sampled_from(
            ["second", "minute", "hour", "day", "dayofweek", "isodow", "dayofyear", "week", "month", "year"]
        ).map(lambda it: both(it + "({})", column("time"))),
        st.sampled_from(["minute", "hour", "day", "week", "month", "quarter", "year"]).map(
            lambda it: Both(f"epoch_ms(date_trunc('{it}', time))", f"epoch_ms(date_trunc('{it}', time))")
        ),
    )


@cache
def text(depth: int) -> st.SearchStrategy[Both]:
    leaf = st.one_of(words, st.sampled_from(["key", "unit", "medium", "place"]).map(column))
    if depth == 0:
        return leaf
    one = text(depth - 1)
    return st.one_of(
        leaf,
        st.tuples(st.sampled_from(["lower", "upper", "trim"]), one).map(
            lambda it: both(it[0] + "({})", it[1])
        ),
        st.tuples(one, one).map(lambda it: both("{} || {}", *it)),
        st.tuples(one, one).map(lambda it: both("concat({}, {})", *it)),
        st.tuples(one, st.integers(1, 4), st.integers(0, 3)).map(
            lambda it: both(f"substring({{}}, {it[1]}, {it[2]})", it[0])
        ),
        st.tuples(one, st.sampled_from(["/", "a", "s-"]), st.sampled_from([1, 2, 3, -1, -2])).map(
            lambda it: both(f"split_part({{}}, '{it[1]}', {it[2]})", it[0])
        ),
        one.map(lambda it: both("replace({}, 'a', 'bb')", it)),
        st.tuples(boolean(depth - 1), one, one).map(lambda it: both("case when {} then {} else {} end", *it)),
        st.tuples(one, one).map(lambda it: both("nullif({}, {})", *it)),
        st.tuples(one, one, one).map(lambda it: both("coalesce({}, {}, {})", *it)),
        integer(depth - 1).map(lambda it: both("cast({} as varchar)", it)),
    )


@cache
def boolean(depth: int) -> st.SearchStrategy[Both]:
    kinds = (number, integer, text)
    signs = st.sampled_from(["=", "<>", "<", "<=", ">", ">=", "is distinct from", "is not distinct from"])
    pairs = st.one_of(*(st.tuples(kind(max(depth - 1, 0)), kind(max(depth - 1, 0))) for kind in kinds))
    compared = st.tuples(signs, pairs).map(lambda it: both("{} " + it[0] + " {}", *it[1]))
    if depth == 0:
        return st.one_of(compared, st.sampled_from([True, False]).map(constant))
    one, word = boolean(depth - 1), text(depth - 1)
    values = st.one_of(
        st.tuples(word, st.lists(words, min_size=1, max_size=3)),
        st.tuples(number(depth - 1), st.lists(numbers, min_size=1, max_size=10)),
        st.tuples(integer(depth - 1), st.lists(wholes, min_size=1, max_size=3)),
    )
    return st.one_of(
        compared,
        st.tuples(st.sampled_from(["and", "or"]), one, one, one).map(
            lambda it: both("{} " + it[0] + " {} " + it[0] + " {}", *it[1:])
        ),
        one.map(lambda it: both("not {}", it)),
        st.tuples(st.sampled_from(["null", "not null", "true", "not true", "false"]), one).map(
            lambda it: both("{} is " + it[0], it[1])
        ),
        st.one_of(number(depth - 1), word, integer(depth - 1)).map(lambda it: both("{} is null", it)),
        st.tuples(st.sampled_from(["in", "not in"]), values, st.booleans()).map(_in),
        st.one_of(*(st.tuples(kind(depth - 1), kind(0), kind(0)) for kind in kinds)).map(
            lambda it: both("{} between {} and {}", *it)
        ),
        st.tuples(
            word, st.sampled_from(["like", "not like", "ilike"]), st.sampled_from(PATTERNS).map(constant)
        ).map(lambda it: both("{} " + it[1] + " {}", it[0], it[2])),
        st.tuples(word, st.sampled_from(["a!%b", "x!_y", "!!%"])).map(
            lambda it: both(f"{{}} like '{it[1]}' escape '!'", it[0])
        ),
        st.tuples(st.sampled_from(["starts_with", "ends_with", "contains"]), word, words).map(
            lambda it: both(it[0] + "({}, {})", it[1], it[2])
        ),
        st.tuples(word, st.sampled_from(["^a", "[0-9]+", "s$", "^$", "a|b", "(?i)GAS"])).map(
            lambda it: both(f"regexp_matches({{}}, '{it[1]}')", it[0])
        ),
        st.tuples(word, st.sampled_from([True, False])).map(
            lambda it: Both(f"cast({it[0].ours} as boolean)", f"try_cast({it[0].duck} as boolean)")
        ),
    )


def _in(drawn: tuple[str, tuple[Both, list[Both]], bool]) -> Both:
    sign, (value, listed), with_null = drawn
    listed = [*listed, constant(None)] if with_null else listed
    return both("{} " + sign + " (" + ", ".join("{}" for _ in listed) + ")", value, *listed)


VALUES = [
    0.0,
    -0.0,
    1.0,
    -1.5,
    2.5,
    3.5,
    -7.25,
    0.1,
    1e300,
    -1e300,
    math.inf,
    -math.inf,
    math.nan,
    12.5,
    1e18,
]
rows = st.lists(
    st.tuples(
        st.integers(0, 5),
        st.integers(0, 5 * 86_400_000).map(lambda ms: START + ms * 1_000_000),
        st.sampled_from(VALUES),
        st.sampled_from([0, 1, 2, 3, 8, 12, 255, 0x8000, 0xFFFF]),
    ),
    min_size=1,
    max_size=12,
)


@pytest.fixture(scope="module")
def duck() -> Iterator[duckdb.DuckDBPyConnection]:
    connection = duckdb.connect()
    connection.execute("set threads = 1")
    connection.execute("set error_on_division_by_zero = false")
    connection.execute("set ieee_floating_point_ops = false")
    connection.execute(f"set TimeZone = '{ZONE}'")
    yield connection
    connection.close()


def catalogue() -> Attributes:
    attributes = Attributes(["key", "unit", "medium", "place"])
    attributes.learn(pa.RecordBatch.from_pylist(SERIES_KNOWN, schema=SERIES))
    return attributes


KNOWN = catalogue()
SCOPE = Scope(READING, ZoneInfo(ZONE))


def ours(text: str, readings: list[Any]) -> list[Any]:
    compiled = compile_expression(text, SCOPE)
    found = compiled.evaluator(KNOWN).column(Block(batch(readings), START))
    values = found.data.to_pylist() if isinstance(found.data, pa.Array) else found.data.tolist()
    missing = [False] * len(values) if found.null is None else found.null.tolist()
    return [None if null else value for value, null in zip(values, missing, strict=True)]


def theirs(connection: duckdb.DuckDBPyConnection, text: str, readings: list[Any]) -> list[Any]:
    known = {entry["id"]: entry for entry in SERIES_KNOWN}
    table = pa.table(
        {
            "place_in_log": pa.array(range(len(readings)), pa.int64()),
            "time": pa.array(
                np.array([row[1] for row in readings]).view("M8[ns]"), pa.timestamp("us", "UTC")
            ),
            "value": pa.array([None if math.isnan(row[2]) else row[2] for row in readings], pa.float64()),
            "quality": pa.array([row[3] for row in readings], pa.int64()),
            **{
                name: pa.array([known.get(row[0], {}).get(name) for row in readings], pa.string())
                for name in ("key", "unit", "medium", "place")
            },
        }
    )
    connection.register("readings", table)
    found = connection.execute(f"select {text} from readings order by place_in_log").fetchall()
    return [row[0] for row in found]


def plain(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value


@given(
    drawn=st.one_of(boolean(2), number(2), integer(2), text(2)),
    readings=rows,
)
@examples(max_examples=150, derandomize=True, deadline=None)
def test_an_expression_gives_what_duckdb_gives(
    duck: duckdb.DuckDBPyConnection, drawn: Both, readings: list[Any]
) -> None:
    expected = [plain(value) for value in theirs(duck, drawn.duck, readings)]
    found = ours(drawn.ours, readings)
    assert found == expected, drawn.ours


@pytest.mark.soak
@given(drawn=st.one_of(boolean(3), number(3), integer(3), text(3)), readings=rows)
@examples(max_examples=5_000, deadline=None)
def test_many_expressions_give_what_duckdb_gives(
    duck: duckdb.DuckDBPyConnection, drawn: Both, readings: list[Any]
) -> None:
    assert ours(drawn.ours, readings) == [plain(value) for value in theirs(duck, drawn.duck, readings)]


@pytest.mark.parametrize("function", ["ln", "log10", "exp", "power"])
def test_transcendental_functions_agree_to_the_last_digits(
    duck: duckdb.DuckDBPyConnection, function: str
) -> None:
    readings = [(0, START, value, 0) for value in (*VALUES, 1e-300, 700.0, 123.456)]
    exponents = [f", {one!r}" for one in (2.0, 0.5, -1.0, 3.3, 0.0)] if function == "power" else [""]
    for second in exponents:
        value = (
            "nullif(value, 0.0)" if function.startswith("l") else "value"
        )  # of zero: NULL here, -inf there
        text = f"{function}({value}{second})"
        expected = [plain(found) for found in theirs(duck, f"try({text})", readings)]
        for one, other in zip(ours(text, readings), expected, strict=True):
            assert (one is None and other is None) or one == pytest.approx(other, rel=1e-13), text
