"""`join`, one row after the other."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from ringmain.flows.grouping import Term, terms_of
from ringmain.flows.steps.join import JoinSettings, Unmatched, Versions

SECOND = 1_000_000_000
Known = Mapping[int, Mapping[str, str | None]]
Key = tuple[str | int | None, ...]


@dataclass
class Version:
    key: Key
    time: int
    until: int
    row: dict[str, Any]


class Reference:
    """`rows`: what the file holds, with `valid_from` and `valid_to` in ns. `added`: new name -> other column."""

    def __init__(
        self,
        settings: JoinSettings,
        known: Known,
        rows: Sequence[Mapping[str, Any]] | None = None,
        added: Mapping[str, str] | None = None,
        time: str = "time",
    ) -> None:
        self.settings = settings
        self.known = known
        self.time = time
        self.added = {"label": "label", "number": "number"} if added is None else added
        self.terms: tuple[Term, ...] = () if settings.by_series else terms_of(settings.on)
        self.versions: list[Version] = []
        self.held: list[tuple[int, dict[str, Any]]] = []
        self.others: list[dict[str, Any]] = []
        self.now = -(2**63)
        if settings.file is not None:
            for row in FILE_ROWS if rows is None else rows:
                key = tuple(row[term.name] for term in self.terms)
                self.versions.append(
                    Version(key, row.get("valid_from", -(2**63)), row.get("valid_to") or 2**63, dict(row))
                )

    def take(self, row: dict[str, Any], now_ns: int) -> list[dict[str, Any]]:
        if self.settings.file is not None:
            return self.join(row)
        self.held.append((self.now, row))
        return []

    def take_other(self, row: dict[str, Any]) -> None:
        self.others.append(row)

    def advance(self, now_ns: int) -> list[dict[str, Any]]:
        for row in self.others:
            key = self.key_of_other(row)
            if None not in key:
                time = row[self.time] if self.settings.versions is Versions.TIME else 0
                self.versions.append(Version(key, time, 2**63, row))
        self.others.clear()
        out, waiting = [], []
        for moment, row in self.held:
            key = self.key(row)
            newest = max((version.time for version in self.versions if version.key == key), default=-(2**63))
            if now_ns - moment >= self.settings.wait_ns or None in key or time_of(row) <= newest:
                out += self.join(row)
            else:
                waiting.append((moment, row))
        self.held = waiting
        self.now = now_ns
        return out

    def key(self, row: dict[str, Any]) -> Key:
        if self.settings.by_series:
            return (row["series"],)
        return tuple(self.text(term, row) for term in self.terms)

    def text(self, term: Term, row: dict[str, Any]) -> str | None:
        if term.source in row:
            return term.part(row[term.source])
        return term.part(self.known.get(row["series"], {}).get(term.attribute))

    def key_of_other(self, row: dict[str, Any]) -> Key:
        if self.settings.by_series:
            return (row["series"],)
        return tuple(self.text(Term(term.name, term.name), row) for term in self.terms)

    def join(self, row: dict[str, Any]) -> list[dict[str, Any]]:
        key, found = self.key(row), None
        time = time_of(row) if self.settings.versions is Versions.TIME else 0
        for version in self.versions:
            if version.key == key and version.time <= time and (found is None or version.time >= found.time):
                found = version
        tolerance = self.settings.tolerance_ns
        if (
            found is None
            or None in key
            or time >= found.until
            or (tolerance is not None and time - found.time > tolerance)
        ):
            if self.settings.unmatched is Unmatched.DROP:
                return []
            if self.settings.unmatched is Unmatched.SIDE:
                return [{**row, "stream": "out.unmatched"}]
            return [{**row, **dict.fromkeys(self.added)}]
        return [{**row, **{name: found.row[other] for name, other in self.added.items()}}]


def time_of(row: Mapping[str, Any]) -> int:
    """Of a window its start."""
    time: int = row["time"] if "time" in row else row["start"]
    return time


START = 1_750_000_000 * SECOND
FILE_ROWS: list[dict[str, Any]] = [
    {
        "place": "area/a",
        "medium": "electricity",
        "label": "x",
        "number": 1.5,
        "valid_from": START - 500 * SECOND,
    },
    {
        "place": "area/a",
        "medium": "electricity",
        "label": "y",
        "number": 2.5,
        "valid_from": START + 5 * SECOND,
    },
    {
        "place": "area/b",
        "medium": "gas",
        "label": None,
        "number": 3.5,
        "valid_from": START,
        "valid_to": START + 8 * SECOND,
    },
]


def csv_file(directory: Path, rows: Sequence[Mapping[str, Any]] = FILE_ROWS) -> Path:
    """The rows as CSV, times as UTC to the ns."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = [",".join(names), *(",".join(_text(name, row.get(name)) for name in names) for row in rows)]
    path = directory / "reference.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def _text(name: str, value: Any) -> str:
    if value is None:
        return ""
    if name.startswith("valid_"):
        from datetime import UTC, datetime

        return datetime.fromtimestamp(value // SECOND, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return str(value)


def settings() -> st.SearchStrategy[JoinSettings]:
    path = csv_file(Path(tempfile.mkdtemp(prefix="ringmain-join-")))
    return st.builds(
        JoinSettings,
        file=st.just(str(path)),
        on=st.sampled_from([("place",), ("place", "medium")]),
        columns=st.just(("label", "number")),
        tolerance=st.sampled_from([None, "4s", "600s"]),
        unmatched=st.sampled_from(list(Unmatched)),
    )
