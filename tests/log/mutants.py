"""The log, broken on purpose: named mutants, each of which the tests of the log must notice.

A mutant replaces real functions or methods of `ringmain.log` in a process of its own; no file changes. As a pytest
plugin this module applies the one that the environment variable names, so that any test can be tried against it:

    RINGMAIN_MUTANT=acknowledges_before_the_sync python -m pytest -p tests.log.mutants tests/log/test_durability.py

As a program it tries mutants named on its standard input, each in a forked copy of one process that has imported
everything already, and answers each with a line of JSON (`Verdict`). `test_mutants.py` drives it.
"""

from __future__ import annotations

import contextlib
import io
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ringmain.log import checkpoints, codec, frames, journal, reader, segments
from ringmain.log.builtin import LedgerKind
from ringmain.log.commit import CommitThread
from ringmain.log.control import Producer
from ringmain.log.files import FileSystem, publish_file, write_all
from ringmain.log.frames import FRAME, FRAME_HEADER_BYTES, GROUP_HEADER_BYTES, FrameHeader, lsn_of
from ringmain.log.interface import Appended, LogError
from ringmain.log.maintenance import Maintenance
from ringmain.log.planner import Plan, Planner
from ringmain.log.recovered import Recovered
from ringmain.log.replay import Replay
from ringmain.log.request import INTERNAL, Request
from ringmain.log.store import Store
from ringmain.log.writer import JournalWriter, PreparedGroup

VARIABLE = "RINGMAIN_MUTANT"
DEADLINE_S = 120
"""A mutant that makes the tests wait longer than this is not killed by an assertion."""

_DURABILITY = "tests/log/test_durability.py::"
_DAMAGE = "tests/log/test_damage.py::"
_CONTRACT = "tests/log/test_journal_contract.py::TestJournal::"
_RETENTION = "tests/log/test_retention.py::"
_OPENING = "tests/log/test_opening.py::"
_REFUSALS = "tests/log/test_refusals.py::"
_PREPARED = "tests/log/test_prepared.py::"


@dataclass(frozen=True, slots=True)
class Mutant:
    """A way to break the log: `apply` does it to this process, and the `killers` are tests that must then fail."""

    name: str
    apply: Callable[[], None]
    killers: tuple[str, ...]


class Verdict(msgspec.Struct, frozen=True):
    """What became of the killers of a mutant (no `mutant`: of all of them, with the log as it is).

    `status`: pytest's exit status, or -1 after `DEADLINE_S`. `test`, `error` (the type of the exception) and `message`:
    the first failure, if any. `asserted`: it was an assertion in the body of a test.
    """

    mutant: str
    status: int
    test: str
    error: str
    message: str
    asserted: bool
    seconds: float


MUTANTS: dict[str, Mutant] = {}


def _mutant(*killers: str) -> Callable[[Callable[[], None]], Callable[[], None]]:
    def register(apply: Callable[[], None]) -> Callable[[], None]:
        name = apply.__name__
        MUTANTS[name] = Mutant(name, apply, killers)
        return apply

    return register


# -- acknowledgement and durability --------------------------------------------------------------------------


@_mutant(_DURABILITY + "test_no_answer_and_no_frame_leaves_before_the_covering_sync_returned")
def acknowledges_before_the_sync() -> None:
    original = CommitThread._round

    def mutated(self: CommitThread, requests: list[Request], size: int) -> None:
        for request in requests:
            if request.claim is not INTERNAL and request.done is not None:
                done, request.done = request.done, _nobody
                done(Appended(None, 0), None)
        original(self, requests, size)

    _replace(CommitThread, "_round", mutated)


def _nobody(_: Appended | None, __: LogError | None) -> None:
    """Takes an answer and tells nobody."""


@_mutant(_DURABILITY + "test_no_answer_and_no_frame_leaves_before_the_covering_sync_returned")
def publishes_before_the_sync() -> None:
    publish = JournalWriter._publish
    early: set[int] = set()

    def mutated_write(
        self: JournalWriter, segment: Any, handle: int, groups: Sequence[PreparedGroup]
    ) -> None:
        buffers = [buffer for group in groups for buffer in group.buffers]
        write_all(self._fs, handle, buffers, segment.end)
        if segment is self._active:
            publish(self, segment, groups)
            early.add(groups[-1].header.lsn)
        self._fs.fdatasync(handle)

    def mutated_publish(self: JournalWriter, segment: Any, groups: Sequence[PreparedGroup]) -> None:
        if groups[-1].header.lsn not in early:
            publish(self, segment, groups)

    _replace(JournalWriter, "_write_and_sync", mutated_write)
    _replace(JournalWriter, "_publish", mutated_publish)


