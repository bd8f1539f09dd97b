"""Expressions: names, kinds, NULLs, what is refused and where, what is computed once a series."""

from __future__ import annotations

import math
import random
import sys
import time as clock
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from ringmain.flows import expression_parser
from ringmain.flows.attributes import Attributes
from ringmain.flows.block import Block, readings_block
from ringmain.flows.expression import Scope, compile_expression
from ringmain.flows.expression_functions import FUNCTIONS
from ringmain.flows.expression_parser import CHARACTERS_MAX
from ringmain.flows.expression_syntax import parse
from ringmain.flows.expression_tree import ExpressionError
from ringmain.flows.expression_values import Kind
from ringmain.model.schemas import READING
from tests.flows.steps.ordered_inputs import ODD_TIMES, ODD_VALUES, at
from tests.flows.steps.row_wise import learn

SCOPE = Scope(READING, ZoneInfo("Europe/Berlin"))
KNOWN: dict[int, dict[str, Any]] = {
    0: {
        "unit": "W", "medium": "electricity", "place": "area-1/ss-1", "device": "d0", "quantity": "power",
        "owner": "me", "source": "mqtt", "external": '{"MeLo": "DE0001", "OBIS": "1-0:1.7.0"}',
    },
    1: {"unit": None, "medium": "gas", "place": "area-2", "external": "no JSON"},
    2: {"unit": "kW", "medium": None, "place": None, "external": '["MeLo"]'},
}  # fmt: skip
NAMES = ("key", "unit", "quantity", "medium", "device", "place", "owner", "source", "external")


def block(*rows: tuple[int, float, int], arrival_ns: int = 0) -> Block:
    """Rows of (series, value, quality), a second apart."""
    series, values, qualities = zip(*rows, strict=True) if rows else ((), (), ())
    return readings_block(
        np.array(series, np.uint32),
        at(0) + np.arange(len(rows), dtype=np.int64) * 1_000_000_000,
        np.array(values, np.float64),
        np.array(qualities, np.uint16),
        arrival_ns or at(0),
    )


ROWS = block((0, 5.0, 0), (1, math.nan, 8), (2, -1.5, 2), (7, math.inf, 0x8001))


def computed(
    text: str, rows: Block = ROWS, scope: Scope = SCOPE, known: Attributes | None = None
) -> list[Any]:
    """The value of an expression for each row, None for NULL."""
    found = compile_expression(text, scope).evaluator(known or learn(NAMES, KNOWN)).column(rows)
    values = found.data.to_pylist() if isinstance(found.data, pa.Array) else found.data.tolist()
    missing = [False] * len(values) if found.null is None else found.null.tolist()
    assert len(values) == len(missing) == len(rows)
    return [None if null else value for value, null in zip(values, missing, strict=True)]


def refused(text: str, scope: Scope = SCOPE) -> ExpressionError:
    with pytest.raises(ExpressionError) as raised:
        compile_expression(text, scope)
    return raised.value


# Names


def test_names_are_columns_of_the_row_what_quality_says_and_attributes_of_the_series() -> None:
    assert computed("value") == [5.0, None, -1.5, math.inf]
    assert computed("quality") == [0, 8, 2, 0x8001]
    assert computed("epoch(time - '2025-06-15T15:06:40Z')") == [0.0, 1.0, 2.0, 3.0]
    assert computed("arrived = '2025-06-15T15:06:40Z'") == [True] * 4
    assert computed("series") == computed("key") == ["key/0", "key/1", "key/2", None]
    assert computed("medium") == computed("series.medium") == ["electricity", "gas", None, None]
    assert computed("external['MeLo']") == computed("external.MeLo") == ["DE0001", None, None, None]
    assert computed("external['OBIS'] || '/' || owner || '/' || source || '/' || device || quantity")[0] == (
        "1-0:1.7.0/me/mqtt/d0power"
    )


def test_names_are_found_whatever_their_case_but_external_names_are_taken_as_they_are() -> None:
    assert computed("VALUE + Value") == [10.0, None, -3.0, math.inf]
    assert computed('"value"') == [5.0, None, -1.5, math.inf]
    assert computed("external.melo") == [None] * 4


def test_words_for_quality() -> None:
    assert computed("valid") == [True, False, False, True]
    assert computed("invalid") == [False, True, True, False]
    assert computed("good") == [True, False, False, False]
    assert computed("questionable") == [False, False, False, True]
    assert computed("estimated") == [False, True, False, False]
    assert computed("measured and not calculated and not substituted") == [True, False, True, True]
    assert computed("communication_lost") == [False, False, False, True]
    assert computed("test or blocked or historical") == [False] * 4


