"""The log that a node left in a directory, or is writing: who holds it, how it ended, what its ledger says."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from ringmain.cli.doctor_findings import Finding, bad, good, note
from ringmain.log import open_reader
from ringmain.log.builtin import LedgerKind
from ringmain.log.frames import NewerFormatError
from ringmain.log.interface import LogError
from ringmain.log.lock import LOCK_NAME

AHEAD_S_MAX = 60.0
_LOSSES = frozenset({LedgerKind.QUARANTINED, LedgerKind.CUT, LedgerKind.LOST, LedgerKind.CONFLICT})
_SHOWN = 3


def state_of_log(data: Path) -> Iterator[Finding]:
    """Findings about the log in `data`; one that says so when there is none yet."""
    try:
        segments = sorted(data.glob("*.seg"))
    except OSError as error:
        yield bad("log", str(error), "give the directory to the user that runs the node")
        return
    if not segments:
        yield good("log", f"none in {data} yet")
        return
    holder = holder_of(data)
    yield good(
        "log", f"{len(segments)} segments, {'open in process ' + str(holder) if holder else 'not open'}"
    )
    if holder is None:
        left = sorted(path.name for path in data.glob("*.tmp"))
        if left:
            yield note(
                "unfinished files",
                ", ".join(left[:_SHOWN]),
                "left behind by a write that was interrupted; the next start removes them",
            )
    try:
        with open_reader(data) as reader:
            ledger = reader.ledger()
            arrivals = [state.last_arrival_ns for state in reader.streams()]
    except NewerFormatError as error:
        yield bad("log state", str(error), "run the Ringmain that wrote it")
        return
    except PermissionError as error:
        yield bad("log state", str(error), "run this as the user that runs the node")
        return
    except (LogError, OSError) as error:
        yield bad("log state", str(error), f"see `ringmain log verify {data}`")
        return
    yield from _arrival(max(arrivals, default=0))
    yield _ledger(data, ledger)


def holder_of(data: Path) -> int | None:
    """The process that has the log open for writing (/proc/locks); None if nobody has. Takes no lock itself."""
    try:
        status = (data / LOCK_NAME).stat()
        lines = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return None
    wanted = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    for line in lines:
        fields = line.split()
        if len(fields) >= 6 and fields[1] == "FLOCK" and fields[5] == wanted:
            return int(fields[4])
    return None


def _arrival(newest_ns: int) -> Iterator[Finding]:
    """Data that arrived in the future tells of a clock that was stepped back."""
    ahead_s = newest_ns / 1e9 - time.time()
    if ahead_s > AHEAD_S_MAX:
        yield note(
            "newest arrival",
            f"{ahead_s:.0f} s ahead of the clock",
            "the clock was ahead before, or is behind now: set it; arrival goes on from there until it has caught up",
        )


def _ledger(data: Path, ledger: pa.RecordBatch) -> Finding:
    """The newest entries about something that is missing or damaged."""
    entries = [
        row
        for row in ledger.select(["kind", "stream", "rows", "reason"]).to_pylist()
        if row["kind"] in _LOSSES
    ]
    if not entries:
        return good("ledger", f"{ledger.num_rows} entries, none of loss or damage")
    newest = "; ".join(
        f"{row['kind']} {'an unknown number of' if row['rows'] is None else row['rows']} rows"
        f"{' of ' + row['stream'] if row['stream'] else ''}: {row['reason']}"
        for row in entries[-_SHOWN:]
    )
    return note(
        "ledger",
        f"{len(entries)} entries of loss or damage, the newest: {newest}",
        f'see `ringmain sql "select * from ledger" --data {data}`, then `ringmain log verify {data}`',
    )
