"""A whole node fed by MQTT with a random history, compared with plain Python over what it stored."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.conftest import free_port, wait_until
from tests.node import oracle
from tests.node.oracle import MINUTE_NS, Stored
from tests.node.random_history import START_NS, Feed, History
from tests.node.running import RunningNode
from tests.node.stored import assert_account_closes, assert_no_traceback, http_json, metric, query

CONFIGURATION = """\
[node]
name = "oracle"
data = "data"
timezone = "Europe/Berlin"

[sources.field]
type   = "mqtt-listener"
listen = "127.0.0.1:{port}"

[[sources.field.map]]
topic   = "meters/{{meter}}/{{quantity}}"
series  = "{{meter}}/{{quantity}}"
device  = "{{meter}}"
medium  = "electricity"
unit    = "kW"
time    = "t"
value   = "v"
quality = "q"

[[sources.field.map]]
topic  = "tele/{{plug}}/SENSOR"
device = "{{plug}}"
series = "{{plug}}/{{name}}"
time   = "Time"
values = {{ p = "ENERGY.Power", e = "ENERGY.Total" }}
units  = {{ p = "W", e = "kWh" }}

[[sources.field.map]]
topic  = "fast/{{meter}}/{{quantity}}"
series = "{{meter}}/{{quantity}}"
device = "{{meter}}"
medium = "electricity"
unit   = "kW"
time   = "t"
value  = "v"

[serve]
listen = "127.0.0.1:{http}"
"""
FLOW = """
[flows.{name}]
window = "{window}"
values = ["count", "sum", "mean", "min", "max", "first", "last"]
late   = "{late}"
grace  = "10s"
idle   = "1s"
to     = "{to}"
"""
FLOWS = (
    ("minute", "1m", "revise", "readings.1m"),
    ("side", "1m", "side", "side.1m"),
    ("drop", "1m", "drop", "drop.1m"),
    ("quarter", "15m", "revise", "readings.15m"),
    ("hour", "1h", "side", "side.1h"),
)


def configuration() -> str:
    flows = (FLOW.format(name=n, window=w, late=late, to=to) for n, w, late, to in FLOWS)
    return CONFIGURATION.format(port=free_port(), http=free_port()) + "".join(flows)


def feed(node: RunningNode, history: History, messages: int) -> None:
    """Publish over one connection; now and then a pause in which every device falls idle."""
    client = Feed(node.port("field"), f"feed-{len(history.sent)}")
    try:
        for burst in history.messages(messages):
            client.send(burst)
            if history.random.random() < 0.02:
                time.sleep(1.3)  # the history itself: silence longer than `idle`
    finally:
        client.close()


def expected(data: Path, rows: Sequence[Stored], width_ns: int, late: str, to: str) -> oracle.Windows:
    if late == "revise":
        return oracle.windows(rows, width_ns)
    aside = set(oracle.set_aside(data, "side" + to[to.index(".") :]))
    return oracle.windows([row for row in rows if (row.series, row.time, row.arrived) not in aside], width_ns)


Difference = tuple[tuple[str, int], oracle.Window | None, oracle.Window | None]
"""Series and start, found, expected."""
WIDTHS = {"1m": MINUTE_NS, "15m": 15 * MINUTE_NS, "1h": 60 * MINUTE_NS}


def differences(data: Path, rows: Sequence[Stored]) -> dict[str, list[Difference]]:
    """By window stream: (series and start, found, expected) where they differ."""
    wrong = {}
    for _, width, late, to in FLOWS:
        should, found = expected(data, rows, WIDTHS[width], late, to), oracle.emitted(data, to)
        keys = [key for key in should.keys() | found.keys() if should.get(key) != found.get(key)]
        if keys:
            wrong[to] = [(key, found.get(key), should.get(key)) for key in sorted(keys)[:5]]
    return wrong


def assert_windows_are_right(data: Path) -> list[Stored]:
    """Every flow's windows are those of the oracle, once all windows are closed; the readings."""
    rows = oracle.stored(data)
    wrong: dict[str, list[Difference]] = {"not": []}

    def settled() -> bool:
        wrong.clear()
        wrong.update(differences(data, rows))
        return not wrong

    try:
        wait_until(settled, 60, "windows", interval_s=0.5)
    except AssertionError:
        raise AssertionError(f"(window, found, expected): {wrong}") from None
    return rows


