"""What the configuration says about the log reaches the log that the intake opens."""

from __future__ import annotations

import time
from pathlib import Path

from ringmain.config import load
from ringmain.log.interface import StreamKind
from ringmain.parts.intake import IntakePart
from ringmain.runtime.counters import Counters
from tests.conftest import free_port
from tests.log.batches import NOTE, reading_batch
from tests.node.stored import configuration


def test_the_sync_policy_of_the_configuration_holds_answers_back(tmp_path: Path) -> None:
    file = tmp_path / "ringmain.toml"
    file.write_text(configuration(port=free_port(), http=free_port(), log='sync = "300ms"'))
    part = IntakePart(load(file)[0], Counters())
    with part.log as log:
        log.claim("a")
        claim = log.claim("a")
        log.create_stream(
            "notes", StreamKind.ROW, NOTE
        )  # what would cut the delay short is done when it returns
        started_s = time.monotonic()
        log.append([reading_batch(1)], claim=claim, sequence=0)
        assert time.monotonic() - started_s >= 0.3
        assert len(list(log.read("readings"))) == 1
