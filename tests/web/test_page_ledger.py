"""The ledger and the processes on the page: the equation closes, or says exactly what is missing."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from tests.web.fixture_server import Fixture
from tests.web.tab import LOOKS, SELECTED, Open, look, number, overflow


@pytest.mark.parametrize(("size", "dark"), LOOKS)
def test_the_equation_adds_up_and_opens_its_reasons(
    visit: Open, node: Fixture, size: dict[str, int], dark: bool
) -> None:
    found = visit(node.address + SELECTED, size=size, dark=dark)
    ledger = found.page.locator("#ledger")
    expect(ledger).to_contain_text("closes, counted")
    line = ledger.locator("#ledger-messages")
    numbers = [number(text) for text in line.locator("strong").all_text_contents()]
    button = line.get_by_role("button")
    accounted = number(button.text_content() or "")
    assert numbers[0] > 1_000_000
    assert abs(numbers[0] - numbers[1] - accounted) <= 6100  # the page may be redrawn between two reads
    button.click()
    reasons = ledger.locator("#ledger-reasons")
    expect(reasons).to_contain_text("field: rejected: became dead letters")
    expect(reasons).to_contain_text("field: evicted by retention")
    expect(reasons).to_contain_text("rows of readings")
    expect(reasons).not_to_contain_text("conflict")
    expect(ledger.get_by_label("Of unknown size")).to_contain_text("QoS 0")
    ledger.scroll_into_view_if_needed()
    found.shoot(f"ledger-{look(size, dark)}")
    assert overflow(found) == 0
    assert found.problems() == []


def test_a_difference_is_an_alarm_with_what_is_missing(visit: Open, node: Fixture) -> None:
    node.missing_rows = 1203
    found = visit(node.address)
    expect(found.page.locator("#ledger")).to_contain_text("does not close")
    expect(found.page.locator("#ledger-rows")).to_contain_text("missing 1\u202f203")
    alarm = found.page.locator("#abnormal li", has_text="Ledger of field does not close")
    expect(alarm).to_contain_text("rows of readings neither stored nor accounted for")
    expect(alarm.locator(".badge.p1")).to_have_count(1)
    found.shoot("ledger-difference")
    assert found.problems() == []


def test_the_ledger_says_that_it_has_not_counted_yet(visit: Open, node: Fixture) -> None:
    node.uncounted = True
    found = visit(node.address)
    expect(found.page.locator("#ledger")).to_contain_text("being counted for the first time")
    assert found.problems() == []


def test_a_process_that_is_down_is_named_with_its_restarts(visit: Open, node: Fixture) -> None:
    node.part_down = "flows"
    found = visit(node.address)
    part = found.page.locator("#processes li", has_text="flows")
    expect(part).to_contain_text("backoff")
    expect(part).to_contain_text("3 restarts")
    expect(part).to_contain_text("killed by signal 9")
    expect(found.page.locator("#abnormal")).to_contain_text("Process flows backoff")
    expect(found.page.locator("#processes li", has_text="intake")).to_contain_text("running")
    found.page.locator("#processes").scroll_into_view_if_needed()
    found.shoot("processes")
    assert found.problems() == []
