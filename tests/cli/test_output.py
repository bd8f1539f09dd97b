"""Rows on the command line, in each format."""

from __future__ import annotations

import csv
import io
import json

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringmain.cli.output import Format, print_rows, rfc3339
from ringmain.model.schemas import TIMESTAMP

SCHEMA = pa.schema(
    [
        ("series", pa.string()),
        ("time", TIMESTAMP),
        ("value", pa.float64()),
        ("n", pa.int64()),
        ("payload", pa.binary()),
    ]
)
ROWS = [
    {"series": "m1/p", "time": 1_700_000_000_123_456_789, "value": 1.5, "n": 1, "payload": b"a"},
    {"series": 'm2/"p", x', "time": 0, "value": None, "n": -7, "payload": b"\xff\n"},
]


def batch_of(rows: list[dict[str, object]]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist(rows, SCHEMA)


def printed(output: str, batches: list[pa.RecordBatch]) -> bytes:
    stream = io.BytesIO()
    print_rows(SCHEMA, batches, output, stream)
    return stream.getvalue()


def test_json_is_one_array_with_times_exact_to_the_nanosecond() -> None:
    rows = json.loads(printed("json", [batch_of(ROWS[:1]), batch_of(ROWS[1:])]))
    assert rows == [
        {"series": "m1/p", "time": "2023-11-14T22:13:20.123456789Z", "value": 1.5, "n": 1, "payload": "a"},
        {"series": 'm2/"p", x', "time": "1970-01-01T00:00:00Z", "value": None, "n": -7, "payload": "\\xff\n"},
    ]


def test_json_of_no_rows_is_an_empty_array() -> None:
    assert json.loads(printed("json", [])) == []


def test_csv_has_a_header_and_quotes_what_needs_it() -> None:
    rows = list(csv.reader(io.StringIO(printed("csv", [batch_of(ROWS)]).decode())))
    assert rows[0] == ["series", "time", "value", "n", "payload"]
    assert rows[2][:4] == ['m2/"p", x', "1970-01-01T00:00:00Z", "", "-7"]


def test_arrow_reads_back_as_what_was_printed() -> None:
    table = pa.ipc.open_stream(printed("arrow", [batch_of(ROWS)])).read_all()
    assert table.to_batches() == [batch_of(ROWS)]


def test_a_table_aligns_numbers_right_and_shows_missing_as_a_dash() -> None:
    lines = printed("table", [batch_of(ROWS)]).decode().splitlines()
    assert lines[0].split() == ["series", "time", "value", "n", "payload"]
    assert lines[0].index("value") + len("value") == lines[2].index("1.5") + len("1.5")
    assert lines[0].index("series") == lines[2].index("m1/p") == lines[3].index("m2/")
    assert lines[2].split()[-3:] == ["1.5", "1", "a"]
    assert "—" in lines[3]
    assert len(lines) == 4


def test_a_table_of_no_rows_still_shows_its_columns() -> None:
    assert printed("table", []).decode().splitlines()[0].split() == SCHEMA.names


@pytest.mark.parametrize("output", [choice.value for choice in Format])
def test_every_format_answers_with_the_number_of_rows(output: str) -> None:
    assert print_rows(SCHEMA, [batch_of(ROWS), batch_of(ROWS)], output, io.BytesIO()) == 4


@settings(derandomize=True, deadline=None, max_examples=100)
@given(st.integers(-(2**60), 2**62))
def test_a_printed_time_reads_back_to_the_same_nanosecond(time_ns: int) -> None:
    text = rfc3339(pa.array([time_ns], TIMESTAMP))[0].as_py()
    whole, _, fraction = text.removesuffix("Z").partition(".")
    parsed = pa.array([whole], pa.string()).cast(pa.timestamp("s")).cast(pa.int64())[0].as_py()
    assert parsed * 10**9 + int(fraction.ljust(9, "0") or 0) == time_ns


def test_control_characters_of_a_payload_do_not_reach_the_terminal() -> None:
    batch = pa.RecordBatch.from_pydict({"payload": [b"\x1b[2Jgone"], "reason": ["x" * 300]})
    out = io.BytesIO()
    print_rows(batch.schema, [batch], "table", out)
    text = out.getvalue().decode()
    assert "\x1b" not in text
    assert r"\x1b[2Jgone" in text
    assert "x" * 300 in text  # the last column is never cut
