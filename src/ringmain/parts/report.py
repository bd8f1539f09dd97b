"""What a part tells of itself, and how the server makes a node's status and metrics of it.

What a part that is gone told last is shown on, with its state: counters as they were (a counter must not fall back to
nothing between two scrapes), gauges not at all, sources, flows and sinks with the reason why they stand still.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec

from ringmain import __version__
from ringmain.parts.messages import Peers
from ringmain.runtime import part_status
from ringmain.runtime.counters import Counters, Kind, MetricSnapshot
from ringmain.runtime.part_status import FLOWS, INTAKE, SERVER, SINKS, PartState, PartStatus
from ringmain.runtime.sink_status import SinkState, SinkStatus
from ringmain.runtime.status import SourceState, SourceStatus, StorageState
from ringmain.serve.status import FlowView, LogView, NodeStatus

if TYPE_CHECKING:
    from ringmain.config import NodeConfig

SILENT_S = 5.0
"""After so long without news a part, or the process that watches over all, counts as silent."""


class PartReport(msgspec.Struct, frozen=True):
    """A part's sources, flows, sinks and metrics at one moment."""

    sources: tuple[SourceStatus, ...] = ()
    flows: tuple[FlowView, ...] = ()
    metrics: list[MetricSnapshot] = []
    sinks: tuple[SinkStatus, ...] = ()


_decoder = msgspec.msgpack.Decoder(PartReport)
_encoder = msgspec.msgpack.Encoder()


def encode_report(report: PartReport) -> bytes:
    """As it travels."""
    return _encoder.encode(report)


class Board:
    """What the server part knows of the node. `take` on one thread, the rest from any."""

    def __init__(self, config: NodeConfig, counters: Counters) -> None:
        self._config = config
        self._counters = counters
        self._lock = threading.Lock()
        self._peers = Peers(time.time_ns(), False, (), {})
        self._taken_s = time.monotonic()
        self._reports: dict[str, PartReport] = {}
        counters.include(self.metrics)

    def take(self, peers: Peers) -> None:
        """Take over the newest news. Raises msgspec.MsgspecError for a report that is none."""
        reports = {name: _decoder.decode(body) for name, body in peers.reports.items()}
        with self._lock:
            self._reports.update(reports)
            self._peers = peers
            self._taken_s = time.monotonic()
        part_status.count(self._counters, peers.parts)

    def metrics(self) -> list[MetricSnapshot]:
        """What other parts count, without the gauges of those that are gone."""
        with self._lock:
            parts, reports = self._peers.parts, dict(self._reports)
        living = {part.name for part in parts if part.state in (PartState.RUNNING, PartState.SILENT)}
        return [
            metric
            for name, report in reports.items()
            if name != SERVER
            for metric in report.metrics
            if name in living or metric.metric.kind is not Kind.GAUGE
        ]

    def reload(self, config: NodeConfig) -> None:
        """The configuration changed: what is not heard of yet is named as it is now."""
        self._config = config

    def status(self, log: Callable[[list[StorageState]], LogView]) -> NodeStatus:
        """The node at this moment; `log` gives the view of the log's files from what sources find when they append."""
        with self._lock:
            peers, reports, taken_s = self._peers, dict(self._reports), self._taken_s
        parts = peers.parts
        if time.monotonic() - taken_s > SILENT_S:
            parts = tuple(
                replace(part, state=PartState.SILENT, last_error="the supervising process is silent")
                if part.name != SERVER and part.state is PartState.RUNNING
                else part
                for part in parts
            )
        by_name = {part.name: part for part in parts}
        sources = self._sources(reports, by_name.get(INTAKE))
        return NodeStatus(
            name=self._config.node.name,
            timezone=self._config.node.timezone,
            version=__version__,
            started_ns=peers.started_ns,
            ready=peers.ready and all(part.state is PartState.RUNNING for part in parts),
            sources=sources,
            flows=self._flows(reports, by_name.get(FLOWS)),
            log=log([source.storage for source in sources]),
            parts=parts,
            sinks=self._sinks(reports, by_name.get(SINKS)),
        )

    def _sources(
        self, reports: Mapping[str, PartReport], part: PartStatus | None
    ) -> tuple[SourceStatus, ...]:
        known = reports.get(INTAKE, PartReport()).sources
        if not known:
            return tuple(
                SourceStatus(
                    name=name,
                    type=entry.type_name,
                    address="",
                    state=SourceState.STARTING,
                    since_ns=self._peers.started_ns,
                    last_error=None if part is None else part.last_error,
                    restarts=0,
                    storage=StorageState.OK,
                    queue_rows=0,
                    received=0,
                    readings=0,
                    letters=0,
                    events=0,
                    last_reading_ns=0,
                )
                for name, entry in self._config.sources.items()
            )
        if part is None or part.state in (PartState.RUNNING, PartState.SILENT):
            return known
        return tuple(
            replace(source, state=SourceState.BACKOFF, since_ns=part.since_ns, last_error=_why(part))
            for source in known
        )

    def _flows(self, reports: Mapping[str, PartReport], part: PartStatus | None) -> tuple[FlowView, ...]:
        known = reports.get(FLOWS, PartReport()).flows or tuple(
            FlowView(name, settings.to, PartState.STARTING.value)
            for name, settings in self._config.flows.items()
        )
        if part is None or part.state in (PartState.RUNNING, PartState.SILENT):
            return known
        return tuple(replace(flow, state=part.state.value, last_error=_why(part)) for flow in known)

    def _sinks(self, reports: Mapping[str, PartReport], part: PartStatus | None) -> tuple[SinkStatus, ...]:
        known = reports.get(SINKS, PartReport()).sinks or tuple(
            SinkStatus(
                name,
                entry.type_name,
                entry.settings.streams,
                "",
                SinkState.STARTING,
                self._peers.started_ns,
                None if part is None else part.last_error,
            )
            for name, entry in self._config.sinks.items()
        )
        if part is None or part.state in (PartState.RUNNING, PartState.SILENT):
            return known
        return tuple(
            replace(sink, state=SinkState.BACKOFF, since_ns=part.since_ns, last_error=_why(part))
            for sink in known
        )


def _why(part: PartStatus) -> str:
    return f"the process {part.name!r} is in state {part.state.value}" + (
        f": {part.last_error}" if part.last_error else ""
    )
