"""The tests of the log are tested: each named mutant of it must make them fail, by an assertion."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from tests.log.mutants import DEADLINE_S, MUTANTS, Verdict

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def tried() -> Iterator[Callable[[str], Verdict]]:
    """Tries a mutant in a process of its own and gives the verdict."""
    command = [sys.executable, "-m", "tests.log.mutants"]
    with subprocess.Popen(
        command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        asking, answering, errors = process.stdin, process.stdout, process.stderr

        def ask(name: str) -> Verdict:
            asking.write(name.encode() + b"\n")
            asking.flush()
            answer = answering.readline()
            assert answer, errors.read().decode()
            return msgspec.json.decode(answer, type=Verdict)

        yield ask
        asking.close()


@pytest.mark.parametrize("name", MUTANTS)
@pytest.mark.timeout(DEADLINE_S + 60)
def test_the_tests_notice_that_the_log(tried: Callable[[str], Verdict], name: str) -> None:
    verdict = tried(name)
    assert verdict.status == pytest.ExitCode.TESTS_FAILED, f"it survived: {verdict}"
    assert verdict.asserted, f"it died of something else than an assertion: {verdict}"
    assert verdict.test.partition("[")[0] in MUTANTS[name].killers


@pytest.mark.timeout(DEADLINE_S + 60)
def test_the_same_tests_pass_with_the_log_as_it_is(tried: Callable[[str], Verdict]) -> None:
    verdict = tried("")
    assert verdict.status == pytest.ExitCode.OK, verdict


def test_there_are_at_least_ten_mutants_with_a_name_that_says_what_they_do() -> None:
    assert len(MUTANTS) >= 10
    assert {
        "acknowledges_before_the_sync",
        "skips_the_directory_sync",
        "skips_the_header_crc",
        "publishes_before_the_sync",
        "retries_a_failed_fdatasync",
        "reuses_a_position_after_a_rewind",
        "drops_the_ledger_entry_of_a_cut_tail",
    } <= set(MUTANTS)
