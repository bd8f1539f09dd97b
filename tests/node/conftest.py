"""Whole nodes in both layouts: tests of these modules run as one process and as several.

In an ordinary run the second layout is left to the modules and tests that layouts can make a difference to; the others
run in both by `make soak`.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.node.running import RunningNode

LAYOUTS = ("single", "split")
ORDINARY = {
    "test_lifecycle": ("single",),
    "test_http_hostile": ("single",),
    "test_oracle": ("single",),
    "test_sigterm": ("single",),
    "test_kill": ("single",),
    "test_disk_full": ("single",),
    "test_hostile": ("single",),
    "test_qos2": ("single",),
    "test_contract": ("single",),
    "test_descriptors": ("single",),
    "test_oracle_times": ("single",),
}
"""Layouts of each module's tests in an ordinary run; modules that are not here choose themselves."""


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
