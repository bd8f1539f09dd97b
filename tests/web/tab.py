"""A tab of Chromium on the page, and everything about it that would be a fault."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Page, expect

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
expect.set_options(timeout=30_000)
WCAG = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]


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
        for _ in range(600):
            if self.drawn(selector) >= pixels:
                return
            self.page.wait_for_timeout(50)
        raise AssertionError(f"{selector}: expected a line, found {self.drawn(selector)} coloured pixels")


SELECTED = "?series=ss-01/feeder-3/power&series=heat-1/supply-temperature"
"""A view of the fixture with two series."""

Open = Callable[..., Visit]
"""The type of the fixture `visit`."""

LOOKS = [
    pytest.param(DESK, False, id="desk-light"),
    pytest.param(DESK, True, id="desk-dark"),
    pytest.param(PHONE, False, id="phone-light"),
    pytest.param(PHONE, True, id="phone-dark"),
]
needs_axe = pytest.mark.skipif(not AXE.exists(), reason="axe-core is missing: make setup")


def look(size: dict[str, int], dark: bool) -> str:
    """The name of a size and theme."""
    return f"{'phone' if size is PHONE else 'desk'}-{'dark' if dark else 'light'}"


def overflow(found: Visit) -> int:
    """How many pixels the page is wider than the window."""
    return int(
        found.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    )


def number(text: str) -> float:
    """The number in a text as the page writes it."""
    return float(re.sub(r"[^\d.\u2212]", "", text).replace("\u2212", "-"))
