"""What a case is, what it finds, and what it says of what is wrong with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from ringmain.flows.cases.compare import Difference, Kind
from ringmain.flows.cases.layout import CaseError, find_cases
from tests.flows.cases.writing import FLOW, INPUT, run, write

GIVEN = """series,time,value
m1,2026-03-01T12:00:00Z,1.5
m2,2026-03-01T12:00:00Z,2.5
m1,2026-03-01T12:00:02Z,nan
"""


def test_a_case_whose_rows_come_out_as_expected_passes(tmp_path: Path) -> None:
    result = run(write(tmp_path, expected=GIVEN))
    assert result.passed
    assert (result.rows_in, result.rows_out) == (3, 3)


def test_a_missing_an_unexpected_and_a_different_row_are_told_apart(tmp_path: Path) -> None:
    expected = GIVEN.replace("m2,2026-03-01T12:00:00Z,2.5", "m2,2026-03-01T12:00:09Z,7").replace(
        "1.5", "1.25"
    )
    assert run(write(tmp_path, expected=expected)).differences == (
        Difference(Kind.DIFFERENT, "kilowatts", "m1 2026-03-01T12:00:00Z", "value", "1.25", "1.5"),
        Difference(Kind.MISSING, "kilowatts", "m2 2026-03-01T12:00:09Z", "value", "7"),
        Difference(Kind.UNEXPECTED, "kilowatts", "m2 2026-03-01T12:00:00Z", "value", "", "2.5"),
    )


def test_rows_in_another_order_are_a_difference(tmp_path: Path) -> None:
    first, *rows = GIVEN.splitlines()
    found = run(write(tmp_path, expected="\n".join([first, rows[1], rows[0], rows[2]]))).differences
    assert [(one.kind, one.key) for one in found] == [(Kind.ORDER, "m2 2026-03-01T12:00:00Z")]


def test_numbers_may_differ_by_the_tolerance_of_the_case_and_no_more(tmp_path: Path) -> None:
    nearly = GIVEN.replace("1.5", "1.501")
    assert not run(write(tmp_path / "strict", expected=nearly)).passed
    assert run(write(tmp_path / "loose", expected=nearly, case="tolerance = 0.01\n")).passed


def test_only_the_columns_that_are_expected_are_compared(tmp_path: Path) -> None:
    assert run(write(tmp_path, expected="value\n1.5\n2.5\nnan\n")).passed


def test_log_time_can_be_expected_too(tmp_path: Path) -> None:
    expected = "series,arrived\nm1,2026-03-01T12:00:01Z\nm2,2026-03-01T12:00:01Z\nm1,2026-03-01T12:00:03Z\n"
    assert run(write(tmp_path, expected=expected)).passed


def test_a_header_alone_expects_nothing(tmp_path: Path) -> None:
    found = run(write(tmp_path, expected="series,time,value\n")).differences
    assert [one.kind for one in found] == [Kind.UNEXPECTED] * 3


def test_update_writes_what_comes_out_in_the_columns_that_the_file_had(tmp_path: Path) -> None:
    case = write(tmp_path, expected="series,value\nm9,1\n")
    assert [path.name for path in run(case, update=True).changed] == ["expected.csv"]
    assert (case / "expected.csv").read_text() == "series,value\nm1,1.5\nm2,2.5\nm1,nan\n"
    assert run(case).passed
    assert run(case, update=True).changed == ()


def test_a_stream_without_an_expectation_fails_only_if_rows_come(tmp_path: Path) -> None:
    flow = FLOW + (
        '[[flows.kilowatts.steps]]\ntype = "route"\ncases = [{ where = "value > 2", to = "large" }]\n'
    )
    case = write(tmp_path, flow=flow, expected="value\n1.5\nnan\n")
    (found,) = run(case).differences
    assert (found.kind, found.stream) == (Kind.UNEXPECTED, "large")
    assert "expected.large.csv" in found.key
    (case / "expected.large.csv").write_text("series,value\nm2,2.5\n")
    assert run(case).passed


def test_rows_without_arrival_arrive_at_their_time_in_whatever_order_they_stand(tmp_path: Path) -> None:
    rows = "series,time,value\nm1,2026-03-01T12:00:02,nan\nm1,2026-03-01 12:00:00,1500\nm2,2026-03-01T13:00:00+01:00,2500\n"
    assert run(write(tmp_path, input=rows, expected=GIVEN)).passed


def test_a_flow_may_read_what_another_flow_would_write(tmp_path: Path) -> None:
    flow = (
        FLOW
        + """
