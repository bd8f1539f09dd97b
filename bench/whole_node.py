"""The configuration of the benchmarks that look at a whole node, and the node itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.conftest import free_port
from tests.node.running import RunningNode

from bench.harness import process_cpu_seconds, proportional_set_bytes, scratch

CONFIGURATION = """\
[node]
name = "bench"

[sources.field]
type   = "mqtt-listener"
listen = "127.0.0.1:{port}"
fast   = "{fast}"

[[sources.field.map]]
topic  = "meters/{{meter}}/{{quantity}}"
series = "{{meter}}/{{quantity}}"
device = "{{meter}}"
time   = "t"
value  = "v"

[flows.minute]
from   = "readings"
window = "1m"
values = ["count", "mean", "min", "max"]
to     = "readings.1m"

[serve]
listen = "127.0.0.1:{http}"
"""


def memory_bytes(node: RunningNode) -> int:
    """Proportional set size of the node's processes, without those that run SQL."""
    return sum(proportional_set_bytes(pid) for pid in (node.process.pid, *node.parts().values()))


def cpu_seconds(node: RunningNode) -> float:
    """Processor time of the node's processes so far, without those that run SQL."""
    return sum(process_cpu_seconds(pid) for pid in (node.process.pid, *node.parts().values()))


@contextmanager
def whole_node(fast: str = "off") -> Iterator[RunningNode]:
    """A node with a listener, a one-minute flow and a server, in a process of its own."""
    with scratch() as directory:
        text = CONFIGURATION.format(port=free_port(), http=free_port(), fast=fast)
        with RunningNode(Path(directory), text) as node:
            yield node
