"""The matrix of docs/durability.md is whole, and the committed page is the one that a run would write."""

from __future__ import annotations

import os

import pytest

from tests.promises import (
    BEGIN,
    CANNOT_HAPPEN,
    END,
    PAGE,
    REPOSITORY,
    Fault,
    Part,
    matrix,
    promises_in_tree,
    promises_of,
    with_matrix,
)

pytest_plugins = ["pytester"]


def test_every_cell_has_a_test_or_a_reason_and_none_has_both() -> None:
    found = {(Fault[one.fault], Part[one.part]) for one in promises_in_tree()}
    cells = {(fault, part) for fault in Fault for part in Part}
    assert found | set(CANNOT_HAPPEN) == cells
    assert not found & set(CANNOT_HAPPEN)
    assert all(reason for reason in CANNOT_HAPPEN.values())


def test_the_committed_page_is_the_one_that_the_run_writes() -> None:
    page = PAGE.read_text(encoding="utf-8")
    expected = with_matrix(page, promises_in_tree())
    if os.environ.get("CI"):
        assert page == expected, "run the tests and commit docs/durability.md"
    else:  # this run writes it at its end
        assert page.partition(BEGIN)[0] == expected.partition(BEGIN)[0]


def test_the_files_that_the_page_names_are_there() -> None:
    for one in promises_in_tree():
        assert (REPOSITORY / one.file).is_file()
        assert one.happens.endswith("."), f"{one.test}: a promise is a sentence"


def test_a_cell_with_neither_test_nor_reason_is_named() -> None:
    with pytest.raises(ValueError, match=r"expected a test with @promise\(Fault\.KILL, Part\.JOURNAL"):
        matrix([])


def test_a_page_without_its_marks_is_refused() -> None:
    with pytest.raises(ValueError, match="expected the lines"):
        with_matrix("# Durability", [])


_TEST = """
from tests.promises import Fault, Part, promise
import pytest

@promise(Fault.KILL, (Part.JOURNAL, Part.POSITIONS), "All is there.")
@pytest.mark.parametrize("number", [1, 2])
def test_kept(number):
    assert number

@promise(Fault.DISK_FULL, Part.JOURNAL, "It waits.")
def test_other():
    assert {other}
"""


@pytest.mark.parametrize(
    ("passes", "processes"), [(True, []), (False, []), (True, ["-p", "xdist.plugin", "-n", "2"])]
)
def test_a_run_writes_the_page_when_every_promise_was_kept(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, processes: list[str], passes: bool
) -> None:
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    tests = pytester.mkdir("tests")
    (tests / "test_it.py").write_text(_TEST.format(other=passes))
    page = pytester.path / "page.md"
    page.write_text(f"# A page\n\n{BEGIN}\n{END}\nThe end.\n")
    reasons = ", ".join(
        f"(Fault.{fault.name}, Part.{part.name}): 'why'"
        for fault in Fault
        for part in Part
        if (fault.name, part.name)
        not in {("KILL", "JOURNAL"), ("KILL", "POSITIONS"), ("DISK_FULL", "JOURNAL")}
    )
    pytester.makeconftest(
        f"""
        import sys
        from pathlib import Path

        sys.path.insert(0, {str(REPOSITORY)!r})
        from tests import promises
        from tests.promises import Fault, Part

        promises.REPOSITORY = Path(__file__).parent
        promises.PAGE = promises.REPOSITORY / "page.md"
        promises.CANNOT_HAPPEN = {{{reasons}}}
        promises.promises_in_tree.__defaults__ = (promises.REPOSITORY / "tests",)
        pytest_plugins = ["tests.promises"]
        """
    )
    result = pytester.runpytest_subprocess("tests", "-p", "no:cacheprovider", *processes)
    result.assert_outcomes(passed=3 if passes else 2, failed=0 if passes else 1)
    text = page.read_text()
    assert text.endswith(f"{END}\nThe end.\n")
    assert ("| journal | All is there. | [`test_kept`](../tests/test_it.py) |" in text) is passes
    assert ("| positions | All is there. | [`test_kept`](../tests/test_it.py) |" in text) is passes
    assert ("page.md: the matrix was written anew" in result.stdout.str()) is passes


@pytest.mark.parametrize(
    "mark", ['@promise(Fault.NO_SUCH, Part.JOURNAL, "x.")', "@promise(Fault.KILL)", "@promise(1, 2, 3)"]
)
def test_a_mark_that_is_no_promise_is_told_with_its_place(mark: str) -> None:
    with pytest.raises(ValueError, match=r"tests/test_it\.py:1: expected"):
        list(promises_of(REPOSITORY / "tests" / "test_it.py", f"{mark}\ndef test_it(): ..."))