[flows.mean]
from = "kilowatts.1m"
value = "mean"
to = "twice"
[[flows.mean.steps]]
type = "derive"
value = "value * 2"
[flows.minute]
from = "kilowatts"
window = "1m"
values = ["mean"]
to = "kilowatts.1m"
"""
    )
    case = write(
        tmp_path,
        flow=flow,
        case='flows = ["mean"]\ntail = "1s"\n',
        input__kilowatts__1m="arrived,series,start,end,mean,revision\n"
        "2026-03-01T12:01:10Z,m1,2026-03-01T12:00:00Z,2026-03-01T12:01:00Z,2.5,0\n"
        "2026-03-01T12:01:20Z,m1,2026-03-01T12:00:00Z,2026-03-01T12:01:00Z,,1\n",
        expected="series,time,value\nm1,2026-03-01T12:00:00Z,5\nm1,2026-03-01T12:00:00Z,nan\n",
    )
    (case / "input.csv").unlink()
    assert run(case).differences == ()


def test_flows_feed_one_another_within_a_case(tmp_path: Path) -> None:
    flow = (
        FLOW
        + """
[flows.second]
from = "kilowatts"
to = "second"
[[flows.second.steps]]
type = "derive"
value = "value * 10"
"""
    )
    case = write(tmp_path, flow=flow, expected__kilowatts=GIVEN, expected__second="value\n15\n25\nnan\n")
    assert run(case).passed


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"input": INPUT.replace("1500", "x1")}, r"input\.csv:2: value: expected a number, found 'x1'"),
        ({"input": INPUT.replace("2026-03-01T12:00:02Z", "noon")}, r"input\.csv:4: time: expected a time such as"),
        ({"input": INPUT.replace("m2,", ",")}, r"input\.csv:3: expected a value in column `series`, found none"),
        ({"input": INPUT.replace("series,", "key,")}, r"input\.csv:1: expected columns series, time, value"),
        ({"input": INPUT.replace("value\n", "value,colour\n")}, r"input\.csv"),
        ({"input": INPUT.replace("series,time", "time,time")}, r"input\.csv:1: expected a name for each column"),
        ({"input": "series,time,value\nm1,2026-01-01T00:00:00Z,1\nm1,2026-12-01T00:00:00Z,1\n", "case": ""},
         r"expected at most 10000000 ticks .*: give a longer `tick`"),
        ({"case": 'tial = "1s"'}, r"case\.toml: Object contains unknown field `tial`"),
        ({"case": 'tail = "soon"'}, r"tail: expected a duration"),
        ({"case": 'flows = ["kilowat"]'}, r"no flow 'kilowat' in .*; it has kilowatts"),
        ({"case": 'config = "../none.toml"'}, r"no such file"),
        ({"flow": FLOW.replace("value / 1000", "valu / 1000")}, r"flow\.toml:\d+: flows\.kilowatts\.steps\[0\]\.value"),
        ({"expected": "series,volt\nm1,1\n"}, r"expected\.csv:1: stream 'kilowatts' has no column `volt`"),
        ({"expected__other": "a\n"}, r"expected\.other\.csv: no flow of the case writes such a stream"),
        ({}, r"expected a file expected\.csv, found none"),
        ({"input__x": "a:colour,arrived\n1,2026-03-01T12:00:00Z\n"}, r"input\.x\.csv:1: a: unknown type 'colour'"),
        ({"input__kilowatts": "series,time,value\n"}, r"input for 'kilowatts', which a flow of the case writes"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_case_is_told_with_its_place(
    tmp_path: Path, files: dict[str, str], told: str
) -> None:
    with pytest.raises(CaseError, match=told):
        run(write(tmp_path, **files))


def test_cases_are_found_below_a_directory_and_by_their_file(tmp_path: Path) -> None:
    one, two = write(tmp_path / "a" / "one"), write(tmp_path / "two")
    assert find_cases(tmp_path) == [one, two]
    assert find_cases(two / "flow.toml") == [two]
    with pytest.raises(CaseError, match="no such directory"):
        find_cases(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CaseError, match="no case at or below it"):
        find_cases(tmp_path / "empty")
