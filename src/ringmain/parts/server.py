"""The part that shows: page, API, live push, metrics and SQL, over one log; and what it tells of the log's files."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from ringmain.config import NodeConfig
from ringmain.log.interface import Log
from ringmain.runtime.counters import Counters
from ringmain.runtime.status import StorageState
from ringmain.serve.status import LogView, StatusProvider

if TYPE_CHECKING:
    from ringmain.serve.server import CataloguedLog, Server

RETRY_S = 1.0

_logger = logging.getLogger("ringmain.node")


class ServerPart:
    """The server of a configuration that has one. `start` once, `stop` once."""

    def __init__(
        self, config: NodeConfig, log: CataloguedLog, counters: Counters, status: StatusProvider
    ) -> None:
        self._config = config
        self._log = log
        self._counters = counters
        self._status = status
        self._server: Server | None = None
        self._error = ""

    def try_start(self) -> bool:
        """Serve, where the configuration says so; False when the address cannot be had now. Then try again."""
        if self._config.serve is None:
            return True
        from ringmain.serve.server import Server  # its libraries are wanted only here

        server = Server(
            self._config.serve, self._log, self._counters, self._status, directory=self._config.data
        )
        try:
            server.start()
        except OSError as error:
            if str(error) != self._error:
                self._error = str(error)
                _logger.error("%s; trying again every %g s", error, RETRY_S)
            return False
        self._server = server
        return True

    def reload(self, config: NodeConfig, stop: threading.Event) -> list[str]:
        """Take over another configuration: the server begins anew if `[serve]` changed, else nothing happens."""
        old, self._config = self._config, config
        if config.serve == old.serve:
            return []
        self.stop()
        self._server = None
        self.wait_listening(stop)
        return ["the server begins anew"]

    def wait_listening(self, stop: threading.Event) -> dict[str, str]:
        """Serve as soon as the address can be had; the address as `serve`, nothing when `stop` was set first."""
        while self._server is None and not self.try_start():
            if stop.wait(RETRY_S):
                return {}
        return self.address

    @property
    def address(self) -> dict[str, str]:
        """Where the server listens, as `serve`; empty while or where there is none."""
        return {} if self._server is None else {"serve": self._server.address}

    def stop(self) -> None:
        """Let clients go and stop. Idempotent."""
        if self._server is not None:
            self._server.stop()


class LogFiles:
    """Watches the directory of a log for the page: its size, and when something became durable last."""

    def __init__(self, directory: Path, log: Log) -> None:
        self._directory = directory
        self._durable_ns = 0
        log.on_durable(self._became_durable)

    def _became_durable(self) -> None:
        self._durable_ns = time.time_ns()

    def view(self, storage: Iterable[StorageState]) -> LogView:
        """The files at this moment; `storage` says what the sources find when they append."""
        size_bytes = segments = 0
        for path in self._directory.iterdir():
            try:
                size_bytes += path.stat().st_blocks * 512  # a segment may end with a hole
            except OSError:
                continue  # removed by retention meanwhile
            segments += path.suffix == ".seg"
        found = set(storage)
        worst = next((s for s in (StorageState.FAILING, StorageState.FULL) if s in found), StorageState.OK)
        return LogView(size_bytes, segments, worst, self._durable_ns)
