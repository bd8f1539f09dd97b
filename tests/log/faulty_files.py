"""A file system for tests: the local one, with calls counted, held back, failed, shortened or forgotten."""

from __future__ import annotations

import errno
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from ringmain.log.files import LocalFileSystem


class FaultyFiles(LocalFileSystem):
    """Counts calls by name; `fail` and `before` interfere with chosen ones."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.trail: list[str] = []
        self._plans: list[tuple[str, Callable[[int, Path | None], bool], int]] = []
        self._hooks: dict[str, tuple[Callable[[], None], str]] = {}
        self._paths: dict[int, Path] = {}
        self._lock = threading.Lock()
        self.short_writes = False
        self.space_bytes: int | None = None
        self.writes = 0

    def fail(self, name: str, error: int = errno.EIO, *, nth: int | None = None, suffix: str = "") -> None:
        """Let calls of `name` fail: the nth from now (0: the next), or every one, on paths with that suffix."""
        start = self.calls[name]
        seen = 0

        def chosen(_: int, path: Path | None) -> bool:
            nonlocal seen
            if suffix and (path is None or path.suffix != suffix):
                return False
            seen += 1
            return nth is None or seen == nth + 1

        del start
        self._plans.append((name, chosen, error))

    def heal(self) -> None:
        """No more failures."""
        self._plans.clear()
        self.space_bytes = None

    def before(self, name: str, hook: Callable[[], None] | None, suffix: str = "") -> None:
        """Run `hook` in each call of `name`, on paths with that suffix, before it does anything."""
        if hook is None:
            self._hooks.pop(name, None)
        else:
            self._hooks[name] = (hook, suffix)

    def _enter(self, name: str, path: Path | None) -> None:
        hook = self._hooks.get(name)
        if hook is not None and (not hook[1] or (path is not None and path.suffix == hook[1])):
            hook[0]()
        with self._lock:
            number = self.calls[name]
            self.calls[name] += 1
            self.trail.append(f"{name} {path.name if path else ''}")
            for planned, chosen, error in self._plans:
                if planned == name and chosen(number, path):
                    raise OSError(error, "injected by the test")

    def create(self, path: Path) -> int:
        self._enter("create", path)
        handle = super().create(path)
        self._paths[handle] = path
        return handle

    def open_existing(self, path: Path, *, write: bool = False) -> int:
        self._enter("open", path)
        handle = super().open_existing(path, write=write)
        self._paths[handle] = path
        return handle

    def pwritev(self, handle: int, buffers: Sequence[bytes | bytearray | memoryview], offset: int) -> int:
        self._enter("write", self._paths.get(handle))
        size = sum(map(len, buffers))
        if self.space_bytes is not None:
            if self.space_bytes <= 0:
                raise OSError(errno.ENOSPC, "injected by the test")
            if size > self.space_bytes:
                data = b"".join(buffers)[: self.space_bytes]
                self.space_bytes = 0
                return super().pwritev(handle, [data], offset)
            self.space_bytes -= size
        if self.short_writes and size > 1:
            return super().pwritev(handle, [b"".join(buffers)[: size // 2 or 1]], offset)
        return super().pwritev(handle, buffers, offset)

    def fdatasync(self, handle: int) -> None:
        self._enter("sync", self._paths.get(handle))
        super().fdatasync(handle)

    def rename(self, old: Path, new: Path) -> None:
        self._enter("rename", new)
        super().rename(old, new)

    def remove(self, path: Path) -> None:
        self._enter("remove", path)
        super().remove(path)

    def sync_directory(self, path: Path) -> None:
        self._enter("sync_directory", path)
        super().sync_directory(path)

    def lock(self, path: Path) -> int:
        self._enter("lock", path)
        return super().lock(path)
