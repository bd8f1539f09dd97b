"""The mapper: batches of messages to columns and letters, with nothing unaccounted for."""

import json
import math
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringmain.log import open_log
from ringmain.log.catalogue import SeriesRegistry
from ringmain.model.catalogue import SeriesAttributes
from ringmain.model.quality import Quality
from ringmain.sources.mapping import LETTERS_A_MESSAGE_MAX, Mapped, Mapper, MapSettings, SimplePlan
from ringmain.sources.mapping_times import TimeUnit

SETTINGS = settings(max_examples=200, deadline=None, derandomize=True)
NOW_NS = 1_795_419_774_000_000_000  # 2026-11-23T07:42:54Z
METERS = MapSettings(
    topic="meters/{meter}/{quantity}", series="{meter}/{quantity}", device="{meter}", time="t", value="v"
)
PLUGS = MapSettings(
    topic="tele/{plug}/SENSOR",
    device="{plug}",
    series="{plug}/{name}",
    time="Time",
    values={"p": "ENERGY.Power", "e": "ENERGY.Total"},
    units={"p": "W", "e": "kWh"},
    quantity="energy {name}",
)


class Series:
    """The series of a real log."""

    def __init__(self, directory: Path, limit: int = 1000) -> None:
        self.log = open_log(directory)
        self.registry = SeriesRegistry(self.log, limit)
        self.catalogue = self.registry.catalogue


@pytest.fixture
def series(tmp_path: Path) -> Iterator[Series]:
    series = Series(tmp_path / "data")
    yield series
    series.log.close()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Series]:
    """For tests of many examples, which add up in one log."""
    series = Series(tmp_path_factory.mktemp("log") / "data", 100_000)
    yield series
    series.log.close()


def mapped(mapper: Mapper, *messages: tuple[str, bytes | str]) -> Mapped:
    payloads = [payload if isinstance(payload, bytes) else payload.encode() for _, payload in messages]
    return mapper.map([topic for topic, _ in messages], payloads, NOW_NS)


def counts(result: Mapped) -> tuple[int, int, int]:
    """Messages accepted, rejected and ignored."""
    return result.accepted, result.rejected, result.ignored


def rows(series: Series, result: Mapped) -> list[tuple[str, int, float, int]]:
    """(key, ns, value, quality) of each reading."""
    if result.columns is None:
        return []
    series.registry.save()
    columns = result.columns
    assert columns.series.dtype == np.uint32
    assert columns.time.dtype == np.int64
    assert columns.value.dtype == np.float64
    assert columns.quality.dtype == np.uint16
    keys = series.catalogue.key_array(columns.series).to_pylist()
    return list(
        zip(keys, columns.time.tolist(), columns.value.tolist(), columns.quality.tolist(), strict=True)
    )


def test_messages_become_readings_in_their_order(series: Series) -> None:
    mapper = Mapper("field", [METERS, PLUGS], series.registry)
    result = mapped(
        mapper,
        ("meters/m1/p", '{"t":1795419774000,"v":1.5}'),
        ("meters/m2/p", '[{"t":1795419773,"v":2},{"t":"2026-11-23T07:42:50Z","v":3}]'),
        ("tele/plug1/SENSOR", '{"Time":"2026-11-23T08:42:54+01:00","ENERGY":{"Power":40,"Total":7.5}}'),
        ("meters/m1/p", '{"t":1795419774000,"v":1.25}'),
    )
    assert result.letters == ()
    assert rows(series, result) == [
        ("m1/p", NOW_NS, 1.5, 0),
        ("m2/p", NOW_NS - 10**9, 2.0, 0),
        ("m2/p", NOW_NS - 4 * 10**9, 3.0, 0),
        ("plug1/p", NOW_NS, 40.0, 0),
        ("plug1/e", NOW_NS, 7.5, 0),
        ("m1/p", NOW_NS, 1.25, 0),
    ]


def test_a_series_gets_the_attributes_of_its_map_and_of_levels_that_bear_their_names(series: Series) -> None:
    mapped(
        Mapper("field", [METERS, PLUGS], series.registry),
        ("meters/m1/power", '{"v":1}'),
        ("tele/x/SENSOR", '{"ENERGY":{"Total":1}}'),
    )
    series.registry.save()
    catalogue = series.catalogue
    assert catalogue.attributes_of(0) == SeriesAttributes(quantity="power", device="m1")
    assert catalogue.attributes_of(1) == SeriesAttributes(unit="kWh", quantity="energy e", device="x")
    assert catalogue.source_of(0) == "field"


