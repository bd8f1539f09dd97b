"""A real log, and file sources that read into it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from ringmain.log import open_log
from ringmain.log.catalogue import SeriesRegistry
from ringmain.log.interface import LogReader
from ringmain.log.ledger.accountant import Accountant
from ringmain.runtime.backoff import Backoff
from ringmain.runtime.counters import Counters
from ringmain.runtime.status import SourceState, SourceStatus
from ringmain.runtime.supervisor import Supervisor
from ringmain.sources.file import SOURCE_TYPE
from ringmain.sources.file_settings import FileSettings
from ringmain.sources.types import Surroundings
from tests.conftest import wait_until

SECOND = 10**9


def settings_of(**given: Any) -> FileSettings:
    """Settings that have nothing wrong."""
    defaults = {"path": "in.csv", "series": "m/{meter}", "time": "time", "poll": "0.01s", "settle": "0s"}
    settings = msgspec.convert({**defaults, **given}, FileSettings)
    assert settings.check()[0] == [], settings.check()
    return settings


class Field:
    """A log in a directory, beside the files."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.counters = Counters()
        self.open()

    def open(self) -> None:
        self.log = open_log(self.directory / "log")
        self.registry = SeriesRegistry(self.log)
        self.supervisor = Supervisor(self.log, self.registry, self.counters)

    def reopen(self) -> None:
        self.supervisor.stop(60)
        self.log.close()
        self.open()

    def write(self, text: str | bytes, name: str = "in.csv", encoding: str = "utf-8") -> Path:
        path = self.directory / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
        return path

    def start(self, *, timezone: str = "UTC", **given: Any) -> None:
        around = Surroundings("test", self.directory, timezone, self.registry, {})
        source = SOURCE_TYPE.build("files", settings_of(**given), around)
        self.supervisor = Supervisor(self.log, self.registry, self.counters)
        self.supervisor.add("files", "file", source, backoff=Backoff(0.01, 0.05))
        self.supervisor.start()

    def replay(
        self, text: str | bytes | None = None, *, name: str = "in.csv", encoding: str = "utf-8", **given: Any
    ) -> None:
        """Store all of one file."""
        if text is not None:
            self.write(text, name, encoding)
        self.start(**{"path": name, "encoding": encoding, **given})
        self.wait_finished()

    def wait_finished(self) -> None:
        """Wait until the file is read, and stop the source."""
        wait_until(self._finished, what=f"the file read ({self.status})")
        assert self.supervisor.stop(60) == []

    def _finished(self) -> bool:
        if self.status.state in (SourceState.BACKOFF, SourceState.FAILED):
            return True
        stored = self.log.positions("source/files/file").get("source/files/file")
        return stored is not None and bool(msgspec.msgpack.decode(stored)[7])

    @property
    def status(self) -> SourceStatus:
        return self.supervisor.statuses()[0]

    def rows(self) -> list[tuple[str, int, float, int]]:
        """(key, time in ns, value, quality) of every reading, in the order of the log."""
        return rows_of(self.log)

    def letters(self) -> list[tuple[str, bytes, str]]:
        """(topic, payload, reason)."""
        return [
            (row["topic"], row["payload"], row["reason"])
            for frame in self.log.read("deadletters")
            for row in frame.rows.drop_columns(["time"]).to_pylist()
        ]

    def reasons(self) -> list[str]:
        return [reason for _, _, reason in self.letters()]

    def close(self) -> None:
        self.supervisor.stop(60)
        accountant = Accountant(self.log)
        accountant.advance()
        self.log.close()
        assert accountant.closes, accountant.accounts()


def rows_of(log: LogReader) -> list[tuple[str, int, float, int]]:
    found: list[tuple[str, int, float, int]] = []
    catalogue = log.catalogue()
    for frame in log.read("readings"):
        keys = catalogue.key_array(frame.rows.column("series").to_numpy()).to_pylist()
        times = frame.rows.column("time").cast(pa.int64()).to_pylist()
        values, qualities = frame.rows.column("value").to_pylist(), frame.rows.column("quality").to_pylist()
        found += list(zip(keys, times, values, qualities, strict=True))
    return found