def assert_accounts_balance(data: Path, rows: Sequence[Stored], side: str, width_ns: int) -> None:
    """received = in windows + late + ahead + invalid + superseded, each counted by itself."""
    aside = Counter(oracle.set_aside(data, side))
    late = sum(aside.values())
    ahead = sum(row.ahead for row in rows)
    rest = [row for row in rows if not row.ahead and (row.series, row.time, row.arrived) not in aside]
    newest = oracle.current(rest)
    invalid = sum(not row.valid for row in newest.values())
    superseded = len(rest) - len(newest)
    in_windows = query(data, f'select coalesce(sum(count), 0) as n from "{side}"')[0]["n"]
    assert late > 20
    assert ahead > 20
    assert invalid > 20
    assert superseded > 20
    assert len(rows) == in_windows + late + ahead + invalid + superseded


def assert_revisions_are_dense(data: Path, stream: str) -> None:
    newest = {
        (row["series"], row["start"]): row["revision"]
        for row in query(data, f'select series, epoch_ns(start) as start, revision from "{stream}"')
    }
    last = oracle.emitted(data, stream)
    found = oracle.revisions(data, stream)
    assert newest.keys() == found.keys()
    for key, history in found.items():
        assert [revision for revision, _ in history] == list(range(len(history))), (stream, key, history)
        assert history[-1][0] == newest[key], (stream, key)
        if history[-1][1][0]:
            assert history[-1][1] == last[key], (stream, key)
        for before, after in itertools.pairwise(history):
            assert before[1] != after[1], f"a revision of {stream} {key} that changes nothing: {after}"


def assert_current_is_right(data: Path, rows: Sequence[Stored]) -> None:
    columns = "series, epoch_ns(time) as time, value, quality, epoch_ns(arrived) as arrived"
    found = [Stored(**row) for row in query(data, f"select {columns} from readings_current")]
    assert sorted(found, key=repr) == sorted(oracle.current(rows).values(), key=repr)
    raw = [Stored(**row) for row in query(data, f"select {columns} from readings")]
    assert sorted(raw, key=repr) == sorted(rows, key=repr)


def test_what_a_node_computes_from_a_random_history_is_what_plain_python_computes(tmp_path: Path) -> None:
    data = tmp_path / "data"
    text = configuration()
    history = History(20261123)
    with RunningNode(tmp_path, text) as node:
        feed(node, history, 1200)
        rows = assert_windows_are_right(data)
        assert_accounts_balance(data, rows, "side.1m", MINUTE_NS)
        assert_counters_are_right(node, data, rows, history)
        assert_charts_are_right(node, rows)
        assert_media_are_right(node, rows)
        assert node.stop() == 0
    with RunningNode(tmp_path, text) as node:
        feed(node, history, 600)
        node.kill()
    with RunningNode(tmp_path, text) as node:
        feed(node, history, 600)
        rows = assert_windows_are_right(data)
        assert_latest_is_right(node, rows)
        assert node.stop() == 0
        assert_no_traceback(node)
    rows = assert_windows_are_right(data)
    assert_current_is_right(data, rows)
    assert_account_closes(data)
    for _, _, _, to in FLOWS:
        assert_revisions_are_dense(data, to)
    assert oracle.emitted(data, "side.1m") == oracle.emitted(data, "drop.1m")
    assert_accounts_balance(data, rows, "side.1m", MINUTE_NS)
    assert_accounts_balance(data, rows, "side.1h", 60 * MINUTE_NS)
    for row in rows:
        assert bool(row.quality & 128) == row.ahead, row


def assert_counters_are_right(
    node: RunningNode, data: Path, rows: Sequence[Stored], history: History
) -> None:
    port = node.port("serve")
    overview = http_json(port, "/api/v1/overview")
    letters = query(data, "select count(*) as n from deadletters")[0]["n"]
    assert letters == history.dead_letters
    assert overview["counts"]["stored"] == len(rows)
    assert overview["counts"]["dead_letters"] == letters
    flows = {flow["to"]: flow for flow in overview["flows"]}
    late = len(oracle.set_aside(data, "side.1m"))
    ahead = sum(row.ahead for row in rows)
    assert flows["side.1m"]["late"] == flows["drop.1m"]["late"] == flows["readings.1m"]["late"] == late
    for flow in flows.values():
        assert (flow["rows"], flow["ahead"]) == (len(rows), ahead), flow
    revised = sum(
        len(history) - 1 for _, _, _, to in FLOWS for history in oracle.revisions(data, to).values()
    )
    # windows that closed with the last tick are in the log before the flows' part reports next
    wait_until(lambda: metric(port, "ringmain_flow_revisions_total") == revised, 10, f"{revised} revisions")


