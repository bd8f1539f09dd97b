"""A real disk whose syncs a test can hold back, and whose space a test can take away."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Sequence

from ringmain.log.files import LocalFileSystem


class TestDisk(LocalFileSystem):
    """Writes to the real file system; `hold` makes each fdatasync wait, `trouble` makes writes fail."""

    __test__ = False

    def __init__(self) -> None:
        self.open_gate = threading.Event()
        self.open_gate.set()
        self.waiting = threading.Event()
        self.trouble = 0
        self.refused = 0
        self.syncs = 0

    def hold(self) -> None:
        """From now on fdatasync waits until `release`."""
        self.waiting.clear()
        self.open_gate.clear()

    def release(self) -> None:
        self.open_gate.set()

    def fdatasync(self, handle: int) -> None:
        if not self.open_gate.is_set():
            self.waiting.set()
            self.open_gate.wait(60)
        super().fdatasync(handle)
        self.syncs += 1

    def pwritev(self, handle: int, buffers: Sequence[bytes | bytearray | memoryview], offset: int) -> int:
        if self.trouble:
            self.refused += 1
            raise OSError(self.trouble, os.strerror(self.trouble))
        return super().pwritev(handle, buffers, offset)

    def fill(self) -> None:
        """No space left from now on."""
        self.trouble = errno.ENOSPC

    def mend(self) -> None:
        self.trouble = 0
