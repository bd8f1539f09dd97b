"""A state machine drives the log on a simulated disk, and a plain model says what it may answer.

Producers with gaps, repeats, epochs, clones and zombies; readers that keep their place across everything else;
retention; calls of the disk that fail; kills and power cuts, also in the middle of an append. What must hold all the
time: what was acknowledged is readable and equal; what was not is there wholly or not at all; order in each stream; no
identity twice; positions never ahead of data; nobody reads what is not durable; the ledger closes.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from ringmain.log import open_log, open_reader
from ringmain.log.builtin import LedgerKind
from ringmain.log.frames import lsn_of
from ringmain.log.interface import (
    Appended,
    Claim,
    ConflictError,
    FencedError,
    Frame,
    LogError,
    LogFailedError,
    LogFullError,
    PositionGoneError,
    StreamKind,
)
from ringmain.log.journal import Journal
from ringmain.testing import CHANGING_CALLS, SimulatedClock, SimulatedDisk
from tests.log.batches import NOTE
from tests.log.deterministic import held, settle, tasks_of, without_chance
from tests.log.log_model import Body, Model, Name, Sent, same
from tests.soak import run_campaign

HERE = Path("log")
STREAMS = ("readings", "notes")
PRODUCERS = st.sampled_from(["a", "b", "a/lower"])
SEEDS = st.integers(0, 400)
SOAK_HISTORIES = 3_000
HISTORIES_AN_ITEM = 10


@dataclass(slots=True)
class _Reader:
    """An iterator that stays open: it has shown everything up to the append at `offset`, and `parts` of the next."""

    frames: Iterator[Frame]
    streams: tuple[str, ...]
    offset: int
    shown: int = 0


class LogMachine(RuleBasedStateMachine):
    """See the module."""

    def __init__(self) -> None:
        super().__init__()
        self._stack = contextlib.ExitStack()
        self._stack.enter_context(without_chance(1))
        self.disk = SimulatedDisk(seed=1)
        self.clock = SimulatedClock()
        self.model = Model()
        self.log: Journal | None = None
        self.owners: dict[str, Claim] = {}
        self.zombies: list[Claim] = []
        self.sequences: dict[tuple[str, int], int] = {}
        self.epochs = 100
        self.readers: list[_Reader] = []
        self.violations: list[str] = []
        self.seen: dict[int, tuple[str, int, int]] = {}  # what could be read before it was acknowledged
        self.segment_bytes = 4096
        self.prepare_after_bytes: int | None = None
        self.full = False

    def teardown(self) -> None:
        if self.log is not None:
            self.disk.off = True
            self.log.close()
        self._stack.close()
        super().teardown()
        assert not self.violations, self.violations

    # -- opening and crashing --------------------------------------------------------------------------------

    @initialize(
        segment_bytes=st.sampled_from([2_500, 8_000, 100_000]),
        prepare_after_bytes=st.sampled_from([None, 0, 4_000]),
        seed=st.integers(0, 2**32),
    )
    def begin(self, segment_bytes: int, prepare_after_bytes: int | None, seed: int) -> None:
        self.disk = SimulatedDisk(seed=seed)
        self.segment_bytes, self.prepare_after_bytes = segment_bytes, prepare_after_bytes
        self._open()

    def _open(self) -> None:
        """Open the log on the disk as it is, and find out what became of appends that were not answered."""
        self.disk.heal()
        shown: list[Frame] = []
        if any(path.suffix == ".seg" for path in self.disk.contents()):
            with open_reader(HERE, fs=self.disk.copy()) as reader:
                known = [one.stream.name for one in reader.streams() if one.stream.name in STREAMS]
                shown = list(reader.read(known))
        self.clock.boot()
        self.log = open_log(
            HERE,
            fs=self.disk,
            clock=self.clock,
            segment_bytes=self.segment_bytes,
            prepare_after_bytes=self.prepare_after_bytes,
        )
        self.log.create_stream("notes", StreamKind.ROW, NOTE)
        self.readers = []
        self._find_unanswered()
        self._check_everything()
        readable = {frame.position for frame in self.log.read(STREAMS)}
        gone = self._evicted()
        for frame in shown:
            assert frame.position in readable or frame.position.offset <= gone, "shown, and then taken back"
        found = {
            frame.position.offset: (frame.stream, frame.epoch, frame.sequence)
            for frame in self.log.read(STREAMS)
        }
        for offset, what in self.seen.items():
            assert found.get(offset) == what or offset <= gone, f"{what} could be read and is gone"
        self.seen = {}
        self.disk.before_call = self._look

    def _find_unanswered(self) -> None:
        assert self.log is not None
        last = self.model.entries[-1].offset if self.model.entries else -1
        candidates = {(one.name.epoch, one.name.sequence): one for one in self.model.failed.values()}
        candidates |= {(one.name.epoch, one.name.sequence): one for one in self.model.waiting}
        found: dict[Name, int] = {}
        # an append of nothing but positions has no frame of a data stream: its position moved all the same
        for frame in self.log.read(STREAMS):
            if frame.position.offset > last:
                sent = candidates.get((frame.epoch, frame.sequence))
                assert sent is not None, f"nobody handed over {frame}"
                found[sent.name] = frame.position.offset
        held_positions = self.log.positions()
        for sent in [*self.model.failed.values(), *self.model.waiting]:
            if sent.name in found:
                self.model.stored(sent, found[sent.name])
            elif not sent.body.batches() and (
                held_positions.get(only := f"{sent.name.producer}/only") == sent.positions[only]
            ):
                self.model.moved(sent)
        self.model.waiting = []
        self.model.failed = {}

    def _leave(self) -> None:
        assert self.log is not None
        self.disk.before_call = None
        self.disk.off = True
        self.log.close()
        self.log = None

    @rule()
    def close_and_open(self) -> None:
        assert self.log is not None
        self.disk.heal()
        self.log.close()
        self.disk.before_call = None
        self.log = None
        before = len(self._ledger_of(self.disk))
        self._open()
        assert len(self._ledger()) == before, "a clean close leaves nothing to tell"

    @rule()
    def kill_and_open(self) -> None:
        self._leave()
        self.disk = self.disk.kill()
        self._open()

    @rule()
    def cut_power_and_open(self) -> None:
        self._leave()
        self.disk = self.disk.cut_power()
        self._open()

    @rule(
        calls=st.integers(0, 12),
        power=st.booleans(),
        producer=PRODUCERS,
        seeds=st.lists(SEEDS, min_size=1, max_size=4),
    )
    def crash_in_the_middle_of_appends(
        self, calls: int, power: bool, producer: str, seeds: list[int]
    ) -> None:
        """The machine goes off in front of the nth changing call from here on."""
        assert self.log is not None
        left = calls

        def count(call: str, path: Path | None) -> None:
            nonlocal left
            self._look(call, path)
            if call in CHANGING_CALLS:
                left -= 1
                self.disk.off = self.disk.off or left < 0

        settle(self.log)
        self.disk.before_call = count
        self._append_all([(producer, seed, 1) for seed in seeds])
        if not self.disk.off:
            with contextlib.suppress(LogError):
                self.log.retain(size_bytes=3 * self.segment_bytes)
        self._leave()
        # what was answered with a failure while the machine went off was in truth never answered
        self.disk = self.disk.cut_power() if power else self.disk.kill()
        self._open()

    # -- appending -------------------------------------------------------------------------------------------

    def _claim(self, producer: str, epoch: int | None = None) -> Claim | None:
        """Claim a name; None: with an epoch that was never used."""
        assert self.log is not None
        if epoch is None:
            self.epochs += 1
            epoch = self.epochs
        try:
            claim = self.log.claim(producer, epoch)
        except LogError:
            # it may have become durable all the same: whoever owned the name cannot know
            old = self.owners.pop(producer, None)
            if old is not None:
                self.zombies.append(old)
            return None
        old = self.owners.get(producer)
        if old is not None:
            assert claim.fence > old.fence
            self.zombies.append(old)
        self.owners[producer] = claim
        newest = self.model.newest.get((producer, epoch))
        assert claim.last_sequence == newest, f"{producer}: {claim.last_sequence} instead of {newest}"
        below = {
            name: value
            for name, value in self.model.positions.items()
            if name == producer or name.startswith(producer + "/")
        }
        assert claim.positions == below
        self.sequences[producer, epoch] = -1 if newest is None else newest
        return claim

    @rule(producer=PRODUCERS, epoch=st.sampled_from(["new", "zero", "same"]))
    def claim(self, producer: str, epoch: str) -> None:
        owner = self.owners.get(producer)
        same = None if owner is None else owner.epoch
        self._claim(producer, {"new": None, "zero": 0, "same": same}[epoch])

    @rule(producer=PRODUCERS, seed=SEEDS, gap=st.sampled_from([1, 1, 1, 5]))
    def append(self, producer: str, seed: int, gap: int) -> None:
        self._append_all([(producer, seed, gap)])

    @rule(appends=st.lists(st.tuples(PRODUCERS, SEEDS, st.sampled_from([1, 1, 3])), min_size=2, max_size=6))
    def append_several_in_one_round(self, appends: list[tuple[str, int, int]]) -> None:
        self._append_all(appends)

    def _append_all(self, appends: list[tuple[str, int, int]]) -> None:
        assert self.log is not None
        sents: list[tuple[Claim, Sent]] = []
        for producer, seed, gap in appends:
            claim = self.owners.get(producer) or self._claim(producer)
            if claim is None:
                continue
            key = (producer, claim.epoch)
            self.sequences[key] += gap
            name = Name(producer, claim.epoch, self.sequences[key])
            sents.append((claim, self._sent(name, seed)))
        with held(self.log):
            for claim, sent in sents:
                self._hand_over(claim, sent)
        settle(self.log)
        if not self.disk.off:
            assert not self.model.waiting, "an append was not answered"
        for claim, _ in sents:
            # what failed is sent again with its sequence, or given up: then the next one goes on behind what is stored
            key = (claim.name, claim.epoch)
            self.sequences[key] = max(self.sequences[key], self.model.newest.get(key, -1))

    @staticmethod
    def _sent(name: Name, seed: int) -> Sent:
        own = name.producer if name.producer == "a/lower" else f"{name.producer}/at"
        positions: dict[str, bytes | None] = {0: {}, 1: {own: None}}.get(seed % 5, {own: b"%d" % seed})
        body = Body(seed)
        if not body.batches():
            # nothing but positions, which tell whether the append is there
            positions = {own: b"%d" % seed, f"{name.producer}/only": f"{name.epoch} {name.sequence}".encode()}
        return Sent(name, body, positions)

    def _hand_over(self, claim: Claim, sent: Sent) -> None:
        assert self.log is not None
        self.model.waiting.append(sent)

        def done(appended: Appended | None, error: LogError | None) -> None:
            with self._noting():
                self._answered(sent, appended, error)

        self.log.append_nowait(
            sent.body.batches(), done, claim=claim, sequence=sent.name.sequence, positions=sent.positions
        )

    def _answered(self, sent: Sent, appended: Appended | None, error: LogError | None) -> None:
        """An answer, on the commit thread."""
        assert any(one is sent for one in self.model.waiting), f"{sent.name} was answered twice"
        if self.disk.off and error is not None:
            return
        self.model.waiting = [one for one in self.model.waiting if one is not sent]
        if error is not None:
            assert isinstance(error, (LogFailedError, LogFullError)), error
            self.model.refused(sent)
            return
        assert appended is not None
        assert not appended.duplicate
        assert appended.position is not None
        self.model.stored(sent, appended.position.offset)

    @rule(count=st.integers(1, 5))
    def send_again(self, count: int) -> None:
        """The newest appends that were acknowledged come once more, each to its owner."""
        assert self.log is not None
        mine = [one for one in self.model.entries if self._owner_of(one.name) is not None]
        rows = self._rows()
        for entry in mine[-count:]:
            claim = self._owner_of(entry.name)
            assert claim is not None
            with self._unless_failing():
                again = self.log.append(
                    entry.body.batches(), claim=claim, sequence=entry.name.sequence, positions=entry.positions
                )
                assert again.duplicate
                if again.position is not None and entry.body.batches():
                    assert lsn_of(again.position.offset) == lsn_of(entry.offset)
        assert self._rows() == rows

    def _owner_of(self, name: Name) -> Claim | None:
        claim = self.owners.get(name.producer)
        return claim if claim is not None and claim.epoch == name.epoch else None

    @rule(failing=st.data())
    def send_again_what_failed(self, failing: st.DataObject) -> None:
        assert self.log is not None
        mine = [
            one
            for one in self.model.failed.values()
            if self._owner_of(one.name) is not None
            and one.name.sequence > self.model.newest.get((one.name.producer, one.name.epoch), -1)
        ]
        if not mine:
            return
        sent = failing.draw(st.sampled_from(mine))
        claim = self._owner_of(sent.name)
        assert claim is not None
        del self.model.failed[sent.name]
        self._hand_over(claim, sent)
        settle(self.log)
        key = (sent.name.producer, sent.name.epoch)
        self.sequences[key] = max(self.sequences[key], sent.name.sequence)

    @rule(seed=SEEDS)
    def a_clone_sends_the_same_identity_with_another_body(self, seed: int) -> None:
        assert self.log is not None
        for claim in self.owners.values():
            newest = self.model.newest.get((claim.name, claim.epoch))
            entry = None if newest is None else self.model.entry(Name(claim.name, claim.epoch, newest))
            if (
                entry is None
                or entry.body.seed == seed
                or not entry.body.batches()
                or not Body(seed).batches()
            ):
                continue
            rows = self._rows()
            try:
                self.log.append(Body(seed).batches(), claim=claim, sequence=entry.name.sequence)
            except ConflictError:
                self.model.conflicts += len(Body(seed).batches())
            except (LogFailedError, LogFullError):
                pass
            else:
                raise AssertionError("another body under the same identity was taken for a repeat")
            assert self._rows() == rows

    @rule(
        producer=PRODUCERS,
        seeds=st.lists(SEEDS, min_size=2, max_size=4),
        call=st.sampled_from(["write", "sync"]),
    )
    def appends_fail_with_one_behind_them_and_are_sent_again(
        self, producer: str, seeds: list[int], call: str
    ) -> None:
        """The active segment and its successor fail; an append that was handed over meanwhile fails with them."""
        assert self.log is not None
        claim = self.owners.get(producer) or self._claim(producer)
        if claim is None or self.disk.capacity_bytes is not None:
            return
        settle(self.log)
        self.disk.heal()
        key = (producer, claim.epoch)
        sents = []
        for seed in seeds:
            self.sequences[key] += 1
            name = Name(producer, claim.epoch, self.sequences[key])
            sents.append(self._sent(name, seed))

        handed_over = False

        def hand_over_the_last() -> None:
            nonlocal handed_over
            if not handed_over:
                handed_over = True
                self._hand_over(claim, sents[-1])

        self.disk.before(call, hand_over_the_last, ".seg")
        self.disk.fail(call, errno.EIO, nth=0, suffix=".seg")
        self.disk.fail("create", errno.EIO, nth=0, suffix=".seg")
        with held(self.log):
            for sent in sents[:-1]:
                self._hand_over(claim, sent)
        settle(self.log)
        self.disk.before(call, None)
        settle(self.log)
        self.disk.heal()
        if not handed_over:  # a new segment was due, and could not be created
            self._hand_over(claim, sents[-1])
            settle(self.log)
            sents = sents[:-1]
        names = [sent.name for sent in sents]
        failed = [name in self.model.failed for name in names]
        # what a prepared segment, which took over before, has taken did not fail
        assert failed == sorted(failed), "what was behind did not fail with it"
        sents = [sent for sent in sents if sent.name.sequence > self.model.newest.get(key, -1)]
        for sent in sents:
            del self.model.failed[sent.name]
            self._hand_over(claim, sent)
        settle(self.log)
        assert all(self.model.newest[key] >= name.sequence for name in names), (
            "what failed was not taken again"
        )

    @rule(producer=PRODUCERS, seed=SEEDS, same=st.booleans())
    def a_zombie_is_refused(self, producer: str, seed: int, same: bool) -> None:
        """Also one that shares its epoch with its replacement."""
        assert self.log is not None
        owner = self.owners.get(producer)
        if owner is None:
            return
        self._claim(producer, owner.epoch if same else None)
        for claim in [one for one in self.zombies if one.name in self.owners][-3:]:
            rows, positions = self._rows(), self.log.positions()
            with self._unless_failing(), pytest.raises(FencedError, match="no longer the owner"):
                self.log.append(
                    Body(seed).batches(),
                    claim=claim,
                    sequence=10**6,
                    positions={f"{claim.name}/at": b"zombie"},
                )
            assert (self._rows(), self.log.positions()) == (rows, positions)

    @rule(producer=PRODUCERS, seed=SEEDS)
    def a_position_of_another_is_refused(self, producer: str, seed: int) -> None:
        assert self.log is not None
        claim = self.owners.get(producer)
        if claim is None:
            return
        foreign = {"a": "b/at", "b": "a/at", "a/lower": "a/at"}[producer]
        before = self.log.positions()
        with self._unless_failing(), pytest.raises(FencedError, match="belong"):
            self.log.append(Body(seed).batches(), claim=claim, sequence=10**6, positions={foreign: b"stolen"})
        assert self.log.positions() == before

    # -- everything else -------------------------------------------------------------------------------------

    @rule(streams=st.sampled_from([("readings",), ("notes",), STREAMS]), place=st.integers(0, 20))
    def start_reading(self, streams: tuple[str, ...], place: int) -> None:
        assert self.log is not None
        self._check_everything()
        known = [frame.position for frame in self.log.read(streams)]
        after = known[place] if place < len(known) else None
        offset = -1
        if after is not None:
            # a position is a frame: the reader goes on in the middle of an append where it points there
            offset = after.offset
        frames = self.log.read(streams, after=after, follow=True, timeout_s=30.0)
        if after is None:
            offset = self._evicted()
        self.readers = [*self.readers[-3:], _Reader(frames, streams, offset)]

    @rule(count=st.integers(1, 8))
    def read_on(self, count: int) -> None:
        assert self.log is not None
        for reader in list(self.readers):
            behind = [
                frame.position.offset
                for frame in self.log.read(reader.streams)
                if frame.position.offset > reader.offset
            ]
            missed = self._evicted() > reader.offset
            for number in range(min(count, len(behind))):
                try:
                    frame = next(reader.frames)
                except PositionGoneError:
                    assert missed, "nothing that this reader has not seen was removed"
                    self.readers.remove(reader)
                    break
                if frame.position.offset != behind[number]:
                    # it holds the file of a segment that was removed: what is in there may still come
                    assert missed
                    assert reader.offset < frame.position.offset < behind[0]
                    known = self.model.offsets.get(frame.position.offset)
                    assert known is None or known.sequence == frame.sequence
                    reader.offset = frame.position.offset
                    break
                reader.offset = frame.position.offset

    @rule(keep=st.sampled_from([0, 1, 3]))
    def retain(self, keep: int) -> None:
        assert self.log is not None
        with self._unless_failing():
            self.log.retain(size_bytes=keep * self.segment_bytes)

    @rule(
        call=st.sampled_from(sorted(CHANGING_CALLS)),
        nth=st.integers(0, 3),
        suffix=st.sampled_from(["", ".seg", ".tmp", ".ckp"]),
    )
    def let_a_call_fail(self, call: str, nth: int, suffix: str) -> None:
        self.disk.fail(call, errno.EIO, nth=nth, suffix=suffix)

    @rule(room=st.integers(0, 3_000))
    def fill_the_disk(self, room: int) -> None:
        self.disk.capacity_bytes = self.disk.used_bytes() + room
        self.full = True

    @rule()
    def mend_the_disk(self) -> None:
        self.disk.heal()

    @rule(count=st.integers(1, 3))
    def work_in_the_background(self, count: int) -> None:
        assert self.log is not None
        tasks_of(self.log).pump(count)

    @rule(seconds=st.integers(0, 10**5), step=st.one_of(st.none(), st.integers(-(10**9), 10**9)))
    def time_passes(self, seconds: int, step: int | None) -> None:
        self.clock.pass_time(seconds * 10**9)
        if step is not None:
            self.clock.step(max(self.clock.wall_ns() + step * 10**9, 0))

    # -- looking ---------------------------------------------------------------------------------------------

    def _look(self, call: str, path: Path | None) -> None:
        """In front of each call of the disk: what can be seen by now must be there after a crash right here."""
        if call not in CHANGING_CALLS or (path is not None and path.name == "durable"):
            return
        log = self.log
        if log is None or not self.model.waiting:
            return
        with self._noting():
            newest = self.model.entries[-1].offset if self.model.entries else -1
            for frame in log.read(STREAMS):
                if frame.position.offset > newest:
                    self.seen[frame.position.offset] = (frame.stream, frame.epoch, frame.sequence)
            positions = dict(self.model.positions)
            possible = [dict(positions)]
            for sent in self.model.waiting:
                self.model.move(positions, sent)
                possible.append(dict(positions))
            assert log.positions() in possible, f"{call}: positions are those of no moment"

    @contextlib.contextmanager
    def _noting(self) -> Iterator[None]:
        """What fails on a thread of the log is told on the test's."""
        try:
            yield
        except Exception as error:
            self.violations.append(repr(error))

    @contextlib.contextmanager
    def _unless_failing(self) -> Iterator[None]:
        """A disk that fails may refuse anything."""
        with contextlib.suppress(LogFailedError, LogFullError):
            yield

    def _rows(self) -> dict[str, int]:
        assert self.log is not None
        return {one.stream.name: one.rows for one in self.log.streams() if one.stream.name in STREAMS}

    def _ledger(self) -> list[dict[str, Any]]:
        assert self.log is not None
        columns = ["kind", "stream", "from", "to", "rows", "reason"]
        entries: list[dict[str, Any]] = self.log.ledger().select(columns).to_pylist()
        return entries

    def _ledger_of(self, disk: SimulatedDisk) -> list[dict[str, Any]]:
        with open_reader(HERE, fs=disk.copy()) as reader:
            entries: list[dict[str, Any]] = reader.ledger().select(["kind"]).to_pylist()
            return entries

    def _evicted(self) -> int:
        assert self.log is not None
        return self.log._store.state.removed_offset

    @invariant()
    def nothing_was_seen_that_must_not_be(self) -> None:
        assert not self.violations, self.violations
        if self.log is not None:
            assert self.log.positions() == self.model.positions

    @rule()
    def check_everything(self) -> None:
        self._check_everything()

    def _check_everything(self) -> None:
        """Readable is a suffix of what was acknowledged, equal to it, and the ledger has the rest."""
        assert self.log is not None
        frames = list(self.log.read(STREAMS))
        expected = self.model.expected(STREAMS)
        missing = len(expected) - len(frames)
        assert missing >= 0, "more is readable than was ever acknowledged"
        for frame, (name, stream, rows, offset) in zip(frames, expected[missing:], strict=True):
            assert same(frame, name, stream, rows), f"expected {name} in {stream}, found {frame.sequence}"
            assert lsn_of(frame.position.offset) == lsn_of(offset)
            self.model.offsets.setdefault(frame.position.offset, name)
            assert self.model.offsets[frame.position.offset] == name
        ledger = self._ledger()
        kinds = {entry["kind"] for entry in ledger}
        allowed = {LedgerKind.CUT, LedgerKind.EVICTED, LedgerKind.CONFLICT}
        assert kinds <= allowed | ({LedgerKind.LOST} if self.full else set()), ledger
        if LedgerKind.LOST in kinds:
            return
        told = dict.fromkeys(STREAMS, 0)
        for entry in ledger:
            if entry["kind"] == LedgerKind.EVICTED and entry["stream"] in told:
                told[entry["stream"]] += entry["rows"]
        appended = self._rows()
        for stream in STREAMS:
            readable = sum(frame.row_count for frame in frames if frame.stream == stream)
            ever = sum(rows.num_rows for _, one, rows, _ in expected if one == stream)
            assert appended[stream] == ever, f"{stream}: {appended[stream]} rows counted, {ever} acknowledged"
            if not self.full:
                assert readable + told[stream] == ever, f"the ledger of {stream} does not close"


def _run(machine: type[LogMachine], examples: int, steps: int, *, derandomized: bool) -> None:
    """Histories of so many steps each; a failing one is shortened and printed as a program."""
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            derandomize=derandomized,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("CRITICAL")


@pytest.mark.timeout(600)  # a history that fails is shortened first
def test_the_log_does_what_the_model_says() -> None:
    _run(LogMachine, 50, 30, derandomized=True)


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_the_log_does_what_the_model_says_through_thousands_of_histories(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def run(item: int) -> int:
        with capsys.disabled():
            print(f"\nstate machine, seed {item} ", end="", flush=True)
        _run(seeded(item)(type(f"Seed{item}", (LogMachine,), {})), HISTORIES_AN_ITEM, 60, derandomized=False)
        return HISTORIES_AN_ITEM

    told = run_campaign("state-machine", SOAK_HISTORIES, run, "histories")
    with capsys.disabled():
        print(f"\n{told}")
