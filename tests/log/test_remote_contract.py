"""The log of another process does what every engine has to do, reading its files and reading through its socket."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from ringmain.log import open_log
from ringmain.log.interface import Log
from ringmain.log.journal import Journal
from ringmain.log.socket.remote import RemoteLog
from tests.log.contract import LogContract


class _Served(RemoteLog):
    """A remote log that brings its writer along, for tests that open and close a log."""

    def __init__(self, directory: Path, read: Literal["files", "socket"]) -> None:
        self.writer: Journal = open_log(directory, segment_bytes=2 << 20)
        self.writer.listen()
        super().__init__(directory, timeout_s=20.0, read=read, program="test")

    def close(self) -> None:
        super().close()
        self.writer.close()


class TestRemoteLogReadingFiles(LogContract):
    def open(self, directory: Any) -> Log:
        return _Served(directory, "files")


class TestRemoteLogReadingItsSocket(LogContract):
    def open(self, directory: Any) -> Log:
        return _Served(directory, "socket")
