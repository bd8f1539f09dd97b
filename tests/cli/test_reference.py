"""The generated reference pages are those of this code."""

from __future__ import annotations

from pathlib import Path

import pytest

from ringmain.cli.reference import pages

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = pages()


@pytest.mark.parametrize("name", PAGES)
def test_a_generated_page_is_what_the_code_says_now(name: str) -> None:
    assert (DOCS / name).read_text() == PAGES[name], "say `make docs` and commit the page"


def test_every_key_of_the_configuration_has_a_meaning() -> None:
    rows = [line for line in PAGES["configuration.md"].splitlines() if line.startswith("| `")]
    assert len(rows) > 50
    without = [row for row in rows if row.rstrip(" |").endswith("|") or row.split("|")[4].strip() == ""]
    assert without == []
