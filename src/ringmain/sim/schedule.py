"""Which faults are injected, when, and into what: the demo's visible programme.

A schedule is a function of the length of the run. A run of 90 s or more (and one without end) follows
`_PROGRAMME` in its own seconds; a shorter one is compressed in proportion. A run without end repeats the
programme every `CYCLE_S`, with the substation offline for a whole minute. Times count from the start of the
simulation and are meant in the devices' own measuring times, so that the same seed and start give the same
readings.
"""

from __future__ import annotations

import math
from enum import StrEnum

import msgspec

PROGRAMME_S = 90.0
CYCLE_S = 180.0
OFFLINE_SUBSTATION = "ss-02"


class FaultKind(StrEnum):
    """What goes wrong."""

    DUPLICATES = "duplicates"
    OUT_OF_ORDER = "out-of-order"
    LATE = "late"
    REVISIONS = "revisions"
    CLOCK_AHEAD = "clock-ahead"
    BOOT_1970 = "boot-1970"
    MALFORMED = "malformed"
    SILENT = "silent"
    OFFLINE = "offline"


class Fault(msgspec.Struct, frozen=True):
    """One line of the programme, in seconds from the start (of each cycle, where the schedule repeats).

    `release_s`: when that which was held back is sent. `share` of the tamperable meters takes part.
    """

    kind: FaultKind
    start_s: float
    end_s: float
    what: str
    share: float = 0.0
    release_s: float | None = None

    @property
    def last_s(self) -> float:
        """When the fault is over, held-back readings included."""
        return self.end_s if self.release_s is None else max(self.end_s, self.release_s)


class Schedule(msgspec.Struct, frozen=True):
    """The faults of a run. `cycle_s` is 0 where the programme runs once."""

    faults: tuple[Fault, ...]
    seconds: float | None
    cycle_s: float

    def place_in_cycle(self, since_start_s: float) -> tuple[int, float]:
        """Which repetition an instant belongs to, and the second within it."""
        if not self.cycle_s:
            return 0, since_start_s
        return int(since_start_s // self.cycle_s), since_start_s % self.cycle_s

    def table(self) -> str:
        """The programme as text, one fault a line."""
        rows = [("from", "to", "fault", "what happens")]
        rows += [(_clock(f.start_s), _clock(f.last_s), str(f.kind), f.what) for f in self.faults]
        widths = [max(len(row[i]) for row in rows) for i in range(3)]
        lines = ["  ".join([*(c.ljust(w) for c, w in zip(r, widths, strict=False)), r[3]]) for r in rows]
        if self.cycle_s:
            lines.append(f"(repeats every {self.cycle_s:g} s)")
        return "\n".join(lines)


_PROGRAMME = (
    Fault(FaultKind.LATE, 6, 9, "meters hold their readings back until the window has closed", 0.03, 82),
    Fault(FaultKind.DUPLICATES, 8, 16, "meters send every message twice", 0.05),
    Fault(FaultKind.SILENT, 15, 60, "meters say nothing", 0.01),
    Fault(FaultKind.OUT_OF_ORDER, 18, 26, "meters send every other reading after its successor", 0.05),
    Fault(FaultKind.MALFORMED, 20, 70, "messages that are no readings, eleven kinds", 0.05),
    Fault(FaultKind.REVISIONS, 27, 30, "meters correct what they sent", 0.03, 50),
    Fault(FaultKind.CLOCK_AHEAD, 32, 46, "meters' clocks are an hour ahead", 0.01),
    Fault(FaultKind.BOOT_1970, 36, 42, "meters boot in 1970 until they learn the date", 0.01),
    Fault(
        FaultKind.OFFLINE, 40, 65, f"substation {OFFLINE_SUBSTATION} is cut off, then sends everything", 0.0
    ),
)


def build_schedule(seconds: float | None) -> Schedule:
    """The schedule of a run of so many seconds; None: of one without end. Raises ValueError below 5 s."""
    if seconds is None:
        faults = tuple(
            msgspec.structs.replace(f, start_s=50.0, end_s=110.0) if f.kind == FaultKind.OFFLINE else f
            for f in _PROGRAMME
        )
        return Schedule(faults, None, CYCLE_S)
    if not (math.isfinite(seconds) and seconds >= 5):
        raise ValueError(f"expected a run of at least 5 seconds, found {seconds}")
    factor = min(1.0, seconds / PROGRAMME_S)
    faults = tuple(
        msgspec.structs.replace(
            f,
            start_s=round(f.start_s * factor, 3),
            end_s=round(f.end_s * factor, 3),
            release_s=None if f.release_s is None else round(f.release_s * factor, 3),
        )
        for f in _PROGRAMME
    )
    return Schedule(faults, seconds, 0.0)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(seconds, 60)
    return f"{int(minutes):02d}:{rest:04.1f}"
