"""Runs a chain that looks back into a log which grows as it goes: with its input, and with what it gave."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from ringmain.flows.chain import Chain
from ringmain.flows.flow import FlowPlan
from ringmain.log.interface import Frame
from tests.flows.recording import Recording
from tests.flows.steps.driving import plain, restarted


def run_growing(
    plan: FlowPlan, frames: Sequence[Frame], restarts: random.Random | None = None
) -> dict[str, list[dict[str, Any]]]:
    """What each stream gets; with `restarts`, out of a chain that is made anew now and then."""
    log = Recording()
    chain = Chain(plan, log)
    out: dict[str, list[dict[str, Any]]] = {}
    for frame in frames:
        if restarts is not None and restarts.random() < 0.4 and chain.position is not None:
            chain = restarted(chain, log)
        stored = log.append(frame.stream, frame.rows, frame.origin_arrival_ns)
        for block in chain.step(stored):
            assert block.stream is not None
            log.append(block.stream, block.rows, frame.origin_arrival_ns)
            out.setdefault(block.stream, []).extend(plain(block.rows))
    return out
