"""Recorded readings in files: every layout that utilities exchange, each row once, whatever the file holds."""

from __future__ import annotations

import gzip
import json
import os
import random
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ringmain.log import open_log
from ringmain.model.quality import Quality
from ringmain.runtime.status import SourceState
from ringmain.sources import file as file_module
from ringmain.sources import file_blocks
from ringmain.sources.file_settings import FileSettings
from ringmain.sources.types import source_type
from tests.conftest import wait_until
from tests.sources.file_rig import SECOND, Field, rows_of

T0 = 1_700_000_000
SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"


@pytest.fixture
def field(tmp_path: Path) -> Iterator[Field]:
    field = Field(tmp_path)
    yield field
    field.close()


def at(text: str, zone: str = "UTC", fold: int = 0) -> int:
    """ns UTC of a local time."""
    local = datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold)
    return int(local.astimezone(UTC).timestamp()) * SECOND


LONG = "meter,time,value\na,2026-01-01T00:00:00Z,1.5\nb,2026-01-01T00:15:00Z,-2\na,2026-01-01T00:30:00Z,3e2\n"


def test_rows_of_a_long_table_become_readings_in_their_order(field: Field) -> None:
    field.replay(LONG, unit="kW", medium="electricity", device="{meter}")
    assert field.rows() == [
        ("m/a", at("2026-01-01T00:00:00"), 1.5, 0),
        ("m/b", at("2026-01-01T00:15:00"), -2.0, 0),
        ("m/a", at("2026-01-01T00:30:00"), 300.0, 0),
    ]
    attributes = field.log.catalogue().attributes_of(field.log.catalogue().id_of("m/b") or 0)
    assert (attributes.unit, attributes.medium, attributes.device) == ("kW", "electricity", "b")
    assert field.letters() == []


def test_a_series_named_by_many_columns_is_found_however_many_texts_each_of_them_has(field: Field) -> None:
    count, columns = 307, "abcdefgh"
    lines = ["time,value," + ",".join(columns)]
    for row in range(2 * count):  # 307 texts in each of eight columns: more combinations than 64 bits number
        texts = ",".join(f"{column}{(row * (2 * place + 1)) % count}" for place, column in enumerate(columns))
        lines.append(f"2026-01-01T00:{row // 60:02d}:{row % 60:02d}Z,{row},{texts}")
    key = "/".join(f"{{{column}}}" for column in columns)
    field.replay("\n".join(lines) + "\n", series=key)
    wanted = [
        "/".join(f"{column}{(row * (2 * place + 1)) % count}" for place, column in enumerate(columns))
        for row in range(2 * count)
    ]
    assert [(row[0], row[2]) for row in field.rows()] == [(key, float(row)) for row, key in enumerate(wanted)]
    assert len(field.log.catalogue()) == count


def test_a_wide_table_has_a_series_a_column_with_the_units_of_its_units_line(field: Field) -> None:
    text = "time,u1,u2,note\n,V,[kV],\n2026-01-01 00:00,230.5,,x\n2026-01-01 00:15,231,20.25,y\n2026-01-01 00:30,,,\n"
    field.replay(text, series="ss/{column}", value=["u1", "u2"], units_line=True)
    assert [(key, value) for key, _, value, _ in field.rows()] == [
        ("ss/u1", 230.5),
        ("ss/u1", 231.0),
        ("ss/u2", 20.25),
    ]
    catalogue = field.log.catalogue()
    assert [catalogue.attributes_of(catalogue.id_of(f"ss/{c}") or 0).unit for c in ("u1", "u2")] == [
        "V",
        "kV",
    ]
    assert field.status.received == 3


def test_all_columns_that_nothing_else_names_are_values(field: Field) -> None:
    field.replay("time,site,a,b\n5,x,1,2\n", series="{site}/{column}", value="*", time_format="s")
    assert field.rows() == [("x/a", 5 * SECOND, 1.0, 0), ("x/b", 5 * SECOND, 2.0, 0)]


