"""The command line as a user meets it: help with examples, wrong usage, benchmark rows, password files."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ringmain.cli.doctor import examine, file_system_type
from ringmain.log import open_log
from ringmain.sources.mqtt_auth import Passwords

COMMANDS = [
    "demo",
    "run",
    "lint",
    "schema",
    "test",
    "replay",
    "sql",
    "tap",
    "log",
    "password",
    "doctor",
    "bench",
]


def ringmain(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ringmain.cli.main", *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=280,
        check=False,
    )


def test_help_names_every_command() -> None:
    shown = ringmain("--help")
    assert shown.returncode == 0
    assert all(f"  {command} " in shown.stdout for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_each_command_has_examples(command: str) -> None:
    shown = ringmain(command, "--help")
    assert shown.returncode == 0
    assert "Example" in shown.stdout
    assert f"ringmain {command}" in shown.stdout.partition("Example")[2]


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["sql"],
        ["run"],
        ["log", "read", "--data"],
        ["sql", "select 1", "--format", "xml"],
        ["tap", "--limit", "0"],
    ],
)
def test_wrong_usage_is_one_plain_message_and_status_2(arguments: list[str]) -> None:
    refused = ringmain(*arguments)
    assert refused.returncode == 2
    assert refused.stdout == ""
    assert refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.parametrize(
    ("typed", "meant"), [("sqll", "'sql'"), ("verify", "'log verify'"), ("xyz", "one of demo, run")]
)
def test_a_command_that_does_not_exist_is_answered_with_the_nearest(typed: str, meant: str) -> None:
    assert meant in ringmain(typed).stderr


def test_a_reader_that_goes_away_ends_a_command_quietly_and_with_status_0(tmp_path: Path) -> None:
    with open_log(tmp_path / "data"):
        pass
    query = "select repeat('x', 1000) from range(5000)"
    with subprocess.Popen(
        [sys.executable, "-m", "ringmain.cli.main", "sql", query, "--data", str(tmp_path / "data")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        assert running.stdout.read(10)
        running.stdout.close()
        assert running.stderr.read() == b""
        assert running.wait(60) == 0


def test_a_data_directory_that_cannot_be_made_is_told_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    (tmp_path / "node.toml").write_text('[node]\nname = "x"\n')
    refused = ringmain("run", str(tmp_path / "node.toml"))
    assert refused.returncode == 1
    assert "expected a directory that this process may write" in refused.stderr
    assert "`data` under [node]" in refused.stderr


def test_a_configuration_error_names_file_line_and_what_was_expected(tmp_path: Path) -> None:
    (tmp_path / "node.toml").write_text('[node]\nname = "x"\ntimezone = "Mars/Olympus"\n')
    for command in ("run", "lint"):
        refused = ringmain(command, "node.toml", cwd=tmp_path)
        assert refused.returncode == 1
        assert "node.toml:3: node.timezone: expected an IANA time zone" in refused.stderr
        assert "Traceback" not in refused.stderr


def test_a_benchmark_row_has_what_the_contract_names() -> None:
    done = ringmain("bench", "idle", "--quick", "--json")
    assert done.returncode == 0, done.stderr
    (row,) = [json.loads(line) for line in done.stdout.splitlines()]
    assert row["name"] == "idle"
    assert row["value"] < 100
    assert {"unit", "seconds", "durability", "machine", "goal"} <= set(row)


def test_an_unknown_benchmark_is_answered_with_those_there_are() -> None:
    refused = ringmain("bench", "nothing")
    assert refused.returncode == 1
    for name in ("append", "idle", "live", "memory", "mqtt-listener", "reopen"):
        assert name in refused.stderr


def test_a_password_file_holds_hashes_that_the_listener_accepts(tmp_path: Path) -> None:
    file = tmp_path / "passwords.txt"
    for user, password in (("meter-1", "first"), ("meter-2", "other"), ("meter-1", "second")):
        assert ringmain("password", str(file), user, "--password", password).returncode == 0
    text = file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600
    assert "second" not in text
    assert sorted(line.partition(":")[0] for line in text.splitlines()) == ["meter-1", "meter-2"]
    passwords = Passwords(file)
    assert passwords.verify("meter-1", b"second")
    assert not passwords.verify("meter-1", b"first")


def test_a_password_comes_from_standard_input_and_the_file_keeps_its_mode(tmp_path: Path) -> None:
    file = tmp_path / "passwords.txt"
    file.touch(mode=0o640)
    file.chmod(0o640)
    typed = subprocess.run(
        [sys.executable, "-m", "ringmain.cli.main", "password", str(file), "meter-1"],
        input="secret\n",
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (typed.returncode, typed.stderr) == (0, "")
    assert file.stat().st_mode & 0o777 == 0o640
    assert Passwords(file).verify("meter-1", b"secret")


def test_a_password_file_that_cannot_be_written_is_one_plain_message(tmp_path: Path) -> None:
    refused = ringmain("password", str(tmp_path / "nowhere" / "p.txt"), "meter-1", "--password", "x")
    assert refused.returncode == 1
    assert "expected a file that can be written, found: No such file or directory" in refused.stderr


def test_the_doctor_leaves_no_file_behind_and_knows_the_file_system(tmp_path: Path) -> None:
    findings = {finding.check: finding for finding in examine(tmp_path / "not" / "yet")}
    assert list(tmp_path.iterdir()) == []
    assert findings["fdatasync"].found.startswith("median ")
    assert file_system_type(tmp_path) in findings["file system"].found
    assert all(finding.remedy for finding in findings.values() if finding.grade == "bad")


@pytest.mark.parametrize(("command", "status"), [("verify", 1), ("account", 2)])
def test_a_log_is_named_as_an_argument_or_with_data_which_say_the_same(
    command: str, status: int, tmp_path: Path
) -> None:
    open_log(tmp_path / "data").close()
    here = str(tmp_path / "data")
    for arguments in ([here], ["--data", here], [here, "--data", here]):
        assert ringmain("log", command, *arguments).returncode == 0, arguments
    refused = ringmain("log", command, here, "--data", str(tmp_path))
    assert refused.returncode == status
    assert (
        f"expected one directory, found {here} and --data {tmp_path}: leave one of them out"
        in refused.stderr.replace("\n", " ")
    )


@pytest.mark.parametrize(
    ("arguments", "status"), [(["account"], 2), (["streams", "--data"], 1), (["verify"], 2)]
)
def test_a_directory_that_is_no_log_is_not_said_to_add_up(
    arguments: list[str], status: int, tmp_path: Path
) -> None:
    (tmp_path / "demo").mkdir()
    refused = ringmain("log", *arguments, str(tmp_path))
    assert refused.returncode == status
    assert "expected the directory of a log" in refused.stderr
    assert not refused.stdout
