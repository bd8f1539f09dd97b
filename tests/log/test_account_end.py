"""A log that lost its end says so before any node has opened it; what nobody can count stands beside the equation."""

from __future__ import annotations

import json
import random
import shutil
import threading
from pathlib import Path

import pytest
from click.testing import CliRunner

from ringmain.cli.log import log as log_command
from ringmain.log import open_log, open_reader
from ringmain.log.builtin import LedgerKind
from ringmain.log.ledger.accountant import Accountant
from ringmain.testing import CHANGING_CALLS, SimulatedDisk
from tests.log.accounting import TestSource, accounts_of, damage_group, groups_of


def _account(directory: Path, *options: str) -> tuple[int, str]:
    result = CliRunner().invoke(log_command, ["account", str(directory), *options])
    return result.exit_code, result.output


def _filled(directory: Path, appends: int = 20) -> None:
    with open_log(directory, segment_bytes=4096) as log:
        field, works = TestSource(log), TestSource(log, "works")
        for _ in range(appends):
            field.append(3, letters=1)
            works.append(1)


def _segments(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.seg"))


def _remove_checkpoints(directory: Path) -> None:
    for path in directory.glob("*.ckp"):
        path.unlink()


def test_a_newest_segment_that_is_removed_is_missed_with_the_rows_that_the_checkpoint_counts(
    tmp_path: Path,
) -> None:
    _filled(tmp_path)
    for path in _segments(tmp_path)[-2:]:
        path.unlink()
        path.with_suffix(".idx").unlink(missing_ok=True)
    status, text = _account(tmp_path, "--json")
    told = json.loads(text)
    assert (status, told["closes"]) == (1, False)
    field, works = told["sources"]
    assert field["readings"]["handed_over"] == 60
    assert field["readings"]["difference"] == 60 - field["readings"]["found"] > 0
    assert field["letters"]["difference"] == 20 - field["letters"]["found"] > 0
    assert works["readings"]["difference"] == 20 - works["readings"]["found"] > 0
    assert told["difference_rows"] == 100 - sum(
        one[of]["found"] for one in told["sources"] for of in ("readings", "letters")
    )
    assert told["missing_end"]["last_lsn"] == told["missing_end"]["counted_lsn"]
    status, text = _account(tmp_path)
    assert status == 1
    assert "no checkpoint tells" not in text
    with open_log(tmp_path) as log:
        TestSource(log).append()
    assert _account(tmp_path)[0] == 0, "the opening has entered it in the ledger"


@pytest.mark.parametrize("into", [0, 40, 200])
def test_newest_groups_that_are_cut_off_are_missed_although_only_the_mark_tells(
    tmp_path: Path, into: int
) -> None:
    with open_log(tmp_path / "open") as log:
        field = TestSource(log)
        for _ in range(10):
            field.append()
        shutil.copytree(tmp_path / "open", tmp_path / "killed")
    killed = tmp_path / "killed"
    _remove_checkpoints(killed)
    assert _account(killed)[0] == 0
    (path,) = _segments(killed)
    raw = path.read_bytes()
    path.write_bytes(raw[: groups_of(raw)[-4][0] + into])
    status, text = _account(killed)
    assert status == 1, text
    assert "end of the log: at least 4 groups, lsn " in text
    assert "no checkpoint tells the rows of lsn " in text
    assert "IT DOES NOT ADD UP: difference 0 rows, 0 messages, and at least 4 groups" in text
    assert _account(killed, "--source", "field")[0] == 1
    assert _account(killed, "--to", "2020-01-01T00:00:00Z")[0] == 0, "what is missing arrived later"
    assert _account(killed, "--from", "2020-01-01T00:00:00Z", "--to", "2200-01-01T00:00:00Z")[0] == 1


def test_a_log_of_which_only_the_mark_and_the_checkpoints_are_left_does_not_add_up(tmp_path: Path) -> None:
    _filled(tmp_path)
    for path in [*_segments(tmp_path), *tmp_path.glob("*.idx")]:
        path.unlink()
    status, text = _account(tmp_path)
    assert status == 1, text
    assert "field: 60 rows of readings are missing" in text


def test_no_alarm_without_a_mark_or_with_one_that_is_behind(tmp_path: Path) -> None:
    _filled(tmp_path, 3)
    earlier = (tmp_path / "durable").read_bytes()
    with open_log(tmp_path, segment_bytes=4096) as log:
        field = TestSource(log)
        for _ in range(30):
            field.append()
        log.retain(size_bytes=8_000)
    assert _account(tmp_path)[0] == 0, "after a clean close, with retention"
    (tmp_path / "durable").write_bytes(earlier)
    assert _account(tmp_path)[0] == 0
    (tmp_path / "durable").unlink()
    assert _account(tmp_path)[0] == 0


def test_no_alarm_beside_a_running_writer(tmp_path: Path) -> None:
    stop = threading.Event()

    def write() -> None:
        with open_log(tmp_path, segment_bytes=4096) as log:
            field = TestSource(log)
            while not stop.is_set():
                field.append()
                if field.sequence % 40 == 0:
                    log.retain(size_bytes=200_000)

    _filled(tmp_path, 2)
    thread = threading.Thread(target=write)
    thread.start()
    try:
        with open_reader(tmp_path) as reader:
            following = Accountant(reader, files=True)
            for _ in range(8):
                following.advance()
                assert following.missing_end is None
                assert following.closes
                status, text = _account(tmp_path)
                assert status == 0, text
    finally:
        stop.set()
        thread.join()


def test_no_alarm_wherever_the_power_is_cut(tmp_path: Path) -> None:
    chance = random.Random(11)
    disk = SimulatedDisk(seed=11)
    points: list[SimulatedDisk] = []

    def look(call: str, path: Path | None) -> None:
        if call in CHANGING_CALLS and chance.random() < 0.2:
            points.append(disk.copy())

    with open_log(tmp_path, fs=disk, segment_bytes=4096) as log:
        field = TestSource(log)
        field.append()
        disk.before_call = look
        for _ in range(30):
            field.append()
            if chance.random() < 0.1:
                log.retain(size_bytes=8_000)
    disk.before_call = None
    assert len(points) > 20
    for number, point in enumerate(points):
        for after in (point.after_power_cut(random.Random(number)), point.kill()):
            with open_reader(tmp_path, fs=after) as reader:
                accountant = Accountant(reader, files=True)
                accountant.advance()
                assert accountant.missing_end is None, number
                assert accountant.closes, number


def test_no_alarm_after_a_restore(tmp_path: Path) -> None:
    _filled(tmp_path / "data")
    runner = CliRunner()
    made = runner.invoke(log_command, ["backup", str(tmp_path / "data"), str(tmp_path / "backup")])
    assert made.exit_code == 0, made.output
    _filled(tmp_path / "data", 5)
    back = runner.invoke(log_command, ["restore", str(tmp_path / "backup"), str(tmp_path / "back")])
    assert back.exit_code == 0, back.output
    assert _account(tmp_path / "back")[0] == 0
    _filled(tmp_path / "back", 1)
    assert _account(tmp_path / "back")[0] == 0


def test_rows_lost_with_the_end_of_the_log_are_unknown_at_every_source(tmp_path: Path) -> None:
    _filled(tmp_path)
    for path in _segments(tmp_path)[-2:]:
        path.unlink()
    with open_log(tmp_path) as log:
        TestSource(log).append()
        accounts = accounts_of(log)
        for name in ("field", "works"):
            (unknown,) = accounts[name].unknown
            assert "rows that nobody can count are lost: what was durable" in unknown.reason
            assert 0 < unknown.from_ns <= unknown.to_ns
    status, text = _account(tmp_path)
    assert status == 0
    assert text.count("rows that nobody can count are lost") == 2


def test_damage_without_a_header_is_unknown_only_where_no_row_of_its_epoch_follows(tmp_path: Path) -> None:
    with open_log(tmp_path) as log:
        field, works = TestSource(log), TestSource(log, "works")
        field.append()
        works.append()
        field.append()  # damaged below: field starts again behind it, works does not
        field = TestSource(log)
        field.append()
        works.append()
    (path,) = _segments(tmp_path)
    raw = path.read_bytes()
    with_readings = [place for place, (start, end, _) in enumerate(groups_of(raw)) if end - start > 600]
    damage_group(tmp_path, 1, with_readings[2], header=True)
    path.with_suffix(".idx").unlink(missing_ok=True)
    _remove_checkpoints(tmp_path)
    with open_log(tmp_path) as log:
        list(log.read("readings"))
        (entry,) = [
            one
            for one in log.ledger().drop_columns(["time"]).to_pylist()
            if one["kind"] == LedgerKind.QUARANTINED
        ]
        assert (entry["rows"], entry["source"]) == (None, None)
        accounts = accounts_of(log)
        (unknown,) = accounts["field"].unknown
        assert "rows that nobody can count are quarantined" in unknown.reason
        assert accounts["works"].unknown == (), "its next row says that none of them was its own"
        assert accounts["field"].closes