def test_a_column_of_the_row_comes_before_an_attribute_of_the_same_name() -> None:
    schema = pa.schema([*READING, pa.field("unit", pa.string()), pa.field("good", pa.int32())])
    rows = pa.RecordBatch.from_arrays(
        [*ROWS.rows.columns, pa.array(["a", "b", None, "d"]), pa.array([1, 2, 3, None], pa.int32())],
        schema=schema,
    )
    assert computed("unit", Block(rows, 0), Scope(schema)) == ["a", "b", None, "d"]
    assert computed("series.unit", Block(rows, 0), Scope(schema)) == ["W", None, "kW", None]
    assert computed("good + 1", Block(rows, 0), Scope(schema)) == [2, 3, 4, None]


def test_where_all_rows_have_one_unit_it_is_the_unit() -> None:
    assert computed("unit = 'kWh'", scope=Scope(READING, unit="kWh")) == [True] * 4
    assert compile_expression("unit = 'kWh'", Scope(READING, unit="kWh")).attributes == frozenset()


def test_columns_of_windows_and_keywords_in_quotes_are_names() -> None:
    names = ["start", "end", "count", "sum", "mean", "min", "max", "first", "last", "from", "where", "a b"]
    scope = Scope(pa.schema([pa.field(name, pa.float64()) for name in names]))
    rows = Block(pa.RecordBatch.from_pydict({name: [1.0] for name in names}, schema=scope.schema), 0)
    bare = " and ".join(f"{name} = 1" for name in names[:9])
    assert computed(f'{bare} and "from" = "where" and "a b" = "end"', rows, scope) == [True]
    for text in ("from > 1", "fetch > 1", "where", "select", "insert > 1"):
        assert refused(text, scope).at in range(len(text))


def test_columns_of_every_usual_type_can_be_read() -> None:
    columns = {
        "i8": pa.array([1, None], pa.int8()),
        "u64": pa.array([1, 2**63], pa.uint64()),
        "f32": pa.array([0.5, math.nan], pa.float32()),
        "yes": pa.array([True, None]),
        "word": pa.array(["a", None]).dictionary_encode(),
        "large": pa.array(["a", "b"], pa.large_string()),
        "ms": pa.array([1, None], pa.timestamp("ms", "UTC")),
        "far": pa.array([2**62, 5], pa.timestamp("s", "UTC")),
    }
    rows = pa.RecordBatch.from_pydict(columns)
    expected = {
        "i8 + 1": [2, None], "u64": [1, None], "f32 * 2": [1.0, None], "not yes": [False, None],
        "word || 'x'": ["ax", None], "large": ["a", "b"], "epoch_ms(ms)": [1, None], "epoch(far)": [None, 5.0],
    }  # fmt: skip
    for text, values in expected.items():
        sliced = Block(pa.concat_batches([rows, rows]).slice(2), 0)
        assert computed(text, Block(rows, 0), Scope(rows.schema)) == values, text
        assert computed(text, sliced, Scope(rows.schema)) == values, text
    binary = Scope(pa.schema([pa.field("data", pa.binary())]))
    assert "which expressions cannot read" in str(refused("data = 'x'", binary))
    assert "belong to no series" in str(refused("medium = 'x'", binary))


# NULL and numbers


def test_what_has_no_result_is_null() -> None:
    for text in (
        "value / 0", "value % 0", "7 // 0", "7 % 0", "ln(0.0)", "ln(-1.0)", "sqrt(-1.0)", "power(0, -1)",
        "power(-8.0, 0.5)", "9223372036854775807 + 1", "-9223372036854775807 - 2", "9223372036854775807 * 2",
        "cast(1e300 as bigint)", "cast('x' as double)", "cast('maybe' as boolean)", "null", "null = null",
        "1e308 * 10 - 1e308 * 10", "null in (1)", "case when null then 1 end", "greatest(null, null)",
    ):  # fmt: skip
        assert computed(text) == [None] * 4, text


def test_numbers_with_a_point_are_doubles_and_others_whole_numbers() -> None:
    assert compile_expression("1 + 2", SCOPE).kind is Kind.INTEGER
    assert compile_expression("1 + 2.0", SCOPE).kind is Kind.NUMBER
    assert compile_expression("7 / 2", SCOPE).kind is Kind.NUMBER
    assert computed("7 // 2")[0] == 3
    assert computed("-7 // 2")[0] == -3
    assert computed("-7 % 3")[0] == -1


