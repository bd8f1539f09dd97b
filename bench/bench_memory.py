"""Memory of a node with 10 k series, without Numba and before the first SQL statement."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from bench.harness import Row, load_generator, mqtt_load
from bench.whole_node import memory_bytes, whole_node

SERIES = 10_000


def rows(quick: bool) -> Iterator[Row]:
    """`memory`: proportional set size after each series had 30 readings (10 with `quick`)."""
    generator = load_generator()
    if generator is None:
        raise SystemExit("the load generator needs Go and ../shared/loadgen")
    messages = SERIES * (10 if quick else 30)
    with whole_node() as node:
        mqtt_load(
            generator,
            node.port("field"),
            connections=4,
            window=100,
            messages=messages,
            seconds=60,
            series=SERIES,
        )
        threading.Event().wait(2)
        used_bytes = memory_bytes(node)
    yield Row(
        name="memory",
        unit="MB",
        value=round(used_bytes / 1e6, 1),
        goal="<= 200 MB",
        note=f"proportional set size after {messages:,} readings of {SERIES:,} series, without Numba",
    )