class _Altered:
    """A file system of which a mutant leaves something out."""

    def __init__(self, fs: FileSystem, **instead: Callable[..., Any]) -> None:
        self._fs = fs
        self._instead = instead

    def __getattr__(self, name: str) -> Any:
        return self._instead.get(name) or getattr(self._fs, name)


@_mutant(_DURABILITY + "test_the_name_of_a_new_segment_is_durable_before_its_first_group_is_acknowledged")
def skips_the_directory_sync() -> None:
    original = JournalWriter.__init__

    def mutated(self: JournalWriter, fs: Any, *arguments: Any, **options: Any) -> None:
        original(self, _Altered(fs, sync_directory=lambda _: None), *arguments, **options)

    _replace(JournalWriter, "__init__", mutated)


@_mutant(_DURABILITY + "test_a_failed_sync_is_never_tried_again_on_the_same_file")
def retries_a_failed_fdatasync() -> None:
    original = JournalWriter.__init__

    def mutated(self: JournalWriter, fs: Any, *arguments: Any, **options: Any) -> None:
        def twice(handle: int) -> None:
            try:
                fs.fdatasync(handle)
            except OSError:
                fs.fdatasync(handle)

        original(self, _Altered(fs, fdatasync=twice), *arguments, **options)

    _replace(JournalWriter, "__init__", mutated)


@_mutant(_DURABILITY + "test_a_group_says_no_more_is_durable_than_was_when_it_was_written")
def stamps_the_durable_lsn_too_high() -> None:
    original = Planner._group

    def mutated(self: Planner, *arguments: Any) -> Plan:
        durable, self.durable_lsn = self.durable_lsn, self.next_lsn - 1
        try:
            return original(self, *arguments)
        finally:
            self.durable_lsn = durable

    _replace(Planner, "_group", mutated)


@_mutant(_DURABILITY + "test_a_checkpoint_is_synced_before_it_gets_its_name")
def names_a_checkpoint_before_it_is_synced() -> None:
    def mutated(fs: Any, path: Path, parts: Sequence[bytes]) -> None:
        publish_file(_Altered(fs, fdatasync=lambda _: None), path, parts)  # type: ignore[arg-type]

    _replace(checkpoints, "publish_file", mutated)


@_mutant(_DURABILITY + "test_a_duplicate_in_the_round_of_its_original_fails_with_it")
def answers_a_duplicate_before_its_original_is_durable() -> None:
    original = Planner._plan_append

    def mutated(self: Planner, *arguments: Any) -> Plan:
        plan = original(self, *arguments)
        plan.depends_lsn = 0
        return plan

    _replace(Planner, "_plan_append", mutated)


@_mutant(_DURABILITY + "test_what_could_not_be_stored_is_new_when_it_is_sent_again")
def remembers_what_could_not_be_stored() -> None:
    _replace(Planner, "take_back", lambda _, __: None)


@_mutant(_REFUSALS + "test_appends_behind_one_that_failed_fail_too_so_that_all_can_be_sent_again")
def stores_appends_behind_one_that_failed() -> None:
    _replace(CommitThread, "_behind_failed", lambda _, __: None)


# -- damage and recovery -------------------------------------------------------------------------------------


@_mutant(_DAMAGE + "test_a_changed_byte_that_only_the_header_crc_covers_is_damage")
def skips_the_header_crc() -> None:
    def mutated(raw: bytes | memoryview, header: Any, at: int = 0) -> list[FrameHeader] | None:
        block = raw[
            at + GROUP_HEADER_BYTES : at + GROUP_HEADER_BYTES + FRAME_HEADER_BYTES * header.frame_count
        ]
        found = [FrameHeader._make(fields) for fields in FRAME.iter_unpack(block)]
        size = GROUP_HEADER_BYTES + FRAME_HEADER_BYTES * header.frame_count
        return found if size + sum(frame.length for frame in found) == header.length else None

    for module in (frames, segments, reader):
        _replace(module, "read_frame_headers", mutated)


@_mutant(_DAMAGE + "test_damage_of_something_durable_is_quarantined_with_a_ledger_entry")
def skips_the_body_crc() -> None:
    _replace(codec, "header_body_crc", lambda frame, _: frame.body_crc)


def _after_recovery(change: Callable[[Recovered], None]) -> None:
    original = journal.recover

    def mutated(fs: FileSystem, directory: Path) -> Recovered:
        recovered = original(fs, directory)
        change(recovered)
        return recovered

    _replace(journal, "recover", mutated)


@_mutant(_DAMAGE + "test_a_torn_tail_is_cut_with_a_ledger_entry_and_its_positions_are_not_given_again")
def drops_the_ledger_entry_of_a_cut_tail() -> None:
    def change(recovered: Recovered) -> None:
        recovered.findings = [one for one in recovered.findings if one.kind != LedgerKind.CUT]

    _after_recovery(change)