def test_a_german_table_with_separate_date_and_time(field: Field) -> None:
    text = (
        "Auswertung 2026;;;\r\n\r\nZähler;Datum;Uhrzeit;Wert;Status\r\n"
        "DE-1;01.07.2026;00:15:00;1.234,5;W\r\nDE-1;01.07.2026;00:30:00;-0,5;E\r\nDE-2;01.07.2026;00:30:00;-;W\r\n"
    )
    field.replay(
        text,
        encoding="cp1252",
        separator=";",
        decimal=",",
        thousands=".",
        skip_lines=1,
        series="z/{Zähler}",
        time=["Datum", "Uhrzeit"],
        time_format="%d.%m.%Y %H:%M:%S",
        value="Wert",
        quality="Status",
        qualities={"W": "good", "E": "estimated questionable"},
        timezone="Europe/Berlin",
    )
    assert field.rows() == [
        ("z/DE-1", at("2026-07-01T00:15:00", "Europe/Berlin"), 1234.5, 0),
        (
            "z/DE-1",
            at("2026-07-01T00:30:00", "Europe/Berlin"),
            -0.5,
            int(Quality.ESTIMATED | Quality.QUESTIONABLE),
        ),
    ]
    assert field.letters() == []


@pytest.mark.parametrize("repeated", ["order", "earlier", "later"])
def test_the_hour_that_comes_twice_in_autumn(field: Field, repeated: str) -> None:
    quarters = ["01:45", "02:00", "02:15", "02:30", "02:45", "02:00", "02:15", "02:30", "02:45", "03:00"]
    text = "meter,time,value\n" + "".join(
        f"{meter},2026-10-25 {q},{n}\n" for n, q in enumerate(quarters) for meter in "ab"
    )
    field.replay(text, timezone="Europe/Berlin", repeated_hour=repeated)
    first = at("2026-10-25T01:45:00", "Europe/Berlin")
    quarter = 900 * SECOND
    places = {
        "order": range(10),
        "earlier": [0, 1, 2, 3, 4, 1, 2, 3, 4, 9],
        "later": [0, 5, 6, 7, 8, 5, 6, 7, 8, 9],
    }[repeated]
    for meter in "ab":
        assert [time for key, time, _, _ in field.rows() if key == f"m/{meter}"] == [
            first + n * quarter for n in places
        ]


def test_the_hour_that_is_skipped_in_spring_has_no_rows(field: Field) -> None:
    text = "meter,time,value\na,2026-03-29 01:59,1\na,2026-03-29 02:30,2\na,2026-03-29 03:00,3\n"
    field.replay(text, timezone="Europe/Berlin")
    assert [value for _, _, value, _ in field.rows()] == [1.0, 3.0]
    assert field.rows()[1][1] - field.rows()[0][1] == 60 * SECOND
    assert "line 3: expected a time that the zone has" in field.reasons()[0]


def test_times_with_and_without_offset_in_one_file(field: Field) -> None:
    forms = [
        "2026-07-01T12:00:00Z",
        "2026-07-01T12:00:00+02:00",
        "2026-07-01T12:00:00.000000001",
        "2026-07-01",
    ]
    text = "meter,time,value\n" + "".join(f"a,{form},1\n" for form in forms)
    field.replay(text, timezone="Europe/Berlin")
    noon = at("2026-07-01T12:00:00")
    two = 2 * 3600 * SECOND
    assert [time for _, time, _, _ in field.rows()] == [
        noon,
        noon - two,
        noon - two + 1,
        at("2026-07-01T00:00:00") - two,
    ]


@pytest.mark.parametrize(
    ("form", "text", "ns"),
    [
        ("s", "1700000000", T0 * SECOND),
        ("s", "1700000000.25", T0 * SECOND + 250_000_000),
        ("ms", "1700000000123", T0 * SECOND + 123_000_000),
        ("us", "1700000000123456", T0 * SECOND + 123_456_000),
        ("ns", "1700000000123456789", T0 * SECOND + 123_456_789),
        ("%Y%m%d%H%M", "202607011200", 1_782_907_200 * SECOND),
    ],
)
def test_forms_of_time(field: Field, form: str, text: str, ns: int) -> None:
    field.replay(f"meter,time,value\na,{text},1\n", time_format=form)
    assert [time for _, time, _, _ in field.rows()] == [ns]


