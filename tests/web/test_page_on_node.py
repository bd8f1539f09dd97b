"""The page on a real node: real MQTT devices, the real log, flow and server, real Chromium."""

from __future__ import annotations

import itertools
import json
import math
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from playwright.sync_api import expect

from tests.conftest import free_port
from tests.node.running import RunningNode
from tests.web.fixture_server import STATIC
from tests.web.lossy_line import LossyLine
from tests.web.tab import AXE, DESK, PHONE, Visit

Open = Callable[..., Visit]
LOOKS = [pytest.param(DESK, False, id="desk-light"), pytest.param(PHONE, True, id="phone-dark")]
METERS = {f"hh-{n}": 400.0 + 20 * n for n in range(1, 9)} | {"pv-1": -900.0}
HEAT = {"heat-0": -52_000.0, "heat-1": 30_000.0, "heat-2": 20_000.0}
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
topic = "meters/{{meter}}/{{quantity}}"
series = "{{meter}}/{{quantity}}"
device = "{{meter}}"
time = "t"
value = "v"

[flows.quick]
from = "readings"
window = "2s"
values = ["count", "mean", "min", "max"]
late = "revise"
grace = "500ms"
idle = "5s"
to = "readings.2s"

[serve]
listen = "127.0.0.1:{http}"
"""


class Town(threading.Thread):
    """Devices that publish their power ten times in two seconds, at QoS 1, until told to stop."""

    def __init__(self, port: int) -> None:
        super().__init__(name="town", daemon=True)
        self.stopping = threading.Event()
        self.silent = threading.Event()
        self._client = paho.Client(CallbackAPIVersion.VERSION2, client_id="town")
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()

    def run(self) -> None:
        for step in itertools.count():
            if self.stopping.wait(0.2):
                break
            if self.silent.is_set():
                continue
            now_ms = time.time_ns() // 1_000_000
            for device, base in (METERS | HEAT).items():
                value = base * (1 + 0.2 * math.sin(step / 9 + len(device)))
                self.publish(f"meters/{device}/power", json.dumps({"t": now_ms, "v": value}))
        self._client.disconnect()
        self._client.loop_stop()

    def publish(self, topic: str, payload: str | bytes) -> None:
        self._client.publish(topic, payload, qos=1)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not (STATIC / "index.html").exists():
        pytest.skip("the page is not built: make setup")
    path = tmp_path_factory.mktemp("node")
    rows = ["key,unit,quantity,medium,device,place,owner"]
    rows += [f"{name}/power,W,power,electricity,{name},leipzig-west," for name in METERS]
    rows += [f"{name}/power,W,power,heat,{name},heat-network," for name in HEAT]
    (path / "series.csv").write_text("\n".join(rows) + "\n")
    return path


@pytest.fixture(scope="module")
def configuration() -> str:
    return CONFIGURATION.format(mqtt=free_port(), http=free_port())


@pytest.fixture(scope="module")
def node(directory: Path, configuration: str) -> Iterator[RunningNode]:
    with RunningNode(directory, configuration) as running:
        yield running


@pytest.fixture(scope="module")
def town(node: RunningNode) -> Iterator[Town]:
    devices = Town(node.port("field"))
    devices.start()
    yield devices
    devices.stopping.set()
    devices.join(60)


def page_of(node: RunningNode) -> str:
    return f"http://127.0.0.1:{node.port('serve')}/"


def figure(text: str | None) -> float:
    digits = re.sub(r"[^\d.\u2212]", "", text or "")
    return float(digits.replace("\u2212", "-"))


@pytest.mark.parametrize(("size", "dark"), LOOKS)
def test_values_move_and_charts_draw(
    visit: Open, node: RunningNode, town: Town, size: dict[str, int], dark: bool
) -> None:
    found = visit(page_of(node) + "?series=hh-3/power", size=size, dark=dark)
    page = found.page
    expect(page.locator(".connection")).to_have_text("live", timeout=30_000)
    load = page.locator("#medium-electricity .value-large .value-text")
    expect(load).to_contain_text("W", timeout=30_000)
    moving = {load.text_content()}
    for _ in range(300):
        page.wait_for_timeout(100)
        moving.add(load.text_content())
        if len(moving) >= 3:
            break
    assert len(moving) >= 3
    expect(page.locator("#medium-heat .balance")).to_contain_text("residual")
    received = page.locator(".counts div", has_text="received").locator("dd")
    before = figure(received.text_content())
    expect(received).not_to_have_text(received.text_content() or "")
    assert figure(received.text_content()) > before
    expect(page.locator(".toolbar-resolution")).to_contain_text("2\u00a0s windows", timeout=30_000)
    found.wait_drawn("#medium-electricity canvas")
    page.locator(".series-card").scroll_into_view_if_needed()
    expect(page.locator(".series-card .readout")).to_contain_text("mean", timeout=30_000)
    found.wait_drawn(".series-card canvas")
    page.get_by_role("button", name="raw", exact=True).click()
    expect(page.locator(".series-card .readout")).to_contain_text("value")
    found.wait_drawn(".series-card canvas")
    page.evaluate("scrollTo(0, 0)")
    found.shoot(f"node-{'phone-dark' if size is PHONE else 'desk-light'}")
    assert (
        found.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        == 0
    )
    assert found.problems() == []
    assert found.hosts == {page_of(node).split("/")[2]}


def test_windows_move_on_without_being_asked_for(visit: Open, node: RunningNode, town: Town) -> None:
    found = visit(page_of(node) + "?series=hh-3/power")
    for part in ("#medium-electricity", ".series-card"):
        newest = found.page.locator(f"{part} .readout-time")
        expect(newest).to_contain_text("newest", timeout=30_000)
    requests: list[str] = []
    found.page.on("request", lambda request: requests.append(request.url))
    for part in ("#medium-electricity", ".series-card"):
        newest = found.page.locator(f"{part} .readout-time")
        expect(newest).not_to_have_text(newest.text_content() or "", timeout=30_000)
    assert [url for url in requests if "/windows" in url] == []


def test_search_finds_a_series_by_part_of_its_key_and_of_its_place(
    visit: Open, node: RunningNode, town: Town
) -> None:
    found = visit(page_of(node))
    expect(found.page.locator(".connection")).to_have_text("live", timeout=30_000)
    expect(found.page.locator("#medium-heat")).to_be_visible(timeout=30_000)
    found.page.keyboard.press("/")
    found.page.keyboard.type("heat-2")
    option = found.page.get_by_role("option", name="heat-2/power")
    expect(option).to_contain_text("kW")
    expect(option).to_contain_text("heat-network")
    found.page.keyboard.press("Enter")
    expect(option).to_have_attribute("aria-selected", "true")
    found.page.keyboard.press("Escape")
    expect(found.page.locator(".series-card h3")).to_have_text("heat-2/power")
    expect(found.page.locator(".series-last")).to_contain_text("kW")
    assert found.problems() == []


def test_malformed_json_shows_as_a_dead_letter(visit: Open, node: RunningNode, town: Town) -> None:
    found = visit(page_of(node))
    expect(found.page.locator(".connection")).to_have_text("live", timeout=30_000)
    subprocess.run(
        [
            "mosquitto_pub",
            "-h",
            "127.0.0.1",
            "-p",
            str(node.port("field")),
            "-q",
            "1",
            "-t",
            "meters/hh-5/power",
            "-m",
            '{"t": 17',
        ],
        check=True,
        timeout=60,
    )
    letter = found.page.locator("#letters .letter").first
    expect(letter).to_contain_text("meters/hh-5/power")
    expect(letter.locator("code")).to_have_text('{"t": 17')
    expect(letter.locator(".letter-reason")).not_to_be_empty()
    expect(found.page.locator("#abnormal")).to_contain_text("dead letter")
    expect(found.page.locator(".counts div", has_text="dead letters").locator("dd")).not_to_have_text("0")
    found.shoot("node-fault")
    assert found.problems() == []


def test_a_clock_an_hour_ahead_is_flagged(visit: Open, node: RunningNode, town: Town) -> None:
    found = visit(page_of(node) + "?series=hh-wrong/power")
    expect(found.page.locator(".connection")).to_have_text("live", timeout=30_000)
    town.publish("meters/hh-wrong/power", json.dumps({"t": int(time.time() + 3600) * 1000, "v": 1}))
    expect(found.page.locator(".counts div", has_text="ahead of clock").locator("dd")).not_to_have_text(
        "0", timeout=30_000
    )
    found.page.reload()
    expect(found.page.locator(".series-facts .word-abnormal")).to_contain_text("clock wrong")


def test_a_cut_line_shows_as_stale_and_recovers(visit: Open, node: RunningNode, town: Town) -> None:
    with LossyLine(node.port("serve")) as line:
        found = visit(f"http://127.0.0.1:{line.port}/?series=hh-3/power")
        load = found.page.locator("#medium-electricity .value-large")
        expect(load).not_to_have_class(re.compile("stale"), timeout=30_000)
        line.cut()
        expect(found.page.locator(".banner")).to_contain_text("Disconnected")
        expect(load).to_have_class(re.compile("stale"))
        held = load.locator(".value-text").text_content()
        found.page.wait_for_timeout(1200)
        assert load.locator(".value-text").text_content() == held
        found.shoot("node-disconnected")
        line.mend()
        expect(found.page.locator(".banner")).to_have_count(0, timeout=30_000)
        expect(load).not_to_have_class(re.compile("stale"))
        expect(load.locator(".value-text")).not_to_have_text(held or "")
        own = ("WebSocket connection", "Failed to load resource: net::ERR_")
        assert [text for text in found.errors if not text.startswith(own)] == []


def test_silent_devices_show_as_stale(visit: Open, node: RunningNode, town: Town) -> None:
    found = visit(page_of(node) + "?series=hh-3/power")
    load = found.page.locator("#medium-electricity .value-large")
    expect(load).not_to_have_class(re.compile("stale"), timeout=30_000)
    town.silent.set()
    try:
        expect(found.page.locator("#abnormal")).to_contain_text(
            re.compile(r"(All|1[0-9]) series stale"), timeout=30_000
        )
        expect(load).to_have_class(re.compile("stale"))
        expect(load).to_contain_text("old")
    finally:
        town.silent.clear()
    expect(load).not_to_have_class(re.compile("stale"), timeout=30_000)
    assert found.problems() == []


@pytest.mark.skipif(not AXE.exists(), reason="axe-core is missing: make setup")
def test_axe_passes_on_the_node(visit: Open, node: RunningNode, town: Town) -> None:
    found = visit(page_of(node) + "?series=hh-3/power", bypass_csp=True)
    expect(found.page.locator("#medium-electricity .value-large")).to_contain_text("W", timeout=30_000)
    expect(found.page.locator(".series-card .readout")).to_contain_text("mean", timeout=30_000)
    for size, dark in ((DESK, False), (PHONE, True)):
        found.page.set_viewport_size(size)  # type: ignore[arg-type]
        found.page.emulate_media(color_scheme="dark" if dark else "light")
        assert found.axe() == []


def test_the_page_survives_a_killed_node_and_shows_its_history_again(
    visit: Open, directory: Path, configuration: str, tmp_path: Path
) -> None:
    text = CONFIGURATION.format(mqtt=free_port(), http=free_port())
    (tmp_path / "series.csv").write_text((directory / "series.csv").read_text())
    running = RunningNode(tmp_path, text)
    try:
        devices = Town(running.port("field"))
        devices.start()
        found = visit(page_of(running))
        expect(found.page.locator(".toolbar-resolution")).to_contain_text("2\u00a0s windows", timeout=30_000)
        found.wait_drawn("#medium-electricity canvas")
        running.kill()
        expect(found.page.locator(".banner")).to_contain_text("Disconnected")
        running = RunningNode(tmp_path, text)
        expect(found.page.locator(".banner")).to_have_count(0, timeout=30_000)
        expect(found.page.locator(".connection")).to_have_text("live")
        found.wait_drawn("#medium-electricity canvas")
        devices.stopping.set()
        devices.join(60)
    finally:
        running.kill()