def test_what_is_listed_of_a_series_wins_over_what_its_map_says(series: Series) -> None:
    listed = {"m1/p": SeriesAttributes(unit="kW", device="Meter 1", external={"MeLo": "DE1"})}
    mapped(Mapper("field", [METERS], series.registry, known=listed), ("meters/m1/p", '{"v":1}'))
    series.registry.save()
    assert series.catalogue.attributes_of(0) == SeriesAttributes(
        "kW", "p", device="Meter 1", external={"MeLo": "DE1"}
    )


def test_what_a_map_says_is_added_to_a_series_that_lacks_it_and_replaces_nothing(series: Series) -> None:
    series.registry.describe("catalogue", "m1/p", SeriesAttributes(unit="kW", quantity="power"))
    series.registry.save()
    mapper = Mapper("field", [METERS], series.registry)
    mapped(mapper, ("meters/m1/p", '{"v":1}'))
    series.registry.save()
    assert series.catalogue.attributes_of(0) == SeriesAttributes(unit="kW", quantity="power", device="m1")
    assert series.catalogue.source_of(0) == "catalogue"


def test_a_message_without_time_has_the_time_of_its_arrival_and_says_so(series: Series) -> None:
    bare = MapSettings(topic="n/{x}", series="{x}", value="")
    result = mapped(Mapper("s", [METERS, bare], series.registry), ("meters/m/p", '{"v":1}'), ("n/a", "5"))
    assert rows(series, result) == [
        ("m/p", NOW_NS, 1.0, Quality.ARRIVAL_TIME),
        ("a", NOW_NS, 5.0, Quality.ARRIVAL_TIME),
    ]


def test_a_time_far_ahead_of_arrival_is_kept_and_flagged(series: Series) -> None:
    mapper = Mapper("s", [METERS], series.registry, max_ahead_ns=10**9)
    result = mapped(
        mapper, ("meters/m/p", '{"t":1795419775,"v":1}'), ("meters/m/p", '{"t":1795419776,"v":1}')
    )
    assert [row[3] for row in rows(series, result)] == [0, Quality.CLOCK_FAILED]


def test_quality_of_the_device_and_of_its_clock_are_joined(series: Series) -> None:
    flagged = MapSettings(topic="q", series="q", time="t", value="v", quality="q")
    result = mapped(Mapper("s", [flagged], series.registry), ("q", '{"t":4000000000,"v":1,"q":"invalid"}'))
    assert [row[3] for row in rows(series, result)] == [Quality.INVALID | Quality.CLOCK_FAILED]


def test_times_without_offset_are_those_of_the_node_or_of_the_map(series: Series) -> None:
    utc = MapSettings(topic="u", series="u", time="t", value="v", timezone="UTC")
    local = MapSettings(topic="l", series="l", time="t", value="v")
    mapper = Mapper("s", [utc, local], series.registry, timezone="Europe/Berlin")
    payload = '{"t":"2026-11-23T08:42:54","v":1}'
    assert [row[1] for row in rows(series, mapped(mapper, ("u", payload), ("l", payload)))] == [
        NOW_NS + 3600 * 10**9,
        NOW_NS,
    ]


def test_the_first_map_that_fits_is_used(series: Series) -> None:
    maps = [
        MapSettings(topic="a/{x}", series="first/{x}", value=""),
        MapSettings(topic="a/#", series="second/{#}", value=""),
    ]
    result = mapped(Mapper("s", maps, series.registry), ("a/b", "1"), ("a/b/c", "2"))
    assert [row[0] for row in rows(series, result)] == ["first/b", "second/b/c"]


def test_what_is_no_reading_becomes_a_letter_that_says_why_and_the_rest_is_kept(series: Series) -> None:
    result = mapped(
        Mapper("field", [METERS], series.registry),
        ("meters/m1/p", '{"t":1795419774,"v":1}'),
        ("other/topic", "5"),
        ("meters/m1/p", '{"t":1795419774,"v":"1"}'),
        ("meters/m1/p", '{"t":-5,"v":1}'),
        ("meters/m1/p", b"\xff\xfe"),
        ("meters/m1/p", '{"t":1795419774,"v":2}'),
    )
    assert [row[2] for row in rows(series, result)] == [1.0, 2.0]
    assert [(letter.topic, letter.payload) for letter in result.letters] == [
        ("other/topic", b"5"),
        ("meters/m1/p", b'{"t":1795419774,"v":"1"}'),
        ("meters/m1/p", b'{"t":-5,"v":1}'),
        ("meters/m1/p", b"\xff\xfe"),
    ]
    expected = ["none that fits", "a number in quotes is text", "from 1970 to 2262-04-11, found -5", "UTF-8"]
    for letter, reason in zip(result.letters, expected, strict=True):
        assert reason in letter.reason
        assert letter.arrival_ns == NOW_NS


