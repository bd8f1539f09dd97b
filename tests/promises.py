"""What each fault does to each part, and which test shows it: collected from the tests, written to docs/durability.md.

A test says what it shows with `@promise(Fault.KILL, Part.JOURNAL, "what happens")`; several such marks are fine. A cell of
the matrix that no test can show has its reason in `CANNOT_HAPPEN`. At the end of a run in which every marked test of the
tree has passed, `Book` writes the matrix into the page, so that the page says what was seen and nothing else. In CI
nothing is written: there `tests/test_promises.py` fails when the committed page is another.
"""

from __future__ import annotations

import ast
import contextlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).parents[1]
PAGE = REPOSITORY / "docs" / "durability.md"
BEGIN = "<!-- written by the test run from here on: see tests/promises.py -->"
END = "<!-- written by the test run up to here -->"
_PROPERTY = "promise"


class Fault(Enum):
    """What goes wrong. The value is its title."""

    KILL = "`kill -9`"
    POWER_CUT = "Power cut, with torn and reordered writes"
    DISK_FULL = "Disk full"
    WRITE_ERROR = "EIO on write"
    SYNC_ERROR = "EIO on sync"
    BIT_FLIP = "Bit flip, unreadable block"
    CLOCK_STEP = "Clock steps"
    BOOT_1970 = "Boot in 1970"
    TWO_NODES = "Two nodes on one directory"
    CLONED_BOX = "Cloned box"
    RESTORED_BACKUP = "Restored backup"


class Part(Enum):
    """What it happens to. The value is its title."""

    JOURNAL = "journal"
    POSITIONS = "positions"
    CATALOGUE = "catalogue"
    SNAPSHOTS = "snapshots"
    READERS = "readers"


CANNOT_HAPPEN: dict[tuple[Fault, Part], str] = {}
"""Cells without a test: why nothing can happen there."""


def promise(
    fault: Fault | tuple[Fault, ...], part: Part | tuple[Part, ...], happens: str
) -> pytest.MarkDecorator:
    """Mark a test: it shows what happens to the part (or each of the parts) under the fault (or each of them)."""
    return pytest.mark.promise(_several(fault), _several(part), happens)


def _several(one: Any) -> tuple[Any, ...]:
    return one if isinstance(one, tuple) else (one,)


@dataclass(frozen=True, slots=True, order=True)
class Promise:
    """One cell's sentence and the test that shows it: names of the enums' members, file relative to the repository."""

    fault: str
    part: str
    happens: str
    file: str
    test: str


# -- what the files say ----------------------------------------------------------------------------------------


