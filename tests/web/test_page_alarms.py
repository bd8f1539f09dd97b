"""Alarms on the page, on a real node: a reading over its threshold comes up, a dark substation is one row, both close."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from playwright.sync_api import expect

from tests.conftest import free_port
from tests.node.running import RunningNode
from tests.web.fixture_server import STATIC
from tests.web.tab import AXE, PHONE, Visit, overflow

Open = Callable[..., Visit]
FEEDERS = [f"ss-07/feeder-{n}" for n in range(1, 9)]
CONFIGURATION = """\
[node]
name = "leipzig-west"
data = "data"
timezone = "Europe/Berlin"

[catalogue]
file = "series.csv"

[sources.field]
type = "mqtt-listener"
listen = "127.0.0.1:{mqtt}"

[[sources.field.map]]
topic = "t/{{station}}/{{part}}/{{what}}"
series = "{{station}}/{{part}}/{{what}}"
time = "t"
value = "v"

[alerts.transformer-hot]
where = "quantity = 'temperature'"
above = 90
clear_below = 85
priority = 1
flap = 0
text = "{{subject}} is hot"

[alerts.feeder-dead]
where = "quantity = 'voltage'"
below = 100
clear_above = 200
priority = 2
group_above = 3
update = "1s"
text = "no voltage"