def bucket_ns(resolution: str) -> int:
    length, word = resolution.split()
    assert word == "buckets"
    return int(length[:-1]) * {"s": 1, "m": 60, "h": 3600, "d": 86_400}[length[-1]] * 10**9


def assert_charts_are_right(node: RunningNode, rows: Sequence[Stored]) -> None:
    port = node.port("serve")
    low, high = START_NS - 2 * 60 * MINUTE_NS, START_NS + 4 * 60 * MINUTE_NS
    windows = oracle.windows(rows, MINUTE_NS)
    stretch = f"from={low // 10**6}&to={high // 10**6}"
    for key in sorted({row.series for row in rows})[::3]:
        mine = [row for row in rows if row.series == key and low <= row.time < high]
        newest = sorted(oracle.current(mine).values(), key=lambda row: row.time)
        name = quote(key, safe="")
        raw = http_json(port, f"/api/v1/readings?series={name}&{stretch}&max_points=20000")
        assert raw["resolution"] == "raw"
        points = raw["points"]
        values = [row.value for row in newest]
        assert points["time_ms"] == [row.time // 10**6 for row in newest]
        assert points["mean"] == points["min"] == points["max"] == values
        assert points["quality"] == [row.quality for row in newest]
        for max_points in (13, 7, 2, 1):
            found = http_json(port, f"/api/v1/readings?series={name}&{stretch}&max_points={max_points}")
            if len(newest) <= max_points:
                assert found["resolution"] == "raw"
                continue
            points = found["points"]
            step_ns = bucket_ns(found["resolution"])
            should = oracle.buckets(mine, step_ns, low if max_points == 1 else 0)
            assert len(points["time_ms"]) <= max_points
            by_start = {
                start * 10**6: row
                for start, *row in zip(
                    points["time_ms"],
                    points["count"],
                    points["min"],
                    points["max"],
                    points["mean"],
                    strict=True,
                )
                if row[0]
            }
            assert by_start.keys() == should.keys(), (key, max_points)
            for start, (count, low_, high_, mean) in by_start.items():
                assert (count, low_, high_) == (should[start][0], should[start][3], should[start][4])
                assert mean == pytest.approx(should[start][2], rel=1e-9, abs=1e-6)
        answer = http_json(port, f"/api/v1/windows?stream=readings.1m&series={name}&{stretch}")
        table = answer["rows"]
        charted = {
            (key, start * 10**6): row
            for start, *row in zip(
                table["start_ms"], table["count"], table["mean"], table["min"], table["max"], strict=True
            )
            if row[0]
        }
        assert charted == {
            at: [row[0], *row[2:5]] for at, row in windows.items() if at[0] == key and low <= at[1] < high
        }


def assert_media_are_right(node: RunningNode, rows: Sequence[Stored]) -> None:
    """Sums of the series `power`, which are in kW, in W."""
    low, high = START_NS - 2 * 60 * MINUTE_NS, START_NS + 4 * 60 * MINUTE_NS
    watts: dict[int, list[float]] = {}
    for (key, start), window in oracle.windows(rows, MINUTE_NS).items():
        if key.endswith("/power") and low <= start < high:
            assert window[2] is not None
            watts.setdefault(start // 10**6, []).append(1000 * window[2])
    stretch = f"from={low // 10**6}&to={high // 10**6}"
    found = http_json(node.port("serve"), f"/api/v1/windows?stream=readings.1m&medium=electricity&{stretch}")[
        "rows"
    ]
    at = found["start_ms"]
    assert watts.keys() <= set(at)
    for index, start in enumerate(at):
        means = watts.get(start, [0.0])  # a window whose last value was taken back adds nothing
        assert found["load"][index] == pytest.approx(sum(mean for mean in means if mean > 0), abs=1e-6)
        assert found["generation"][index] == pytest.approx(sum(mean for mean in means if mean < 0), abs=1e-6)
        assert found["net"][index] == pytest.approx(sum(means), rel=1e-9, abs=1e-3)


def assert_latest_is_right(node: RunningNode, rows: Sequence[Stored]) -> None:
    newest: dict[str, Stored] = {}
    for row in rows:
        before = newest.get(row.series)
        if before is None or min(row.time, row.arrived) >= min(before.time, before.arrived):
            newest[row.series] = row
    answer = http_json(node.port("serve"), "/api/v1/latest")
    found = {
        row["key"]: (int(row["time_ns"]), row["value"], row["quality"], row["arrived_ms"])
        for row in answer["latest"]
    }
    assert found == {
        key: (row.time, row.value, row.quality, row.arrived // 10**6) for key, row in newest.items()
    }
