"""The configuration file: what is accepted, and how mistakes are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from ringmain.config import ConfigError, NodeConfig, Problem, load

EXAMPLE = Path(__file__).resolve().parents[1] / "docs" / "examples" / "node.toml"

GOOD = """\
[node]
name = "leipzig-west"

[sources.field]
type   = "mqtt-listener"
listen = "127.0.0.1:1884"

[[sources.field.map]]
topic  = "meters/{meter}/{quantity}"
series = "{meter}/{quantity}"
device = "{meter}"
time   = "t"
value  = "v"

[flows.minute]
from   = "readings"
window = "1m"
values = ["count", "mean", "min", "max"]
to     = "readings.1m"

[serve]
listen = "127.0.0.1:8080"
"""


def problems_of(tmp_path: Path, text: str) -> list[Problem]:
    file = tmp_path / "node.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(file)
    return caught.value.problems


def loaded(tmp_path: Path, text: str) -> tuple[NodeConfig, list[Problem]]:
    file = tmp_path / "node.toml"
    file.write_text(text)
    return load(file)


def test_the_example_of_the_documentation_has_no_errors_and_no_warnings() -> None:
    config, warnings = load(EXAMPLE)
    assert warnings == []
    assert config.node.name == "leipzig-west"
    assert set(config.sources) == {"field", "city"}
    assert config.sources["city"].settings.map == "field"
    assert list(config.maps()) == ["field"]
    assert config.flows["minute"].to == "readings.1m"
    assert config.data == EXAMPLE.parent / "data"


def test_the_smallest_node_needs_no_more_than_a_name(tmp_path: Path) -> None:
    config, warnings = loaded(tmp_path, '[node]\nname = "edge"\n')
    assert (config.node.timezone, config.serve, dict(config.sources), warnings) == ("UTC", None, {}, [])


@pytest.mark.parametrize(
    ("old", "new", "line", "key", "said"),
    [
        (
            'name = "leipzig-west"',
            "name = 7",
            2,
            "node.name",
            "expected text in quotes, found a whole number",
        ),
        ('name = "leipzig-west"', 'nmae = "x"', 2, "node.nmae", "did you mean 'name'?"),
        (
            'name = "leipzig-west"',
            'name = "x"\ntimezone = "Europe/Berln"',
            3,
            "node.timezone",
            "did you mean 'Europe/Berlin'?",
        ),
        (
            'name = "leipzig-west"',
            'name = "x"\nsilence = "1s"',
            3,
            "node.silence",
            "expected a duration of at least 5s, such as 60s, found '1s'",
        ),
        (
            'type   = "mqtt-listener"',
            'type   = "mqtt-listner"',
            5,
            "sources.field.type",
            "did you mean 'mqtt-listener'?",
        ),
        ('type   = "mqtt-listener"', "", 4, "sources.field", "expected a type, found none"),
        (
            'listen = "127.0.0.1:1884"',
            'listen = "127.0.0.1"',
            6,
            "sources.field.listen",
            "expected HOST:PORT",
        ),
        (
            'listen = "127.0.0.1:1884"',
            'listen = "0.0.0.0:1884"',
            6,
            "sources.field.listen",
            "needs `tls` and `passwords`",
        ),
        ('value  = "v"', 'vlaue  = "v"', 13, "sources.field.map[0].vlaue", "did you mean 'value'?"),
        (
            'topic  = "meters/{meter}/{quantity}"',
            "topic  = 3",
            9,
            "sources.field.map[0].topic",
            "expected text in quotes, found a whole number",
        ),
        ('window = "1m"', 'window = "1 minute"', 17, "flows.minute.window", "expected a duration such as"),
        (
            'values = ["count", "mean", "min", "max"]',
            'values = ["median"]',
            18,
            "flows.minute.values[0]",
            "expected one of count, sum, mean, min, max, first, last, std, range, delta, twa, integral, duration, "
            "completeness, good, found 'median'",
        ),
        ('listen = "127.0.0.1:8080"', 'listen = "0.0.0.0:8080"', 22, "serve.listen", "needs `token`"),
        ("[serve]", "[server]", 21, "server", "did you mean 'serve'?"),
        ('name = "leipzig-west"', 'name = "x', 2, "", "not valid TOML"),
        ('value  = "v"', "value  = v", 13, "", "a text needs quotes"),
        ('value  = "v"', 'time = "v"', 13, "", "this key stands in its table already"),
        ("[[sources.field.map]]", "[sources.field.map]", 8, "sources.field.map", "two brackets"),
        (
            'values = ["count", "mean", "min", "max"]',
            'values = "count"',
            18,
            "flows.minute.values",
            'write ["..."]',
        ),
        ('listen = "127.0.0.1:8080"', 'listen = "127.0.0.1:1884"', 22, "serve.listen", "[sources.field]"),
    ],
)
def test_a_mistake_is_named_with_its_line_its_key_and_what_was_expected(
    tmp_path: Path, old: str, new: str, line: int, key: str, said: str
) -> None:
    assert old in GOOD
    problems = problems_of(tmp_path, GOOD.replace(old, new))
    found = [(problem.line, problem.key) for problem in problems if said in problem.message]
    assert found == [(line, key)], [str(problem) for problem in problems]


def test_every_mistake_of_a_file_is_told_at_once(tmp_path: Path) -> None:
    text = GOOD.replace('window = "1m"', 'window = "x"').replace(
        'listen = "127.0.0.1:8080"', 'listen = "nowhere"'
    )
    assert {problem.key for problem in problems_of(tmp_path, text)} == {"flows.minute.window", "serve.listen"}


def test_several_mistakes_in_one_table_are_told_at_once(tmp_path: Path) -> None:
    text = GOOD.replace('window = "1m"', 'window = "x"\ngraze = "1s"').replace('"count"', '"median"')
    assert [problem.key for problem in problems_of(tmp_path, text)] == [
        "flows.minute.window",
        "flows.minute.graze",
        "flows.minute.values[0]",
    ]


def test_a_key_that_is_misspelt_is_not_told_to_be_missing_too(tmp_path: Path) -> None:
    (problem,) = problems_of(tmp_path, GOOD.replace("series =", "serie ="))
    assert problem.key == "sources.field.map[0].serie"


def test_a_map_that_no_message_reaches_is_warned_about(tmp_path: Path) -> None:
    again = '\n[[sources.field.map]]\ntopic = "meters/{a}/{b}"\nseries = "{a}"\nvalue = "v"\n'
    _, warnings = loaded(tmp_path, GOOD + again)
    assert [(w.key, w.line) for w in warnings] == [("sources.field.map[1].topic", 25)]


def test_files_of_passwords_and_certificates_that_are_not_there_are_warned_about(tmp_path: Path) -> None:
    (tmp_path / "key.pem").touch()
    text = GOOD.replace(
        'listen = "127.0.0.1:1884"',
        'listen = "127.0.0.1:1884"\npasswords = "p.txt"\ntls = { certificate = "cert.pem", key = "key.pem" }',
    )
    _, warnings = loaded(tmp_path, text)
    assert [w.key for w in warnings] == ["sources.field.passwords", "sources.field.tls.certificate"]


def test_two_flows_may_not_write_one_stream(tmp_path: Path) -> None:
    text = (
        GOOD + '\n[flows.other]\nfrom = "readings"\nwindow = "15m"\nvalues = ["mean"]\nto = "readings.1m"\n'
    )
    (problem,) = problems_of(tmp_path, text)
    assert (problem.key, problem.line) == ("flows.other.to", 28)
    assert "[flows.minute]" in problem.message


def test_a_mapping_that_is_reused_has_to_exist(tmp_path: Path) -> None:
    text = (
        GOOD
        + '\n[sources.city]\ntype = "mqtt"\nurl = "mqtt://127.0.0.1:1883"\ntopics = ["a"]\nmap = "feild"\n'
    )
    (problem,) = problems_of(tmp_path, text)
    assert problem.key == "sources.city.map"
    assert "did you mean 'field'?" in problem.message


def test_a_missing_catalogue_file_is_named(tmp_path: Path) -> None:
    (problem,) = problems_of(tmp_path, GOOD + '\n[catalogue]\nfile = "nowhere.csv"\n')
    assert (problem.key, problem.line) == ("catalogue.file", 25)
    assert str(tmp_path / "nowhere.csv") in problem.message


def test_an_insecure_listener_is_possible_and_warned_about(tmp_path: Path) -> None:
    text = GOOD.replace('listen = "127.0.0.1:1884"', 'listen = "0.0.0.0:1884"\ninsecure = true')
    _, warnings = loaded(tmp_path, text)
    assert [(w.key, w.line, w.warning) for w in warnings] == [("sources.field.insecure", 7, True)]


def test_a_file_that_is_not_there_is_one_plain_problem(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.toml: no such file"):
        load(tmp_path / "absent.toml")


def test_a_file_that_is_not_text_is_one_plain_problem(tmp_path: Path) -> None:
    (tmp_path / "node.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="UTF-8"):
        load(tmp_path / "node.toml")
