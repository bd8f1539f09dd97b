"""Which files a case has, and where they lie.

A case is a directory:

    flow.toml            a node's configuration; what it says of sources, server and data is not used
    series.csv           what is known of series, beside (and before) the file that the configuration names
    input.csv            rows in the order of their arrival; further streams in input.STREAM.csv
    expected.csv         what the flow gives; of several streams each in its expected.STREAM.csv
    case.toml            optional: another configuration, other settings of the test (`CaseSettings`)
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec

from ringmain.model.duration import parse_duration

FLOW_FILE = "flow.toml"
CASE_FILE = "case.toml"
SERIES_FILE = "series.csv"
INPUT = "input"
EXPECTED = "expected"
FILE_BYTES_MAX = 1 << 30
TICKS_MAX = 10_000_000
"""Ticks of one case: beyond that `tick` has to be longer."""


class CaseError(ValueError):
    """A case cannot be run; the message says where (file and line), what was expected and found, and what to do."""


class CaseSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`case.toml`: how a case is run, where that is not as usual."""

    config: Annotated[
        str, msgspec.Meta(description="the node's configuration, relative to the case: its flows are tested")
    ] = FLOW_FILE
    flows: Annotated[
        tuple[str, ...] | None, msgspec.Meta(description="names of the flows to run; all, if it is not given")
    ] = None
    streams: Annotated[
        tuple[str, ...] | None,
        msgspec.Meta(description="streams to compare; all that the flows write, if it is not given"),
    ] = None
    tail: Annotated[
        str, msgspec.Meta(description="how long log time goes on after the last arrival, with ticks")
    ] = "10m"
    tick: Annotated[
        str,
        msgspec.Meta(description="time between two ticks; a node writes one a second, long cases may use 1m"),
    ] = "1s"
    tolerance: Annotated[
        float,
        msgspec.Meta(description="relative difference of two numbers that counts as none", ge=0, le=0.1),
    ] = 1e-9

    def durations(self, path: Path) -> tuple[int, int]:
        """`tail` and `tick` in ns. Raises CaseError."""
        found = []
        for key in ("tail", "tick"):
            try:
                found.append(parse_duration(getattr(self, key)))
            except ValueError as error:
                raise CaseError(f"{path}: {key}: {error}") from None
        if found[1] <= 0:
            raise CaseError(f"{path}: tick: expected more than 0s, found {self.tick}")
        return found[0], found[1]


@dataclass(frozen=True, slots=True)
class Case:
    """A case on the disk. `name` is for people: its directory as it was found."""

    directory: Path
    settings: CaseSettings

    @property
    def name(self) -> str:
        """The directory."""
        return str(self.directory)

    @property
    def config(self) -> Path:
        """The node's configuration."""
        return self.directory / self.settings.config

    def inputs(self) -> list[Path]:
        """Files of input: `input.csv` first, then by name."""
        found = sorted(self.directory.glob(f"{INPUT}.*.csv"))
        first = self.directory / f"{INPUT}.csv"
        return [first, *found] if first.is_file() else found

    def expectations(self, streams: list[str], main: list[str]) -> dict[str, Path]:
        """The file of each stream. `expected.csv` is that of the only one of `main`; it may have its long name."""
        paths = {name: self.directory / f"{EXPECTED}.{name}.csv" for name in streams}
        short = self.directory / f"{EXPECTED}.csv"
        if len(main) == 1 and not paths.get(main[0], short).is_file():
            paths[main[0]] = short
        return paths

    def unused(self, used: dict[str, Path]) -> list[Path]:
        """Files of expectation that belong to no stream."""
        known = {path.name for path in used.values()}
        return [path for path in sorted(self.directory.glob(f"{EXPECTED}*.csv")) if path.name not in known]


def open_case(directory: Path) -> Case:
    """The case in a directory. Raises CaseError."""
    path = directory / CASE_FILE
    settings = CaseSettings()
    if path.is_file():
        try:
            settings = msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), CaseSettings)
        except (UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
            raise CaseError(f"{path}: {error}") from None
    settings.durations(path)
    case = Case(directory, settings)
    if not case.config.is_file():
        raise CaseError(
            f"{case.config}: no such file: a case has the node's configuration in {FLOW_FILE}, or names it in {CASE_FILE}"
        )
    if not case.inputs():
        raise CaseError(
            f"{directory}: expected a file {INPUT}.csv, found none: it holds the rows that arrive "
            "(series,time,value), see docs/testing-flows.md"
        )
    return case


def find_cases(path: Path) -> list[Path]:
    """The directories of cases at or below a path, or the one whose file it is. Raises CaseError if there is none."""
    if path.is_file():
        if path.name in (FLOW_FILE, CASE_FILE):
            return [path.parent]
        raise CaseError(f"{path}: expected a case's directory, its {FLOW_FILE} or its {CASE_FILE}")
    if not path.is_dir():
        raise CaseError(f"{path}: no such directory")
    found = {file.parent for name in (FLOW_FILE, CASE_FILE) for file in path.rglob(name)}
    if not found:
        raise CaseError(
            f"{path}: no case at or below it: expected a directory with {FLOW_FILE} or {CASE_FILE}, and {INPUT}.csv"
        )
    return sorted(found)
