"""The page over the fixture while all is well: values, charts, media, acknowledgements."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import expect

from tests.web.fixture_server import Fixture, serving
from tests.web.tab import DESK, LOOKS, SELECTED, Open, look, number, overflow


@pytest.mark.parametrize(("size", "dark"), LOOKS)
def test_values_move_and_charts_draw_in_every_size_and_theme(
    visit: Open, node: Fixture, size: dict[str, int], dark: bool
) -> None:
    found = visit(node.address + SELECTED, size=size, dark=dark)
    load = found.page.locator("#medium-electricity .value-large .value-text")
    expect(load).to_contain_text("kW")
    found.wait_drawn("#medium-electricity canvas")
    found.wait_drawn("#medium-heat canvas") if size is DESK else None
    first = load.text_content()
    expect(load).not_to_have_text(first or "", timeout=30_000)
    received = found.page.locator(".counts div", has_text="received").locator("dd")
    before = number(received.text_content() or "")
    expect(received).not_to_have_text(received.text_content() or "")
    assert number(received.text_content() or "") > before
    found.page.locator(".series-card").first.scroll_into_view_if_needed()
    found.wait_drawn(".series-card canvas")
    found.page.evaluate("scrollTo(0, 0)")
    found.shoot(f"live-{look(size, dark)}")
    assert overflow(found) == 0
    assert found.problems() == []
    assert found.hosts == {node.address.split("/")[2]}


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_however_many_media_there_are_their_cards_fill_the_width_without_overlap(
    visit: Open, count: int
) -> None:
    fixture = Fixture(media=("electricity", "heat", "gas", "water")[:count])
    with serving(fixture) as address:
        found = visit(address + SELECTED)
        found.wait_drawn(f"#medium-{fixture.media[-1]} canvas")
        boxes = [found.page.locator(f"#medium-{medium}").bounding_box() for medium in fixture.media]
        assert all(box is not None and box["width"] > 400 and box["height"] > 200 for box in boxes)
        for n, a in enumerate(boxes):
            for b in boxes[n + 1 :]:
                assert a is not None
                assert b is not None
                beside = a["x"] + a["width"] <= b["x"] + 1 or b["x"] + b["width"] <= a["x"] + 1
                below = a["y"] + a["height"] <= b["y"] + 1 or b["y"] + b["height"] <= a["y"] + 1
                assert beside or below
        right = max(box["x"] + box["width"] for box in boxes if box)
        left = found.page.locator(".left").bounding_box()
        assert left is not None
        assert right == pytest.approx(left["x"] + left["width"], abs=2)
        for medium in fixture.media:
            drawing = found.page.locator(f"#medium-{medium} .plot")
            assert drawing.evaluate("e => e.querySelector('.uplot').clientHeight - e.clientHeight") == 0
        found.shoot(f"media-{count}")
        assert overflow(found) == 0


def test_a_closed_window_appears_in_the_charts_without_a_request(visit: Open, node: Fixture) -> None:
    found = visit(node.address + SELECTED)
    newest = found.page.locator("#medium-electricity .readout-time")
    expect(newest).to_contain_text("newest")
    expect(found.page.locator(".connection")).to_have_text("live")
    before = newest.text_content() or ""
    requests: list[str] = []
    found.page.on("request", lambda request: requests.append(request.url))
    node.shift(60)
    shifted = node.now_ms()
    expect(newest).not_to_have_text(before)
    expect(found.page.locator(".series-card .readout-time").first).not_to_have_text(before)
    # what is asked once the connection stands may still come, and asks for the time before
    asked = [parse_qs(urlsplit(url).query) for url in requests if "/windows" in url]
    assert [query for query in asked if float(query["to"][0]) >= shifted + 60_000] == []


def test_a_window_that_most_series_have_not_closed_yet_is_not_drawn_as_a_drop(
    visit: Open, node: Fixture
) -> None:
    node.filling = True
    found = visit(node.address)
    found.wait_drawn("#medium-electricity canvas")
    readout = found.page.locator("#medium-electricity .readout")
    expect(readout).to_contain_text("series 2\u202f041")
    found.page.locator("#medium-electricity figure").focus()
    found.page.keyboard.press("t")
    first = found.page.locator("#medium-electricity tbody tr").first
    expect(first).to_contain_text("612")
    found.shoot("filling-desk-light")


def test_batches_are_acknowledged_one_by_one_in_order(visit: Open, node: Fixture) -> None:
    found = visit(node.address)
    expect(found.page.locator(".connection")).to_have_text("live")
    found.page.wait_for_function("document.querySelector('.counts dd').textContent !== '—'")
    for _ in range(600):
        if len(node.acks) >= 3:
            break
        found.page.wait_for_timeout(50)
    acks = list(node.acks)
    assert len(acks) >= 3
    assert acks == list(range(1, len(acks) + 1))


def test_a_hidden_tab_says_so_and_a_shown_one_too(visit: Open, node: Fixture) -> None:
    found = visit(node.address)
    expect(found.page.locator(".connection")).to_have_text("live")
    for hidden in (True, False):
        found.page.evaluate(
            "hidden => { Object.defineProperty(document, 'hidden', {value: hidden, configurable: true});"
            " document.dispatchEvent(new Event('visibilitychange')); }",
            hidden,
        )
        for _ in range(600):
            if node.hidden and node.hidden[-1] is hidden:
                break
            found.page.wait_for_timeout(50)
        assert node.hidden[-1] is hidden


def test_direction_of_power_is_a_word_and_the_residual_is_shown(visit: Open, node: Fixture) -> None:
    found = visit(node.address)
    electricity = found.page.locator("#medium-electricity .balance")
    expect(electricity).to_contain_text("residual to import")
    expect(found.page.locator("#medium-heat .balance")).to_contain_text("residual to export")
    values = found.page.locator("#medium-electricity .balance [data-raw]")
    raw = [float(values.nth(n).get_attribute("data-raw") or "nan") for n in range(3)]
    supply, residual, load = raw
    assert residual == pytest.approx(load + supply)


def test_nothing_is_green_while_all_is_well(visit: Open, node: Fixture) -> None:
    found = visit(node.address)
    expect(found.page.locator(".connection")).to_have_text("live")
    greens = found.page.evaluate(
        """() => [...document.querySelectorAll('*')].flatMap(element => {
            const style = getComputedStyle(element);
            return [style.color, style.backgroundColor, style.fill, style.stroke].filter(colour => {
                const [r, g, b, a = 1] = (colour.match(/[\\d.]+/g) ?? []).map(Number);
                return a > 0 && g > r + 40 && g > b + 40;
            });
        })"""
    )
    assert greens == []
