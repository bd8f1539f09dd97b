"""What `ringmain lint` says of flows as a whole: with file, line, key, and the nearest right name."""

from __future__ import annotations

from pathlib import Path

import pytest

from ringmain.config import ConfigError, Problem, load

HEAD = '[node]\nname = "x"\n'


def flow(name: str, *, to: str = "", from_: str = "readings", steps: str = "") -> str:
    steps = steps or 'type = "filter"\nwhere = "unit = \'W\'"'
    inner = "".join(f"[[flows.{name}.steps]]\n{step}\n" for step in steps.split("---\n"))
    return f'[flows.{name}]\nfrom = "{from_}"\nto = "{to or name + ".out"}"\n{inner}'


def told(tmp_path: Path, text: str) -> list[Problem]:
    """Errors, or else warnings, of a file."""
    path = tmp_path / "ringmain.toml"
    path.write_text(HEAD + text)
    try:
        return load(path)[1]
    except ConfigError as error:
        return error.problems


def one(tmp_path: Path, text: str) -> tuple[int, str, str, bool]:
    (problem,) = told(tmp_path, text)
    return problem.line, problem.key, problem.message, problem.warning


def test_a_stream_that_nobody_writes_is_an_error_where_another_one_was_meant(tmp_path: Path) -> None:
    line, key, message, warning = one(tmp_path, flow("a") + flow("b", from_="a.otu"))
    assert (line, key, warning) == (10, "flows.b.from", False)
    assert message == "nobody writes a stream 'a.otu' (did you mean 'a.out'?)"


def test_a_stream_that_nobody_writes_yet_is_a_warning(tmp_path: Path) -> None:
    line, key, message, warning = one(tmp_path, flow("a", from_="weather"))
    assert (line, key, warning) == (4, "flows.a.from", True)
    assert "nobody writes a stream 'weather'" in message
    assert "a.out" in message


def test_further_streams_of_steps_are_written_too(tmp_path: Path) -> None:
    window = flow("a", steps='type = "window"\nlate = "side"')
    assert told(tmp_path, window + flow("b", from_="a.out.late")) == []


def test_a_sink_of_a_stream_that_nobody_writes_is_told(tmp_path: Path) -> None:
    sink = '[sinks.files]\ntype = "export"\nfrom = "readngs"\ndirectory = "out"\n'
    _, key, message, _ = one(tmp_path, sink)
    assert key == "sinks.files.from"
    assert "did you mean 'readings'?" in message


def test_flows_in_a_circle_are_told_once_and_flows_behind_them_are_not(tmp_path: Path) -> None:
    text = (
        flow("a", from_="c.out")
        + flow("b", from_="a.out")
        + flow("c", from_="b.out")
        + flow("d", from_="c.out")
    )
    line, key, message, warning = one(tmp_path, text)
    assert (line, key, warning) == (4, "flows.a.from", False)
    assert "a -> b -> c -> a" in message


