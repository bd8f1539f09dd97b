from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.serve.rig import Rig, ServerRig


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path / "data")
    yield made
    made.close()


@pytest.fixture
def serve(rig: Rig) -> Iterator[Callable[..., ServerRig]]:
    """Starts servers over the rig's log; all stop with the test."""
    running: list[ServerRig] = []

    def start(*arguments: Any, **options: Any) -> ServerRig:
        running.append(ServerRig(rig, *arguments, **options))
        return running[-1]

    yield start
    for server in running:
        server.stop()
