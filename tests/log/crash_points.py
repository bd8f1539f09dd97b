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
from pathlib import Path

from ringmain.log import open_log, open_reader
from ringmain.log.interface import (
    Appended,
    Claim,
    ConflictError,
    LogError,
    StreamKind,
)
from ringmain.log.journal import Journal
from ringmain.testing import CHANGING_CALLS, SimulatedClock, SimulatedDisk
from tests.log.batches import NOTE
from tests.log.crash_checks import DIRECTORY, PRODUCERS, STREAMS, Identity, Known, Point, check, identity_of
from tests.log.deterministic import held, settle, tasks_of, without_chance

STAGES = 4


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
                DIRECTORY,
                fs=self.disk,
                clock=self.clock,
                segment_bytes=rng.choice([2_500, 8_000, 60_000]),
                prepare_after_bytes=rng.choice([None, 0, 0, 4_000]),
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
            known.seen[frame.stream, frame.position.offset] = identity_of(frame)


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
