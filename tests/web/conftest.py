"""Chromium for the page's tests."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, sync_playwright

from tests.web.fixture_server import STATIC, Fixture, serving
from tests.web.tab import ARGUMENTS, CHROMIUM, DESK, PHONE, Visit


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.browser)


# Not for the whole session: Playwright keeps an event loop running in the main thread, which other tests want.
@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    if not Path(CHROMIUM).exists() and shutil.which("chromium") is None:
        pytest.skip("Chromium is missing: apt-get install chromium")
    if not (STATIC / "index.html").exists():
        pytest.skip("the page is not built: make setup")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield chromium
        chromium.close()


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
        page.set_default_timeout(30_000)
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
