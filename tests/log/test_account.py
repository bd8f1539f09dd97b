"""Everything that sources hand over is there or accounted for, whatever happened; and if not, it is known exactly."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from ringmain.cli.log import log as log_command
from ringmain.log import open_log, open_reader
from ringmain.log.builtin import ACCOUNTS_ID, LedgerKind
from ringmain.log.control import producer_id
from ringmain.log.interface import Batch, ConflictError, Log, StreamKind
from ringmain.log.ledger.accountant import Accountant
from ringmain.log.ledger.entries import LEDGER_ENTRIES_MAX, MINUTE_NS
from ringmain.testing import CHANGING_CALLS, SimulatedDisk
from tests.log.accounting import (
    TestSource,
    accounts_of,
    damage_group,
    groups_of,
    remove_group,
)
from tests.log.batches import NOTE, notes, reading_batch
from tests.soak import run_campaign

FIRST = "0000000001.seg"
SOAK_HISTORIES = 300


def _fill(directory: Path, appends: int = 20, **settings: int) -> None:
    with open_log(directory, **settings) as log:
        field, works = TestSource(log), TestSource(log, "works")
        log.create_stream("notes", StreamKind.ROW, NOTE)
        importer = log.claim("importer", epoch=0)
        for number in range(appends):
            field.append(3, letters=number % 2)
            works.append(1)
            log.append([Batch("notes", notes("x"))], claim=importer, sequence=number)


def _run(*arguments: str | Path) -> tuple[int, str]:
    result = CliRunner().invoke(log_command, ["account", *map(str, arguments)])
    return result.exit_code, result.output


def test_what_sources_hand_over_is_found_again_by_scanning(tmp_path: Path) -> None:
    _fill(tmp_path, segment_bytes=4096)
    with open_reader(tmp_path) as reader:
        accountant = Accountant(reader)
        accountant.advance()
        field, works = accountant.accounts()
        assert (field.source, works.source) == ("field", "works")
        assert (field.received, field.accepted, field.rejected) == (70, 60, 10)
        assert (field.readings.handed_over, field.readings.found) == (60, 60)
        assert (field.letters.handed_over, field.letters.found) == (10, 10)
        assert works.readings.found == 20
        written = {stream.stream: (stream.written, stream.found) for stream in accountant.streams()}
        assert written["notes"] == (20, 20)
        assert written["readings"] == (80, 80)
        assert accountant.closes


def test_an_accountant_goes_on_from_where_it_was(tmp_path: Path) -> None:
    with open_log(tmp_path, segment_bytes=4096) as log:
        field = TestSource(log)
        accountant = Accountant(log, bodies=False)
        for round_ in range(6):
            for _ in range(12):
                field.append()
            if round_ % 2:
                assert log.retain(size_bytes=6000) > 0
            accountant.advance()
            whole = Accountant(log)
            whole.advance()
            (seen,), (counted) = accountant.accounts(), whole.accounts()[0]
            assert seen.readings == counted.readings
            assert (seen.received, seen.closes) == (counted.received, True)
            assert seen.readings.evicted == field.row.readings - seen.readings.found
        assert accountant.closes
        assert accountant.streams() == whole.streams()


@pytest.mark.parametrize("segment_bytes", [1 << 20, 12_000])
def test_a_group_removed_by_hand_is_missed_exactly_and_in_its_place(
    tmp_path: Path, segment_bytes: int
) -> None:
    _fill(tmp_path, segment_bytes=segment_bytes)
    raw = (tmp_path / FIRST).read_bytes()
    groups = groups_of(raw)
    places = [place for place, (_, _, owner) in enumerate(groups) if owner == producer_id("source/field")]
    producer, rows = remove_group(tmp_path, 1, places[-2])
    assert rows[16] == 3
    status, text = _run(tmp_path)
    assert status == 1, text
    assert "field: 3 rows of readings are missing, between " in text
    assert f"difference {3 + rows.get(17, 0)} rows, 0 messages" in text
    status, text = _run(tmp_path, "--json")
    told = json.loads(text)
    assert (status, told["closes"], told["difference_rows"]) == (1, False, 3 + rows.get(17, 0))
    (field, works) = told["sources"]
    assert field["readings"]["difference"] == 3
    assert works["readings"]["difference"] == 0
    assert producer == producer_id("source/field")
    assert _run(tmp_path, "--source", "works")[0] == 0
    # the node that goes on there does not make it vanish
    with open_log(tmp_path) as log:
        TestSource(log).append()
        assert accounts_of(log)["field"].difference_rows == 3 + rows.get(17, 0)


def test_a_group_of_a_producer_without_account_is_missed_in_its_stream(tmp_path: Path) -> None:
    _fill(tmp_path)
    groups = groups_of((tmp_path / FIRST).read_bytes())
    places = [place for place, (_, _, owner) in enumerate(groups) if owner == producer_id("importer")]
    remove_group(tmp_path, 1, places[5])
    status, text = _run(tmp_path)
    assert status == 1
    assert "stream notes: 20 rows were written, 19 are found, 1 are neither there nor in the ledger" in text


def test_rows_that_nobody_handed_over_are_a_difference_too(tmp_path: Path) -> None:
    with open_log(tmp_path) as log:
        field = TestSource(log)
        field.append()
        batches, row = field.prepared(3)
        field.log.append([*batches, reading_batch(2)], claim=field.claim, sequence=2)
        field.row, field.sequence = row, 2
        field.append()
        (account,) = accounts_of(log).values()
        assert account.readings.difference == -2
        assert not account.closes


@pytest.mark.parametrize("header", [False, True])
@pytest.mark.parametrize("sealed", [False, True])
def test_a_flipped_bit_is_quarantined_and_the_account_closes(
    tmp_path: Path, header: bool, sealed: bool
) -> None:
    _fill(tmp_path, segment_bytes=12_000 if sealed else 1 << 20)
    groups = groups_of((tmp_path / FIRST).read_bytes())
    places = [place for place, (_, _, owner) in enumerate(groups) if owner == producer_id("source/field")]
    damage_group(tmp_path, 1, places[2], header=header)
    for path in tmp_path.glob("*.idx"):
        path.unlink()
    before = _run(tmp_path)
    assert before[0] == 0, before[1]
    with open_log(tmp_path) as log:
        list(log.read(["readings", "deadletters"]))
    with open_log(tmp_path) as log:
        account = accounts_of(log)["field"]
        assert account.readings.quarantined == 3
        assert account.readings.found == account.readings.handed_over - 3
        assert account.closes
        kinds = [row for row in _ledger(log) if row["kind"] == LedgerKind.QUARANTINED]
        assert kinds
        if not header:
            assert {row["source"] for row in kinds} == {"field"}
    assert _run(tmp_path)[0] == 0


def test_damage_that_retention_removes_is_counted_once(tmp_path: Path) -> None:
    _fill(tmp_path, segment_bytes=12_000)
    groups = groups_of((tmp_path / FIRST).read_bytes())
    places = [place for place, (_, _, owner) in enumerate(groups) if owner == producer_id("source/field")]
    damage_group(tmp_path, 1, places[1])
    with open_log(tmp_path, segment_bytes=12_000) as log:
        list(log.read(["readings"]))
        TestSource(log, "other").append()  # the entry is durable before
        assert log.retain(size_bytes=0) > 2
        account = accounts_of(log)["field"]
        assert account.readings.quarantined + account.readings.evicted == 60 - account.readings.found
        assert account.closes
        assert account.readings.quarantined == 3


def test_a_cut_tail_has_an_entry_by_source_and_the_account_closes(tmp_path: Path) -> None:
    work = tmp_path / "log"
    with open_log(tmp_path / "log0") as log:
        field = TestSource(log)
        for _ in range(5):
            field.append()
        work.mkdir()
        for path in (tmp_path / "log0").iterdir():  # as after a kill
            if path.suffix == ".tmp":  # gone the next moment
                continue
            (work / path.name).write_bytes(path.read_bytes())
    raw = (work / FIRST).read_bytes()
    start, end, _ = groups_of(raw)[-1]
    (work / "durable").unlink()
    for path in work.glob("*.ckp"):
        path.unlink()
    damaged = bytearray(raw)
    damaged[end - 20] ^= 1
    (work / FIRST).write_bytes(damaged)
    with open_log(work) as log:
        (entry,) = [row for row in _ledger(log) if row["kind"] == LedgerKind.CUT]
        assert (entry["source"], entry["stream"], entry["rows"]) == ("field", "readings", 3)
        assert entry["bytes"] == end - start
        assert "may have been acknowledged" in entry["reason"]
        account = accounts_of(log)["field"]
        assert (account.readings.handed_over, account.readings.found, account.readings.cut) == (15, 12, 3)
        assert account.closes
        TestSource(log).append()
        account = accounts_of(log)["field"]
        assert (account.readings.handed_over, account.readings.found, account.readings.cut) == (18, 15, 3)
        assert account.closes


def test_a_segment_that_is_missing_explains_what_it_held(tmp_path: Path) -> None:
    _fill(tmp_path, segment_bytes=4096)
    (tmp_path / "0000000003.seg").unlink()
    for checkpoint in tmp_path.glob("*.ckp"):
        checkpoint.unlink()
    with open_log(tmp_path) as log:
        account = accounts_of(log)["field"]
        assert account.readings.lost == 60 - account.readings.found > 0
        assert account.closes


def test_a_conflict_is_in_the_ledger_and_the_account_closes(tmp_path: Path) -> None:
    with open_log(tmp_path) as log:
        field = TestSource(log)
        field.append()
        batches, _ = field.prepared(7)
        with pytest.raises(ConflictError):
            log.append(batches, claim=field.claim, sequence=field.sequence)
        (entry,) = [row for row in _ledger(log) if row["kind"] == LedgerKind.CONFLICT]
        assert (entry["source"], entry["stream"], entry["rows"]) == ("field", "readings", 7)
        field.append()
        account = accounts_of(log)["field"]
        assert account.readings.conflict == 7
        assert (account.readings.handed_over, account.readings.found) == (13, 6)
        assert account.closes


def test_a_source_that_lost_its_process_may_have_lost_messages_without_acknowledgement(
    tmp_path: Path,
) -> None:
    with open_log(tmp_path) as log:
        field, careful = TestSource(log, unacknowledged=1), TestSource(log, "careful")
        field.append()
        careful.append()
        TestSource(log), TestSource(log)  # two starts in a row
        TestSource(log, "careful")
        (account,) = [one for one in accounts_of(log).values() if one.unknown]
        assert account.source == "field"
        first, second = account.unknown
        assert first.from_ns == account.last_ns
        assert first.to_ns == second.from_ns <= second.to_ns
        assert account.closes, "beside the equation"
    with open_log(tmp_path) as log:
        TestSource(log, unacknowledged=1).append()
        known = len(accounts_of(log)["field"].unknown)
    with open_log(tmp_path) as log:
        TestSource(log)
        assert len(accounts_of(log)["field"].unknown) == known, "the log was closed cleanly"
    status, text = _run(tmp_path)
    assert (status, text.count("field: unknown from 20")) == (0, 2)


def test_a_flood_of_dead_letters_does_not_flood_the_ledger(tmp_path: Path) -> None:
    reasons = [f"expected {name}" for name in ("a number", "a time", "an object", "a topic")]
    with open_log(tmp_path) as log:
        field = TestSource(log)
        for number in range(200):
            field.append(0, letters=500, reason=reasons[number % 4])
        entries = _ledger(log)
        assert {row["kind"] for row in entries} == {LedgerKind.REJECTED}
        assert sorted({row["reason"] for row in entries}) == sorted(reasons)
        assert len(entries) <= 4 * 2, "one a reason and minute"
        assert sum(row["rows"] for row in entries) == 100_000
        assert {row["source"] for row in entries} == {"field"}
        assert list(log.read("ledger")) == []
        account = accounts_of(log)["field"]
        assert (account.rejected, account.letters.found, account.closes) == (100_000, 100_000, True)
    for checkpoint in tmp_path.glob("*.ckp"):
        checkpoint.unlink()
    with open_log(tmp_path) as log:
        assert sum(row["rows"] for row in _ledger(log)) == 100_000


def test_intervals_add_up_to_the_whole(tmp_path: Path) -> None:
    clock = _Clock()
    with open_log(tmp_path, clock=clock) as log:
        field = TestSource(log)
        for _ in range(30):
            clock.now_ns += 20 * 10**9
            field.append(2, letters=1)
        accountant = Accountant(log, interval_ns=MINUTE_NS)
        accountant.advance()
        (whole,) = accountant.accounts()
        parts = [one.account for one in accountant.intervals("field")]
        assert len(parts) in (10, 11)
        assert sum(part.received for part in parts) == whole.received == 90
        assert sum(part.readings.found for part in parts) == whole.readings.found == 60
        assert all(part.closes for part in parts)
        middle = accountant.intervals("field")[4].start_ns
        later = Accountant(log, from_ns=middle, to_ns=middle + 2 * MINUTE_NS)
        later.advance()
        (some,) = later.accounts()
        assert (some.received, some.readings.handed_over, some.closes) == (18, 12, True)


def test_more_intervals_than_can_be_told_apart_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ringmain.log.ledger.accountant.INTERVALS_MAX", 3)
    clock = _Clock()
    with open_log(tmp_path, clock=clock) as log:
        field = TestSource(log)
        for _ in range(5):
            clock.now_ns += 90 * 10**9
            field.append(1)
    status, text = _run(tmp_path, "--by", "minute")
    assert status == 2
    assert "at most 3 intervals" in text
    assert _run(tmp_path, "--by", "day")[0] == 0


def test_a_removed_group_is_missed_in_its_interval_only(tmp_path: Path) -> None:
    clock = _Clock()
    with open_log(tmp_path, clock=clock) as log:
        field = TestSource(log)
        for _ in range(12):
            clock.now_ns += 30 * 10**9
            field.append(2)
    groups = groups_of((tmp_path / FIRST).read_bytes())
    places = [place for place, (_, _, owner) in enumerate(groups) if owner == producer_id("source/field")]
    remove_group(tmp_path, 1, places[6])
    with open_reader(tmp_path) as reader:
        accountant = Accountant(reader, interval_ns=MINUTE_NS)
        accountant.advance()
        differences = [one.account.readings.difference for one in accountant.intervals("field")]
    assert sorted(differences, reverse=True)[:2] == [2, 0]
    assert sum(differences) == 2


@pytest.mark.parametrize("seed", range(6))
def test_a_random_history_closes_after_every_fault(tmp_path: Path, seed: int) -> None:
    _history(tmp_path, seed)


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_three_hundred_random_histories_close_after_every_fault(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(item: int) -> int:
        with capsys.disabled():
            print(f"\naccounts, seed {1_000 + item} ", end="", flush=True)
        _history(tmp_path / str(item), 1_000 + item)
        shutil.rmtree(tmp_path / str(item))
        return 1

    told = run_campaign("accounts", SOAK_HISTORIES, run, "histories")
    with capsys.disabled():
        print(f"\n{told}")


def _history(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    log: Log = open_log(tmp_path, segment_bytes=4096)
    sources = [TestSource(log, name, unacknowledged=chance.randrange(2)) for name in ("a", "b", "c")]
    for _ in range(60):
        step = chance.random()
        source = chance.choice(sources)
        if step < 0.75:
            for _ in range(chance.randrange(1, 6)):
                source.append(chance.randrange(5), letters=chance.randrange(3))
        elif step < 0.80:
            sources[sources.index(source)] = TestSource(log, source.name)
        elif step < 0.86:
            log.retain(size_bytes=chance.randrange(4000, 40_000))
        elif step < 0.90:
            batches, _ = source.prepared(chance.randrange(1, 5))
            if source.sequence:
                with pytest.raises(ConflictError):
                    log.append([*batches, reading_batch(9)], claim=source.claim, sequence=source.sequence)
        else:
            log.close()
            if step > 0.94:
                _damage_something(tmp_path, chance)
            if chance.random() < 0.3:
                for path in tmp_path.glob("*.idx"):
                    path.unlink()
            log = open_log(tmp_path, segment_bytes=4096)
            list(log.read(["readings", "deadletters"]))
            sources = [TestSource(log, one.name) for one in sources]
        for account in accounts_of(log).values():
            assert account.closes, (seed, account)
    log.close()
    status, text = _run(tmp_path)
    assert status == 0, text


def test_wherever_the_power_is_cut_the_account_closes(tmp_path: Path) -> None:
    chance = random.Random(7)
    disk = SimulatedDisk(seed=7)
    points: list[tuple[SimulatedDisk, int]] = []
    acknowledged = 0

    def look(call: str, path: Path | None) -> None:
        if call in CHANGING_CALLS and chance.random() < 0.3:
            points.append((disk.copy(), acknowledged))

    with open_log(tmp_path, fs=disk, segment_bytes=4096) as log:
        source = TestSource(log)
        disk.before_call = look
        for _ in range(60):
            source.append(chance.randrange(1, 6))
            acknowledged = source.row.readings
            if chance.random() < 0.1:
                source = TestSource(log)
                acknowledged = 0  # of this epoch
            if chance.random() < 0.1:
                log.retain(size_bytes=12_000)
        disk.before_call = None
    assert len(points) > 50
    for number, (point, durable) in enumerate(points):
        for after in (point.after_power_cut(random.Random(number)), point.kill()):
            with open_log(tmp_path, fs=after, segment_bytes=4096) as log:
                account = accounts_of(log).get("field")
                assert account is not None or not durable
                assert account is None or account.closes, (number, account)
                assert account is None or account.readings.handed_over >= durable
                TestSource(log).append()
                assert accounts_of(log)["field"].closes


def _damage_something(directory: Path, chance: random.Random) -> None:
    """Flip a bit in the body of a group with readings, or cut the last segment in its last group."""
    path = chance.choice(sorted(directory.glob("*.seg")))
    raw = path.read_bytes()
    owners = {producer_id(f"source/{name}") for name in "abc"}
    places = [place for place, (_, _, owner) in enumerate(groups_of(raw)) if owner in owners]
    if places:
        damage_group(directory, int(path.stem), chance.choice(places), header=chance.random() < 0.3)


def test_the_ledger_in_memory_stays_bounded_whatever_floods_it(tmp_path: Path) -> None:
    with open_log(tmp_path) as log:
        field = TestSource(log)
        for _ in range(3):
            field.append()
        batches, _ = field.prepared(1)
        for _ in range(40):
            with pytest.raises(ConflictError):
                log.append(batches, claim=field.claim, sequence=field.sequence)
        shown = [row for row in _ledger(log) if row["kind"] == LedgerKind.CONFLICT]
        assert sum(row["rows"] for row in shown) == 40
        assert len(shown) <= 2 < LEDGER_ENTRIES_MAX
        assert accounts_of(log)["field"].closes


def test_account_rows_read_as_columns(tmp_path: Path) -> None:
    with open_log(tmp_path) as log:
        field = TestSource(log)
        field.append(2, letters=1, reason="expected more")
        (frame,) = log.read("accounts")
        assert frame.rows.num_rows == 1
        (row,) = frame.rows.to_pylist()
        assert (row["source"], row["epoch"], row["messages"], row["rejected"]) == (
            "field",
            field.claim.epoch,
            3,
            1,
        )
        assert row["reasons"] == [("expected more", 1)]
        assert next(s for s in log.streams() if s.stream.name == "accounts").stream.id == ACCOUNTS_ID


def test_a_directory_without_a_log_cannot_be_accounted_for(tmp_path: Path) -> None:
    assert _run(tmp_path / "none")[0] == 2
    _fill(tmp_path / "data", 1)
    status, text = _run(tmp_path / "data", "--source", "nobody")
    assert status == 2
    assert "expected one of field, works" in text
    assert _run(tmp_path / "data", "--from", "yesterday")[0] == 2


class _Clock:
    def __init__(self) -> None:
        self.now_ns = 1_795_392_000 * 10**9

    def wall_ns(self) -> int:
        return self.now_ns

    def elapsed_ns(self) -> int:
        return self.now_ns


def _ledger(log: Log) -> list[dict[str, object]]:
    return log.ledger().drop_columns(["time"]).to_pylist()