def test_elements_of_an_array_fail_singly_with_their_own_json(series: Series) -> None:
    result = mapped(
        Mapper("field", [METERS], series.registry),
        ("meters/m1/p", '[{"t":1795419770,"v":1}, {"t":"never","v":2} ,{"t":1795419772,"v":3},{"v":null}]'),
    )
    assert [row[2] for row in rows(series, result)] == [1.0, 3.0]
    assert [letter.payload for letter in result.letters] == [b'{"v":null}', b'{"t":"never","v":2}']
    assert result.letters[0].reason.startswith("element 3: v: expected a number, found null")
    assert result.letters[1].reason.startswith("element 1: expected a time such as")


def test_many_bad_elements_get_a_bounded_number_of_letters_that_count_the_rest(series: Series) -> None:
    payload = "[" + ",".join(["7"] * 5000) + "]"
    result = mapped(Mapper("field", [METERS], series.registry), ("meters/m1/p", payload))
    assert len(result.letters) == LETTERS_A_MESSAGE_MAX + 1
    assert result.letters[-1].reason.startswith(f"{5000 - LETTERS_A_MESSAGE_MAX} more faults in this message")


def test_a_letter_keeps_the_first_4096_bytes_and_the_size_of_the_payload(series: Series) -> None:
    result = mapped(Mapper("field", [METERS], series.registry), ("meters/m1/p", "x" * 5_000_000))
    (letter,) = result.letters
    assert letter.payload == b"x" * 4096
    assert letter.payload_bytes == 5_000_000


@pytest.mark.parametrize("topic", ["meters/a\tb/p", "meters/" + "x" * 2000 + "/p", "meters/\ufeff/p"])
def test_a_topic_that_gives_no_usable_key_becomes_a_letter(series: Series, topic: str) -> None:
    result = mapped(Mapper("field", [METERS], series.registry), (topic, '{"v":1}'))
    assert result.columns is None
    assert "expected a series key" in result.letters[0].reason


def test_an_attribute_that_cannot_be_kept_becomes_a_letter(series: Series) -> None:
    placed = MapSettings(topic="{x}/{place}", series="{x}", value="")
    result = mapped(Mapper("field", [placed], series.registry), ("a/" + "p" * 2000, "1"))
    assert "expected a place of at most" in result.letters[0].reason


def test_beyond_the_limit_of_series_messages_become_letters_and_known_series_go_on(tmp_path: Path) -> None:
    series = Series(tmp_path / "data", limit=2)
    mapper = Mapper("field", [METERS], series.registry)
    messages = [(f"meters/m{number}/p", '{"v":1}') for number in (1, 2, 3, 1, 4, 2)]
    result = mapped(mapper, *messages)
    assert [row[0] for row in rows(series, result)] == ["m1/p", "m2/p", "m1/p", "m2/p"]
    assert ["max_series" in letter.reason for letter in result.letters] == [True, True]
    series.log.close()


def test_a_payload_that_is_no_reading_makes_no_series(series: Series) -> None:
    mapped(
        Mapper("field", [METERS], series.registry), ("meters/m1/p", "oops"), ("meters/m2/p", '{"t":-1,"v":1}')
    )
    series.registry.save()
    assert len(series.catalogue) == 0


def test_a_million_topics_are_not_remembered(series: Series) -> None:
    mapper = Mapper("field", [METERS], series.registry, routes_max=100)
    for number in range(1000):
        mapped(mapper, (f"meters/m{number % 150}/p", '{"v":1}'), (f"nothing/{number}", "1"))
        assert len(mapper._routes) <= 100
    series.registry.save()
    assert len(series.catalogue) == 150
    mapped(mapper, *((f"meters/m{number}/p", "no reading") for number in range(1000, 3000)))
    assert all(int(topic[8:-2]) < 150 for topic in mapper._routes)
    mapped(mapper, ("meters/" + "m" * 500 + "/p", '{"v":1}'))
    assert max(map(len, mapper._routes)) < 20