def test_a_row_that_is_no_reading_is_a_letter_with_its_line_and_the_others_are_stored(field: Field) -> None:
    text = (
        "meter,time,value\n"
        "a,2026-01-01T00:00:00Z,1\n"
        "a,yesterday,2\n"
        "a,2026-01-01T00:00:02Z,abc\n"
        "a,2026-01-01T00:00:03Z\n"
        "\n"
        "a,2026-02-30T00:00:00Z,5\n"
        ",2026-01-01T00:00:06Z,6\n"
        "a,2026-01-01T00:00:07Z,7,8\n"
        "a,2026-01-01T00:00:08Z,\n"
        "a,2026-01-01T00:00:09Z,9\n"
    )
    field.replay(text)
    assert [value for _, _, value, _ in field.rows()] == [1.0, 9.0]
    assert field.letters() == [
        ("in.csv", b"a,yesterday,2", "line 3: expected a time (iso), found 'yesterday'"),
        ("in.csv", b"a,2026-01-01T00:00:02Z,abc", "line 4: expected a number in column 'value', found 'abc'"),
        ("in.csv", b"a,2026-01-01T00:00:03Z", "line 5: expected 3 fields, found 2"),
        (
            "in.csv",
            b"a,2026-02-30T00:00:00Z,5",
            "line 7: expected a time (iso), found '2026-02-30T00:00:00Z'",
        ),
        (
            "in.csv",
            b",2026-01-01T00:00:06Z,6",
            "line 8: expected a text in column 'meter', for the key of the series, found none",
        ),
        ("in.csv", b"a,2026-01-01T00:00:07Z,7,8", "line 9: expected 3 fields, found 4"),
    ]
    assert field.status.received == 9


def test_a_flood_of_bad_rows_is_counted_and_not_a_flood_of_letters(field: Field) -> None:
    field.replay("meter,time,value\n" + "a,never,1\n" * 5000 + "a,2026-01-01T00:00:00Z,1\n")
    assert len(field.rows()) == 1
    assert len(field.letters()) == 301
    assert field.reasons()[-1].startswith(
        "4700 more lines, from 302 to 5001: expected rows such as the layout says"
    )


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_excels_first_line_names_the_separator_and_a_mark_the_encoding(field: Field, ending: str) -> None:
    text = ending.join(["sep=;", "meter;time;value", "ä;2026-01-01T00:00:00Z;1", ""])
    field.replay(text.encode("utf-8-sig"), encoding="cp1252")
    assert field.rows() == [("m/ä", at("2026-01-01T00:00:00"), 1.0, 0)]


@pytest.mark.parametrize(
    "encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252", "iso-8859-15", "cp437"]
)
def test_encodings(field: Field, encoding: str) -> None:
    text = "meter,time,value\n" + "".join(f"Zähler{n},2026-01-01T00:00:00Z,{n}\n" for n in range(50))
    field.replay(text, encoding=encoding)
    assert [key for key, _, _, _ in field.rows()] == [f"m/Zähler{n}" for n in range(50)]


def test_a_line_in_another_encoding_is_a_letter(field: Field) -> None:
    lines = [
        b"meter,time,value",
        "ä,2026-01-01T00:00:00Z,1".encode(),
        "ä,2026-01-01T00:00:00Z,2".encode("cp1252"),
        b"b,2026-01-01T00:00:00Z,3",
    ]
    field.replay(b"\n".join(lines))
    assert [value for _, _, value, _ in field.rows()] == [1.0, 3.0]
    assert field.reasons() == ["line 3: expected text in utf-8, found byte 0xe4 at 0"]


def test_comments_and_columns_without_a_header(field: Field) -> None:
    text = "# made by x\na,2026-01-01T00:00:00Z,1\n# between\na,nonsense,2\nb,2026-01-01T00:00:01Z,3\n"
    field.replay(text, comment="#", columns=["meter", "time", "value"])
    assert [value for _, _, value, _ in field.rows()] == [1.0, 3.0]
    assert field.reasons() == ["line 4: expected a time (iso), found 'nonsense'"]


