"""What `verify` found, in words for an operator: each problem with its place, what is concerned, and what to do."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from ringmain.log.segments import Damage


class Remedy(Enum):
    """What to do about a problem."""

    RESTORE = "nothing else is touched and the log goes on without it; to have it back, restore it from a backup or a copy"
    REBUILD = "remove the file: it is made again from the segment"
    REPLACED = "nothing: a sound older one is used, and the next checkpoint replaces it"
    REWRITTEN = "nothing: the next append writes it anew"
    REPLAY = "stop the node, move the file aside and open the log again: it is folded from the segments"
    REPORT = (
        "keep a copy of the directory and report it: the log contradicts itself, which no disk does to it"
    )
    REFOLD = "nothing: the flow folds its input again; remove the file to be rid of this line"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong. `rows`: of which streams how many are concerned, None where that is not known.

    `start`, `end`: bytes of the file; `first_lsn`, `last_lsn`: groups concerned; `known`: it is in the ledger.
    """

    where: str
    reason: str
    remedy: Remedy
    start: int | None = None
    end: int | None = None
    first_lsn: int | None = None
    last_lsn: int | None = None
    rows: dict[str, int | None] = field(default_factory=dict)
    known: bool = False

    @property
    def place(self) -> str:
        """The file and bytes, as the ledger has them."""
        return self.where if self.start is None else f"{self.where}, bytes {self.start} to {self.end}"

    def __str__(self) -> str:
        lsns = ""
        if self.first_lsn is not None:
            several = self.last_lsn is not None and self.last_lsn != self.first_lsn
            lsns = f", lsn {self.first_lsn} to {self.last_lsn}" if several else f", lsn {self.first_lsn}"
        rows = ", ".join(
            f"{'an unknown number of' if count is None else count} rows of {stream}"
            for stream, count in self.rows.items()
        )
        known = " (in the ledger)" if self.known else ""
        return f"{self.place}{lsns}: {self.reason}{f'; {rows}' if rows else ''}{known}"


@dataclass(slots=True)
class VerifyReport:
    """What `verify` found. `problems`: empty when all is well; `notes`: worth knowing, no fault."""

    segments: int = 0
    bytes: int = 0
    groups: int = 0
    frames: int = 0
    rows: dict[str, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


def legible_rows(damage: Damage, names: dict[int, str]) -> dict[str, int | None]:
    """How many rows of which streams lay in a damaged group whose headers are sound. Empty: not known."""
    rows: dict[str, int | None] = {}
    for frame in damage.frames:
        name = names.get(frame.stream)
        if name is not None:
            rows[name] = (rows.get(name) or 0) + frame.rows
    return rows