def test_halves_are_rounded_away_from_zero() -> None:
    for text, value in (
        ("2.5", 3.0), ("-2.5", -3.0), ("0.49999999999999994", 0.0), ("4503599627370497.0", 4503599627370497.0),
    ):  # fmt: skip
        assert computed(f"round({text})")[0] == value
    assert computed("round(12345.675, 2)")[0] == 12345.68
    assert computed("round(1250.0, -2)")[0] == 1300.0


def test_text_that_would_grow_without_bound_is_null() -> None:
    grown = "'aaaa'"
    for _ in range(14):
        grown = f"replace({grown}, 'a', 'aaaaaaaa')"
    assert computed(grown) == [None] * 4
    assert computed(f"length({'||'.join(['medium'] * 60)})") == [660, 180, None, None]
    long = "'" + "x" * 4000 + "'"
    assert computed(f"length(concat({long}, medium, unit))") == [4012, 4003, 4002, 4000]
    assert computed(f"length({long} || {long})") == [None] * 4
    assert computed(f"length({long} || medium || {'x' * 90!r})") == [None, 4093, None, None]


# Messages


@pytest.mark.parametrize(
    ("text", "at_character", "told"),
    [
        ("valeu > 1", 1, "unknown column 'valeu'; did you mean 'value'?"),
        ("value > 1 and mediun = 'gas'", 15, "unknown column 'mediun'; did you mean 'medium'?"),
        ("rond(value) > 1", 1, "unknown function rond(); did you mean 'round'?"),
        ("value > '5'", 9, "comparison of a number with text"),
        ("medium in ('gas', 5)", 19, "comparison of text with a whole number"),
        ("value + medium", 9, "`+` takes numbers, found text"),
        ("value and good", 1, "expected a truth value, found a number"),
        ("lower(value)", 7, "lower() takes text, found a number"),
        ("time > 'yesterday'", 8, "expected a time such as '2026-03-29 02:00'"),
        ("time > value", 8, "comparison of a time with a number"),
        ("date_trunc('hours', time)", 12, "did you mean 'hour'?"),
        ("date_part('hours', time)", 11, "did you mean 'hour'?"),
        ("marked('estimatd')", 8, "did you mean 'estimated'?"),
        ("medium like unit", 13, "LIKE takes a constant such as 'text' here"),
        ("regexp_matches(medium, '(')", 1, "expected a regular expression"),
        ("round(value, quality)", 14, "round takes a constant such as 1 here"),
        ("substring(medium, 0)", 1, "expected a start of 1 or more"),
        ('"and"(true)', 1, "`and` is no function"),
        ('"="(1)', 1, "`=` is no function"),
        ("abs(1, 2)", 1, "abs() takes 1 arguments, found 2"),
        ("value > 1 and", 13, "something is missing at the end"),
        ("value > and good", 9, "something is missing beside 'and'"),
        ("abs(value", None, "expected a closing bracket, found the end"),
        ("value) > (1", 6, "a bracket that was not opened"),
        ("case when good then 1", None, "expected END of CASE"),
        ("value >> 1", None, "an expression cannot have"),
        ("(select max(value) from readings)", None, "a subquery"),
        ("value in (select 1)", 1, "an expression cannot have a subquery"),
        ("exists (select 1)", None, "an expression cannot have EXISTS"),
        ("sum(value) over (order by time)", None, "an expression cannot have a window function"),
        ("sum(value) > 1", 1, "aggregates are a `window` step"),
        ("count(*)", None, "an expression cannot have `*`"),
        ("now() > time", 1, "`arrived` is when the row came"),
        ("time > current_timestamp", None, "`arrived` is when the row came"),
        ("random() > 0.5", 1, "results must be the same in every run"),
        ("value > 1; drop table readings", 10, "expected one expression, found `;`"),
        ("value > 1 limit 5", 11, "expected an operator or the end, found 'limit'"),
        ("value > ?", None, "a parameter"),
        ("time > interval '1 month'", None, "expected an interval of a fixed length"),
        ("cast(value as decimal)", None, "expected a cast to double"),
        ("cast(value as varchar)", None, "no cast of a number to text"),
        ("external > 'x'", 1, "such as external['MeLo']"),
        ("series.mediun = 'x'", 8, "unknown attribute 'mediun'; did you mean 'medium'?"),
        ("catalogue.medium = 'x'", 11, "only `series.` and `external.` stand before a name"),
        ("medium = 'gas", None, "without its end"),
        ("", None, "found nothing"),
        ("medium = \ud800", None, "half of a surrogate pair"),
        ("1e999 > value", 1, "too large"),
        ("99999999999999999999 > value", 1, "too large"),
        ("value = 1 collate nocase", None, "cannot have COLLATE"),
        ("value at time zone 'UTC'", None, "cannot have AT TIME ZONE"),
        ("medium ~ 'x'", None, "write regexp_matches"),
    ],
)
def test_what_cannot_be_used_is_told_with_its_place(text: str, at_character: int | None, told: str) -> None:
    error = refused(text)
    assert told in str(error)
    if at_character is not None:
        assert error.at == at_character - 1, error