def test_a_quote_that_is_not_closed_takes_no_other_line_with_it(field: Field) -> None:
    lines = [
        "meter,time,value",
        'a,1,"1"',
        '"b,2,2',
        "c,3,3",
        'd"x,4,4',
        '"e,e",5,5',
        '"f\n,6,6',
        'g,7,7"',
        'h,8,"8',
    ]
    field.replay("\n".join(lines), time_format="s")
    assert [(key, value) for key, _, value, _ in field.rows()] == [
        ("m/a", 1.0),
        ("m/c", 3.0),
        ('m/d"x', 4.0),
        ("m/e,e", 5.0),
    ]
    told = field.reasons()
    assert [reason.partition(":")[0] for reason in told] == [
        "line 3",
        "line 7",
        "line 8",
        "line 9",
        "line 10",
    ]
    assert "expected a quoted field to end in its line" in told[0]


def test_lines_that_end_with_cr_alone_are_told(field: Field) -> None:
    field.replay("meter,time,value\na,1,1\rb,2,2\nc,3,3\r\n", time_format="s")
    assert [key for key, _, _, _ in field.rows()] == ["m/c"]
    assert "found CR without LF at 5" in field.reasons()[0]


@pytest.mark.parametrize(
    "deep",
    [
        b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"a":' * 40_000 + b"1" + b"}" * 40_000,
        b"[" * 200_000,
    ],
)
def test_an_object_of_many_levels_harms_nobody(field: Field, deep: bytes) -> None:
    good = b'{"meter": "a", "time": 1, "value": 1, "more": [[[1, 2], "[[[["], {}]}'
    field.replay(b"\n".join([good, deep, good]), name="in.ndjson", time_format="s")
    assert len(field.rows()) == 2
    assert "line 2: expected at most 64 levels of objects and lists, found " in field.reasons()[0]


def test_a_header_of_a_hundred_thousand_columns_is_refused(field: Field) -> None:
    field.replay("time,value" + ",a" * 100_000 + "\n", time_format="s", series="x")
    assert "expected at most 20000 columns, found 100002" in field.reasons()[0]


def test_ndjson_with_lines_that_are_none(field: Field) -> None:
    lines = [
        {"meter": "a", "time": "2026-01-01T00:00:00Z", "value": 1, "more": {"x": [1]}},
        {"meter": "b", "time": "2026-01-01T00:00:01Z", "value": 2.5},
        {"meter": "b", "time": "2026-01-01T00:00:02Z", "value": None},
        {"meter": "b", "time": "2026-01-01T00:00:03Z", "value": "much"},
        {"meter": 7, "time": "2026-01-01T00:00:04Z", "value": 5},
    ]
    text = "\n".join([json.dumps(lines[0]), "{broken", *(json.dumps(line) for line in lines[1:]), "[1]", ""])
    field.replay(text, name="in.ndjson")
    assert [(key, value) for key, _, value, _ in field.rows()] == [("m/a", 1.0), ("m/b", 2.5), ("m/7", 5.0)]
    reasons = field.reasons()
    assert [reason.partition(":")[0] for reason in reasons] == ["line 2", "line 5", "line 7"]
    assert "expected a number in column 'value', found 'much'" in reasons[1]


@pytest.mark.parametrize("spoil", [False, True])
def test_objects_give_the_same_whether_all_are_alike_or_one_is_not(field: Field, spoil: bool) -> None:
    lines = [
        {
            "meter": n % 2,
            "time": 1_700_000_000_123_456_789 + n,
            "value": n if n % 3 else n + 0.5,
            "q": "estimated",
        }
        for n in range(100)
    ]
    text = "\n".join(json.dumps(line) for line in lines)
    if spoil:
        text += '\n{"meter": true, "time": "x", "value": {}}\n'
    field.replay(
        text, name="in.ndjson", time_format="ns", quality="q", thousands=".", decimal=",", separator=";"
    )
    assert field.rows() == [
        (f"m/{n % 2}", 1_700_000_000_123_456_789 + n, float(n if n % 3 else n + 0.5), int(Quality.ESTIMATED))
        for n in range(100)
    ]
    assert len(field.letters()) == spoil