def promises_in_tree(directory: Path = REPOSITORY / "tests") -> set[Promise]:
    """Every promise that the test files make, read without importing them. Raises ValueError for what is no promise."""
    found: set[Promise] = set()
    for path in sorted(directory.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if "@promise(" in text and path != Path(__file__):
            found.update(promises_of(path, text))
    return found


def promises_of(path: Path, text: str) -> Iterator[Promise]:
    """The promises of one test file. Raises ValueError."""
    file = path.relative_to(REPOSITORY).as_posix()
    for function in ast.walk(ast.parse(text)):
        if not isinstance(function, ast.FunctionDef):
            continue
        for decorator in function.decorator_list:
            if not (isinstance(decorator, ast.Call) and getattr(decorator.func, "id", "") == "promise"):
                continue
            if len(decorator.args) != 3 or decorator.keywords:
                raise ValueError(f"{file}:{decorator.lineno}: expected @promise(fault, part, what happens)")
            faults, parts, happens = (_value(file, argument) for argument in decorator.args)
            yield from _each(faults, parts, happens, file, function.name)


def _value(file: str, node: ast.expr) -> Any:
    """The value of an argument: a member of `Fault` or `Part`, a tuple of them, or a text."""
    if isinstance(node, ast.Tuple):
        return tuple(_value(file, element) for element in node.elts)
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        enum = {"Fault": Fault, "Part": Part}.get(node.value.id)
        if enum is not None and node.attr in enum.__members__:
            return enum[node.attr]
    raise ValueError(f"{file}:{node.lineno}: expected a Fault, a Part, a tuple of them or a text")


def _each(faults: Any, parts: Any, happens: str, file: str, test: str) -> Iterator[Promise]:
    for fault in _several(faults):
        for part in _several(parts):
            yield Promise(fault.name, part.name, happens, file, test)


# -- the page --------------------------------------------------------------------------------------------------


def matrix(promises: Iterable[Promise]) -> str:
    """The matrix as the page has it. Raises ValueError for a cell with neither a test nor a reason."""
    cells: dict[tuple[Fault, Part], dict[str, list[Promise]]] = {}
    for one in sorted(promises):
        cell = cells.setdefault((Fault[one.fault], Part[one.part]), {})
        cell.setdefault(one.happens, []).append(one)
    lines = [*_overview(cells), ""]
    for fault in Fault:
        lines += [f"### {fault.value}", "", "| part | what happens | shown by |", "|---|---|---|"]
        for part in Part:
            lines += _rows(fault, part, cells.get((fault, part), {}))
        lines.append("")
    return "\n".join(lines)


def _overview(cells: dict[tuple[Fault, Part], dict[str, list[Promise]]]) -> Iterator[str]:
    """How many tests show each cell."""
    yield f"| tests | {' | '.join(part.value for part in Part)} |"
    yield "|---|" + "---|" * len(Part)
    for fault in Fault:
        counts = [
            len({one.test for shown in cells.get((fault, part), {}).values() for one in shown})
            for part in Part
        ]
        yield f"| {fault.value} | {' | '.join(str(count or 'cannot happen') for count in counts)} |"


def _rows(fault: Fault, part: Part, cell: dict[str, list[Promise]]) -> Iterator[str]:
    name = part.value
    if not cell:
        if (fault, part) not in CANNOT_HAPPEN:
            raise ValueError(
                f"{fault.value} x {name}: expected a test with @promise(Fault.{fault.name}, Part.{part.name}, ...) "
                "or a reason in CANNOT_HAPPEN, found neither"
            )
        yield f"| {name} | Cannot happen: {CANNOT_HAPPEN[fault, part]} | |"
    for happens, shown in cell.items():
        links = "<br>".join(f"[`{one.test}`](../{one.file})" for one in shown)
        yield f"| {name} | {happens} | {links} |"
        name = ""


def with_matrix(page: str, promises: Iterable[Promise]) -> str:
    """The page with the matrix of these promises between its two marks. Raises ValueError when a mark is missing."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{PAGE.name}: expected the lines {BEGIN!r} and {END!r}")
    return f"{before}{BEGIN}\n\n{matrix(promises)}\n{END}{after}"


# -- the run ---------------------------------------------------------------------------------------------------


class Book:
    """The plugin: gathers what the tests of a run promised and what became of them. Works with pytest-xdist as well."""

    def __init__(self) -> None:
        self._kept: set[Promise] = set()
        self._broken: set[tuple[str, str]] = set()
        self._made: set[Promise] = set()
        self._told = ""

    def pytest_sessionstart(self, session: pytest.Session) -> None:
        """Read what the tree promises before anybody edits it beside the run."""
        if not hasattr(session.config, "workerinput"):
            with contextlib.suppress(ValueError, SyntaxError):  # told by tests/test_promises.py
                self._made = promises_in_tree()

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Where tests are collected: promises travel with their reports, from other processes too."""
        for item in items:
            for mark in item.iter_markers(_PROPERTY):
                faults, parts, happens = mark.args
                function = item.function  # type: ignore[attr-defined]
                file = Path(function.__code__.co_filename).relative_to(REPOSITORY).as_posix()
                for one in _each(faults, parts, happens, file, function.__name__):
                    values = [one.fault, one.part, one.happens, one.file, one.test]
                    item.user_properties.append((_PROPERTY, values))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Where reports arrive."""
        for name, values in report.user_properties:
            if name == _PROPERTY:
                one = Promise(*values)
                if not report.passed:
                    self._broken.add((one.file, one.test))
                elif report.when == "call":
                    self._kept.add(one)

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Write the page when every promise of the tree was kept in this run."""
        if hasattr(session.config, "workerinput") or exitstatus or os.environ.get("CI"):
            return
        kept = {one for one in self._kept if (one.file, one.test) not in self._broken}
        if not kept or kept != self._made or not PAGE.exists():
            return
        page = PAGE.read_text(encoding="utf-8")
        written = with_matrix(page, kept)
        if written != page:
            PAGE.write_text(written, encoding="utf-8")
            self._told = f"{PAGE.relative_to(REPOSITORY)}: the matrix was written anew"

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say what was written."""
        if self._told:
            terminalreporter.write_line(self._told)


def pytest_configure(config: pytest.Config) -> None:
    """This module is the plugin: `tests/conftest.py` names it."""
    config.addinivalue_line("markers", "promise(fault, part, happens): shows a cell of docs/durability.md")
    config.pluginmanager.register(Book(), "promises")
