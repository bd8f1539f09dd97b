"""What the configuration says about the log reaches the log that the intake opens."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from ringmain.config import load
from ringmain.log.frames import SEGMENT_PREPARED, read_segment_header
from ringmain.log.interface import StreamKind
from ringmain.parts.intake import IntakePart
from ringmain.runtime.counters import Counters
from tests.conftest import free_port, wait_until
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


@pytest.mark.parametrize("wanted", [True, False])
def test_segments_are_written_beforehand_where_the_configuration_says_so(
    tmp_path: Path, wanted: bool
) -> None:
    file = tmp_path / "ringmain.toml"
    text = f"preallocate = {str(wanted).lower()}"
    file.write_text(configuration(port=free_port(), http=free_port(), log=text))
    config = load(file)[0]
    part = IntakePart(config, Counters())
    with part.log as log:
        claim = log.claim("a")
        sequence = 0

        def prepared() -> list[bool]:
            nonlocal sequence
            sequence += 1
            log.append([reading_batch(5_000)], claim=claim, sequence=sequence)
            headers = [read_segment_header(path.read_bytes()[:64]) for path in config.data.glob("*.seg")]
            return [bool(header.flags & SEGMENT_PREPARED) for header in headers if header is not None]

        if wanted:
            wait_until(lambda: any(prepared()), what="a segment that was prepared")
        else:
            assert not any(one for _ in range(40) for one in prepared())
            assert len(prepared()) > 2