def test_parquet_with_times_of_its_own_and_null_values(field: Field, tmp_path: Path) -> None:
    table = pa.table(
        {
            "meter": pa.array(["a", "b", None, "a"]).dictionary_encode(),
            "time": pa.array([0, 1, 2, 3], pa.timestamp("ms", tz="Europe/Berlin")),
            "value": pa.array([1.0, None, 3.0, float("nan")]),
            "q": pa.array([0, 1, 2, 70_000]),
        }
    )
    pq.write_table(table, tmp_path / "in.parquet")
    field.replay(name="in.parquet", quality="q")
    assert field.rows() == [("m/a", 0, 1.0, 0)]
    assert [reason.partition(",")[0] for reason in field.reasons()] == [
        "line 3: expected a text in column 'meter'",
        "line 4: expected bits from 0 to 65535 in column 'q'",
    ]


ODD_COLUMNS = {
    "list": pa.array([[1.0], [2.0]]),
    "struct": pa.array([{"a": 1}, {"a": 2}]),
    "decimal": pa.array(["1.5", "2.5"]).cast(pa.decimal128(10, 2)),
    "binary": pa.array([b"\xff\xfe", b"b"]),
    "time of day": pa.array([1, 2], pa.time64("ns")),
    "duration": pa.array([1, 2], pa.duration("s")),
    "large text": pa.array(["1.5", "2.5"], pa.large_string()),
    "date": pa.array([0, 1], pa.date32()),
    "boolean": pa.array([True, False]),
    "nothing": pa.nulls(2),
    "small": pa.array([1, 2], pa.int8()),
    "far time": pa.array([2**62, -(2**62)], pa.timestamp("ms")),
    "skipped time": pa.array([1_774_751_400_000_000_001, 1_774_751_400_000_000_002], pa.timestamp("ns")),
    "half": pa.array([1.5, 2.5], pa.float32()).cast(pa.float16()),
}


@pytest.mark.parametrize("kind", list(ODD_COLUMNS))
@pytest.mark.parametrize("place", ["meter", "time", "value"])
def test_parquet_columns_of_any_type_give_readings_or_a_reason(
    field: Field, tmp_path: Path, kind: str, place: str
) -> None:
    good = {
        "meter": pa.array(["a", "b"]),
        "time": pa.array([0, 1], pa.timestamp("s", tz="UTC")),
        "value": pa.array([1.0, 2.0]),
    }
    pq.write_table(pa.table({**good, place: ODD_COLUMNS[kind]}), tmp_path / "in.parquet")
    field.replay(name="in.parquet", timezone="Europe/Berlin")
    empty = 2 if (place, kind) == ("value", "nothing") else 0
    rows = len(field.rows())
    assert rows == 2 - empty or field.letters()
    if (place, kind) in (("value", "decimal"), ("value", "large text"), ("value", "small"), ("time", "date")):
        assert rows == 2
    if kind in ("list", "struct") or (place, kind) in (("time", "far time"), ("time", "skipped time")):
        assert rows == 0
    assert not any("OverflowError" in reason or "ValueError" in reason for reason in field.reasons())


def test_what_export_writes_is_read_again_as_it_was(field: Field, tmp_path: Path) -> None:
    table = pa.table(
        {
            "series": pa.array(["k/1", "k/2"]).dictionary_encode(),
            "time": pa.array([5, 6], pa.timestamp("ns", tz="UTC")),
            "value": [1.5, -0.0],
            "quality": pa.array([0, 0x0101], pa.uint16()),
            "unit": pa.array(["W", "kWh"]).dictionary_encode(),
        }
    )
    pq.write_table(table, tmp_path / "x.parquet")
    field.replay(name="x.parquet", series="{series}", quality="quality", unit="{unit}")
    assert field.rows() == [("k/1", 5, 1.5, 0), ("k/2", 6, -0.0, 0x0101)]