def test_a_kernel_learns_how_to_read_a_simple_topic_once_its_series_has_an_id(series: Series) -> None:
    mapper = Mapper("field", [METERS, PLUGS, MapSettings(topic="n", series="n", value="")], series.registry)
    assert mapper.simple_plan("meters/m1/p") is None
    mapped(mapper, ("meters/m1/p", '{"v":1}'), ("tele/x/SENSOR", '{"ENERGY":{"Power":1}}'), ("n", "1"))
    assert mapper.simple_plan("meters/m1/p") == SimplePlan(0, b"t", b"v", None)
    assert mapper.simple_plan("tele/x/SENSOR") is None
    assert mapper.simple_plan("n") is None
    milliseconds = MapSettings(topic="ms/{x}", series="ms/{x}", time="t", value="v", time_unit="ms")
    mapper = Mapper("field", [METERS, milliseconds], series.registry)
    mapped(mapper, ("ms/a", '{"v":1}'))
    assert mapper.simple_plan("ms/a") == SimplePlan(3, b"t", b"v", TimeUnit.MS)


def test_a_map_that_is_wrong_is_refused_with_its_source_number_and_key(series: Series) -> None:
    wrong = MapSettings(topic="a/{x}", series="{y}", value="v")
    with pytest.raises(
        ValueError, match=r"source 'field', map 1: series: expected a name of the topic \(\{x\}\)"
    ):
        Mapper("field", [METERS, wrong], series.registry)


# --- against a plain reference, message by message -------------------------------------------------------------

VALUES = st.floats(-1e9, 1e9).map(lambda v: round(v, 3))
STAMPS: st.SearchStrategy[tuple[object, int]] = st.one_of(
    st.integers(10**9, 4 * 10**9).flatmap(
        lambda s: st.sampled_from([(s, s * 10**9), (s * 1000, s * 10**9), (s * 10**9, s * 10**9)])
    ),
    st.datetimes(datetime(1970, 1, 2), datetime(2261, 1, 1)).map(
        lambda t: (t.isoformat() + "Z", (t - datetime(1970, 1, 1)) // (datetime.resolution) * 1000)
    ),
)
READINGS = st.tuples(STAMPS, VALUES)


def as_object(reading: tuple[tuple[object, int], float]) -> dict[str, object]:
    return {"t": reading[0][0], "v": reading[1]}


SHAPES: list[Callable[[list[tuple[tuple[object, int], float]]], list[object]]] = [
    lambda readings: [as_object(reading) for reading in readings],
    lambda readings: [[as_object(reading) for reading in readings]] if readings else [],
    lambda readings: [[[reading[0][0], reading[1]] for reading in readings]] if readings else [],
    lambda readings: [{"id": "ü", **as_object(reading), "more": [1, {"v": 3}]} for reading in readings],
]


@SETTINGS
@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.lists(READINGS, max_size=4), st.sampled_from(SHAPES)), max_size=8
    )
)
def test_valid_messages_give_what_a_plain_reading_of_them_gives(
    shared: Series,
    messages: list[tuple[str, list[tuple[tuple[object, int], float]], object]],
) -> None:
    mapper = Mapper("field", [METERS], shared.registry)
    sent: list[tuple[str, str]] = []
    expected: list[tuple[str, int, float, int]] = []
    for meter, readings, shape in messages:
        sent += [(f"meters/{meter}/p", json.dumps(body)) for body in shape(readings)]  # type: ignore[operator]
        for (_, ns), value in readings:
            ahead = Quality.CLOCK_FAILED if ns > NOW_NS + mapper.max_ahead_ns else Quality.GOOD
            expected.append((f"{meter}/p", ns, value, int(ahead)))
    result = mapped(mapper, *sent)
    assert result.letters == ()
    assert rows(shared, result) == expected


NUMBERS = st.one_of(
    st.integers(-2, 2**63).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.sampled_from(
        [
            "1795419774000",
            "null",
            "true",
            "1e400",
            '"2026-11-23T07:42:54Z"',
            '"2026-11-23T07:42:54"',
            '"x\\"y"',
        ]
    ),
)
MEMBERS = st.tuples(st.sampled_from(["t", "v", "x", "\\u0076"]), NUMBERS).map(
    lambda member: f'"{member[0]}":{member[1]}'
)
OBJECTS = st.one_of(
    st.lists(MEMBERS, max_size=4).map(lambda members: f"{{{','.join(members)}}}"),
    st.builds(lambda t, v: f'{{"t":{t},"v":{v}}}', NUMBERS, NUMBERS),
)
PAYLOADS = st.one_of(
    OBJECTS,
    st.lists(OBJECTS, max_size=3).map(lambda elements: f"[{','.join(elements)}]"),
    st.lists(st.builds(lambda t, v: f"[{t},{v}]", NUMBERS, NUMBERS), max_size=3).map(
        lambda e: f"[{','.join(e)}]"
    ),
)


