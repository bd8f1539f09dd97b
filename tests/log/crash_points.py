"""Random histories of a log on a simulated disk, and what must hold wherever its power is cut.

A history appends (alone and in bursts, with gaps, resends and new claims), removes old segments, lets calls of the
disk fail, is cut off and goes on from what was left, all drawn from one seed. In front of each call that changes the
disk a *point* is taken: the disk as it is, and what had been acknowledged and published by then. `check` opens one of
the disks that a power cut there may leave and compares.

    python -m tests.log.crash_points SEED       run one seed again, with what went wrong
"""

from __future__ import annotations

import contextlib
import errno
import random
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zlib import crc32

from ringmain.log import open_log, open_reader
from ringmain.log.builtin import LedgerKind
from ringmain.log.control import producer_id
from ringmain.log.frames import SEGMENT_HEADER_BYTES, lsn_of, read_segment_header
from ringmain.log.interface import (
    Appended,
    Batch,
    Claim,
    ConflictError,
    Frame,
    LogError,
    Position,
    StreamKind,
)
from ringmain.log.journal import Journal
from ringmain.log.segments import Damage, segment_numbers, segment_path, walk
from ringmain.testing import CHANGING_CALLS, SimulatedClock, SimulatedDisk
from tests.log.batches import NOTE, notes, reading_batch
from tests.log.deterministic import held, settle, tasks_of, without_chance

DIRECTORY = Path("log")
PRODUCERS = ("a", "b")
NAMES = {producer_id(name): name for name in PRODUCERS}
STREAMS = ("readings", "notes")
STAGES = 4
_MISSING = {LedgerKind.EVICTED, LedgerKind.QUARANTINED, LedgerKind.LOST}


@dataclass(frozen=True, slots=True, order=True)
class Identity:
    """An append: everything in it follows from this."""

    producer: str
    epoch: int
    sequence: int

    @property
    def draw(self) -> int:
        return crc32(f"{self.producer} {self.epoch} {self.sequence}".encode())

    def batches(self, changed: int = 0) -> list[Batch]:
        """Readings, notes, or both. `changed`: another body under the same identity."""
        draw = self.draw
        batches = []
        if draw % 4 != 0:
            batches.append(reading_batch(1 + draw % 37, value=draw % 1_000 + changed))
        if draw % 3 != 1 or not batches:
            batches.append(Batch("notes", notes(*[f"{draw + changed} {n}" for n in range(1 + draw % 3)])))
        return batches

    def positions(self) -> dict[str, bytes | None] | None:
        """What the append moves its producer's position to; now and then nothing, or it is removed."""
        if self.draw % 5 == 0:
            return None
        value = None if self.draw % 17 == 0 else f"{self.epoch} {self.sequence}".encode()
        return {f"{self.producer}/at": value}


@dataclass(slots=True)
class Known:
    """What whoever uses the log knows."""

    sent: set[Identity] = field(default_factory=set)
    acknowledged: list[tuple[Identity, int]] = field(default_factory=list)
    seen: dict[tuple[str, int], Identity] = field(default_factory=dict)
    full: bool = False
    """The disk was full at some time: what retention removed then could not be written down before it went."""


@dataclass(slots=True)
class Point:
    """A moment at which the power may go: `told` of the acknowledgements had been given, `end` could be read."""

    number: int
    call: str
    disk: SimulatedDisk
    told: int
    end: Position | None