@pytest.mark.parametrize("packing", ["gz", "zst"])
def test_packed_files(field: Field, packing: str) -> None:
    text = ("meter,time,value\n" + "".join(f"a,{T0 + n},{n}\n" for n in range(5000))).encode()
    if packing == "gz":  # two members one after the other
        data = gzip.compress(text[:30_000]) + gzip.compress(text[30_000:])
    else:
        data = pa.compress(text, "zstd", asbytes=True)
    field.replay(data, name=f"in.csv.{packing}", time_format="s")
    assert [value for _, _, value, _ in field.rows()] == [float(n) for n in range(5000)]


def test_a_cut_gzip_gives_what_is_whole_and_the_reason(field: Field) -> None:
    text = (
        "meter,time,value\n" + "".join(f"a,{T0 + n},{random.Random(n).random()}\n" for n in range(5000))
    ).encode()
    field.replay(gzip.compress(text)[:40_000], name="in.csv.gz", time_format="s")
    rows = field.rows()
    assert 500 < len(rows) < 5000
    assert [time for _, time, _, _ in rows] == [(T0 + n) * SECOND for n in range(len(rows))]
    assert "expected the rest of the gzip data, found the end of the file" in field.reasons()[0]
    assert f"behind line {len(rows) + 1}" in field.reasons()[0]
    field.start(path="in.csv.gz", time_format="s")
    wait_until(lambda: field.status.state is SourceState.BACKOFF)
    assert "expected the rest of the gzip data" in (field.status.last_error or "")
    assert len(field.letters()) == 1, "told once"


@pytest.mark.parametrize(
    ("data", "name", "message"),
    [
        (os.urandom(100_000), "in.csv", "expected"),
        (b"", "in.csv", "found an empty file"),
        (b"a;b;c\n1;2;3\n", "in.csv", "expected columns 'meter', 'time', 'value', found 'a;b;c'"),
        (b"PAR1" + os.urandom(5000) + b"PAR1", "in.parquet", "expected a Parquet file"),
        (b"\x1f\x8b" + os.urandom(1000), "in.csv", "expected"),
        (b"x", "in.dat", "expected a name that ends in .csv"),
        (b"\0" * 50_000, "in.csv", "expected"),
    ],
)
def test_what_is_no_file_of_readings_is_told(field: Field, data: bytes, name: str, message: str) -> None:
    field.replay(data, name=name)
    assert field.rows() == []
    assert message in field.reasons()[0]


def test_a_line_of_many_megabytes_is_passed_over_in_bounded_memory(field: Field) -> None:
    head = b"meter,time,value\na,1,1\n"
    field.replay(head + b"x" * 9_000_000 + b"\nb,2,2\n" + b"y" * 300_000 + b"\nc,3,3\n", time_format="s")
    assert [key for key, _, _, _ in field.rows()] == ["m/a", "m/b", "m/c"]
    assert field.reasons() == [
        "line 3: expected a line of at most 262144 bytes, found 9000001",
        "line 5: expected a line of at most 262144 bytes, found 300000",
    ]


def test_files_of_a_directory_come_in_order_and_go_to_done_or_bad(field: Field) -> None:
    inbox = field.directory / "inbox"
    inbox.mkdir()
    for name, text in (("b.csv", "b"), ("a.csv", "a")):
        field.write(f"meter,time,value\n{text},1,1\n", f"inbox/{name}")
    field.write("nonsense", "inbox/c.csv")
    field.write("not yet", "inbox/.hidden.csv")
    field.write("other", "inbox/readme.txt")
    field.start(path="inbox", match="*.csv", time_format="s")
    wait_until(lambda: len(list((inbox / "done").glob("*"))) == 2 and (inbox / "bad/c.csv").exists())
    field.write("meter,time,value\nlater,2,2\n", "inbox/a.csv")
    wait_until(lambda: (inbox / "done/a.csv.1").exists())
    assert [key for key, _, _, _ in field.rows()] == ["m/a", "m/b", "m/later"]
    assert sorted(path.name for path in inbox.iterdir() if path.is_file()) == [".hidden.csv", "readme.txt"]
    assert field.letters()[0][0] == "c.csv"
    assert field.counters.value("ringmain_file_files_total", "files", "done") == 3
    assert field.counters.value("ringmain_file_files_total", "files", "bad") == 1


