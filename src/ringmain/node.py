"""A node in one process (`layout = "single"`): the parts that its configuration names, around one log.

Promises
    - `start` answers once every listener accepts. Brokers and other servers that this node calls are not
      waited for: they may be down when it starts.
    - `stop` ends the sources first (what they accepted becomes durable and is acknowledged), then ticks,
      flows, sinks and the server, and closes the log last.
    - What one part needs of another is handed over here; parts do not know each other.

Left to others: restart of a source that fails (`runtime.supervisor`), what a part does (`parts/`), the same parts
in processes of their own (`parts.supervision`).
"""

from __future__ import annotations

import logging
import os
import threading
import time

from ringmain import __version__
from ringmain.config import NodeConfig
from ringmain.flows.runner import FlowRunner
from ringmain.parts.flows import FlowsPart
from ringmain.parts.intake import IntakePart
from ringmain.parts.server import LogFiles, ServerPart
from ringmain.parts.sinks import SinksPart
from ringmain.runtime import part_status
from ringmain.runtime.counters import Counters
from ringmain.runtime.part_status import WHOLE_NODE, PartState, PartStatus
from ringmain.runtime.vitals import watch_log, watch_process
from ringmain.serve.status import NodeStatus

_logger = logging.getLogger("ringmain.node")


class Node:
    """The parts of one configuration. `start` once, `stop` once.

    Raises LogError if the log cannot be opened, SeriesFileError if the catalogue's file is wrong, OSError.
    """

    def __init__(self, config: NodeConfig) -> None:
        self.config = config
        self._started_ns = time.time_ns()
        self._ready_ns = 0
        self._stopped = False
        self.counters = Counters()
        self._intake = IntakePart(config, self.counters)
        self.log = self._intake.log
        try:
            self._serve_log()
            watch_process(self.counters, WHOLE_NODE)
            watch_log(self.counters, self.log)
            part_status.count(self.counters, [self._part()])
            self._files = LogFiles(config.data, self.log)
            self._flows = FlowsPart(config, self.log, self.counters)
            self._sinks = SinksPart(config, self.log, self.counters)
            self._server = ServerPart(config, self.log, self.counters, self.status)
        except BaseException:
            self.log.close()
            raise

    @property
    def flows(self) -> dict[str, FlowRunner]:
        """The flows by name."""
        return self._flows.runners

    def start(self, stop: threading.Event | None = None) -> dict[str, str]:
        """Start every part and wait until each listener accepts; their addresses by name (`serve` and sources).

        A listener that cannot listen (its port is taken, say) is tried again and again, and named in the log of
        this process; so is the server, without holding up the sources. Set `stop` to end the waiting.
        """
        stop = stop if stop is not None else threading.Event()
        self._flows.start()
        self._sinks.start()
        self._server.try_start()
        self._intake.start()
        serving = self._server.wait_listening(stop)
        addresses = self._intake.wait_listening(stop)
        if stop.is_set():
            return {}
        self._ready_ns = time.time_ns()
        part_status.count(self.counters, [self._part()])
        return {**addresses, **serving}

    def reload(self, config: NodeConfig) -> list[str]:
        """Take over another configuration: only what changed ends and begins anew; what did is told."""
        self.config = config
        return [
            *self._intake.reload(config),
            *self._flows.reload(config),
            *self._sinks.reload(config),
            *self._server.reload(config, threading.Event()),
        ]

    def stop(self) -> None:
        """End every part in order, everything accepted durable. Idempotent."""
        if self._stopped:
            return
        self._stopped = True
        self._intake.drain()
        self._flows.stop()
        self._sinks.stop()
        self._server.stop()
        self._intake.close()

    def status(self) -> NodeStatus:
        """Everything that the page and the API tell about this node. From any thread."""
        sources = self._intake.sources()
        return NodeStatus(
            name=self.config.node.name,
            timezone=self.config.node.timezone,
            version=__version__,
            started_ns=self._started_ns,
            ready=self._ready_ns > 0 and not self._stopped,
            sources=sources,
            flows=self._flows.views(),
            log=self._files.view(source.storage for source in sources),
            parts=(self._part(),),
            sinks=self._sinks.views(),
        )

    def _serve_log(self) -> None:
        """Other programs may use the log as well; no part of this node needs that."""
        try:
            self._intake.serve_log()
        except OSError as error:
            _logger.warning("other programs cannot append while this node runs: no socket: %s", error)

    def _part(self) -> PartStatus:
        state = PartState.RUNNING if self._ready_ns else PartState.STARTING
        return PartStatus(WHOLE_NODE, os.getpid(), state, self._ready_ns or self._started_ns)
