"""Times as devices write them, through a whole node, to the nanosecond that SQL and HTTP give out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from tests.conftest import free_port
from tests.node.random_history import Feed
from tests.node.running import RunningNode
from tests.node.stored import http_json, query

CONFIGURATION = """\
[node]
name = "times"
data = "data"
timezone = "Europe/Berlin"

[sources.field]
type   = "mqtt-listener"
listen = "127.0.0.1:{port}"

[[sources.field.map]]
topic  = "times/{{name}}"
series = "{{name}}"
time   = "t"
value  = "v"

[[sources.field.map]]
topic  = "tele/{{plug}}/SENSOR"
device = "{{plug}}"
series = "{{plug}}/{{name}}"
time   = "Time"
values = {{ p = "ENERGY.Power", e = "ENERGY.Total" }}

[[sources.field.map]]
topic     = "seconds/{{name}}"
series    = "{{name}}"
time      = "t"
time_unit = "s"
value     = "v"

[serve]
listen      = "127.0.0.1:{http}"
sql_timeout = "60s"
"""
BERLIN = ZoneInfo("Europe/Berlin")
MAX_NS = 2**63 - 1  # which SQL takes for infinity
UNSYNCHRONISED, AHEAD = 64, 128
NUMBERS = [
    (0, 0),
    (9_223_372_036, 9_223_372_036 * 10**9),
    (9_223_372_037, 9_223_372_037 * 10**6),
    (1_795_419_774, 1_795_419_774 * 10**9),
    (1_795_419_774_123, 1_795_419_774_123 * 10**6),
    (9_223_372_036_854, 9_223_372_036_854 * 10**6),
    (9_223_372_036_855, 9_223_372_036_855 * 10**3),
    (1_795_419_774_123_456, 1_795_419_774_123_456 * 10**3),
    (9_223_372_036_854_775, 9_223_372_036_854_775 * 10**3),
    (9_223_372_036_854_776, 9_223_372_036_854_776),
    (1_795_419_774_123_456_789, 1_795_419_774_123_456_789),
    (MAX_NS - 1, MAX_NS - 1),
    (1_700_000_000.5, 1_700_000_000_500_000_000),
    (1_700_000_000_123.25, 1_700_000_000_123_250_000),
]
TEXTS = [
    ("2023-11-23T08:42:54.123456789+01:00", "2023-11-23T07:42:54", 123_456_789),
    ("2023-11-23T08:42:54.1234567899+01:00", "2023-11-23T07:42:54", 123_456_789),
    ("2023-11-23 08:42:54-0930", "2023-11-23T18:12:54", 0),
    ("2023-11-23t08:42:54z", "2023-11-23T08:42:54", 0),
    ("2023-11-23T08:42:54+14", "2023-11-22T18:42:54", 0),
    ("2023-11-23T00:00:00-00:00", "2023-11-23T00:00:00", 0),
    ("2016-12-31T23:59:60Z", "2017-01-01T00:00:00", 0),
    ("1970-01-01T01:00:00+01:00", "1970-01-01T00:00:00", 0),
]


@pytest.fixture
def node(tmp_path: Path) -> Iterator[RunningNode]:
    text = CONFIGURATION.format(port=free_port(), http=free_port())
    with RunningNode(tmp_path, text) as running:
        yield running


def send(node: RunningNode, messages: list[tuple[str, object]]) -> None:
    client = Feed(node.port("field"), "times")
    try:
        client.send([(topic, json.dumps(body)) for topic, body in messages])
    finally:
        client.close()


def times(node: RunningNode) -> dict[str, tuple[int, int]]:
    """By series: time in ns, quality."""
    rows = query(node.directory / "data", "select series, epoch_ns(time) as ns, quality from readings")
    assert len(rows) == len({row["series"] for row in rows})
    return {row["series"]: (row["ns"], row["quality"]) for row in rows}


def instant_ns(text: str, more_ns: int = 0) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 10**9 + more_ns


def written(ns: int) -> str:
    """RFC 3339 in UTC, without trailing zeros."""
    seconds = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=ns // 10**9)
    fraction = f".{ns % 10**9:09}".rstrip("0").rstrip(".")
    return f"{seconds:%Y-%m-%dT%H:%M:%S}{fraction}Z"


def trimmed(text: str) -> str:
    """The same time without trailing zeros."""
    return text[:-1].rstrip("0").rstrip(".") + "Z" if "." in text else text


def test_every_way_to_write_a_time_is_exact_from_payload_to_json(node: RunningNode) -> None:
    should = {f"n{index}": ns for index, (_, ns) in enumerate(NUMBERS)}
    should |= {f"t{index}": instant_ns(at, ns) for index, (_, at, ns) in enumerate(TEXTS)}
    should |= {"s0": 86_400 * 10**9, "s1": 1_700_000_000 * 10**9, "s2": 9_223_372_036 * 10**9}
    messages: list[tuple[str, object]] = [
        *((f"times/n{index}", {"t": number, "v": index}) for index, (number, _) in enumerate(NUMBERS)),
        *((f"times/t{index}", {"t": text, "v": index}) for index, (text, _, _) in enumerate(TEXTS)),
        *((f"seconds/s{n}", {"t": t, "v": n}) for n, t in enumerate((86_400, 1_700_000_000, 9_223_372_036))),
    ]
    refused = (
        -1,
        2**63,
        1e30,
        "2262-04-12T00:00:00Z",
        "2023-02-29T00:00:00Z",
        "1969-12-31T23:59:59.999Z",
        True,
    )
    messages += [(f"times/bad{index}", {"t": raw, "v": 0}) for index, raw in enumerate(refused)]
    messages += [("seconds/bad", {"t": 9_223_372_037, "v": 0})]
    # one by one and together: a kernel, columns and single messages read the same
    send(node, messages[::2])
    for message in messages[1::2]:
        send(node, [message])
    found = times(node)
    assert {series: ns for series, (ns, _) in found.items()} == should
    letters = query(node.directory / "data", "select topic from deadletters")
    assert len(letters) == len(refused) + 1
    port = node.port("serve")
    answer = http_json(port, "/api/v1/sql", {"query": "select series, time from readings"})
    texts = {series: trimmed(text) for series, text in answer["rows"]}
    assert texts == {series: written(ns) for series, ns in should.items()}
    latest = http_json(port, "/api/v1/latest")["latest"]
    assert {row["key"]: int(row["time_ns"]) for row in latest} == should


@pytest.mark.parametrize("night", ["2023-03-26", "2023-10-29"])
def test_local_stamps_of_both_nights_in_which_clocks_change_are_read_as_the_zone_says(
    node: RunningNode, night: str
) -> None:
    first = datetime.fromisoformat(night)
    stamps = [first + timedelta(minutes=10 * step) for step in range(-12, 36)]
    messages: list[tuple[str, object]] = []
    should: dict[str, tuple[int, int]] = {}
    for index, stamp in enumerate(stamps):
        text = stamp.isoformat()
        messages.append(
            (f"tele/plug{index}/SENSOR", {"Time": text, "ENERGY": {"Power": index, "Total": 1.5}})
        )
        messages.append((f"times/local{index}", {"t": text + ".25", "v": index}))
        before, behind = (stamp.replace(tzinfo=BERLIN, fold=fold).utcoffset() for fold in (0, 1))
        assert before is not None
        assert behind is not None
        twice, never = behind < before, behind > before
        offset = behind if twice else before  # the later of two; in the gap as if not put forward
        ns = instant_ns((stamp - offset).isoformat())
        flags = UNSYNCHRONISED if twice or never else 0
        should |= {f"plug{index}/p": (ns, flags), f"plug{index}/e": (ns, flags)}
        should[f"local{index}"] = (ns + 250_000_000, flags)
    send(node, messages)
    assert times(node) == should
    assert sum(flags > 0 for _, flags in should.values()) == 6 * 3