[serve]
listen = "127.0.0.1:{http}"
"""


class Field:
    """Devices that publish what a test says."""

    def __init__(self, port: int) -> None:
        self._client = paho.Client(CallbackAPIVersion.VERSION2, client_id="field")
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()

    def say(self, values: dict[str, float]) -> None:
        now_ms = time.time_ns() // 1_000_000
        for series, value in values.items():
            sent = self._client.publish(f"t/{series}", json.dumps({"t": now_ms, "v": value}), qos=1)
            sent.wait_for_publish(60)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNode]:
    if not (STATIC / "index.html").exists():
        pytest.skip("the page is not built: make setup")
    directory = tmp_path_factory.mktemp("alarms")
    rows = [
        "key,unit,quantity,medium,device,place,owner",
        "ss-07/t4/oil,°C,temperature,electricity,t4,leipzig/ss-07,",
    ]
    rows += [f"{feeder}/u,V,voltage,electricity,rtu-7,leipzig/ss-07," for feeder in FEEDERS]
    (directory / "series.csv").write_text("\n".join(rows) + "\n")
    with RunningNode(directory, CONFIGURATION.format(mqtt=free_port(), http=free_port())) as running:
        yield running


@pytest.fixture
def field(node: RunningNode) -> Iterator[Field]:
    found = Field(node.port("field"))
    yield found
    found.close()


def alarms(node: RunningNode, state: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"{page_of(node)}api/v1/alarms?state={state}", timeout=60) as answer:
        found: dict[str, Any] = json.loads(answer.read())
    return found


def page_of(node: RunningNode) -> str:
    return f"http://127.0.0.1:{node.port('serve')}/"


def test_a_reading_over_its_threshold_is_an_alarm_on_the_page_until_it_falls(
    node: RunningNode, field: Field, visit: Open
) -> None:
    field.say({"ss-07/t4/oil": 60.0})
    desk = visit(page_of(node))
    expect(desk.page.locator("#alarms")).to_contain_text("No alarm is open")
    phone = visit(page_of(node), size=PHONE, dark=True)
    field.say({"ss-07/t4/oil": 97.5})
    for found in (desk, phone):
        row = found.page.locator("#alarms .alarm").first
        expect(row).to_contain_text("ss-07/t4/oil")
        expect(row).to_contain_text("97.50\u00a0°C")
        expect(row.locator("[aria-label='priority 1']")).to_be_visible()
        expect(found.page.locator(".head-abnormal [aria-label='priority 1']")).to_be_visible()
        assert overflow(found) == 0
    phone.page.reload()
    expect(phone.page.locator("#alarms .alarm").first).to_contain_text("97.50\u00a0°C")
    told = alarms(node, "open")
    assert told["open"] == [1, 0, 0]
    assert told["alarms"][0]["text"] == "ss-07/t4/oil is hot"
    field.say({"ss-07/t4/oil": 88.0})
    field.say({"ss-07/t4/oil": 80.0})
    for found in (desk, phone):
        expect(found.page.locator("#alarms")).to_contain_text("No alarm is open")
        closed = found.page.get_by_role("list", name="Closed alarms").locator(".alarm").first
        expect(closed).to_contain_text("worst 97.50\u00a0°C")
        assert found.problems() == []
    assert alarms(node, "open")["alarms"] == []
    assert [alarm["closed_ms"] is not None for alarm in alarms(node, "closed")["alarms"]] == [True]


def test_an_alarm_is_acknowledged_on_one_page_and_every_page_says_by_whom(
    node: RunningNode, field: Field, visit: Open
) -> None:
    field.say({"ss-07/t4/oil": 101.0})
    desk, phone = visit(page_of(node)), visit(page_of(node), size=PHONE, dark=True)
    row = desk.page.locator("#alarms .alarm").first
    expect(desk.page.locator("#alarms .panel-note")).to_contain_text("1 unacknowledged")
    desk.page.keyboard.press("a")
    expect(row.get_by_role("button", name="Acknowledge ss-07/t4/oil")).to_be_focused()
    desk.page.keyboard.press("Enter")
    form = row.get_by_role("form")
    expect(form.get_by_label("Your name")).to_be_focused()
    desk.page.keyboard.type("Ada")
    form.get_by_label("Note").fill("crew is on its way")
    desk.shoot("alarms-acknowledging-desk-light")
    if AXE.exists():
        assert desk.axe() == []
    form.get_by_label("Note").press("Enter")
    for found in (desk, phone):
        seen = found.page.locator("#alarms .alarm").first
        expect(seen).to_contain_text("acknowledged by Ada")
        expect(seen).to_contain_text("crew is on its way")
        expect(seen.get_by_role("button", name="Acknowledge")).to_have_count(0)
        expect(found.page.locator("#alarms .panel-note")).not_to_contain_text("unacknowledged")
        expect(found.page.locator(".head-abnormal [aria-label='priority 1']")).to_have_count(0)
        assert overflow(found) == 0
        assert found.problems() == []
    (told,) = alarms(node, "open")["alarms"]
    assert (told["annunciation"], told["acknowledged"]["by"]) == ("acknowledged", "Ada")
    phone.shoot("alarms-acknowledged-phone-dark")
    field.say({"ss-07/t4/oil": 60.0})
    expect(desk.page.locator("#alarms")).to_contain_text("No alarm is open")


def test_a_substation_that_goes_dark_is_one_row_with_its_members(
    node: RunningNode, field: Field, visit: Open
) -> None:
    field.say({"ss-07/t4/oil": 99.0} | {f"{feeder}/u": 231.0 for feeder in FEEDERS})
    tabs = [(visit(page_of(node)), "desk-light"), (visit(page_of(node), size=PHONE, dark=True), "phone-dark")]
    field.say({f"{feeder}/u": 0.0 for feeder in FEEDERS})
    for found, name in tabs:
        look_at_group(found, name)
    field.say({"ss-07/t4/oil": 60.0} | {f"{feeder}/u": 230.0 for feeder in FEEDERS})
    for found, _ in tabs:
        expect(found.page.locator("#alarms")).to_contain_text("No alarm is open")
        assert found.problems() == []


def look_at_group(found: Visit, name: str) -> None:
    rows = found.page.get_by_role("list", name="Open alarms").locator(":scope > .alarm")
    expect(rows).to_have_count(2)
    expect(rows.nth(0)).to_contain_text("is hot")
    group = rows.nth(1)
    expect(group).to_contain_text("leipzig/ss-07")
    group.get_by_role("button", name="8 of 8 still open").click()
    expect(group.locator(".alarm-members > li")).to_have_count(8)
    expect(group.locator(".alarm-members")).to_contain_text("ss-07/feeder-8/u")
    found.page.locator("#alarms").scroll_into_view_if_needed()
    found.shoot(f"alarms-{name}")
    assert overflow(found) == 0
    if AXE.exists():
        assert found.axe() == []
