"""Processor time of a node to which nothing is connected."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

from bench.harness import Row
from bench.whole_node import cpu_seconds, whole_node


def rows(quick: bool) -> Iterator[Row]:
    """`idle`: share of one core."""
    with whole_node() as node:
        threading.Event().wait(2)
        before, started = cpu_seconds(node), time.perf_counter()
        threading.Event().wait(5 if quick else 30)
        took = time.perf_counter() - started
        share = (cpu_seconds(node) - before) / took
    yield Row(
        name="idle",
        unit="% of a core",
        value=round(100 * share, 2),
        seconds=round(took, 1),
        goal="<= 1 % of a core",
        durability="a tick a second, synced",
        note="listener, flow and server running, nothing connected",
    )
