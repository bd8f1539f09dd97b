"""Search, selected series, charts by keyboard, the view in the address."""

from __future__ import annotations

import re

from playwright.sync_api import expect

from tests.web.fixture_server import Fixture, serving
from tests.web.tab import SELECTED, Open


def test_search_by_keyboard_finds_a_series_among_a_hundred_thousand(visit: Open) -> None:
    fixture = Fixture(series=100_000)
    with serving(fixture) as address:
        found = visit(address)
        expect(found.page.locator(".connection")).to_have_text("live")
        found.page.keyboard.press("/")
        field = found.page.get_by_role("combobox", name="Search series")
        expect(field).to_be_focused()
        found.page.keyboard.type("heat-2 temp")
        status = found.page.locator(".search-count")
        expect(status).to_contain_text("1 of 100")
        option = found.page.get_by_role("option", name="heat-2/supply-temperature")
        expect(option).to_contain_text("°C")
        found.page.keyboard.press("Enter")
        expect(option).to_have_attribute("aria-selected", "true")
        found.page.keyboard.press("Escape")
        expect(found.page.get_by_role("listbox")).to_have_count(0)
        expect(found.page.locator(".series-card h3")).to_have_text("heat-2/supply-temperature")
        assert "series=heat-2/supply-temperature" in found.page.url
        found.wait_drawn(".series-card canvas")


def test_the_list_of_series_is_drawn_in_part_and_follows_the_keyboard(visit: Open, node: Fixture) -> None:
    found = visit(node.address)
    found.page.keyboard.press("/")
    found.page.keyboard.type("power")
    options = found.page.get_by_role("option")
    expect(options.first).to_contain_text("ss-01/feeder-1/power")
    expect(options.first).to_have_attribute("aria-setsize", "200")
    assert options.count() <= 50
    for _ in range(5):
        found.page.keyboard.press("PageDown")
    active = found.page.locator(".option-active")
    expect(active).to_be_in_viewport()
    field = found.page.get_by_role("combobox")
    assert field.get_attribute("aria-activedescendant") == active.get_attribute("id")
    assert int(active.get_attribute("aria-posinset") or "0") > 40


def test_enter_before_the_answer_selects_the_first_of_what_was_typed(visit: Open, node: Fixture) -> None:
    found = visit(node.address)
    expect(found.page.locator(".connection")).to_have_text("live")
    found.page.keyboard.press("/")
    expect(found.page.get_by_role("option").first).to_contain_text("ss-01/voltage")
    found.page.evaluate(
        """() => {
            const field = document.querySelector('.search-field');
            field.value = 'heat-3 flow';
            field.dispatchEvent(new Event('input', {bubbles: true}));
            field.dispatchEvent(new KeyboardEvent('keydown', {key: 'Enter', bubbles: true}));
        }"""
    )
    expect(found.page.locator(".series-card h3")).to_have_text("heat-3/flow")


def test_a_search_without_a_match_says_so(visit: Open, node: Fixture) -> None:
    found = visit(node.address)
    found.page.keyboard.press("/")
    found.page.keyboard.type("no such thing")
    expect(found.page.locator(".search-panel")).to_contain_text('No series matches "no such thing"')


def test_windows_and_raw_are_labelled_and_the_choice_is_in_the_address(visit: Open, node: Fixture) -> None:
    found = visit(node.address + "?series=ss-01/feeder-3/power&range=6h")
    card = found.page.locator(".series-card")
    expect(card.locator(".series-resolution")).to_have_text("1\u00a0min windows")
    found.page.get_by_role("button", name="raw").click()
    expect(card.locator(".series-resolution")).to_have_text("40s buckets")
    assert "show=raw" in found.page.url
    found.page.get_by_role("button", name="5 min", exact=True).click()
    expect(card.locator(".series-resolution")).to_have_text("raw")


def test_last_value_comes_with_age_quality_and_revision_and_copies_raw(visit: Open, node: Fixture) -> None:
    found = visit(node.address + "?series=ss-01/voltage")
    facts = found.page.locator(".series-facts")
    expect(facts).to_contain_text(re.compile(r"20\.\d\d\skV"))
    expect(facts).to_contain_text("good")
    expect(facts).to_contain_text("revision")
    expect(facts.locator(".series-last [title*=arrived]")).to_have_count(1)
    raw = facts.locator("[data-raw]").first.evaluate(
        """element => {
            const range = document.createRange();
            range.selectNodeContents(element);
            getSelection().removeAllRanges();
            getSelection().addRange(range);
            const data = new DataTransfer();
            element.dispatchEvent(new ClipboardEvent('copy', {clipboardData: data, bubbles: true, cancelable: true}));
            return data.getData('text/plain');
        }"""
    )
    assert 20_000 < float(raw) < 21_000


def test_an_unknown_key_in_the_address_is_said_to_be_unknown(visit: Open, node: Fixture) -> None:
    found = visit(node.address + "?series=gone/power")
    expect(found.page.locator(".series-card")).to_contain_text("No series of this key is in the catalogue")


