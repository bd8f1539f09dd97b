"""kill -9 of a whole node at random moments under load: nothing acknowledged is missing, and windows are right."""

from __future__ import annotations

import random
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ringmain
from ringmain.flows.aggregates import BASIC
from ringmain.flows.settings import WindowSettings
from ringmain.log import open_log
from tests.conftest import Mosquitto, free_port, wait_until
from tests.flows.real_log import emitted, run_to_end, runner, undisturbed
from tests.node.publisher import Publisher
from tests.node.running import RunningNode
from tests.node.stored import assert_account_closes
from tests.promises import Fault, Part, promise
from tests.soak import run_campaign

PUBLISHERS = 2
RATE_PER_PUBLISHER = 2500.0
SOAK_KILLS = 500
SOAK_KILLS_AN_ITEM = 10
SOAK_RATE_MIN = 200
"""Messages a second: a campaign may run beside other work."""
SUBSCRIBED = "SUBSCRIBE from ringmain-crash"

CONFIGURATION = """\
[node]
name = "crash"

{source}

[[sources.field.map]]
topic  = "meters/{{meter}}/{{quantity}}"
series = "{{meter}}/{{quantity}}"
device = "{{meter}}"
time   = "t"
value  = "v"

[flows.minute]
from   = "readings"
window = "1m"
values = ["count", "sum", "mean", "min", "max", "first", "last"]
grace  = "10s"
idle   = "2s"
to     = "readings.1m"
"""


FLOW = WindowSettings(
    from_="readings", window="1m", values=list(BASIC), grace="10s", idle="2s", to="readings.1m"
)


@promise(
    Fault.KILL,
    Part.JOURNAL,
    "What devices and brokers were told is stored is there after each of twenty kills of a whole node under load.",
)
@pytest.mark.mosquitto
@pytest.mark.timeout(900)
@pytest.mark.parametrize("way", ["listener", "mosquitto"])
def test_twenty_kills_lose_nothing_acknowledged_and_windows_equal_a_fold_from_zero(
    way: str, tmp_path: Path, mosquitto: Callable[..., Mosquitto]
) -> None:
    campaign(way, tmp_path, mosquitto, kills=20, seed=20261123)


@pytest.mark.soak
@pytest.mark.mosquitto
@pytest.mark.timeout(0)
@pytest.mark.parametrize("way", ["listener", "mosquitto"])
def test_five_hundred_kills_lose_nothing_acknowledged_and_windows_equal_a_fold_from_zero(
    way: str, tmp_path: Path, mosquitto: Callable[..., Mosquitto], capsys: pytest.CaptureFixture[str]
) -> None:
    def run(item: int) -> int:
        with capsys.disabled():
            print(f"\nkills of a node ({way}), seed {item} ", end="", flush=True)
        campaign(way, tmp_path, mosquitto, kills=SOAK_KILLS_AN_ITEM, seed=item, rate_min=SOAK_RATE_MIN)
        shutil.rmtree(tmp_path / f"kills-{item}")
        return SOAK_KILLS_AN_ITEM

    told = run_campaign(f"node-kills-{way}", SOAK_KILLS // 2, run, "kills")
    with capsys.disabled():
        print(f"\n{told}")


def campaign(
    way: str,
    tmp_path: Path,
    mosquitto: Callable[..., Mosquitto],
    *,
    kills: int,
    seed: int,
    rate_min: float = 500,
) -> None:
    """Kill the node so often at moments drawn from the seed, then compare with what the publishers know.

    With fewer than `rate_min` acknowledged messages a second it says nothing.
    """
    chance = random.Random(seed)
    directory = tmp_path / f"kills-{seed}" / "node"
    subscriptions = brokers_log(tmp_path).count(SUBSCRIBED)
    if way == "listener":
        port = free_port()
        source = f'[sources.field]\ntype = "mqtt-listener"\nlisten = "127.0.0.1:{port}"'
    else:
        # it is not killed here: saving a long queue each second would hold up its acknowledgements
        port = mosquitto("max_queued_messages 0", "max_inflight_messages 1000", "autosave_interval 1800").port
        source = (
            f'[sources.field]\ntype = "mqtt"\nurl = "mqtt://127.0.0.1:{port}"\n'
            'topics = ["meters/#"]\nclient_id = "ringmain-crash"'
        )
    configuration = CONFIGURATION.format(source=source)
    node = RunningNode(directory, configuration)
    if way == "mosquitto":
        wait_until(lambda: brokers_log(tmp_path).count(SUBSCRIBED) > subscriptions, what="the subscription")
    publishers = [Publisher(port, f"p{i}", rate=RATE_PER_PUBLISHER) for i in range(PUBLISHERS)]
    for publisher in publishers:
        publisher.start()
    running_s = 0.0
    try:
        for _ in range(kills):
            started = time.monotonic()
            threading.Event().wait(chance.uniform(0.1, 1.2))
            running_s += time.monotonic() - started
            node.kill()
            node = RunningNode(directory, configuration)
        for publisher in publishers:
            publisher.finish(120)
        acknowledged = [message for publisher in publishers for message in publisher.acknowledged]
        wait_until_stored(directory, len(set(acknowledged)))
        wait_until(lambda: windows_have_caught_up(directory), 60, "the windows")
        assert node.stop() == 0
    finally:
        node.kill()
    assert len(acknowledged) / max(running_s, 1.0) >= rate_min, "too little load to say anything"
    stored = {
        (row["series"], row["ms"], row["value"])
        for row in query(directory, "select series, epoch_ms(time) as ms, value from readings_current")
    }
    missing = {(topic.removeprefix("meters/"), t, v) for topic, t, v in acknowledged} - stored
    assert not missing, (
        f"{len(missing)} of {len(acknowledged)} acknowledged readings are missing (seed {seed})"
    )
    assert_account_closes(directory / "data")
    newest = query(directory, 'select sum(count) as n from "readings.1m"')[0]["n"]
    assert newest == len(stored)
    with open_log(directory / "data") as log:
        flow = runner(log, directory / "data", FLOW)
        flow.start()
        run_to_end(log, flow)
        assert repr(emitted(log, FLOW)) == repr(undisturbed(log, directory.parent / "empty", FLOW))


def wait_until_stored(directory: Path, expected: int) -> None:
    """Wait as long as the backlog that the broker kept still shrinks; fail when a minute brings nothing new."""
    stored, deadline = -1, 0.0
    while stored < expected:
        found = query(directory, "select count(*) as n from readings_current")[0]["n"]
        if found > stored:
            stored, deadline = found, time.monotonic() + 60
        assert time.monotonic() < deadline, f"{stored} of {expected} acknowledged readings are stored"
        time.sleep(0.05)


def brokers_log(tmp_path: Path) -> str:
    return "".join(path.read_text(errors="replace") for path in tmp_path.glob("mosquitto-*/mosquitto.log"))


def query(directory: Path, statement: str) -> list[dict[str, Any]]:
    with ringmain.open(directory / "data", read_only=True) as log:
        rows: list[dict[str, Any]] = log.sql(statement).to_pylist()
        return rows


def windows_have_caught_up(directory: Path) -> bool:
    row = query(
        directory,
        'select (select sum(count) from "readings.1m") as windowed, (select count(*) from readings_current) as stored',
    )[0]
    return bool(row["windowed"] == row["stored"])
