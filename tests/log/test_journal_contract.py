"""The journal does what every engine has to do."""

from __future__ import annotations

from typing import Any

from ringmain.log import open_log
from ringmain.log.interface import Log
from tests.log.contract import LogContract


class TestJournal(LogContract):
    def open(self, directory: Any) -> Log:
        log: Log = open_log(directory, segment_bytes=2 << 20)
        return log


class TestJournalOfTinySegments(LogContract):
    def open(self, directory: Any) -> Log:
        log: Log = open_log(directory, segment_bytes=4096)
        return log