def test_a_chart_is_read_by_keyboard(visit: Open, node: Fixture) -> None:
    found = visit(node.address)
    figure = found.page.locator("#medium-electricity figure")
    found.wait_drawn("#medium-electricity canvas")
    expect(figure).to_have_attribute(
        "aria-label", re.compile(r"Electricity power, .*load from .* to .* W, newest")
    )
    figure.focus()
    readout = figure.locator(".readout")
    found.page.keyboard.press("ArrowLeft")
    expect(readout).not_to_contain_text("newest")
    expect(readout).to_contain_text("Z")
    last = readout.text_content()
    found.page.keyboard.press("ArrowLeft")
    expect(readout).not_to_have_text(last or "")
    expect(found.page.locator("#medium-heat .readout")).not_to_contain_text("newest")
    found.page.keyboard.press("t")
    expect(figure.locator("table caption")).to_contain_text("newest first")
    assert figure.locator("tbody tr").count() >= 10
    found.page.keyboard.press("Escape")
    expect(readout).to_contain_text("newest")


def test_zooming_makes_the_range_absolute_and_zooming_out_follows_the_present_again(
    visit: Open, node: Fixture
) -> None:
    found = visit(node.address)
    found.wait_drawn("#medium-electricity canvas")
    found.page.locator("#medium-electricity figure").focus()
    found.page.keyboard.press("+")
    expect(found.page.locator(".toolbar-fixed")).to_be_visible()
    assert re.search(r"from=2026-11-23T12:\d\d:.*&to=2026-11-23T13:0", found.page.url)
    for _ in range(3):
        found.page.keyboard.press("-")
    expect(found.page.locator(".toolbar-fixed")).to_have_count(0)
    assert "from=" not in found.page.url


def test_the_address_restores_the_view(visit: Open, node: Fixture) -> None:
    address = node.address + "?range=1h&show=raw&series=heat-1/flow"
    found = visit(address)
    expect(found.page.get_by_role("button", name="1 h", exact=True)).to_have_attribute("aria-pressed", "true")
    expect(found.page.get_by_role("button", name="raw")).to_have_attribute("aria-pressed", "true")
    expect(found.page.locator(".series-card h3")).to_have_text("heat-1/flow")
    assert found.page.url == address


def test_share_turns_a_relative_range_into_absolute_utc(visit: Open, node: Fixture) -> None:
    found = visit(node.address + "?series=heat-1/flow", permissions=["clipboard-read", "clipboard-write"])
    found.wait_drawn("#medium-electricity canvas")
    found.page.get_by_role("button", name="Share").click()
    expect(found.page.get_by_text("link copied")).to_be_visible()
    link = found.page.evaluate("navigator.clipboard.readText()")
    assert re.search(
        r"from=2026-11-23T12:50:\d\d\.000Z&to=2026-11-23T13:05:\d\d\.000Z&series=heat-1/flow$", link
    )
    assert "from=" not in found.page.url


def test_dragging_across_a_chart_zooms(visit: Open, node: Fixture) -> None:
    found = visit(node.address)
    found.wait_drawn("#medium-electricity canvas")
    box = found.page.locator("#medium-electricity .u-over").bounding_box()
    assert box is not None
    found.page.mouse.move(box["x"] + 60, box["y"] + 50)
    found.page.mouse.down()
    found.page.mouse.move(box["x"] + 200, box["y"] + 50, steps=4)
    found.page.mouse.up()
    expect(found.page.locator(".toolbar-fixed")).to_be_visible()


def test_keys_lead_to_the_parts_and_can_be_switched_off(visit: Open, node: Fixture) -> None:
    found = visit(node.address)
    expect(found.page.locator(".connection")).to_have_text("live")
    found.page.keyboard.press("g")
    found.page.keyboard.press("d")
    expect(found.page.locator("#letters h2")).to_be_focused()
    found.page.keyboard.press("?")
    dialog = found.page.get_by_role("dialog")
    expect(dialog).to_contain_text("go to dead letters")
    dialog.get_by_label("Single-key shortcuts").uncheck()
    found.page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    found.page.keyboard.press("/")
    expect(found.page.get_by_role("combobox")).not_to_be_focused()


def test_everything_can_be_reached_with_the_tab_key(visit: Open, node: Fixture) -> None:
    found = visit(node.address + SELECTED)
    found.wait_drawn(".series-card canvas")
    reached: set[str] = set()
    for _ in range(60):
        found.page.keyboard.press("Tab")
        name = found.page.evaluate(
            """(e => [e.tagName, e.getAttribute('aria-label'), e.textContent.slice(0, 20)].join(' '))
               (document.activeElement)"""
        )
        outline = found.page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        if name.startswith("BODY"):
            break
        assert outline != "none", f"no visible focus on {name}"
        reached.add(name)
    text = "\n".join(reached)
    for part in (
        "Skip to the overview",
        "Search series",
        "15 min",
        "Share",
        "Electricity power",
        "Heat power",
        "windows",
        "Remove ss-01/feeder-3/power",
        "more stale",
    ):
        assert part in text
