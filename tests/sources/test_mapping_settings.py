"""What `[[sources.NAME.map]]` accepts, and what it says about the rest."""

import tomllib
from pathlib import Path

import msgspec
import pytest

from ringmain.config import ConfigError, load
from ringmain.sources.mapping_settings import MapSettings


def checked(text: str) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    return msgspec.convert(tomllib.loads(text), MapSettings).check()


@pytest.mark.parametrize(
    "text",
    [
        'topic = "meters/{meter}/{quantity}"\nseries = "{meter}/{quantity}"\ndevice = "{meter}"\ntime = "t"\nvalue = "v"',
        'topic = "tele/{plug}/SENSOR"\ndevice = "{plug}"\nseries = "{plug}/{name}"\ntime = "Time"\n'
        'values = { p = "ENERGY.Power", e = "ENERGY.Total" }\nunits = { p = "W", e = "kWh" }',
        'topic = "raw/#"\nseries = "{#}"\nvalue = ""\nunit = "m3/h"',
        'topic = "a"\nseries = "a"\nvalue = "v"\ntime_unit = "ms"\nquality = "q"\ntimezone = "Europe/Berlin"',
    ],
)
def test_maps_as_documented_are_accepted(text: str) -> None:
    assert checked(text) == ([], [])


@pytest.mark.parametrize(
    ("text", "key", "message"),
    [
        ('topic = "a"\nseries = "a"', "value", "expected either `value` or `values`, found neither"),
        ('topic = "a"\nseries = "{name}"\nvalue = "v"\nvalues = { p = "P" }', "value", "found both"),
        ('topic = "a"\nseries = "{name}"\nvalues = {}', "values", "found none"),
        ('topic = "a"\nseries = "a"\nvalues = { p = "P", e = "E" }', "series", "expected {name} in it"),
        (
            'topic = "{name}"\nseries = "{name}"\nvalues = { p = "P" }',
            "topic",
            "expected another name than {name}",
        ),
        ('topic = "a"\nseries = "{name}"\nvalues = { "" = "P" }', "values", "found an empty one"),
        ('topic = "a"\nseries = "{x}"\nvalue = "v"', "series", "found {x}"),
        ('topic = "a"\nseries = ""\nvalue = "v"', "series", "found nothing"),
        ('topic = "m-{x}"\nseries = "{x}"\nvalue = "v"', "topic", "a name takes a whole level"),
        ('topic = "a"\nseries = "a"\nvalue = "v."', "value", "dotted path"),
        ('topic = "a"\nseries = "a"\nvalue = ""\ntime = "t"', "time", 'beside value = ""'),
        ('topic = "a"\nseries = "a"\nvalue = "v"\ntimezone = "Berlin"', "timezone", "found 'Berlin'"),
        ('topic = "a"\nseries = "a"\nvalue = "v"\ndevice = "{d}"', "device", "found {d}"),
        (
            'topic = "a"\nseries = "a"\nvalue = "v"\nunits = { p = "W" }',
            "units.p",
            "expected a name of `values`",
        ),
        (
            'topic = "a"\nseries = "{name}"\nvalues = { p = "P" }\nunits = { p = "Wat" }',
            "units.p",
            "found 'Wat'",
        ),
    ],
)
def test_what_is_wrong_is_named_with_what_was_expected(text: str, key: str, message: str) -> None:
    errors, _ = checked(text)
    assert [found for found, _ in errors] == [key]
    assert message in errors[0][1]


def test_one_unit_for_several_values_is_doubtful() -> None:
    errors, warnings = checked('topic = "a"\nseries = "{name}"\nvalues = { p = "P", e = "E" }\nunit = "W"')
    assert errors == []
    assert [key for key, _ in warnings] == ["unit"]


def test_unknown_keys_and_other_types_are_refused_by_the_model() -> None:
    with pytest.raises(msgspec.ValidationError, match="unknown field `serie`"):
        checked('topic = "a"\nserie = "a"\nvalue = "v"')
    with pytest.raises(msgspec.ValidationError, match="time_unit"):
        checked('topic = "a"\nseries = "a"\nvalue = "v"\ntime_unit = "minutes"')


def test_a_configuration_with_a_wrong_map_is_answered_with_the_line_of_the_key(tmp_path: Path) -> None:
    maps = 'topic = "a/{x}"\nseries = "{x}"\nvalue = "v"\n'
    file = tmp_path / "node.toml"
    file.write_text(
        '[node]\nname = "n"\n'
        '[sources.field]\ntype = "mqtt-listener"\nlisten = "127.0.0.1:1884"\n'
        f"[[sources.field.map]]\n{maps}[[sources.field.map]]\n{maps.replace('{x}', '{y}', 1)}"
        '[sources.city]\ntype = "mqtt"\nurl = "mqtt://127.0.0.1:1883"\ntopics = ["a/#"]\n'
        f'[[sources.city.map]]\n{maps}unit = "Wat"\n'
    )
    with pytest.raises(ConfigError) as error:
        load(file)
    assert [(problem.line, problem.key) for problem in error.value.problems] == [
        (12, "sources.field.map[1].series"),
        (22, "sources.city.map[0].unit"),
    ]
