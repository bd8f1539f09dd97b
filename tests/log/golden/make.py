"""Writes the golden journals of this version of the format, and what is in them:

    python -m tests.log.golden.make DIRECTORY

`DIRECTORY/log` has every kind of frame and record but removals, in several segments and two openings, and
`DIRECTORY/removed` what retention has left of it. Clock, incarnations and background work are fixed, so two runs on one
build write the same bytes. What is in the repository was written once, by the version that it is named after, and is
never written again: a change that cannot read it is a new version of the format.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from ringmain.log import Journal, open_log
from ringmain.log.catalogue import SeriesRegistry
from ringmain.log.interface import Batch, Claim, ConflictError, StreamKind
from ringmain.log.ledger.row import AccountRow
from ringmain.model.catalogue import SeriesAttributes
from ringmain.model.schemas import DEAD_LETTER, EVENT, READING, TICK, TIMESTAMP
from ringmain.testing.clock import SimulatedClock
from tests.log.deterministic import settle, tasks_of, without_chance
from tests.log.golden.contents import describe

SEED = 4
SEGMENT_BYTES = 6_144
START_NS = 1_790_000_000 * 10**9
SECOND_NS = 10**9
WINDOW = pa.schema(
    [
        pa.field("series", pa.uint32(), nullable=False),
        pa.field("start", TIMESTAMP, nullable=False),
        pa.field("end", TIMESTAMP, nullable=False),
        pa.field("count", pa.int64(), nullable=False),
        pa.field("mean", pa.float64()),
        pa.field("revision", pa.uint32(), nullable=False),
    ]
)


def readings(first: int, time_ns: int) -> pa.RecordBatch:
    """Three readings, the second of doubtful quality, the third without a value."""
    return pa.RecordBatch.from_arrays(
        [
            pa.array([first, first + 1, first + 2], pa.uint32()),
            pa.array([time_ns, time_ns + 1, time_ns + 2]).cast(TIMESTAMP),
            pa.array([230.1, -0.0, float("nan")]),
            pa.array([0, 64, 1], pa.uint16()),
        ],
        schema=READING,
    )


def letter(time_ns: int) -> pa.RecordBatch:
    """A message that could not be mapped."""
    row = {
        "source": "field",
        "topic": "meters/ü/p",
        "payload": b'{"v": \xff}',
        "payload_bytes": 9,
        "time": time_ns,
        "reason": "not JSON",
    }
    return pa.RecordBatch.from_pylist([row], DEAD_LETTER)


def event(number: int, time_ns: int) -> pa.RecordBatch:
    """Something that happened, with and without data."""
    row = {
        "id": f"{number}",
        "source": "field",
        "type": "org.example.trip",
        "subject": None if number % 2 else "feeder-3",
        "time": time_ns,
        "datacontenttype": "application/json",
        "data": b"{}" if number % 2 else None,
    }
    return pa.RecordBatch.from_pylist([row], EVENT)


def windows(start_ns: int) -> pa.RecordBatch:
    """One window of two series, one of them without a value."""
    rows = [
        {
            "series": series,
            "start": start_ns,
            "end": start_ns + 60 * SECOND_NS,
            "count": count,
            "mean": mean,
            "revision": 0,
        }
        for series, count, mean in ((0, 3, 230.1), (1, 0, None))
    ]
    return pa.RecordBatch.from_pylist(rows, WINDOW)


class _Writing:
    """The two openings."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.clock = SimulatedClock(START_NS)

    def write(self) -> None:
        """The journal, closed."""
        with self._opened() as log:
            log.create_stream("readings.1m", StreamKind.ROW, WINDOW)
            field, flow = log.claim("source/field", epoch=7), log.claim("flow/minute", epoch=0)
            registry = SeriesRegistry(log)
            for number in range(4):
                registry.register(
                    "field", f"ss-07/feeder-{number}/p", SeriesAttributes(unit="W", device="ss-07")
                )
            registry.describe(
                "field", "ss-07/feeder-0/p", SeriesAttributes(place="Grünau", external={"MeLo": "DE0001"})
            )
            for sequence in range(1, 7):
                self._append(log, registry, field, sequence)
            with contextlib.suppress(ConflictError):
                log.append([Batch("readings", readings(0, 1))], claim=field, sequence=6)
            log.append(
                [Batch("readings.1m", windows(START_NS), origin_arrival_ns=START_NS + 5)],
                claim=flow,
                sequence=1,
                positions={"flow/minute": b"1", "flow/minute/late": b"x"},
            )
            log.append([], claim=flow, sequence=2, positions={"flow/minute/late": None})
        self.clock.pass_time(3_600 * SECOND_NS)
        with self._opened() as log:
            field = log.claim("source/field", epoch=8)
            registry = SeriesRegistry(log)
            registry.register("field", "ss-08/feeder-0/p", SeriesAttributes(quantity="power"))
            for sequence in range(1, 5):
                self._append(log, registry, field, sequence)
            self.clock.step(self.clock.wall_ns() + 7_200 * SECOND_NS)
            self._append(log, registry, field, 5)
            self.clock.step(self.clock.wall_ns() - 10_000 * SECOND_NS)
            self._append(log, registry, field, 6)

    def remove(self) -> None:
        """Open it again and let retention take the oldest segments."""
        with self._opened() as log:
            log.claim("source/field", epoch=9)
            log.retain(size_bytes=2 * SEGMENT_BYTES)

    @contextlib.contextmanager
    def _opened(self) -> Iterator[Journal]:
        log = open_log(self.directory, clock=self.clock, segment_bytes=SEGMENT_BYTES)
        self._settle(log)
        try:
            yield log
            self._settle(log)
        finally:
            log.close()

    def _settle(self, log: Journal) -> None:
        settle(log)
        tasks_of(log).pump()
        settle(log)

    def _append(self, log: Journal, registry: SeriesRegistry, claim: Claim, sequence: int) -> None:
        """One append of a source: what is new in the catalogue, readings, a letter or an event, its account."""
        self.clock.pass_time(SECOND_NS)
        now = self.clock.wall_ns()
        entries, token = registry.unsaved()
        third = sequence % 3
        batches = [Batch("catalogue", entry) for entry in entries]
        batches.append(Batch("readings", readings(sequence % 2, now - 5)))
        if third == 1:
            batches.append(Batch("deadletters", letter(now)))
        if third == 2:
            batches.append(Batch("events", event(sequence, now)))
        if third == 0:
            tick = pa.RecordBatch.from_pylist([{"time": now}], TICK)
            batches.append(Batch("ticks", tick))
        account = AccountRow(
            "field",
            claim.epoch,
            messages=2 * sequence,
            accepted=sequence + sequence // 2,
            rejected=(sequence + 2) // 3,
            readings=3 * sequence,
            events=(sequence + 1) // 3,
            letters=(sequence + 2) // 3,
            reasons=(("not JSON", (sequence + 2) // 3),) if third == 1 else (),
        )
        batches.append(Batch("accounts", account))
        log.append(batches, claim=claim, sequence=sequence, positions={"source/field": b"%d" % sequence})
        registry.saved(token)
        self._settle(log)


def make(directory: Path) -> None:
    """Write both journals, and `NAME.json` of each beside it."""
    directory.mkdir(parents=True, exist_ok=True)
    with without_chance(SEED):
        writing = _Writing(directory / "log")
        writing.write()
        shutil.copytree(directory / "log", directory / "removed")
        writing.directory = directory / "removed"
        writing.remove()
    for name in ("log", "removed"):
        path = directory / name
        (path / "lock").unlink()  # it has the writer's process id
        contents = {"files": digests(path), **describe(path)}
        text = json.dumps(contents, indent=1, ensure_ascii=False, allow_nan=False)
        (directory / f"{name}.json").write_text(text + "\n")


def digests(directory: Path) -> dict[str, str]:
    """SHA-256 of each file."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(directory.iterdir())}


if __name__ == "__main__":
    make(Path(sys.argv[1]))
