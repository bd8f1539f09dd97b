"""Sign-in, addresses, time zones, and access for everybody: axe, keyboard, targets."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from tests.web.fixture_server import Fixture, serving
from tests.web.tab import DESK, PHONE, SELECTED, Open, look, needs_axe


def test_a_token_is_asked_for_kept_for_the_tab_and_sent_on_both_ways(visit: Open) -> None:
    fixture = Fixture(token="open sesame")
    with serving(fixture) as address:
        found = visit(address)
        field = found.page.get_by_label("Access token")
        expect(field).to_be_visible()
        assert "leipzig" not in (found.page.text_content("body") or "")
        field.fill("wrong")
        found.page.get_by_role("button", name="Sign in").click()
        expect(found.page.get_by_role("alert")).to_contain_text("not accepted")
        field.fill("open sesame")
        found.page.keyboard.press("Enter")
        expect(found.page.locator(".connection")).to_have_text("live")
        found.wait_drawn("#medium-electricity canvas")
        found.page.reload()
        expect(found.page.locator(".connection")).to_have_text("live")
        assert found.page.evaluate("sessionStorage.length") == 1
        assert found.page.evaluate("localStorage.length") == 0
        assert "sesame" not in found.page.url


def test_the_page_works_below_a_path(visit: Open) -> None:
    fixture = Fixture(prefix="/plant/ringmain")
    with serving(fixture) as address:
        found = visit(address)
        expect(found.page.locator(".connection")).to_have_text("live")
        found.wait_drawn("#medium-electricity canvas")
        assert found.problems() == []


@pytest.mark.parametrize(
    ("zone", "shown"),
    [
        ("UTC", "2026-11-23 13:05:\\d\\d \\+00:00"),
        ("Europe/Berlin", "2026-11-23 14:05:\\d\\d \\+01:00"),
        ("America/New_York", "2026-11-23 08:05:\\d\\d \u221205:00"),
        ("Asia/Kolkata", "2026-11-23 18:35:\\d\\d \\+05:30"),
    ],
)
def test_the_clock_is_the_utilitys_whatever_the_browsers_zone(visit: Open, zone: str, shown: str) -> None:
    fixture = Fixture(timezone=zone)
    with serving(fixture) as address:
        found = visit(address, timezone_id="Pacific/Auckland")
        expect(found.page.locator(".head-clock")).to_have_text(re.compile(shown))


@pytest.mark.parametrize(
    ("base", "windows"),
    [
        # 2026-10-25T01:05:08Z, five minutes into the second pass of 02:00 to 03:00.
        (1_792_890_308_000, ["02:03 +01:00–02:04 +01:00", "02:59 +02:00–02:00 +01:00"]),
        # 2026-03-29T01:05:08Z, five minutes after 02:00 to 03:00 was skipped.
        (1_774_746_308_000, ["03:03–03:04", "01:59–03:00"]),
    ],
    ids=["autumn", "spring"],
)
def test_the_nights_of_the_clock_changes_are_told_apart(visit: Open, base: int, windows: list[str]) -> None:
    fixture = Fixture(base_ms=base)
    with serving(fixture) as address:
        found = visit(address + "?range=15m", timezone_id="Europe/Berlin")
        found.wait_drawn("#medium-electricity canvas")
        figure = found.page.locator("#medium-electricity figure")
        figure.focus()
        found.page.keyboard.press("t")
        times = figure.locator("tbody th")
        expect(times.first).to_be_visible()
        listed = times.all_text_contents()
        for window in windows:
            assert window in listed
        found.shoot(f"clock-change-{base}")


@needs_axe
@pytest.mark.parametrize(
    "state", ["live", "stale", "empty", "disconnected", "fault", "search", "help", "table"]
)
def test_axe_finds_no_violation_in_both_sizes_and_themes(visit: Open, node: Fixture, state: str) -> None:
    if state == "stale":
        node.go_stale()
    node.empty = state == "empty"
    if state == "fault":
        node.source_down = True
        node.log_state = "full"
        node.malformed()
    found = visit(node.address + ("" if state == "empty" else SELECTED), bypass_csp=True)
    expect(found.page.locator(".connection")).to_have_text("live")
    if state == "disconnected":
        node.cut()
        expect(found.page.locator(".banner")).to_be_visible()
    elif state == "search":
        found.page.keyboard.press("/")
        expect(found.page.get_by_role("option").first).to_be_visible()
    elif state == "help":
        found.page.keyboard.press("?")
        expect(found.page.get_by_role("dialog")).to_be_visible()
    elif state == "table":
        found.page.locator("figure").first.focus()
        found.page.keyboard.press("t")
        expect(found.page.locator("figure table").first).to_be_visible()
    elif state == "fault":
        expect(found.page.locator("#letters .letter").first).to_be_visible()
    violations: dict[str, list[str]] = {}
    looks = [(DESK, False), (PHONE, True)]
    if state in ("live", "fault"):
        looks += [(DESK, True), (PHONE, False)]
    for size, dark in looks:
        found.page.set_viewport_size(size)  # type: ignore[arg-type]
        found.page.emulate_media(color_scheme="dark" if dark else "light")
        violations[look(size, dark)] = found.axe()
    assert violations == {name: [] for name in violations}


@needs_axe
def test_axe_finds_no_violation_in_the_sign_in(visit: Open) -> None:
    with serving(Fixture(token="t")) as address:
        found = visit(address, bypass_csp=True)
        expect(found.page.get_by_label("Access token")).to_be_visible()
        assert found.axe() == []


def test_targets_on_a_phone_are_44_pixels_high(visit: Open, node: Fixture) -> None:
    found = visit(node.address + SELECTED, size=PHONE)
    expect(found.page.locator(".series-card")).to_have_count(2)
    small = found.page.evaluate(
        """() => [...document.querySelectorAll('button, input, select, .bottom a')]
            .filter(element => element.checkVisibility() && element.getBoundingClientRect().height < 44)
            .map(element => element.outerHTML.slice(0, 80))"""
    )
    assert small == []


def test_reduced_motion_loses_nothing_since_nothing_moves_for_decoration(visit: Open, node: Fixture) -> None:
    found = visit(node.address, reduced_motion="no-preference")
    expect(found.page.locator(".connection")).to_have_text("live")
    assert found.page.evaluate("document.getAnimations().length") == 0
