"""Registers row by row."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from ringmain.flows.ordering_settings import Lateness
from ringmain.flows.steps.counter import (
    CounterOutput,
    CounterSettings,
    GapRule,
    Per,
    ResetRule,
)

from .ordering import COLUMNS, OrderingReference, Row, by_time

Settings = CounterSettings
REASONS = {
    "exchange": "another device: the register begins anew",
    "jump": "implausible rise, confirmed by the next reading: the register begins anew",
    "reset": "drop without a plausible roll-over, confirmed by the next reading: the register begins anew",
    "outlier": "fits neither the reading before nor the one after",
    "gap": "longer than `max_gap` since the reading before: the register begins anew",
}
HOUR = 3_600_000_000_000


@dataclass
class Register:
    base: Row | None = None
    suspect: Row | None = None


class Reference:
    def __init__(self, settings: CounterSettings, known: Any = None) -> None:
        self.settings = settings
        self.order = OrderingReference(settings)
        self.registers: dict[int, Register] = {}
        self.modulus = 10.0**settings.digits if settings.digits else settings.modulus
        self.per = HOUR if settings.per is Per.HOUR else 1_000_000_000

    def take(self, row: Row, now_ns: int) -> list[Row]:
        self.order.take({name: row[name] for name in COLUMNS}, now_ns)
        return []

    def advance(self, now_ns: int) -> list[Row]:
        rows, late = self.order.release(now_ns)
        out: list[Row] = []
        breaks: list[Row] = []

        def tell(reason: str, row: Row) -> None:
            breaks.append(row | {"arrived": now_ns, "reason": REASONS[reason], "stream": "out.breaks"})

        for row in rows:
            self.count(row, self.registers.setdefault(row["series"], Register()), out, tell)
        return late + by_time(breaks) + by_time(out)

    def count(self, row: Row, register: Register, out: list[Row], tell: Any) -> None:
        if row["quality"] & 2 or not math.isfinite(row["value"]):
            return
        base, suspect = register.base, register.suspect
        if base is None:
            register.base = row
            return
        if self.settings.gap is GapRule.SKIP and row["time"] - base["time"] > self.settings.gap_ns:
            tell("gap", row)
            if suspect is not None:
                tell("outlier", suspect)
            register.base, register.suspect = row, None
            return
        amount = self.step(base, row)
        if amount is not None:
            if suspect is not None:
                tell("outlier", suspect)
            self.interval(base, row, amount, out)
            register.base, register.suspect = row, None
            return
        if suspect is not None:
            amount = self.step(suspect, row)
            if amount is not None:
                dropped = suspect["value"] < base["value"]
                tell("reset" if dropped else "jump", suspect)
                from_zero = suspect | {"value": 0.0, "time": base["time"]}
                if dropped and self.settings.reset is ResetRule.ZERO:
                    counted = self.plausible(from_zero, suspect, suspect["value"])
                    if counted and suspect["value"] >= 0:
                        self.interval(base, suspect, suspect["value"], out, doubt=0x4001)
                self.interval(suspect, row, amount, out)
                register.base, register.suspect = row, None
                return
            tell("outlier", suspect)
        register.suspect = row

    def plausible(self, before: Row, row: Row, amount: float) -> bool:
        settings = self.settings
        if settings.max_step is not None and amount > settings.max_step:
            return False
        passed = row["time"] - before["time"]
        return settings.max_rate is None or amount <= settings.max_rate / self.per * passed

    def step(self, before: Row, row: Row) -> float | None:
        amount = row["value"] - before["value"]
        if amount < 0:
            if not self.modulus or before["value"] >= self.modulus or row["value"] < 0:
                return None
            amount += self.modulus
            limited = self.settings.max_step is not None or self.settings.max_rate is not None
            if not limited and amount >= self.modulus / 2:
                return None
        return amount if self.plausible(before, row, amount) and math.isfinite(amount) else None

    def interval(self, before: Row, row: Row, amount: float, out: list[Row], doubt: int = 0) -> None:
        quality = before["quality"] | row["quality"] | 12
        if {before["quality"] & 12, row["quality"] & 12} & {4, 8}:
            quality = quality & ~12 | 8
        quality |= doubt
        length = row["time"] - before["time"]
        value = amount
        if self.settings.output is CounterOutput.RATE:
            value = amount * (self.per / length)
        parts = 1
        if length > self.settings.gap_ns:
            parts = math.ceil(length / self.settings.gap_ns)
            if self.settings.gap is GapRule.SPLIT and parts <= 1000:
                quality = quality & ~12 | 8
            else:
                parts, quality = 1, quality | 1
        out.extend(
            {
                "series": row["series"],
                "time": before["time"] + length * number // parts,
                "value": value if self.settings.output is CounterOutput.RATE else value / parts,
                "quality": quality,
            }
            for number in range(1, parts + 1)
        )


def settings() -> st.SearchStrategy[CounterSettings]:
    gap: st.SearchStrategy[dict[str, Any]] = st.one_of(
        st.just({}), st.sampled_from(list(GapRule)).map(lambda rule: {"gap": rule, "max_gap": "3s"})
    )
    return st.builds(
        lambda gap, **others: CounterSettings(**gap, **others),
        gap,
        digits=st.sampled_from([None, 2, 3]),
        max_rate=st.sampled_from([None, 36_000.0]),
        max_step=st.sampled_from([None, 30.0]),
        reset=st.sampled_from(list(ResetRule)),
        late=st.sampled_from(list(Lateness)),
        grace=st.sampled_from(["0s", "0s", "4s"]),
        idle=st.just("8s"),
    )
