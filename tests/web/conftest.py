"""Chromium for the page's tests, and what every visit to the page must keep: no error, no other host."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from fixture_server import STATIC, Fixture, serving
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

ROOT = Path(__file__).parents[2]
AXE = ROOT / "web" / "node_modules" / "axe-core" / "axe.min.js"
SHOTS = ROOT / "test-output" / "page"
CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
DESK = {"width": 1440, "height": 900}
PHONE = {"width": 390, "height": 844}
expect.set_options(timeout=12_000)
WCAG = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    if not Path(CHROMIUM).exists() and shutil.which("chromium") is None:
        pytest.skip("Chromium is missing: apt-get install chromium")
    if not (STATIC / "index.html").exists():
        pytest.skip("the page is not built: make setup")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield chromium
        chromium.close()


@dataclass
class Visit:
    """A tab, and everything about it that would be a fault."""

    page: Page
    context: BrowserContext
    address: str
    errors: list[str] = field(default_factory=list)
    hosts: set[str] = field(default_factory=set)

    def problems(self, *, while_cut: bool = False) -> list[str]:
        """Console errors and exceptions; while a connection is cut, the browser's own report of that is none."""
        own = (
            "WebSocket connection to",
            "Failed to load resource: the server responded with a status of 503",
        )
        return [text for text in self.errors if not (while_cut and text.startswith(own))]

    def shoot(self, name: str) -> None:
        SHOTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=SHOTS / f"{name}.png")

    def axe(self) -> list[str]:
        """Violations of the WCAG rules that axe knows, each with the elements it is about."""
        self.page.evaluate(AXE.read_text(encoding="utf-8"))
        found: dict[str, Any] = self.page.evaluate(
            "tags => axe.run(document, {runOnly: {type: 'tag', values: tags}})", WCAG
        )
        return [f"{v['id']}: {', '.join(str(n['target']) for n in v['nodes'])}" for v in found["violations"]]

    def drawn(self, selector: str) -> int:
        """How many pixels of a canvas are in one of the series' colours: 0 for a chart that drew no line."""
        return int(
            self.page.evaluate(
                """selector => {
                    const style = getComputedStyle(document.documentElement);
                    const colours = [1, 2, 3].map(n => style.getPropertyValue(`--series-${n}`).trim()).map(hex =>
                        [1, 3, 5].map(at => parseInt(hex.slice(at, at + 2), 16)));
                    const canvas = document.querySelector(selector);
                    const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
                    let count = 0;
                    for (let at = 0; at < data.length; at += 4)
                        if (data[at + 3] > 200 && colours.some(c => c.every((v, i) => Math.abs(v - data[at + i]) < 12))) count++;
                    return count;
                }""",
                selector,
            )
        )

    def wait_drawn(self, selector: str, pixels: int = 60) -> None:
        self.page.wait_for_selector(selector)
        for _ in range(100):
            if self.drawn(selector) >= pixels:
                return
            self.page.wait_for_timeout(50)
        raise AssertionError(f"{selector}: expected a line, found {self.drawn(selector)} coloured pixels")


@pytest.fixture
def visit(browser: Browser) -> Iterator[Callable[..., Visit]]:
    """Open an address in a tab of its own; all tabs are closed afterwards."""
    contexts: list[BrowserContext] = []

    def open_tab(address: str, *, size: dict[str, int] = DESK, dark: bool = False, **options: Any) -> Visit:
        phone = size is PHONE
        context = browser.new_context(
            viewport=size,  # type: ignore[arg-type]
            color_scheme="dark" if dark else "light",
            locale="en-GB",
            has_touch=phone,
            device_scale_factor=2 if phone else 1,
            **options,
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(15_000)
        found = Visit(page, context, address)
        page.on(
            "console", lambda message: found.errors.append(message.text) if message.type == "error" else None
        )
        page.on("pageerror", lambda error: found.errors.append(str(error)))
        page.on("request", lambda request: found.hosts.add(urlsplit(request.url).netloc))
        page.on("websocket", lambda connection: found.hosts.add(urlsplit(connection.url).netloc))
        page.goto(address)
        return found

    yield open_tab
    for context in contexts:
        context.close()


@pytest.fixture
def node() -> Iterator[Fixture]:
    """The stand-in for a node; a test that needs another kind starts its own."""
    fixture = Fixture()
    with serving(fixture) as address:
        fixture.address = address
        yield fixture
