"""The part that acknowledges: the journal, the sources, the series catalogue, the ticks, and retention.

It owns the log. Other parts may live in the same process and use `log`, or in others and reach it over the
journal's socket (`listen`). Nothing that is acknowledged depends on them.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Mapping, Sequence

from ringmain.config import NodeConfig
from ringmain.config_checks import SourceEntry
from ringmain.log import open_log
from ringmain.log.catalogue import SeriesRegistry
from ringmain.log.interface import LogError
from ringmain.log.prepare import PREPARE_AFTER_BYTES
from ringmain.log.settings import parse_size, parse_sync
from ringmain.model.duration import parse_duration
from ringmain.model.series_csv import SeriesFileError, read_series
from ringmain.parts.changes import Changes
from ringmain.runtime.counters import Counters
from ringmain.runtime.status import SourceStatus
from ringmain.runtime.supervisor import Supervisor
from ringmain.runtime.ticker import Ticker
from ringmain.runtime.vitals import watch_socket
from ringmain.sources.mapping import MapSettings
from ringmain.sources.types import Surroundings

RETENTION_INTERVAL_S = 60.0
CATALOGUE_SOURCE = "catalogue"
SWITCH_INTERVAL_S = 0.0005
"""How long a thread may hold the interpreter when another wants it. Python's own 5 ms would stand between a sync that
has returned and its acknowledgements whenever another thread computes."""

_logger = logging.getLogger("ringmain.node")


class IntakePart:
    """Opens the log when made; `start` once, `drain` and `close` once, in this order.

    Raises LogError if the log cannot be opened, SeriesFileError if the catalogue's file is wrong, OSError.
    """

    def __init__(self, config: NodeConfig, counters: Counters) -> None:
        self._config = config
        self._counters = counters
        self._stopping = threading.Event()
        self._retention: threading.Thread | None = None
        self.log = open_log(
            config.data,
            segment_bytes=parse_size(config.log.segment),
            sync_delay_ns=parse_sync(config.log.sync),
            prepare_after_bytes=PREPARE_AFTER_BYTES if config.log.preallocate else None,
        )
        try:
            self.registry = SeriesRegistry(self.log, max_series=config.catalogue.max_series)
            self._load_catalogue()
            self._supervisor = Supervisor(self.log, self.registry, counters)
            self._add_sources()
            self._ticker = Ticker(self.log, counters)
        except BaseException:
            self.log.close()
            raise

    def serve_log(self) -> None:
        """Let other processes use the log, until it is closed."""
        socket = self.log.listen(policy=self._config.log.policy(), registrar=self.registry)
        watch_socket(self._counters, socket.counts)

    def start(self) -> None:
        """Begin to tick, to take what devices send, and to remove what need not be kept. Returns at once."""
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        self._ticker.start()
        self._supervisor.start()
        if self._config.log.keep_age is not None or self._config.log.keep_size is not None:
            self._retention = threading.Thread(target=self._retain, name="retention", daemon=True)
            self._retention.start()

    def wait_listening(self, stop: threading.Event) -> dict[str, str]:
        """Wait until each listener accepts; their addresses by name, none when `stop` was set first.

        A listener that cannot listen (its port is taken, say) is tried again and again. Brokers and other servers that
        sources call are not waited for.
        """
        listening = {name for name, entry in self._config.sources.items() if entry.type.listens}
        while {late.name for late in self._supervisor.wait_started(0.2)} & listening:
            if stop.is_set():
                return {}
        return {status.name: status.address for status in self.sources() if status.name in listening}

    def sources(self) -> tuple[SourceStatus, ...]:
        """Every source at this moment. From any thread."""
        return tuple(self._supervisor.statuses())

    def drain(self) -> None:
        """End the sources, everything that they accepted durable and acknowledged; then the ticks. Idempotent."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        for name in self._supervisor.stop():
            _logger.error("source %s could not store everything that it took; it was not acknowledged", name)
        self._ticker.stop()

    def close(self) -> None:
        """Close the log. Idempotent."""
        self.drain()
        if self._retention is not None:
            self._retention.join()
        self.log.close()

    def _load_catalogue(self) -> None:
        """Series that a CSV file describes get their ids before any source, and are durable then."""
        file = self._config.catalogue.file
        if file is None:
            return
        path = self._config.path.parent / file
        for key, attributes in read_series(path):
            try:
                number = self.registry.describe(CATALOGUE_SOURCE, key, attributes)
            except ValueError as error:
                raise SeriesFileError(f"{path}: {error}") from None
            if number < 0:
                raise SeriesFileError(
                    f"{path}: expected at most {self._config.catalogue.max_series} series, found more: "
                    "raise max_series in [catalogue]"
                )
        self.registry.save()  # before the maps of sources add what they know

    def _add_sources(self) -> None:
        for name in self._config.sources:
            self._add_source(name)

    def _add_source(self, name: str) -> None:
        around = Surroundings(
            node=self._config.node.name,
            directory=self._config.path.parent.absolute(),
            timezone=self._config.node.timezone,
            registry=self.registry,
            maps=self._config.maps(),
        )
        entry = self._config.sources[name]
        self._supervisor.add(name, entry.type_name, entry.type.build(name, entry.settings, around))

    def reload(self, config: NodeConfig) -> list[str]:
        """Take over another configuration: sources that changed end, all they took durable, and begin anew.

        Series that the catalogue's file describes now are known first. What changed is told; `[node]` and `[log]` need a
        start of the node, and say so.
        """
        if self._stopping.is_set():
            return []
        old, self._config = self._config, config
        told = [
            f"[{table}] changed: that needs a start of the node"
            for table, was, now in (("node", old.node, config.node), ("log", old.log, config.log))
            if was != now
        ]
        self._load_catalogue()
        moved = (old.node.name, old.node.timezone) != (config.node.name, config.node.timezone)
        maps, maps_now = old.maps(), config.maps()
        running = [status.name for status in self._supervisor.statuses()]

        def differs(name: str) -> bool:
            entry = config.sources[name]
            same = entry == old.sources.get(name) and _maps_of(entry, maps) == _maps_of(entry, maps_now)
            return moved or not same

        changes = Changes.between(running, config.sources, differs)
        for name in changes.ending:
            if not self._supervisor.remove(name):
                _logger.error(
                    "source %s could not store everything that it took; it was not acknowledged", name
                )
        for name in changes.beginning:
            self._add_source(name)
            self._supervisor.start_added(name)
        return [*told, *changes.told("source")]

    def _retain(self) -> None:
        limits = self._config.log
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


def _maps_of(entry: SourceEntry, maps: Mapping[str, Sequence[MapSettings]]) -> object:
    """The mapping that a source uses of another one."""
    used = getattr(entry.settings, "map", None)
    return maps.get(used) if isinstance(used, str) else None