def test_a_file_is_not_taken_while_it_grows(field: Field) -> None:
    inbox = field.directory / "inbox"
    inbox.mkdir()
    path = field.write("meter,time,value\n", "inbox/a.csv")
    field.start(path="inbox", time_format="s", settle="1s")
    until_s = time.monotonic() + 1.5
    count = 0
    while time.monotonic() < until_s:
        with path.open("a") as file:
            count += 1
            file.write(f"a,{count},{count}\n")
        threading.Event().wait(0.01)
    wait_until(lambda: (inbox / "done/a.csv").exists())
    assert [value for _, _, value, _ in field.rows()] == [float(n) for n in range(1, count + 1)]


def test_a_file_whose_end_is_stored_and_that_was_not_moved_yet_is_not_read_again(
    field: Field, monkeypatch: pytest.MonkeyPatch
) -> None:
    inbox = field.directory / "inbox"
    inbox.mkdir()
    field.write("meter,time,value\na,1,1\n", "inbox/a.csv")
    real = file_module.FileSource._put_away
    refusals = iter([OSError(5, "the power fails here")])

    def put_away(self: Any, path: Path, *, bad: bool) -> str:
        refusal = next(refusals, None)
        if refusal is not None:
            raise refusal
        return real(self, path, bad=bad)

    monkeypatch.setattr(file_module.FileSource, "_put_away", put_away)
    field.start(path="inbox", time_format="s", after="delete")
    wait_until(lambda: not (inbox / "a.csv").exists())
    field.write("meter,time,value\na,1,2\n", "inbox/a.csv")  # of the same size
    wait_until(lambda: len(field.rows()) == 2)
    assert [value for _, _, value, _ in field.rows()] == [1.0, 2.0]


def test_a_restart_reads_on_where_it_was_also_when_the_file_has_grown(field: Field) -> None:
    field.replay("meter,time,value\na,1,1\n", time_format="s")
    field.reopen()
    field.start(time_format="s")
    wait_until(lambda: field.status.state is SourceState.RUNNING)
    field.supervisor.stop(60)
    with (field.directory / "in.csv").open("a") as file:
        file.write("b,2,2\n")
    field.start(time_format="s")
    wait_until(lambda: len(field.rows()) == 2)
    field.supervisor.stop(60)
    field.write("meter,time,value\nz,3,3\n")
    field.start(time_format="s")
    wait_until(lambda: len(field.rows()) == 3)
    assert [key for key, _, _, _ in field.rows()] == ["m/a", "m/b", "m/z"]


KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from ringmain.sources import file, file_blocks
file.PIECE_ROWS = 700
file_blocks.BLOCK_BYTES = 1 << 16
file_blocks.TextFile.blocks.__defaults__ = (1 << 16,)
from tests.sources.file_rig import Field
field = Field(Path(sys.argv[1]))
field.start(path=sys.argv[3], time_format="%Y-%m-%d %H:%M:%S", timezone="Europe/Berlin")
print("ready", flush=True)
while True:
    print(field.status.readings, flush=True)
    if field._finished():
        print("finished", flush=True)
        field.close()
        break