def test_without_a_kind_that_is_wanted_the_kind_is_told() -> None:
    with pytest.raises(ExpressionError, match="expected an expression that gives a truth value, found text"):
        compile_expression("medium", SCOPE, Kind.BOOLEAN)
    assert compile_expression("null", SCOPE, Kind.BOOLEAN).kind is Kind.BOOLEAN
    assert compile_expression("1", SCOPE, Kind.NUMBER).kind is Kind.NUMBER


# Hostile text

SQL_WORDS = """
    value medium time 1 2.5 'x' null true ( ) , + - * / and or not in between like is case when then else end cast as
    double interval hour extract from select distinct exists over array map struct date timestamp external series . [ ]
    round( coalesce( :: abs( || like escape any all with values
"""


@pytest.mark.parametrize(
    "text",
    [
        "(" * 5000 + "1" + ")" * 5000,
        "decimal(" * 16 + "1" + ")" * 16,
        "timestamp(" * 15 + "1" + ")" * 15,
        "case when " * 400 + "true" + " then 1 end" * 400,
        "not " * 3000 + "true",
        "- " * 3000 + "1",
        "abs(" * 2000 + "1" + ")" * 2000,
        "end+(" * 1000 + "1" + ")" * 1000,
        "case when a then " * 300 + "end" + " end" * 300,
        "+".join(["value"] * 4000),
        "||".join(["medium"] * 4000),
        "value" + "[1]" * 2000,
        "x" * (CHARACTERS_MAX + 1),
        "value::double" + "::double" * 1000,
        "1 " * 8000,
        "a." * 4000 + "b",
        "a" + ".f()" * 2000,
        "a" + "()" * 2700,
        "{'a': " * 500 + "1" + "}" * 500,
        "interval " * 1000 + "'1' hour",
        "case value " + "when 1 then 2 " * 700 + "end + " + "case value " + "when 1 then 2 " * 400,
    ],
)
def test_huge_and_deep_text_is_refused_soon(text: str) -> None:
    began = clock.perf_counter()
    refused(text)
    assert clock.perf_counter() - began < 10.0


def test_long_lists_and_long_chains_of_and_or_are_no_trouble() -> None:
    words = ", ".join(f"'key/{number}'" for number in range(1000))
    assert computed(f"key in ({words})") == [True, True, True, None]
    chain = " or ".join(f"value = {number}" for number in range(500))
    assert computed(chain) == [True, None, False, False]


@given(text=st.text(st.sampled_from(list("()[]{}'\"ax1.,;:+-*/%<>=!|&~$?@# \n\\\0é")), max_size=40))
@examples(max_examples=300, derandomize=True, deadline=None)
def test_any_text_is_an_expression_or_an_expression_error(text: str) -> None:
    with_error = False
    try:
        compile_expression(text, SCOPE)
    except ExpressionError as error:
        with_error = bool(str(error))
    assert with_error or parse(text) is not None


@given(
    words=st.lists(
        st.sampled_from(SQL_WORDS.split()),
        max_size=14,
    )
)
@examples(max_examples=300, derandomize=True, deadline=None)
def test_any_words_of_sql_are_an_expression_or_an_expression_error(words: list[str]) -> None:
    text = " ".join(words)
    try:
        values: list[Any] | None = computed(text)
    except ExpressionError:
        values = None
    assert values is None or len(values) == len(ROWS)


def test_without_the_parser_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sqlglot.dialects.duckdb", None)
    expression_parser._dialect.cache_clear()
    try:
        assert "install ringmain[flows]" in str(refused("value > 0"))
    finally:
        expression_parser._dialect.cache_clear()


# Once a series


def test_a_catalogue_that_grows_and_changes_is_followed() -> None:
    known = learn(["medium"], {0: {"medium": "gas"}})
    evaluator = compile_expression("upper(medium)", SCOPE).evaluator(known)

    def found() -> list[Any]:
        return list(evaluator.column(block((0, 1.0, 0), (3, 1.0, 0), (500_000, 1.0, 0))).data.to_pylist())

    assert found() == ["GAS", None, None]
    learn(["medium"], {3: {"medium": "heat"}}, known)
    assert found() == ["GAS", "HEAT", None]
    learn(["medium"], {0: {"medium": None}, 500_000: {"medium": "gas"}}, known)
    assert found() == [None, "HEAT", "GAS"]


