"""The page over the fixture when it is not: stale, empty, disconnected, failed, faults."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from tests.web.fixture_server import Fixture
from tests.web.tab import LOOKS, SELECTED, Open, look, overflow


@pytest.mark.parametrize(("size", "dark"), LOOKS)
def test_stale_values_are_muted_and_dashed_and_carry_their_age(
    visit: Open, node: Fixture, size: dict[str, int], dark: bool
) -> None:
    node.go_stale()
    found = visit(node.address + SELECTED, size=size, dark=dark)
    load = found.page.locator("#medium-electricity .value-large")
    expect(load).to_have_class(re.compile("stale"))
    expect(load).to_contain_text(re.compile(r"\d+\s(s|min) old"))
    assert load.evaluate("element => getComputedStyle(element).borderBottomStyle") == "dashed"
    expect(found.page.locator("#abnormal")).to_contain_text("All series stale")
    expect(found.page.locator("#freshness")).to_contain_text("0 of")
    expect(found.page.locator(".series-card .stale").first).to_be_visible()
    found.shoot(f"stale-{look(size, dark)}")
    assert overflow(found) == 0
    assert found.problems() == []


@pytest.mark.parametrize(("size", "dark"), LOOKS)
def test_an_empty_node_says_why_and_what_to_do(
    visit: Open, node: Fixture, size: dict[str, int], dark: bool
) -> None:
    node.empty = True
    found = visit(node.address, size=size, dark=dark)
    expect(found.page.locator("#power")).to_contain_text("No power is measured yet")
    expect(found.page.locator("#power code")).to_contain_text("mosquitto_pub -h 127.0.0.1 -p 1884")
    expect(found.page.locator("#series")).to_contain_text("No series selected")
    expect(found.page.locator(".head-oldest")).to_contain_text("—")
    found.shoot(f"empty-{look(size, dark)}")
    assert overflow(found) == 0
    assert found.problems() == []


@pytest.mark.parametrize(("size", "dark"), LOOKS)
def test_a_cut_connection_shows_as_stale_and_recovers(
    visit: Open, node: Fixture, size: dict[str, int], dark: bool
) -> None:
    found = visit(node.address + SELECTED, size=size, dark=dark)
    load = found.page.locator("#medium-electricity .value-large")
    expect(load).not_to_have_class(re.compile("stale"))
    found.wait_drawn("#medium-electricity canvas")
    expect(found.page.locator(".connection")).to_have_text("live")
    node.cut()
    expect(found.page.locator(".banner")).to_contain_text("Disconnected")
    expect(load).to_have_class(re.compile("stale"))
    expect(found.page).to_have_title(re.compile("^✕"))
    found.shoot(f"disconnected-{look(size, dark)}")
    assert overflow(found) == 0
    node.mend()
    expect(found.page.locator(".banner")).to_have_count(0, timeout=30_000)
    expect(load).not_to_have_class(re.compile("stale"))
    expect(found.page.locator(".connection")).to_have_text("live")
    assert node.hellos == 2
    assert node.watched == ["ss-01/feeder-3/power", "heat-1/supply-temperature"]
    assert found.problems(while_cut=True) == []


def test_what_happened_while_cut_is_filled_in_afterwards(visit: Open, node: Fixture) -> None:
    found = visit(node.address)
    figure = found.page.locator("#medium-electricity figure")
    found.wait_drawn("#medium-electricity canvas")
    expect(found.page.locator(".connection")).to_have_text("live")
    node.cut()
    expect(found.page.locator(".banner")).to_be_visible()
    node.shift(300)
    node.mend()
    expect(found.page.locator(".banner")).to_have_count(0, timeout=30_000)
    figure.focus()
    found.page.keyboard.press("t")
    times = figure.locator("tbody th")
    expect(times.nth(4)).to_be_visible()
    starts = [text[:5] for text in times.all_text_contents()[:8]]
    minutes = [int(text[:2]) * 60 + int(text[3:]) for text in starts]
    assert minutes == list(range(minutes[0], minutes[0] - len(minutes), -1))


def test_silence_of_five_seconds_is_a_cut_even_on_an_open_socket(visit: Open, node: Fixture) -> None:
    found = visit(node.address)
    expect(found.page.locator(".connection")).to_have_text("live")
    node.silent = True
    expect(found.page.locator(".banner")).to_contain_text("nothing heard for 5 s")
    node.silent = False
    expect(found.page.locator(".banner")).to_have_count(0, timeout=30_000)
    assert node.hellos >= 2


def test_a_chart_that_cannot_load_says_what_since_when_and_with_which_reference(
    visit: Open, node: Fixture
) -> None:
    node.fail_windows = True
    found = visit(node.address)
    failure = found.page.locator("#medium-electricity .failure")
    expect(failure).to_contain_text("the log is being repaired")
    expect(failure).to_contain_text("reference r-42")
    expect(found.page.locator("#medium-electricity .value-large")).to_contain_text("W")
    node.fail_windows = False
    failure.get_by_role("button", name="Retry").click()
    expect(failure).to_have_count(0)
    found.wait_drawn("#medium-electricity canvas")


def test_a_malformed_message_shows_with_source_topic_reason_and_payload(visit: Open, node: Fixture) -> None:
    found = visit(node.address)
    expect(found.page.locator("#letters")).to_contain_text("Every message became a reading")
    node.malformed('{"t": 1, <b>"v"</b>\x07')
    letter = found.page.locator("#letters .letter").first
    expect(letter).to_contain_text("meters/hh-00042/power")
    expect(letter).to_contain_text("payload is not JSON")
    expect(letter.locator("code")).to_have_text('{"t": 1, <b>"v"</b>␇')
    expect(found.page.locator("#abnormal")).to_contain_text("1 dead letter in 5 min")
    assert found.problems() == []


def test_a_source_that_is_down_and_a_full_journal_come_first(visit: Open, node: Fixture) -> None:
    found = visit(node.address)
    node.source_down = True
    node.log_state = "full"
    conditions = found.page.locator("#abnormal li")
    expect(conditions.nth(0)).to_contain_text("Journal full")
    expect(conditions.nth(0).locator(".badge.p1")).to_be_visible()
    expect(conditions.nth(1)).to_contain_text("Source city restarting")
    expect(conditions.nth(1)).to_contain_text("connection refused by 127.0.0.1:1883")
    expect(found.page.locator("[aria-live=assertive]")).to_contain_text("Journal full", timeout=30_000)
    found.shoot("fault-desk-light")


def test_the_stale_list_leads_to_the_series(visit: Open, node: Fixture) -> None:
    found = visit(node.address)
    found.page.get_by_role("button", name="1 more stale").click()
    items = found.page.locator(".stale-list li")
    expect(items).to_have_count(4)
    items.first.get_by_role("button").click()
    expect(found.page.locator(".series-card h3")).to_have_text("hh-00311/energy")
