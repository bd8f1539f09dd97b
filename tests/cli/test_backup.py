"""`ringmain log backup` and `restore` as an operator uses them: beside a running node, and on another machine."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click.testing
import pytest
from tests.conftest import free_port, wait_until
from tests.log.batches import reading_batch
from tests.node.publisher import Publisher
from tests.node.running import RunningNode
from tests.node.stored import (
    assert_all_stored,
    assert_windows_equal_an_undisturbed_fold,
    configuration,
    wait_for_windows,
)

import ringmain
from ringmain.cli.log import log as log_commands
from ringmain.log import open_log, open_reader
from ringmain.log.backup.restored import RESTORED_NAME
from ringmain.log.check.verify import verify
from ringmain.log.interface import Position, PositionGoneError


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ringmain.cli.main", "log", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


def invoked(*arguments: object) -> click.testing.Result:
    """The command in this process, which must not become nice: without pauses."""
    pace = ["--unpaced"] if arguments[0] == "backup" else []
    return click.testing.CliRunner().invoke(log_commands, [*map(str, arguments), *pace])


def position_in(output: str) -> Position:
    found = re.search(r"up to position ([0-9a-f-]+)", output)
    assert found is not None, output
    return Position.parse(found[1])


def rows_of(directory: Path, until: Position) -> dict[str, list[bytes]]:
    with open_reader(directory) as reader:
        return {
            name: [frame.rows.serialize().to_pybytes() for frame in reader.read(name, until=until)]
            for name in ("catalogue", "readings", "readings.1m", "ticks")
        }


@pytest.mark.timeout(300)
def test_a_node_under_load_is_backed_up_and_goes_on_elsewhere_as_another_incarnation(tmp_path: Path) -> None:
    port, http = free_port(), free_port()
    text = configuration(port=port, http=http)
    old, new, place = tmp_path / "old", tmp_path / "new", tmp_path / "backup"
    publisher = Publisher(port, "p", rate=2000.0)
    with RunningNode(old, text) as node:
        publisher.start()
        wait_until(lambda: len(publisher.acknowledged) > 2000, 60, "load")
        before = list(publisher.acknowledged)
        first = command("backup", node.file, place)
        assert first.returncode == 0, first.stderr
        wait_until(lambda: len(publisher.acknowledged) > len(before) + 2000, 60, "load beside the backup")
        between = list(publisher.acknowledged)
        second = command("backup", node.file, place)
        assert second.returncode == 0, second.stderr
        publisher.finish()
        last = ringmain.open(old / "data", read_only=True).streams()
        beyond = max((one.last for one in last if one.last is not None), key=lambda one: one.offset)
        node.kill()
    end = position_in(second.stdout)
    assert position_in(first.stdout).offset < end.offset < beyond.offset
    checked = command("restore", place, "--verify-only")
    assert (checked.returncode, position_in(checked.stdout)) == (0, end), checked.stderr
    restored = command("restore", place, new / "data")
    assert restored.returncode == 0, restored.stderr
    kept = re.search(r"the node's configuration \(ringmain\.toml\) is kept as (\S+)", restored.stdout)
    assert kept is not None
    assert Path(kept[1]).read_text() == text
    report = verify(new / "data")
    assert report.sound, report.problems
    assert rows_of(new / "data", end) == rows_of(old / "data", end)
    assert_all_stored(new / "data", between, publisher.acknowledged)
    with RunningNode(new, text) as node:
        assert not (new / "data" / RESTORED_NAME).exists()
        again = Publisher(port, "q", rate=2000.0)
        again.start()
        wait_until(lambda: len(again.acknowledged) > 500, 60, "load on the restored node")
        again.finish()
        with (
            ringmain.open(new / "data", read_only=True) as log,
            pytest.raises(PositionGoneError, match="restored from the backup of"),
        ):
            list(log.read("readings", after=str(beyond)))
        wait_for_windows(new / "data")
        assert node.stop() == 0
    assert_all_stored(new / "data", [*between, *again.acknowledged], publisher.acknowledged)
    assert_windows_equal_an_undisturbed_fold(new / "data", tmp_path / "from-zero")


def test_refusals_are_one_line_with_status_1_and_wrong_usage_has_status_2(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    refusals = [
        (["backup", tmp_path / "nowhere", tmp_path / "b"], 1, "expected the directory of a log"),
        (["backup", tmp_path / "empty", tmp_path / "b"], 1, "found no segments there"),
        (["restore", tmp_path / "empty", tmp_path / "r"], 1, "found no manifest.json"),
        (["restore", tmp_path / "empty"], 2, "--verify-only"),
    ]
    for arguments, status, message in refusals:
        refused = invoked(*arguments)
        assert refused.exit_code == status
        assert message in refused.stderr
        assert isinstance(refused.exception, SystemExit)
        assert refused.stdout == ""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    directory = tmp_path / "small"
    directory.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(directory)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        reason = f"a tmpfs cannot be mounted here: {mounted.stderr.strip()}"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    yield directory
    subprocess.run(["umount", "-l", str(directory)], check=True)


def test_a_real_disk_that_is_too_small_is_told_for_the_backup_and_for_the_restore(
    tmp_path: Path, small_disk: Path
) -> None:
    with open_log(tmp_path / "data", segment_bytes=400_000) as log:
        claim = log.claim("test", 0)
        for sequence in range(25):
            log.append([reading_batch(3_000)], claim=claim, sequence=sequence)
    full = invoked("backup", tmp_path / "data", small_disk / "backup")
    assert full.exit_code == 1
    assert "no space for the backup" in full.stderr
    assert invoked("restore", small_disk / "backup", "--verify-only").exit_code == 1
    assert invoked("backup", tmp_path / "data", tmp_path / "backup").exit_code == 0
    refused = invoked("restore", tmp_path / "backup", small_disk / "data")
    assert refused.exit_code == 1
    assert "a part of a log and is not opened" in refused.stderr
