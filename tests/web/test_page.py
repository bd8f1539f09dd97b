"""The page in real Chromium over the fixture: every state, both sizes, both themes."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import expect

from tests.web.fixture_server import Fixture, serving
from tests.web.tab import AXE, DESK, PHONE, Visit

Open = Callable[..., Visit]
SELECTED = "?series=ss-01/feeder-3/power&series=heat-1/supply-temperature"
LOOKS = [
    pytest.param(DESK, False, id="desk-light"),
    pytest.param(DESK, True, id="desk-dark"),
    pytest.param(PHONE, False, id="phone-light"),
    pytest.param(PHONE, True, id="phone-dark"),
]
needs_axe = pytest.mark.skipif(not AXE.exists(), reason="axe-core is missing: make setup")


def look(size: dict[str, int], dark: bool) -> str:
    return f"{'phone' if size is PHONE else 'desk'}-{'dark' if dark else 'light'}"


def overflow(found: Visit) -> int:
    """How many pixels the page is wider than the window."""
    return int(
        found.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    )


def number(text: str) -> float:
    return float(re.sub(r"[^\d.\u2212]", "", text).replace("\u2212", "-"))


# Live


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
    expect(load).not_to_have_text(first or "", timeout=20_000)
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
    before = newest.text_content() or ""
    requests: list[str] = []
    found.page.on("request", lambda request: requests.append(request.url))
    node.shift(60)
    expect(newest).not_to_have_text(before)
    expect(found.page.locator(".series-card .readout-time").first).not_to_have_text(before)
    assert [url for url in requests if "windows" in url] == []


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
    found.page.wait_for_timeout(1500)
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
        for _ in range(100):
            if node.hidden and node.hidden[-1] is hidden:
                break
            found.page.wait_for_timeout(20)
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


# Stale, empty, disconnected, error


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
    node.cut()
    expect(found.page.locator(".banner")).to_contain_text("Disconnected")
    expect(load).to_have_class(re.compile("stale"))
    expect(found.page).to_have_title(re.compile("^✕"))
    found.shoot(f"disconnected-{look(size, dark)}")
    assert overflow(found) == 0
    node.mend()
    expect(found.page.locator(".banner")).to_have_count(0, timeout=20_000)
    expect(load).not_to_have_class(re.compile("stale"))
    expect(found.page.locator(".connection")).to_have_text("live")
    assert node.hellos == 2
    assert node.watched == ["ss-01/feeder-3/power", "heat-1/supply-temperature"]
    assert found.problems(while_cut=True) == []


def test_what_happened_while_cut_is_filled_in_afterwards(visit: Open, node: Fixture) -> None:
    found = visit(node.address)
    figure = found.page.locator("#medium-electricity figure")
    found.wait_drawn("#medium-electricity canvas")
    node.cut()
    expect(found.page.locator(".banner")).to_be_visible()
    node.shift(300)
    node.mend()
    expect(found.page.locator(".banner")).to_have_count(0, timeout=20_000)
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
    expect(found.page.locator(".banner")).to_have_count(0, timeout=20_000)
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


# Faults


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
    expect(found.page.locator("[aria-live=assertive]")).to_contain_text("Journal full", timeout=12_000)
    found.shoot("fault-desk-light")


def test_the_stale_list_leads_to_the_series(visit: Open, node: Fixture) -> None:
    found = visit(node.address)
    found.page.get_by_role("button", name="1 more stale").click()
    items = found.page.locator(".stale-list li")
    expect(items).to_have_count(4)
    items.first.get_by_role("button").click()
    expect(found.page.locator(".series-card h3")).to_have_text("hh-00311/energy")


# Series


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


# Charts by keyboard, view in the address


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


# Sign-in, addresses, time zones


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


# Access


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
