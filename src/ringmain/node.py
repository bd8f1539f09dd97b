"""A running node: the parts that its configuration names, around one log.

Promises
    - `start` answers once every listener accepts. Brokers and other servers that this node calls are not
      waited for: they may be down when it starts.
    - `stop` ends the sources first (what they accepted becomes durable and is acknowledged), then ticks,
      flows and the server, and closes the log last.
    - What one part needs of another is handed over here; parts do not know each other.

Left to others: restart of a source that fails (`runtime.supervisor`), what a part does (its own room).
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from typing import TYPE_CHECKING

from ringmain import __version__
from ringmain.config import NodeConfig
from ringmain.flows.runner import FlowRunner, FlowStatus
from ringmain.log import open_log
from ringmain.log.catalogue import SeriesRegistry
from ringmain.log.interface import LogError
from ringmain.log.settings import parse_size, parse_sync
from ringmain.model.duration import parse_duration
from ringmain.model.series_csv import SeriesFileError, read_series
from ringmain.runtime.counters import Counters
from ringmain.runtime.status import SourceStatus, StorageState
from ringmain.runtime.supervisor import Supervisor
from ringmain.runtime.ticker import Ticker
from ringmain.runtime.vitals import watch
from ringmain.serve.status import FlowView, LogView, NodeStatus
from ringmain.sources.types import Surroundings

if TYPE_CHECKING:
    from ringmain.serve.server import Server

RETENTION_INTERVAL_S = 60.0
SERVER_RETRY_S = 1.0
CATALOGUE_SOURCE = "catalogue"
SWITCH_INTERVAL_S = 0.0005
"""How long a thread may hold the interpreter when another wants it. Python's own 5 ms would stand between a sync that
has returned and its acknowledgements whenever a flow or the server computes."""

_logger = logging.getLogger("ringmain.node")


class Node:
    """The parts of one configuration. `start` once, `stop` once.

    Raises LogError if the log cannot be opened, SeriesFileError if the catalogue's file is wrong.
    """

    def __init__(self, config: NodeConfig) -> None:
        self.config = config
        self._started_ns = time.time_ns()
        self._durable_ns = 0
        self._ready = False
        self._stopping = threading.Event()
        self._retention: threading.Thread | None = None
        self.server: Server | None = None
        self._server_error = ""
        self.counters = Counters()
        self.log = open_log(
            config.data,
            segment_bytes=parse_size(config.log.segment),
            sync_delay_ns=parse_sync(config.log.sync),
        )
        try:
            watch(self.counters, self.log)
            self.log.on_durable(self._became_durable)
            self.registry = SeriesRegistry(self.log, max_series=config.catalogue.max_series)
            self._load_catalogue()
            self.supervisor = Supervisor(self.log, self.registry, self.counters)
            self._add_sources()
            self.ticker = Ticker(self.log, self.counters)
            self.flows = {
                name: FlowRunner(name, settings, self.log, self.counters, config.data / "snapshots")
                for name, settings in config.flows.items()
            }
        except BaseException:
            self.log.close()
            raise

    def start(self, stop: threading.Event | None = None) -> dict[str, str]:
        """Start every part and wait until each listener accepts; their addresses by name (`serve` and sources).

        A listener that cannot listen (its port is taken, say) is tried again and again, and named in the log of
        this process; so is the server, without holding up the sources. Set `stop` to end the waiting.
        """
        stop = stop if stop is not None else threading.Event()
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        self.ticker.start()
        for flow in self.flows.values():
            flow.start()
        serving = self._try_server()
        self.supervisor.start()
        while not serving:
            if stop.wait(SERVER_RETRY_S):
                return {}
            serving = self._try_server()
        listening = {name for name, entry in self.config.sources.items() if entry.type.listens}
        while {late.name for late in self.supervisor.wait_started(0.2)} & listening:
            if stop.is_set():
                return {}
        if self.config.log.keep_age is not None or self.config.log.keep_size is not None:
            self._retention = threading.Thread(target=self._retain, name="retention", daemon=True)
            self._retention.start()
        self._ready = True
        addresses = {
            status.name: status.address for status in self.supervisor.statuses() if status.name in listening
        }
        return {**addresses, **({"serve": self.server.address} if self.server is not None else {})}

    def stop(self) -> None:
        """End every part in order, everything accepted durable. Idempotent."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        self._ready = False
        for name in self.supervisor.stop():
            _logger.error("source %s could not store everything that it took; it was not acknowledged", name)
        self.ticker.stop()
        for flow in self.flows.values():
            flow.stop()
        if self.server is not None:
            self.server.stop()
        if self._retention is not None:
            self._retention.join()
        self.log.close()

    def status(self) -> NodeStatus:
        """Everything that the page and the API tell about this node. From any thread."""
        sources = tuple(self.supervisor.statuses())
        return NodeStatus(
            name=self.config.node.name,
            timezone=self.config.node.timezone,
            version=__version__,
            started_ns=self._started_ns,
            ready=self._ready,
            sources=sources,
            flows=tuple(_flow_view(flow.status()) for flow in self.flows.values()),
            log=self._log_view(sources),
        )

    def _load_catalogue(self) -> None:
        """Series that a CSV file describes get their ids before any source, and are durable then."""
        file = self.config.catalogue.file
        if file is None:
            return
        path = self.config.path.parent / file
        for key, attributes in read_series(path):
            try:
                number = self.registry.describe(CATALOGUE_SOURCE, key, attributes)
            except ValueError as error:
                raise SeriesFileError(f"{path}: {error}") from None
            if number < 0:
                raise SeriesFileError(
                    f"{path}: expected at most {self.config.catalogue.max_series} series, found more: "
                    "raise max_series in [catalogue]"
                )
        self.registry.save()  # before the maps of sources add what they know

    def _add_sources(self) -> None:
        around = Surroundings(
            node=self.config.node.name,
            directory=self.config.path.parent.absolute(),
            timezone=self.config.node.timezone,
            registry=self.registry,
            maps=self.config.maps(),
        )
        for name, entry in self.config.sources.items():
            self.supervisor.add(name, entry.type_name, entry.type.build(name, entry.settings, around))

    def _try_server(self) -> bool:
        """Start the server where there is to be one; False when its address cannot be had now."""
        if self.config.serve is None:
            return True
        from ringmain.serve.server import Server

        server = Server(self.config.serve, self.log, self.counters, self.status, directory=self.config.data)
        try:
            server.start()
        except OSError as error:
            if str(error) != self._server_error:
                self._server_error = str(error)
                _logger.error("%s; trying again every %g s", error, SERVER_RETRY_S)
            return False
        self.server = server
        return True

    def _became_durable(self) -> None:
        self._durable_ns = time.time_ns()

    def _log_view(self, sources: tuple[SourceStatus, ...]) -> LogView:
        size_bytes = segments = 0
        for path in self.config.data.iterdir():
            try:
                size_bytes += path.stat().st_size
            except OSError:
                continue  # removed by retention meanwhile
            segments += path.suffix == ".seg"
        storage = [source.storage for source in sources]
        worst = next((s for s in (StorageState.FAILING, StorageState.FULL) if s in storage), StorageState.OK)
        return LogView(size_bytes, segments, worst, self._durable_ns)

    def _retain(self) -> None:
        limits = self.config.log
        age_ns = parse_duration(limits.keep_age) if limits.keep_age is not None else None
        size_bytes = parse_size(limits.keep_size) if limits.keep_size is not None else None
        while not self._stopping.wait(RETENTION_INTERVAL_S):
            try:
                removed = self.log.retain(age_ns=age_ns, size_bytes=size_bytes)
            except LogError as error:
                _logger.warning("retention: %s", error)
            else:
                if removed:
                    _logger.info("retention removed %d segment(s)", removed)


def _flow_view(status: FlowStatus) -> FlowView:
    return FlowView(
        name=status.name,
        to=status.to,
        state=status.state.value,
        lag_s=status.lag_s,
        rows=status.rows,
        late=status.late,
        revisions=status.revisions,
        ahead=status.ahead,
        duplicates=status.duplicates,
        last_error=status.last_error,
    )
