"""`ringmain doctor` finds what keeps a node from working, and has a remedy for each."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
from crc32c import crc32c
from tests.log.batches import reading_batch

from ringmain.cli import doctor_disk, doctor_machine
from ringmain.cli.doctor import examine
from ringmain.cli.doctor_disk import Mount, disk
from ringmain.cli.doctor_findings import Finding, Grade
from ringmain.cli.doctor_log import state_of_log
from ringmain.cli.doctor_machine import clock, kernel_clock, time_zones
from ringmain.cli.main import Refusal
from ringmain.log import open_log


def _by_check(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.check: finding for finding in findings}


def test_every_subject_is_examined_and_whatever_is_not_good_has_a_remedy(tmp_path: Path) -> None:
    findings = list(examine(tmp_path / "not" / "yet"))
    assert list(tmp_path.iterdir()) == []
    assert {
        *("python", "pyarrow", "numpy", "log format", "kernel", "file system", "mount options", "free space"),
        *("fdatasync", "socket", "open files", "user processes", "locked memory", "memory", "clock"),
        *("time zones", "log"),
    } <= set(_by_check(findings))
    assert all(finding.remedy for finding in findings if finding.grade != Grade.GOOD.value)
    assert not any(finding.remedy for finding in findings if finding.grade == Grade.GOOD.value)


def test_memory_file_systems_are_noted() -> None:
    shared = Path("/dev/shm")
    if doctor_disk.file_system_type(shared) != "tmpfs":
        pytest.skip("no tmpfs at /dev/shm")
    found = _by_check(list(disk(shared, None)))
    assert found["file system"].grade == "note"
    assert "does not survive a restart" in found["file system"].remedy


@pytest.mark.parametrize(
    ("kind", "options", "check", "grade", "remedy"),
    [
        ("nfs4", ("rw",), "file system", "bad", "local disk"),
        ("overlay", ("rw",), "file system", "note", "mount a volume"),
        ("vfat", ("rw",), "file system", "note", "no journal"),
        ("ext4", ("ro",), "mount options", "bad", "remount,rw"),
        ("ext4", ("rw", "nobarrier"), "mount options", "bad", "without nobarrier"),
        ("ext4", ("rw", "sync"), "mount options", "note", "without sync"),
    ],
)
def test_file_systems_and_options_that_lose_data_or_time_are_told(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    options: tuple[str, ...],
    check: str,
    grade: str,
    remedy: str,
) -> None:
    monkeypatch.setattr(doctor_disk, "mount_of", lambda _: Mount("/data", kind, options))
    monkeypatch.setattr(doctor_disk, "SYNCS", 3)
    finding = _by_check(list(disk(tmp_path, None)))[check]
    assert finding.grade == grade
    assert remedy in finding.remedy


def test_a_size_to_keep_that_the_disk_cannot_hold_is_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor_disk, "SYNCS", 3)
    assert _by_check(list(disk(tmp_path, 1 << 20)))["free space"].grade == "good"
    (tmp_path / "node.toml").write_text('[node]\nname = "x"\n[log]\nkeep_size = "900000TiB"\n')
    finding = _by_check(list(examine(tmp_path / "node.toml")))["free space"]
    assert finding.grade == "note"
    assert "keep_size" in finding.remedy


def test_a_clock_in_1970_or_behind_2038_is_bad(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _by_check(list(clock()))["clock"].grade == "good"
    for moment in (1000.0, 2_150_000_000.0):
        monkeypatch.setattr(doctor_machine.time, "time", lambda moment=moment: moment)
        assert _by_check(list(clock()))["clock"].grade == "bad"


def test_the_kernel_tells_how_far_its_clock_is_off() -> None:
    state = kernel_clock()
    if state is None:
        pytest.skip("adjtimex is not permitted here")
    assert state[1] >= 0


def test_a_time_zone_that_is_not_known_is_bad_where_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [finding.grade for finding in time_zones("Europe/Berlin")] == ["good"]
    assert [finding.grade for finding in time_zones("Mars/Olympus")] == ["bad"]


def test_a_log_tells_who_has_it_open(tmp_path: Path) -> None:
    log = open_log(tmp_path)
    assert f"open in process {os.getpid()}" in _by_check(list(state_of_log(tmp_path)))["log"].found
    log.close()
    assert "not open" in _by_check(list(state_of_log(tmp_path)))["log"].found


def test_losses_in_the_ledger_and_unfinished_files_are_noted(tmp_path: Path) -> None:
    with open_log(tmp_path) as log:
        claim = log.claim("a")
        for number in range(5):
            log.append([reading_batch(10)], claim=claim, sequence=number)
    segment = tmp_path / "0000000001.seg"
    raw = bytearray(segment.read_bytes())
    raw[len(raw) // 2] ^= 1
    segment.write_bytes(raw)
    for path in tmp_path.glob("*.ckp"):
        path.unlink()
    open_log(tmp_path).close()
    (tmp_path / "state-9.ckp.tmp").touch()
    found = _by_check(list(state_of_log(tmp_path)))
    assert "quarantined" in found["ledger"].found
    assert "segment 1, bytes" in found["ledger"].found
    assert "log verify" in found["ledger"].remedy
    assert found["unfinished files"].grade == "note"


def test_data_that_arrived_in_the_future_is_noted(tmp_path: Path) -> None:
    class Ahead:
        def wall_ns(self) -> int:
            return time.time_ns() + 3_600 * 10**9

        def elapsed_ns(self) -> int:
            return time.clock_gettime_ns(time.CLOCK_BOOTTIME)

    with open_log(tmp_path, clock=Ahead()) as log:
        log.append([reading_batch(1)], claim=log.claim("a"), sequence=1)
    assert "ahead of the clock" in _by_check(list(state_of_log(tmp_path)))["newest arrival"].found


def test_a_log_of_a_newer_format_is_bad(tmp_path: Path) -> None:
    open_log(tmp_path).close()
    path = tmp_path / "0000000001.seg"
    raw = bytearray(path.read_bytes())
    struct.pack_into("<H", raw, 8, 2)
    struct.pack_into("<I", raw, 12, 0)
    struct.pack_into("<I", raw, 12, crc32c(bytes(raw[:64])))
    path.write_bytes(raw)
    assert _by_check(list(state_of_log(tmp_path)))["log state"].grade == "bad"


def test_a_configuration_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="expected a configuration file or a directory"):
        list(examine(tmp_path / "absent.toml"))
    (tmp_path / "wrong.toml").write_text("[node]\n")
    with pytest.raises(Refusal, match="the configuration has one problem"):
        list(examine(tmp_path / "wrong.toml"))


def test_low_limits_are_told_by_the_command_and_its_status(tmp_path: Path) -> None:
    command = (
        f"ulimit -n 256; ulimit -f 1000; exec {sys.executable} -m ringmain.cli.main doctor {tmp_path} --json"
    )
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 1
    found = {row["check"]: row for row in json.loads(done.stdout)}
    assert found["open files"]["grade"] == "note"
    assert "LimitNOFILE" in found["open files"]["remedy"]
    assert found["file size"]["grade"] == "bad"
