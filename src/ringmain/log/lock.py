"""One writer per log: a lock on a file in its directory, on a file system where locks and syncs mean something."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from ringmain.log.files import FileSystem, is_network, read_file
from ringmain.log.interface import LogError, LogLockedError

LOCK_NAME = "lock"


def refuse_network(fs: FileSystem, directory: Path) -> None:
    """Raise LogError when the directory lies on a network file system."""
    kind = fs.kind(directory)
    if is_network(kind):
        raise LogError(
            f"{directory}: expected a local file system, found {kind}: locks and syncs cannot be relied on there; "
            "choose a directory on a local disk"
        )


def take_lock(fs: FileSystem, directory: Path) -> int:
    """Lock the directory for one writer; the handle holds it. Raises LogLockedError that names the holder.

    A forked child would keep the lock of its parent: processes that open a log are spawned.
    """
    path = directory / LOCK_NAME
    try:
        handle = fs.lock(path)
    except BlockingIOError:
        holder = ""
        with contextlib.suppress(OSError, ValueError):
            holder = read_file(fs, path, 4096).decode("ascii", "replace").strip("\0 \n")
        raise LogLockedError(
            f"{directory}: the log is open in process {holder or 'unknown'}; stop that process, "
            "or open the log for reading only"
        ) from None
    with contextlib.suppress(OSError):
        fs.pwritev(handle, [f"{os.getpid():<20}\n".encode()], 0)
    return handle