@pytest.mark.parametrize(
    ("steps", "key", "message"),
    [
        ('type = "filtr"', "flows.a.steps[0].type", "did you mean 'filter'?"),
        ('type = "filter"\nwher = "x"', "flows.a.steps[0].wher", "did you mean 'where'?"),
        ('type = "filter"\nwhere = "unitt = 1"', "flows.a.steps[0].where", "did you mean 'unit'?"),
        ('type = "window"\nwindow = "1x"', "flows.a.steps[0].window", "1x"),
        ('type = "window"\nlate = "revise"\n---\ntype = "filter"\nwhere = "true"', "flows.a.steps[1].type", "revise"),
        ('type = "convert"\nunit = "kW"\n---\ntype = "convert"\nunit = "m3"', "flows.a.steps[1].unit", "kW"),
        ('type = "convert"\nunit = "kw"', "flows.a.steps[0].unit", "kW"),
        ('type = "sql"\nquery = "select volt from rows"', "flows.a.steps[0].query", "volt"),
        ('type = "python"\nfunction = "none.py:f"', "flows.a.steps[0].function", "no such file"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_step_is_told_with_its_key_and_line(
    tmp_path: Path, steps: str, key: str, message: str
) -> None:
    problems = told(tmp_path, flow("a", steps=steps))
    found = [problem for problem in problems if problem.key == key]
    assert found, problems
    assert message in found[0].message
    lines = (tmp_path / "ringmain.toml").read_text().splitlines()
    assert key.rpartition(".")[2] in lines[found[0].line - 1]
    assert not any(problem.warning for problem in found)


def test_what_is_wrong_with_a_flow_is_not_told_again_for_those_behind_it(tmp_path: Path) -> None:
    wrong = flow("a", steps='type = "filter"\nwhere = "unitt = 1"')
    behind = flow("b", from_="a.out") + flow("c", from_="b.out")
    _, key, _, _ = one(tmp_path, behind + wrong)
    assert key == "flows.a.steps[0].where"


def test_columns_of_another_flow_are_known_in_whatever_order_flows_stand(tmp_path: Path) -> None:
    total = flow("load", to="area.load", steps='type = "latest-sum"\nby = { area = "place[1]" }')
    reading = flow(
        "high", from_="area.load", steps='type = "filter"\nwhere = "area = \'west\' and value > 1"'
    )
    assert told(tmp_path, reading + total) == []
    _, key, message, _ = one(tmp_path, reading.replace("area = ", "aera = ") + total)
    assert key == "flows.high.steps[0].where"
    assert "did you mean 'area'?" in message


def test_a_filter_that_stood_before_is_a_warning(tmp_path: Path) -> None:
    same = 'type = "filter"\nwhere = "unit =  \'W\'"\n---\ntype = "filter"\nwhere = "unit = \'W\'"'
    line, key, message, warning = one(tmp_path, flow("a", steps=same))
    assert (line, key, warning) == (12, "flows.a.steps[1].where", True)
    assert "step 1 has the same condition" in message


def test_a_filter_behind_a_step_that_changes_rows_is_none_that_stood_before(tmp_path: Path) -> None:
    high = 'type = "filter"\nwhere = "value > 5"'
    again = f'{high}\n---\ntype = "convert"\nunit = "kW"\n---\n{high}'
    assert told(tmp_path, flow("a", steps=again)) == []


def test_two_flows_that_compute_the_same_are_a_warning(tmp_path: Path) -> None:
    _, key, message, warning = one(tmp_path, flow("a") + flow("b"))
    assert (key, warning) == ("flows.b", True)
    assert "[flows.a]" in message


def test_a_conversion_for_which_the_catalogue_has_no_series_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "series.csv").write_text("key,unit\nm1,m3\nm2,°C\n")
    text = '[catalogue]\nfile = "series.csv"\n' + flow("a", steps='type = "convert"\nunit = "kW"')
    _, key, message, warning = one(tmp_path, text)
    assert (key, warning) == ("flows.a.steps[0].unit", True)
    assert "their units are m3, °C" in message
    (tmp_path / "series.csv").write_text("key,unit\nm1,m3\nm2,W\n")
    assert told(tmp_path, text) == []


def test_two_flows_may_write_alarms_and_no_other_stream_together(tmp_path: Path) -> None:
    alerts = "[alerts.a]\nabove = 5\n[alerts.b]\nabove = 6\n"
    assert told(tmp_path, alerts) == []
    _, key, message, _ = one(
        tmp_path, flow("a", to="x") + flow("b", to="x", from_="events").replace("unit = 'W'", "true")
    )
    assert key == "flows.b.to"
    assert "already written by [flows.a]" in message


def test_a_hundred_flows_behind_one_another_are_planned(tmp_path: Path) -> None:
    text = "".join(
        flow(f"f{number}", from_=f"f{number - 1}.out" if number else "readings")
        for number in reversed(range(100))
    )
    assert told(tmp_path, text) == []