@_mutant(_DAMAGE + "test_a_torn_tail_is_cut_with_a_ledger_entry_and_its_positions_are_not_given_again")
def reuses_a_position_after_a_rewind() -> None:
    def change(recovered: Recovered) -> None:
        recovered.next_lsn = recovered.kept_lsn + 1

    _after_recovery(change)


@_mutant(_DAMAGE + "test_a_lost_durable_end_begins_a_new_incarnation")
def goes_on_as_the_same_incarnation_after_a_rewind() -> None:
    def change(recovered: Recovered) -> None:
        recovered.continuous = True

    _after_recovery(change)


@_mutant(_DAMAGE + "test_an_unproven_tail_is_written_again_before_it_is_read")
def does_not_write_the_unproven_tail_again() -> None:
    def change(recovered: Recovered) -> None:
        store, carried = recovered.store, recovered.carried
        if carried:
            placed = [(one.at, one.header, one.frames, one.body) for one in carried]
            store.publish(store.segments[-1], placed)
            recovered.carried = []

    _after_recovery(change)


@_mutant(_CONTRACT + "test_everything_is_there_after_a_reopening")
def applies_half_of_a_group_at_recovery() -> None:
    original = Replay._publish

    def mutated(self: Replay, segment: Any, groups: Any, *rest: Any) -> None:
        for group in groups:
            del group.frames[max(1, len(group.frames) // 2) :]
        original(self, segment, groups, *rest)

    _replace(Replay, "_publish", mutated)
    _replace(Store, "load_entries", lambda self, segment: self.rebuild_entries(segment))


@_mutant(_PREPARED + "test_zeros_behind_the_last_group_are_no_damage_and_no_cut_tail")
def takes_the_zeros_of_a_prepared_segment_for_a_torn_tail() -> None:
    _replace(Replay, "_leave_out_zeros", lambda self, link, segment, found, *, last: None)


@_mutant(
    _PREPARED + "test_a_whole_group_that_the_mark_names_and_that_became_zeros_is_damage_too",
    _PREPARED + "test_zeros_behind_the_last_group_of_a_segment_that_was_not_prepared_are_a_torn_tail",
)
def takes_any_zeros_behind_the_last_group_for_nothing() -> None:
    def mutated(self: Replay, link: Any, segment: Any, found: Any, *, last: bool) -> None:
        del self, link, segment, last
        if found and isinstance(found[-1], segments.Damage):
            found.pop()

    _replace(Replay, "_leave_out_zeros", mutated)


@_mutant(
    _PREPARED
    + "test_what_was_acknowledged_in_a_prepared_segment_survives_power_cuts_from_its_first_append_on"
)
def takes_a_prepared_segment_without_a_sync_of_its_name() -> None:
    original = JournalWriter._create

    def mutated(self: JournalWriter, groups: Any, prepared: int | None) -> Any:
        fs = self._fs
        if prepared is not None:
            sync_directory = fs.sync_directory
            fs.sync_directory = lambda path: None  # type: ignore[method-assign]
            try:
                return original(self, groups, prepared)
            finally:
                fs.sync_directory = sync_directory  # type: ignore[method-assign]
        return original(self, groups, prepared)

    _replace(JournalWriter, "_create", mutated)


# -- identity, positions, ownership --------------------------------------------------------------------------


def _after_opening(change: Callable[[Producer], None]) -> None:
    original = Planner.__init__

    def mutated(self: Planner, *arguments: Any) -> None:
        original(self, *arguments)
        for producer in self._producers.values():
            change(producer)

    _replace(Planner, "__init__", mutated)


@_mutant(_CONTRACT + "test_epoch_zero_is_recognised_across_a_reopening")
def forgets_what_was_appended_when_reopened() -> None:
    def change(producer: Producer) -> None:
        producer.sequence = producer.zero_sequence = -1

    _after_opening(change)


@_mutant(_CONTRACT + "test_a_claim_from_before_a_reopening_is_fenced_by_a_new_one_only")
def forgets_who_was_fenced_when_reopened() -> None:
    def change(producer: Producer) -> None:
        producer.fence = 0

    _after_opening(change)


@_mutant(_CONTRACT + "test_a_later_claim_fences_the_earlier_one")
def lets_a_zombie_write() -> None:
    original = Planner._plan_append

    def mutated(self: Planner, request: Request, stamp: Any) -> Plan:
        owner = self._producers[request.claim.name]
        owner.fence, owner.epoch = request.claim.fence, request.claim.epoch
        return original(self, request, stamp)

    _replace(Planner, "_plan_append", mutated)


@_mutant(_CONTRACT + "test_the_same_identity_with_another_body_is_a_conflict_and_kept")
def takes_any_body_of_the_same_identity_for_a_duplicate() -> None:
    original = Planner._plan_append

    def mutated(self: Planner, request: Request, stamp: Any) -> Plan:
        _, digest, _, _ = self._producers[request.claim.name].last(request.claim.epoch)
        request.digest = digest or request.digest
        return original(self, request, stamp)

    _replace(Planner, "_plan_append", mutated)


@_mutant(_DURABILITY + "test_no_answer_and_no_frame_leaves_before_the_covering_sync_returned")
def moves_positions_ahead_of_their_data() -> None:
    original = Planner._plan_append

    def mutated(self: Planner, request: Request, stamp: Any) -> Plan:
        for name, value in (request.positions or {}).items():
            if value is not None:
                self._state.positions[name] = value
        return original(self, request, stamp)

    _replace(Planner, "_plan_append", mutated)


# -- retention and ownership of the directory ----------------------------------------------------------------


@_mutant(_RETENTION + "test_what_goes_is_in_the_ledger_before_the_first_file_goes")
def removes_segments_before_the_ledger_tells_of_it() -> None:
    original = Maintenance.retain

    def mutated(self: Maintenance, now_ns: int, age_of: Any, age_ns: Any, size_bytes: Any, tell: Any) -> int:
        def removed_before(entries: Any, removed: Any) -> bool:
            for segment in self._store.segments:
                if segment.last_lsn <= lsn_of(removed.offset):
                    self._fs.remove(segment.path)
            return bool(tell(entries, removed))

        return original(self, now_ns, age_of, age_ns, size_bytes, removed_before)

    _replace(Maintenance, "retain", mutated)


@_mutant(_OPENING + "test_a_second_writer_is_refused_with_the_holders_process")
def opens_without_a_lock() -> None:
    def mutated(fs: FileSystem, directory: Path) -> int:
        return fs.create(directory / "lock")

    _replace(journal, "take_lock", mutated)


def _replace(owner: Any, name: str, new: Any) -> None:
    """Put something else in the place of an attribute that is there."""
    getattr(owner, name)
    setattr(owner, name, new)


# -- the plugin ----------------------------------------------------------------------------------------------


def pytest_configure(config: pytest.Config) -> None:
    del config
    name = os.environ.get(VARIABLE)
    if name:
        MUTANTS[name].apply()


class _FirstFailure:
    """A plugin that keeps what the first failing test failed with."""

    def __init__(self) -> None:
        self.test = self.error = self.message = ""
        self.asserted = False

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
        report = yield
        if (
            call.excinfo is not None
            and not self.test
            and not call.excinfo.errisinstance(pytest.skip.Exception)
        ):
            self.test, self.error = item.nodeid, call.excinfo.typename
            self.message = str(call.excinfo.value)[:500]
            failed = call.excinfo.errisinstance((AssertionError, pytest.fail.Exception))
            self.asserted = call.when == "call" and failed and "Timeout" not in self.message[:20]
        return report


def _try(name: str) -> Verdict:
    """Run the killers of a mutant (or, for no name, of all) in this process, which is then spoiled."""
    start = time.monotonic()
    if name:
        MUTANTS[name].apply()
        killers = list(MUTANTS[name].killers)
    else:
        killers = sorted({killer for mutant in MUTANTS.values() for killer in mutant.killers})
    first = _FirstFailure()
    options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "pytest_timeout", f"--timeout={DEADLINE_S}"]
    os.environ.pop("PYTEST_ADDOPTS", None)
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        status = int(pytest.main([*options, *killers], plugins=[first]))
    seconds = round(time.monotonic() - start, 3)
    return Verdict(name, status, first.test, first.error, first.message, first.asserted, seconds)


def _in_a_fork(name: str) -> Verdict:
    """As `_try`, in a copy of this process that ends at its deadline."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        verdict = _try(name)
        os.write(writing, msgspec.json.encode(verdict))
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        ready, _, _ = select.select([pipe], [], [], DEADLINE_S)
        if not ready:
            os.kill(child, signal.SIGKILL)
        answer = pipe.read()
    os.waitpid(child, 0)
    if not answer:
        return Verdict(name, -1, "", "", f"no answer within {DEADLINE_S} s", False, DEADLINE_S)
    return msgspec.json.decode(answer, type=Verdict)


def main() -> None:
    """Answer each line of standard input, a mutant's name or nothing, with its verdict."""
    import tests.log.test_damage
    import tests.log.test_durability
    import tests.log.test_journal_contract
    import tests.log.test_opening
    import tests.log.test_refusals
    import tests.log.test_retention  # noqa: F401

    for line in sys.stdin:
        sys.stdout.buffer.write(msgspec.json.encode(_in_a_fork(line.strip())) + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