class History:
    """One seed: stages of work with a crash behind each."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self.known = Known()
        self.disk = SimulatedDisk(seed=seed)
        self.clock = SimulatedClock()
        self.points: list[Point] = []
        self._log: Journal | None = None
        self._calls = 0
        self._owner = 0
        self._claims: dict[str, Claim] = {}
        self._sequences: dict[str, int] = {}

    # -- points ----------------------------------------------------------------------------------------------

    def _take_point(self, call: str, path: Path | None) -> None:
        if call not in CHANGING_CALLS:
            return
        log = self._log
        on_commit_thread = threading.get_ident() != self._owner
        if log is not None and on_commit_thread and self.rng.random() < 0.05:
            # the background work of a real log runs beside its commits
            tasks_of(log).pump(1, writing_only=True)
        self._calls += 1
        self.points.append(
            Point(
                self._calls,
                f"{call} {path.name if path else ''}",
                self.disk.copy(),
                len(self.known.acknowledged),
                None if log is None else log.end(),
            )
        )

    # -- work ------------------------------------------------------------------------------------------------

    def stage(self) -> None:
        """Open the log, use it, and leave it as it is at some moment; `points` has every one on the way."""
        rng = self.rng
        self.points = []
        self._owner = threading.get_ident()
        self.clock.boot()
        self.disk.before_call = self._take_point
        faulty = rng.random() < 0.35
        if faulty and rng.random() < 0.3:
            self.disk.fail_some(0.03, errors=[errno.EIO])
        try:
            log = open_log(
                DIRECTORY, fs=self.disk, clock=self.clock, segment_bytes=rng.choice([2_500, 8_000, 60_000])
            )
        except OSError:
            return
        self._log = log
        if faulty:
            full = rng.random() < 0.25
            self.known.full = self.known.full or full
            self.disk.fail_some(
                rng.choice([0.01, 0.05]), errors=[errno.EIO, errno.ENOSPC] if full else [errno.EIO]
            )
        try:
            self._work(log)
            if rng.random() < 0.3:
                self.disk.fail_some(0)
                log.close()
        finally:
            self._log = None
            self.disk.before_call = None
            self.disk.off = True
            log.close()

    def _work(self, log: Journal) -> None:
        rng = self.rng
        self._claims = {}
        with contextlib.suppress(LogError):
            log.create_stream("notes", StreamKind.ROW, NOTE)
        for _ in range(rng.randrange(4, 24)):
            settle(log)
            what = rng.random()
            if what < 0.5:
                self._append(log, 1)
            elif what < 0.75:
                self._append(log, rng.randrange(2, 7))
            elif what < 0.8:
                self._repeat(log)
            elif what < 0.85:
                self._claims.pop(rng.choice(PRODUCERS), None)
            elif what < 0.9:
                with contextlib.suppress(LogError):
                    log.retain(size_bytes=rng.choice([0, 5_000, 30_000]))
            elif what < 0.95:
                self.clock.pass_time(rng.randrange(10**10))
                if rng.random() < 0.2:
                    self.clock.step(self.clock.wall_ns() + rng.randrange(-(10**12), 10**12))
            else:
                tasks_of(log).pump(rng.randrange(1, 3))
        settle(log)

    def _claim(self, log: Journal, name: str) -> Claim | None:
        claim = self._claims.get(name)
        if claim is None:
            # epoch 0: a library producer, whose sequence goes on after a restart; else never the same again
            epoch = 0 if name == "a" else self.rng.getrandbits(64)
            try:
                claim = self._claims[name] = log.claim(name, epoch)
            except LogError:
                return None
            self._sequences[name] = -1 if claim.last_sequence is None else claim.last_sequence
        return claim

    def _append(self, log: Journal, count: int) -> None:
        """Hand over some appends as one round; what failed is sent again in order, or given up with all behind it."""
        rng = self.rng
        waiting: list[tuple[Claim, Identity]] = []
        for _ in range(count):
            name = rng.choice(PRODUCERS)
            claim = self._claim(log, name)
            if claim is None:
                return
            self._sequences[name] += rng.choice([1, 1, 1, 4])
            waiting.append((claim, Identity(name, claim.epoch, self._sequences[name])))
        for _ in range(rng.choice([1, 2, 3])):
            if not waiting:
                return
            failed: list[Identity] = []
            with held(log):
                for claim, identity in waiting:
                    self._hand_over(log, claim, identity, failed)
            settle(log)
            waiting = [one for one in waiting if one[1] in failed]

    def _hand_over(self, log: Journal, claim: Claim, identity: Identity, failed: list[Identity]) -> None:
        def done(appended: Appended | None, error: LogError | None) -> None:
            if appended is None:
                failed.append(identity)
            elif appended.position is not None:
                self._acknowledged(identity, appended.position.offset)

        self.known.sent.add(identity)
        try:
            batches = identity.batches()
            log.append_nowait(
                batches, done, claim=claim, sequence=identity.sequence, positions=identity.positions()
            )
        except LogError:
            failed.append(identity)

    def _acknowledged(self, identity: Identity, offset: int) -> None:
        told = self.known.acknowledged
        repeated = [before for before in told if before[0] == identity]
        assert all(before[1] == offset for before in repeated), (
            f"{identity} was acknowledged elsewhere before"
        )
        if not repeated:
            assert all(before[1] < offset for before in told), (
                f"{identity} came before what was acknowledged before"
            )
        told.append((identity, offset))

    def _repeat(self, log: Journal) -> None:
        """The newest append of an owner once more, and once with another body."""
        for name, claim in self._claims.items():
            told = [
                one for one, _ in self.known.acknowledged if (one.producer, one.epoch) == (name, claim.epoch)
            ]
            if not told:
                continue
            newest = max(told)
            if newest.sequence != self._sequences[name]:
                continue
            with contextlib.suppress(LogError):
                again = log.append(newest.batches(), claim=claim, sequence=newest.sequence)
                assert again.duplicate, f"{newest} was stored a second time"
            try:
                log.append(newest.batches(changed=1), claim=claim, sequence=newest.sequence)
            except (ConflictError, LogError):
                continue
            raise AssertionError(f"{newest} with another body was taken")

    def go_on(self, disk: SimulatedDisk, told: int) -> None:
        """The next stage begins with this disk; nothing later than `told` was acknowledged on it."""
        self.disk = disk
        del self.known.acknowledged[told:]


# -- checking ------------------------------------------------------------------------------------------------


def _identity(frame: Frame) -> Identity:
    return Identity(NAMES[frame.producer], frame.epoch, frame.sequence)


def _frames(log: Journal) -> list[Frame]:
    known = {state.stream.name for state in log.streams()}
    return list(log.read([name for name in STREAMS if name in known]))


def check(point: Point, known: Known, disk: SimulatedDisk) -> SimulatedDisk:
    """Open the disk that a power cut at the point left; returns it as it was found. Raises AssertionError."""
    found = disk.copy()
    torn = _torn_segment(disk)
    shown: list[Position] = []
    if found.contents():
        with open_reader(DIRECTORY, fs=disk.copy()) as reader:
            shown = [frame.position for frame in reader.read("readings")]
    log = open_log(DIRECTORY, fs=disk, clock=SimulatedClock())
    try:
        frames = _frames(log)
        end = log.end()
        _check_contents(log, frames, known, point.told)
        if torn:
            reasons = [row["reason"] for row in _entries(log) if row["kind"] == LedgerKind.CUT]
            assert any(f"segment {torn}," in reason for reason in reasons), (
                "a torn tail without a ledger entry"
            )
        gone = max([0, *(one.offset for one in _removed_up_to(log, "readings"))])
        assert {one for one in shown if one.offset > gone} <= {one.position for one in frames}, (
            "another process could read what the writer's recovery took away again"
        )
        if point.end is not None:
            assert end is not None
            assert point.end.incarnation == end.incarnation
            assert point.end.offset <= end.offset, "something could be read that a power cut took away again"
        # what was just read must be there after a power cut that comes now
        again = disk.after_power_cut()
    finally:
        disk.off = True
        log.close()
    log = open_log(DIRECTORY, fs=again, clock=SimulatedClock())
    try:
        kept = {(frame.stream, frame.position): frame.sequence for frame in _frames(log)}
        assert kept == {(frame.stream, frame.position): frame.sequence for frame in frames}, (
            "a power cut right after an opening took what had been read"
        )
        _check_identities(log, frames)
    finally:
        again.off = True
        log.close()
    return found


def _removed_up_to(log: Journal, stream: str) -> list[Position]:
    kinds = {LedgerKind.EVICTED}
    return [
        Position.parse(row["to"]) for row in _entries(log) if row["stream"] == stream and row["kind"] in kinds
    ]


def _entries(log: Journal) -> list[dict[str, Any]]:
    columns = ["kind", "stream", "from", "to", "rows", "reason"]
    entries: list[dict[str, Any]] = log.ledger().select(columns).to_pylist()
    return entries


def _torn_segment(disk: SimulatedDisk) -> int:
    """The number of the newest segment if bytes at its end are no whole group; else 0."""
    for number in reversed(segment_numbers(disk, DIRECTORY)):
        raw = disk.contents()[segment_path(DIRECTORY, number)]
        header = read_segment_header(raw)
        if header is not None:
            handle = disk.open_existing(segment_path(DIRECTORY, number))
            found = walk(disk, handle, SEGMENT_HEADER_BYTES, len(raw), after_lsn=header.first_lsn - 1)
            torn = any(isinstance(one, Damage) and any(raw[one.at : one.end]) for one in found)
            disk.close(handle)
            return number if torn else 0
    return 0


def _check_contents(log: Journal, frames: list[Frame], known: Known, told: int) -> None:
    offsets = [frame.position.offset for frame in frames]
    assert offsets == sorted(set(offsets))
    stored: dict[Identity, dict[str, Frame]] = {}
    newest: dict[tuple[str, int], int] = {}
    for frame in frames:
        identity = _identity(frame)
        assert identity in known.sent
        parts = stored.setdefault(identity, {})
        if not parts:
            before = newest.get((identity.producer, identity.epoch), -1)
            assert identity.sequence > before, f"{identity} is behind {before}"
            newest[identity.producer, identity.epoch] = identity.sequence
        assert frame.stream not in parts, f"{identity} is stored twice"
        parts[frame.stream] = frame
        at = (frame.stream, frame.position.offset)
        assert known.seen.get(at, identity) == identity, f"position {frame.position} was given out twice"
    for identity, parts in stored.items():
        expected = {batch.stream: batch.rows for batch in identity.batches()}
        assert parts.keys() == expected.keys(), f"{identity} is there in part"
        for stream, frame in parts.items():
            assert frame.rows.equals(expected[stream]), f"{identity} is not what was appended"
    _check_ledger(log, frames, stored, known.acknowledged[:told], known.full)
    _check_positions(log, list(stored))


def _check_ledger(
    log: Journal,
    frames: list[Frame],
    stored: dict[Identity, dict[str, Frame]],
    told: list[tuple[Identity, int]],
    full: bool,
) -> None:
    entries = _entries(log)
    known = {LedgerKind.CUT, LedgerKind.EVICTED, LedgerKind.CONFLICT}
    assert {entry["kind"] for entry in entries} <= known | ({LedgerKind.LOST} if full else set()), entries
    lost = [
        lsn_of(Position.parse(entry["to"]).offset) for entry in entries if entry["kind"] == LedgerKind.LOST
    ]
    evicted = dict.fromkeys(STREAMS, 0)
    missing = dict.fromkeys(STREAMS, 0)
    for entry in entries:
        if entry["stream"] in evicted and entry["kind"] in _MISSING:
            stream = entry["stream"]
            evicted[stream] = max(evicted[stream], Position.parse(entry["to"]).offset)
            missing[stream] += entry["rows"]
    for identity, offset in told:
        if identity in stored:
            last = max(frame.position.offset for frame in stored[identity].values())
            assert last in (offset, offset - 1), f"{identity} is at another position than was answered"
            continue
        streams = [batch.stream for batch in identity.batches()]
        gone = all(max(lsn_of(evicted[stream]), *lost, 0) >= lsn_of(offset) for stream in streams)
        assert gone, f"{identity} was acknowledged and is gone"
    appended = {state.stream.name: state.rows for state in log.streams()}
    for stream in STREAMS:
        readable = sum(frame.row_count for frame in frames if frame.stream == stream)
        closes = appended.get(stream, 0) == readable + missing[stream]
        assert closes or lost, f"the ledger of {stream} does not close"


def _check_positions(log: Journal, stored: list[Identity]) -> None:
    positions = log.positions()
    for name in PRODUCERS:
        moves = [one.positions() for one in stored if one.producer == name]
        values = [move[f"{name}/at"] for move in moves if move is not None]
        if values:
            assert positions.get(f"{name}/at") == values[-1], "the position and the data were not one append"


def _check_identities(log: Journal, frames: list[Frame]) -> None:
    """Whoever sends its newest append again is told that it is there; with another body, that it differs."""
    identities = [_identity(frame) for frame in frames]
    for name in PRODUCERS:
        mine = [one for one in identities if one.producer == name and (name == "b" or one.epoch == 0)]
        if not mine:
            continue
        newest = mine[-1]
        claim = log.claim(name, newest.epoch)
        known_sequence = claim.last_sequence
        if known_sequence is None:
            assert name == "b", f"the log has forgotten what {name} appended"
            continue  # another epoch was claimed since
        assert known_sequence == newest.sequence
        assert log.append(newest.batches(), claim=claim, sequence=newest.sequence).duplicate
        with contextlib.suppress(ConflictError):
            log.append(newest.batches(changed=1), claim=claim, sequence=newest.sequence)
            raise AssertionError(f"{newest} with another body was taken for a repeat")


# -- campaigns -----------------------------------------------------------------------------------------------


def run(seed: int, points_a_stage: int | None = None) -> int:
    """One history with power cuts at points of each stage (None: at every one); returns how many were checked."""
    checked = 0
    with without_chance(seed):
        history = History(seed)
        for stage in range(STAGES):
            history.stage()
            points = history.points
            rng = random.Random(f"{seed} {stage}")
            last = Point(
                len(points) + 1, "end of the stage", history.disk, len(history.known.acknowledged), None
            )
            chosen = [*points, last]
            if points_a_stage is not None and len(chosen) > points_a_stage:
                chosen = sorted(rng.sample(chosen, points_a_stage), key=lambda point: point.number)
            next_point = rng.choice(chosen)
            for point in chosen:
                with _told(seed, stage, point):
                    left = check(point, history.known, point.disk.after_power_cut(rng))
                    checked += 1
                    if point is next_point:
                        _remember(history.known, left, rng)
                        history.go_on(left, point.told)
    return checked


def _remember(known: Known, disk: SimulatedDisk, rng: random.Random) -> None:
    """Somebody reads what there is before the next stage: these positions must never name anything else."""
    if not disk.contents() or rng.random() < 0.3:
        return
    with open_reader(DIRECTORY, fs=disk.copy()) as reader:
        names = [one.stream.name for one in reader.streams() if one.stream.name in STREAMS]
        for frame in reader.read(names):
            known.seen[frame.stream, frame.position.offset] = _identity(frame)


@contextlib.contextmanager
def _told(seed: int, stage: int, point: Point) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise AssertionError(
            f"seed {seed}, stage {stage}, power cut in front of call {point.number} ({point.call}): {error!r}; "
            f"again with: python -m tests.log.crash_points {seed}"
        ) from error


if __name__ == "__main__":
    import logging

    logging.disable(logging.CRITICAL)
    for argument in sys.argv[1:]:
        print(f"seed {argument}: {run(int(argument))} points hold")
    sys.exit(0 if len(sys.argv) > 1 else errno.EINVAL)