"""


@pytest.mark.parametrize("name", ["in.csv", "in.csv.gz"])
def test_killed_at_any_point_every_row_is_stored_once(tmp_path: Path, name: str) -> None:
    """Through the repeated hour, bad rows and a packed file: the same steps come again."""
    lines = ["meter,time,value"]
    zone = ZoneInfo("Europe/Berlin")
    expected = []
    for n in range(20_000):
        moment = datetime.fromtimestamp(1_792_880_000 + n, zone)  # the night of 25 October 2026
        lines.append(f"m{n % 3},{moment:%Y-%m-%d %H:%M:%S},{n}")
        expected.append((f"m/m{n % 3}", (1_792_880_000 + n) * SECOND, float(n), 0))
        if n % 5000 == 77:
            lines.append("broken")
    text = "\n".join(lines).encode() + b"\n"
    (tmp_path / name).write_bytes(gzip.compress(text) if name.endswith("gz") else text)
    root = str(Path(__file__).resolve().parents[2])
    for after in (9_000, 1_000_000):
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(tmp_path), root, name], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip().isdigit() and int(line) >= after:
                break
        process.kill() if after < 1_000_000 else process.wait()
        process.wait()
        process.stdout.close()
    with open_log(tmp_path / "log") as log:
        assert rows_of(log) == expected
        assert sum(frame.row_count for frame in log.read("deadletters")) == 4


def test_in_event_time_rows_come_as_they_were_recorded(field: Field) -> None:
    rows = "".join(f"a,{T0 + 10 * n},{n}\n" for n in range(30))
    began_s = time.monotonic()
    field.replay("meter,time,value\n" + rows, time_format="s", speed="x600")  # 290 s in 0.48 s
    passed_s = time.monotonic() - began_s
    assert [value for _, _, value, _ in field.rows()] == [float(n) for n in range(30)]
    arrivals = [frame.arrival_ns for frame in field.log.read("readings") for _ in range(frame.row_count)]
    assert passed_s > 0.4
    assert arrivals[-1] - arrivals[0] > 0.35 * SECOND
    assert len({*arrivals}) > 3


@pytest.mark.parametrize(
    ("given", "key", "message"),
    [
        ({"separator": ";;"}, "separator", "expected one ASCII character"),
        ({"separator": ",", "decimal": ","}, "decimal", "another character than the separator"),
        ({"encoding": "utf-9"}, "encoding", "expected an encoding"),
        ({"time_format": "dd.mm.yyyy"}, "time_format", "expected iso, s, ms"),
        ({"timezone": "Berlin"}, "timezone", "expected a time zone"),
        ({"speed": "x0"}, "speed", "expected max, x1"),
        ({"speed": "fast"}, "speed", "expected max, x1"),
        ({"value": "*"}, "value", "expected {column}"),
        ({"value": ["a", "b"]}, "value", "expected one column"),
        ({"series": "a/{b"}, "series", "expected {name}"),
        ({"qualities": {"W": "fine"}}, "qualities.W", "expected words of"),
        ({"unit": "kWatts"}, "unit", "expected"),
        ({"poll": "0s"}, "poll", "expected 0.01 s"),
    ],
)
def test_settings_that_cannot_be_used_are_told(given: dict[str, Any], key: str, message: str) -> None:
    full = {"path": "x", "series": "{a}", "time": "t", **given}
    errors, _ = msgspec.convert(full, FileSettings).check()
    assert errors[0][0] == key
    assert message in errors[0][1]


def test_a_path_that_is_not_there_is_told_and_waited_for(field: Field) -> None:
    field.start(time_format="s")
    wait_until(lambda: field.status.state is SourceState.BACKOFF)
    assert "expected a file or directory" in (field.status.last_error or "")
    field.write("meter,time,value\na,1,1\n")
    wait_until(lambda: len(field.rows()) == 1)


def test_the_type_is_found_by_its_name() -> None:
    assert source_type("file") is file_module.SOURCE_TYPE
    assert file_blocks.BLOCK_BYTES == 4 << 20


def test_a_real_month_of_feed_in_out_of_a_market_message(field: Field) -> None:
    """A month of a photovoltaic plant (MSCONS 2.2e), with quarters that do not begin at the quarter."""
    path = SHARED / "mscons" / "MSCONS_TL_SAMPLE01.txt"
    if not path.exists():
        pytest.skip("the shared real files are not here")
    text = path.read_text(encoding="latin-1")
    found = re.findall(r"QTY\+[0-9]+:([0-9.]+)[^']*'\s*DTM\+163:([0-9]{12})\?\+01", text)
    assert len(found) > 2000
    lines = ["meter;time;value", *(f"pv;{at};{value.replace('.', ',')}" for value, at in found)]
    field.replay(
        "\n".join(lines), separator=";", decimal=",", time_format="%Y%m%d%H%M", timezone="Europe/Berlin"
    )
    rows = field.rows()
    assert [value for _, _, value, _ in rows] == [float(value) for value, _ in found]
    times = [datetime.fromtimestamp(ns / SECOND, ZoneInfo("Etc/GMT-1")) for _, ns, _, _ in rows]
    assert [f"{time:%Y%m%d%H%M}" for time in times] == [at for _, at in found]
    assert field.letters() == []