def test_what_depends_on_the_series_is_computed_for_series_that_changed_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known = learn(["medium"], {series: {"medium": "gas"} for series in range(100)})
    asked: list[int] = []
    real = known.texts_of

    def counted(name: str, ids: Any) -> pa.Array:
        asked.append(len(ids))
        return real(name, ids)

    monkeypatch.setattr(known, "texts_of", counted)
    where = compile_expression("medium = 'gas' and lower(medium) like 'g%' and value > 0", SCOPE)
    assert len(where.parts) == 1
    evaluator = where.evaluator(known)
    for _ in range(3):
        evaluator.true(ROWS)
    learn(["medium"], {7: {"medium": "gas"}, 200: {"medium": "heat"}}, known)
    evaluator.true(ROWS)
    assert sum(asked) == 2 * 100 + 2 * 2


def test_a_restored_catalogue_gives_the_same() -> None:
    known = learn(NAMES, KNOWN)
    again = Attributes(NAMES)
    again.restore(known.state())
    for text in ("medium", "external['MeLo']", "unit = 'W' and value > 0"):
        assert computed(text, known=known) == computed(text, known=again)


def test_external_names_of_any_text_do_no_harm() -> None:
    odd = ['{"a": 1}', '{"a": null}', "null", "5", '"a"', "{" * 5000, '{"a": "ok"}', '{"a": {"a": "x"}}', ""]
    known = learn(["external"], {series: {"external": text} for series, text in enumerate(odd)})
    rows = block(*((series, 1.0, 0) for series in range(len(odd))))
    assert computed("external.a", rows, known=known) == [None] * 6 + ["ok", None, None]


# However rows are cut


CUT = [
    "power(value, 2)", "power(value, 2.0)", "power(value, quality)", "power(value, 0.5)", "power(value, 3)", "exp(value)",
    "ln(value)", "log10(value)", "sqrt(value)", "value % 3", "round(value, 2)", "greatest(value, 0, -value)",
    "case when value > 0 then medium else unit end", "value in (1, 2, 3, 4, 5, 6, 7, 8, 9, 10)", "value * 1.1 + 0.3",
    "least(value, 0.0)", "date_trunc('month', time)", "coalesce(unit, 'x') || medium", "quality // 3", "value / quality",
]  # fmt: skip


@pytest.mark.parametrize("text", CUT)
def test_the_value_of_a_row_does_not_depend_on_the_rows_beside_it(text: str) -> None:
    chance = random.Random(5)
    odd = [*ODD_VALUES, 0.0, 2.0]
    rows = block(
        *(
            (
                chance.randrange(5),
                chance.choice(odd) if chance.random() < 0.1 else chance.uniform(0, 50),
                number % 7,
            )
            for number in range(1000)
        )
    )
    whole = list(map(repr, computed(text, rows)))
    cut, begin = [], 0
    while begin < len(rows):
        size = chance.choice([1, 1, 2, 3, 7, 8, 16, 100])
        part = Block(rows.rows.slice(begin, size), rows.arrival_ns)
        cut += list(map(repr, computed(text, part)))
        begin += size
    assert cut == whole


def test_no_rows_give_no_values() -> None:
    for text in (
        "value > 0",
        "1",
        "medium",
        "'x'",
        "null",
        "medium || 'x'",
        "case when good then 'a' end",
        "hour(time)",
    ):
        assert computed(text, block()) == [], text


def test_odd_times_do_no_harm() -> None:
    times = np.array([*ODD_TIMES, 0, -1], np.int64)
    rows = readings_block(np.zeros(6, np.uint32), times, np.zeros(6), np.zeros(6, np.uint16), 0)
    assert computed("year(time)", rows, Scope(READING)) == [None, None, 1899, 1900, 1970, 1969]
    assert computed("time + interval '1 hour' is null", rows) == [False, True, False, False, False, False]
    for text in ("date_trunc('day', time)", "week(time)", "time - arrived", "epoch(time)"):
        assert len(computed(text, rows)) == 6


# The list of functions is in the documentation


def test_every_function_and_word_is_documented() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "expressions.md").read_text()
    missing = [name for name in FUNCTIONS if f"`{name}(" not in page]
    assert not missing
