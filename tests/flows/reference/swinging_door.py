"""The swinging door with the same settings, reading by reading: each line is compared with every reading under it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from ringmain.flows.ordering_settings import Lateness
from ringmain.flows.steps.swinging_door import SwingingDoorSettings
from ringmain.model.duration import parse_duration

from .ordering import COLUMNS, OrderingReference, Row, by_time

Settings = SwingingDoorSettings
SECOND = 1_000_000_000


@dataclass
class Door:
    base: Row | None = None
    under: list[Row] = field(default_factory=list)
    """Readings since the base; the last one is held."""
    seen: int = 0
    passed: int = 0


class Reference:
    def __init__(self, settings: SwingingDoorSettings, known: Any = None) -> None:
        self.settings = settings
        self.order = OrderingReference(settings)
        self.interval = settings.max_interval and parse_duration(settings.max_interval)
        self.doors: dict[int, Door] = {}
        self.looked: int | None = None

    def take(self, row: Row, now_ns: int) -> list[Row]:
        self.order.take({name: row[name] for name in COLUMNS}, now_ns)
        return []

    def advance(self, now_ns: int) -> list[Row]:
        rows, late = self.order.release(now_ns)
        out: list[Row] = []
        for row in rows:
            self.swing(row, self.doors.setdefault(row["series"], Door()), now_ns, out)
        if self.looked is None or now_ns - self.looked >= SECOND:
            self.looked = now_ns
            for door in self.doors.values():
                waited = now_ns - door.seen >= self.settings.idle_ns
                waited |= bool(self.interval) and now_ns - door.passed >= self.interval
                if door.under and waited:
                    self.give_held(door, now_ns, out)
        return late + by_time(out)

    def swing(self, row: Row, door: Door, now_ns: int, out: list[Row]) -> None:
        door.seen = now_ns
        usable = not row["quality"] & 2 and math.isfinite(row["value"])
        if usable and door.base is not None and door.base["quality"] == row["quality"]:
            while not self.fits(row, door):
                if not door.under:
                    self.begin(row, door, now_ns, out)
                    return
                self.give_held(door, now_ns, out)
            door.under.append(row)
            return
        if door.under:
            self.give_held(door, now_ns, out)
        self.begin(row, door, now_ns, out)
        if not usable:
            door.base = None

    def begin(self, row: Row, door: Door, now_ns: int, out: list[Row]) -> None:
        out.append(row)
        door.base, door.under, door.passed = row, [], now_ns

    def give_held(self, door: Door, now_ns: int, out: list[Row]) -> None:
        self.begin(door.under[-1], door, now_ns, out)

    def fits(self, row: Row, door: Door) -> bool:
        """Whether a line from the base to the row is close enough to every reading under it, with room for rounding."""
        assert door.base is not None
        start, first = door.base["time"], door.base["value"]
        if self.interval and row["time"] - start > self.interval:
            return False
        slope = (row["value"] - first) / ((row["time"] - start) * 2.0**-63)
        if not math.isfinite(slope):
            return False
        settings = self.settings
        for under in door.under:
            span = (under["time"] - start) * 2.0**-63
            change = under["value"] - first
            bound = settings.deviation or settings.percent / 100.0 * abs(first)  # type: ignore[operator]
            room = bound - 2.0**-47 * (abs(change) + bound) - 2.0**-1070
            if change == 0.0:
                room = max(room, 0.0)
            lowest, highest = (change - room) / span, (change + room) / span
            if room < 0 or not math.isfinite(lowest) or not math.isfinite(highest):
                return False
            if not lowest <= slope <= highest:
                return False
        return True


def settings() -> st.SearchStrategy[SwingingDoorSettings]:
    deviation: st.SearchStrategy[dict[str, float]] = st.one_of(
        st.sampled_from([0.1, 1.0, 5.0]).map(lambda width: {"deviation": width}),
        st.sampled_from([1.0, 10.0, 100.0]).map(lambda width: {"percent": width}),
    )
    return st.builds(
        lambda width, **others: SwingingDoorSettings(**width, **others),
        deviation,
        max_interval=st.sampled_from([None, None, "4s", "20s"]),
        late=st.sampled_from(list(Lateness)),
        grace=st.sampled_from(["0s", "0s", "4s"]),
        idle=st.sampled_from(["8s", "30s"]),
    )
