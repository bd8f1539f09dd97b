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
    "test_reload": ("split",),
    "test_sigterm": LAYOUTS,
}
"""Layouts of each module's tests in an ordinary run; modules that are not here choose themselves."""
ORDINARY_OF_TESTS = {
    "test_a_disk_that_fills_up_stops_acknowledgements_and_a_disk_with_space_again_brings_them_back": (
        "split",
    ),
    "test_a_node_stops_with_status_0_on_a_full_disk_and_starts_on_it_and_goes_on_when_there_is_space": (
        "single",
    ),
    "test_arrival_time_goes_on_when_a_machine_boots_in_1970": ("single",),
    "test_a_broker_that_is_down_at_the_start_is_connected_later": ("single",),
}
"""The same for single tests that take long and show little more in the other layout."""
SOAK_ONLY = ("split-mosquitto",)
"""Parameters that an ordinary run leaves out for the same reason."""


@pytest.fixture(scope="module", autouse=True)
def layout(request: pytest.FixtureRequest) -> Iterator[str | None]:
    """The layout of the nodes of a test."""
    RunningNode.layout = getattr(request, "param", None)
    yield RunningNode.layout
    RunningNode.layout = None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    ordinary = ORDINARY.get(metafunc.module.__name__.rpartition(".")[2])
    ordinary = ORDINARY_OF_TESTS.get(metafunc.function.__name__, ordinary)
    if ordinary is not None:
        both = [pytest.param(one, marks=[] if one in ordinary else [pytest.mark.soak]) for one in LAYOUTS]
        metafunc.parametrize("layout", both, indirect=True, scope="module")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent == Path(__file__).parent and any(f"[{one}]" in item.name for one in SOAK_ONLY):
            item.add_marker(pytest.mark.soak)
