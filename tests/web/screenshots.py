"""Takes the pictures of docs/page.md: of a running demo, and of the states that a demo does not show.

By hand, some minutes after `ringmain demo --listen 127.0.0.1:8080` was started, so that the charts are filled:
`python -m tests.web.screenshots http://127.0.0.1:8080/`.
"""

from __future__ import annotations

import sys

from playwright.sync_api import Browser, sync_playwright

from tests.web.fixture_server import Fixture, serving
from tests.web.tab import ARGUMENTS, CHROMIUM, DESK, PHONE, ROOT

IMAGES = ROOT / "docs" / "images"
SELECTED = "?series=pv-01/power&series=ss-01/busbar/voltage-l1"


def shoot(
    browser: Browser,
    address: str,
    name: str,
    *,
    dark: bool = False,
    phone: bool = False,
    fixture: Fixture | None = None,
) -> None:
    context = browser.new_context(
        viewport=PHONE if phone else DESK,  # type: ignore[arg-type]
        color_scheme="dark" if dark else "light",
        locale="en-GB",
    )
    page = context.new_page()
    page.goto(address)
    page.wait_for_selector(".toolbar-resolution:not(:empty)")
    page.wait_for_timeout(3000)
    if fixture is not None:
        fixture.cut()
        page.wait_for_selector(".banner")
        page.wait_for_timeout(3000)
    page.screenshot(path=IMAGES / f"{name}.png")
    context.close()


def main() -> None:
    """Take them all."""
    demo = sys.argv[1]
    IMAGES.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        shoot(browser, demo, "page")
        shoot(browser, demo + SELECTED, "page-dark", dark=True)
        shoot(browser, demo, "page-phone", phone=True)
        fixture = Fixture()
        with serving(fixture) as address:
            selected = "?series=ss-01/feeder-3/power&series=heat-1/supply-temperature"
            shoot(browser, address + selected, "page-disconnected", fixture=fixture)
        browser.close()


if __name__ == "__main__":
    main()
