"""The note that a restore leaves in a log's directory: under which incarnation the log goes on from here.

A restored log must not go on as the one that was backed up: that one may have acknowledged more, under positions
that this one would give out again. So `backup/restore.py` draws a new incarnation and writes it down, first as unfinished,
and as finished when everything is in place. Recovery begins that incarnation behind what was restored; the writer
removes the note once the beginning is durable. A crash anywhere between leads to the same incarnation again, since
the note names it, and a log that has begun it knows it by its lineage.

    file `restored`   CRC-32C of what follows (8 hexadecimal digits), a blank, a JSON object, a line feed
"""

from __future__ import annotations

import contextlib
import datetime as dt
from pathlib import Path

import msgspec
from crc32c import crc32c

from ringmain.log.builtin import LedgerKind
from ringmain.log.files import FileSystem, publish_file, read_file
from ringmain.log.interface import LogError
from ringmain.log.ledger.entries import LedgerEntry, instant_text

RESTORED_NAME = "restored"
_BYTES_MAX = 1 << 16


class Restored(msgspec.Struct, frozen=True):
    """A restore into a directory. Times are ns UTC; `end` is the position of the backup's newest frame, as text."""

    finished: bool
    incarnation: int
    backup_ns: int
    restored_ns: int
    end: str

    @property
    def origin(self) -> str:
        """Where the incarnation comes from, for people."""
        return f"restored from the backup of {iso(self.backup_ns)}"

    def entry(self, now_ns: int) -> LedgerEntry:
        """What the restore means, as a row of the ledger: a range of time, and nobody can know how much it held."""
        return LedgerEntry(
            LedgerKind.UNKNOWN,
            None,
            None,
            instant_text(self.backup_ns),
            instant_text(self.restored_ns),
            0,
            None,
            f"{self.origin}: what the log acknowledged behind position {self.end} is not here, and how much that was "
            f"is not known; the log goes on as incarnation {self.incarnation:016x}",
            now_ns,
        )


def iso(time_ns: int) -> str:
    """A time as RFC 3339 text in UTC, whole seconds."""
    return dt.datetime.fromtimestamp(time_ns // 1_000_000_000, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def read_restored(fs: FileSystem, directory: Path) -> Restored | None:
    """The note in a directory; None where there is none. Raises LogError when it does not check out."""
    path = directory / RESTORED_NAME
    try:
        raw = read_file(fs, path, _BYTES_MAX)
    except FileNotFoundError:
        return None
    except ValueError:
        raw = b""
    body = raw[9:]
    with contextlib.suppress(ValueError, msgspec.MsgspecError):
        if raw[8:9] == b" " and int(raw[:8], 16) == crc32c(body):
            return msgspec.json.decode(body, type=Restored)
    raise LogError(
        f"{path}: expected what a restore wrote down, found {len(raw)} bytes that do not check out: "
        "restore the backup again, into an empty directory"
    )


def write_restored(fs: FileSystem, directory: Path, restored: Restored) -> None:
    """Write the note so that the old or the new one is there after a crash. Raises OSError."""
    body = msgspec.json.encode(restored) + b"\n"
    publish_file(fs, directory / RESTORED_NAME, [f"{crc32c(body):08x} ".encode(), body])


def refuse_unfinished(fs: FileSystem, directory: Path) -> None:
    """Raise LogError where a restore was interrupted: what is there is a part of a log."""
    restored = read_restored(fs, directory)
    if restored is not None and not restored.finished:
        raise LogError(
            f"{directory}: a restore into this directory was not finished: run `ringmain log restore` "
            "with the same directory again"
        )


def forget_restored(fs: FileSystem, directory: Path) -> None:
    """Remove the note: the new incarnation is durable. A failure leaves it, which does no harm."""
    with contextlib.suppress(OSError):
        fs.remove(directory / RESTORED_NAME)
        fs.sync_directory(directory)