@SETTINGS
@given(st.lists(st.tuples(st.sampled_from(["meters/a/p", "meters/b/p"]), PAYLOADS), min_size=1, max_size=6))
def test_the_fast_ways_and_the_plain_way_give_the_same_readings_and_letters(
    shared: Series, messages: list[tuple[str, str]]
) -> None:
    fast, plain = (Mapper("field", [METERS], shared.registry) for _ in range(2))
    for mapper in (fast, plain):
        mapped(mapper, ("meters/a/p", '{"v":0}'), ("meters/b/p", '{"v":0}'))
    for plan in plain._plans:
        plan.reader._typed = None
    for route in plain._routes.values():
        route.decode = None
    assert fast.simple_plan("meters/a/p") is not None
    given, expected = mapped(fast, *messages), mapped(plain, *messages)
    assert rows(shared, given) == rows(shared, expected)
    assert given.letters == expected.letters
    assert counts(given) == counts(expected)
    assert sum(counts(given)) == len(messages)


ODD = st.one_of(
    st.binary(max_size=30),
    st.sampled_from(
        [
            b"[]",
            b"{}",
            b"1",
            b"null",
            b"[[1,2],[3]]",
            b'[{"v":1},{"t":[],"v":2}]',
            b'{"t":9e99,"v":1}',
            b'{"t":"x","v":1}',
        ]
    ),
    st.builds(
        lambda t, v: json.dumps({"t": t, "v": v}).encode(),
        st.one_of(st.integers(), st.floats(), st.text()),
        VALUES,
    ),
)
TOPICS = st.one_of(st.sampled_from(["meters/a/p", "meters/b/p", "tele/x/SENSOR"]), st.text(max_size=12))


@SETTINGS
@given(st.lists(st.tuples(TOPICS, ODD), max_size=12), st.integers(1, 5))
def test_every_element_is_a_reading_or_a_letter_however_messages_are_cut(
    shared: Series, messages: list[tuple[str, bytes]], cut: int
) -> None:
    whole = mapped(Mapper("field", [METERS, PLUGS], shared.registry), *messages)
    for letter in whole.letters:
        assert letter.reason.encode()
    elements = sum(
        _elements(payload) if topic in ("meters/a/p", "meters/b/p") else 1 for topic, payload in messages
    )
    assert len(rows(shared, whole)) + len(whole.letters) >= elements
    if not any(topic.startswith("tele") for topic, _ in messages):
        assert len(rows(shared, whole)) + len(whole.letters) == elements
    mapper = Mapper("field", [METERS, PLUGS], shared.registry)
    pieces = [mapped(mapper, *messages[at : at + cut]) for at in range(0, len(messages), cut)]
    assert [row for piece in pieces for row in rows(shared, piece)] == rows(shared, whole)
    assert sorted(letter.reason for piece in pieces for letter in piece.letters) == sorted(
        letter.reason for letter in whole.letters
    )
    assert all(math.isfinite(row[2]) and row[1] >= 0 for row in rows(shared, whole))
    one_by_one = [mapped(mapper, message) for message in messages]
    became = [
        (1, 0, 0) if one.columns is not None else (0, 1, 0) if one.letters else (0, 0, 1)
        for one in one_by_one
    ]
    assert [counts(one) for one in one_by_one] == became
    assert counts(whole) == tuple(map(sum, zip(*became, strict=True))) if became else (0, 0, 0)


def _elements(payload: bytes) -> int:
    """What a message counts for: the elements of an array, else one."""
    try:
        found = json.loads(payload.decode())
    except ValueError:
        return 1
    return len(found) if isinstance(found, list) and found else 1


def test_a_level_may_bear_the_name_name_where_there_is_one_value(series: Series) -> None:
    settings = MapSettings(topic="times/{name}", series="{name}", device="d-{name}", time="t", value="v")
    mapper = Mapper("field", [settings], series.registry)
    result = mapped(mapper, ("times/a", '{"t": 1795419774, "v": 2}'))
    assert result.letters == ()
    assert rows(series, result) == [("a", NOW_NS, 2.0, 0)]
    assert series.catalogue.attributes_of(0).device == "d-a"
