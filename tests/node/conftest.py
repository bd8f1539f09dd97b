"""Whole nodes in both layouts: tests of these modules run as one process and as several.

In an ordinary run some modules take one layout only; `make soak` runs them in the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.node.running import RunningNode

LAYOUTS = ("single", "split")
ORDINARY = {
    "test_contract": ("split",),
    "test_descriptors": ("single",),
    "test_disk_full": LAYOUTS,
    "test_hostile": ("single",),
    "test_http_hostile": ("split",),
    "test_kill": LAYOUTS,
    "test_lifecycle": LAYOUTS,
    "test_oracle": LAYOUTS,
    "test_oracle_times": ("single",),
    "test_qos2": ("split",),
    "test_sigterm": LAYOUTS,
}
"""Layouts of each module's tests in an ordinary run; modules that are not here choose themselves."""
SOAK_ONLY = ("split-mosquitto",)
"""Of what a module's tests have in both layouts, what an ordinary run leaves out: it takes long and shows little more."""


@pytest.fixture(scope="module", autouse=True)
def layout(request: pytest.FixtureRequest) -> Iterator[str | None]:
    """The layout of the nodes of a test."""
    RunningNode.layout = getattr(request, "param", None)
    yield RunningNode.layout
    RunningNode.layout = None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    ordinary = ORDINARY.get(metafunc.module.__name__.rpartition(".")[2])
    if ordinary is not None:
        both = [pytest.param(one, marks=[] if one in ordinary else [pytest.mark.soak]) for one in LAYOUTS]
        metafunc.parametrize("layout", both, indirect=True, scope="module")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent == Path(__file__).parent and any(f"[{one}]" in item.name for one in SOAK_ONLY):
            item.add_marker(pytest.mark.soak)
