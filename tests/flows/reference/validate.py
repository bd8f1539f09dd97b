"""The rules of `validate`, reading by reading."""

from __future__ import annotations

import math
import statistics
from typing import Any

from hypothesis import strategies as st

from ringmain.flows.ordering_settings import Lateness
from ringmain.flows.steps.validate import RatePer, ValidateSettings, Verdict
from ringmain.model.duration import parse_duration

from .ordering import OrderingReference, Row, by_time

Settings = ValidateSettings
PER_NS = {RatePer.SECOND: 1e9, RatePer.MINUTE: 60e9, RatePer.HOUR: 3600e9}
OUT_OF_RANGE, OLD_DATA, INCONSISTENT = 0x0800, 0x1000, 0x2000


class Reference:
    def __init__(self, settings: ValidateSettings, known: Any = None) -> None:
        self.settings = settings
        self.order = OrderingReference(settings)
        self.before: dict[int, list[Row]] = {}

    def take(self, row: Row, now_ns: int) -> list[Row]:
        if not self.settings.remembers:
            return [self.marked(row)]
        self.order.take(row, now_ns)
        return []

    def advance(self, now_ns: int) -> list[Row]:
        rows, late = self.order.release(now_ns)
        return late + by_time([self.marked(row) for row in rows])

    def marked(self, row: Row) -> Row:
        settings, value = self.settings, row["value"]
        if row["quality"] & 2 or math.isnan(value):
            return row
        bits = 0
        if settings.min is not None and value < settings.min:
            bits |= OUT_OF_RANGE
        if settings.max is not None and value > settings.max:
            bits |= OUT_OF_RANGE
        if math.isfinite(value) and settings.remembers:
            before = self.before.setdefault(row["series"], [])
            bits |= self.compared(row, before)
            before.append(row)
        if not bits:
            return row
        if settings.as_ is Verdict.INVALID:
            quality = row["quality"] & ~3 | 2
        else:
            quality = row["quality"] | 1
        return row | {"quality": quality | bits}

    def compared(self, row: Row, before: list[Row]) -> int:
        settings, value = self.settings, row["value"]
        bits = 0
        if before and settings.max_rate is not None:
            passed = row["time"] - before[-1]["time"]
            if abs(value - before[-1]["value"]) > settings.max_rate / PER_NS[settings.per] * passed:
                bits |= INCONSISTENT
        if before and settings.stuck is not None and value != settings.stuck_except:
            since = row["time"]
            for earlier in reversed(before):
                if earlier["value"] != value:
                    break
                since = earlier["time"]
            if row["time"] - since > parse_duration(settings.stuck):
                bits |= OLD_DATA
        if settings.spike is not None and len(before) >= settings.spike_values:
            last = [earlier["value"] for earlier in before[-settings.spike_values :]]
            middle = self.median(last)
            spread = self.median([abs(earlier - middle) for earlier in last])
            distance = abs(value - middle)
            if distance > settings.spike * 1.4826 * spread and distance > settings.spike_floor:
                bits |= INCONSISTENT
        return bits

    def median(self, values: list[float]) -> float:
        low, high = statistics.median_low(values), statistics.median_high(values)
        return low * 0.5 + high * 0.5


def settings() -> st.SearchStrategy[ValidateSettings]:
    return st.builds(
        ValidateSettings,
        min=st.sampled_from([-1.5, -math.inf]),
        max=st.sampled_from([None, 50.0]),
        max_rate=st.sampled_from([None, 60.0]),
        per=st.just(RatePer.MINUTE),
        stuck=st.sampled_from([None, "2s"]),
        stuck_except=st.sampled_from([None, 0.0]),
        spike=st.sampled_from([None, 1.0, 3.0]),
        spike_values=st.sampled_from([3, 4]),
        spike_floor=st.sampled_from([0.0, 1.0]),
        as_=st.sampled_from(list(Verdict)),
        late=st.sampled_from(list(Lateness)),
        grace=st.sampled_from(["0s", "0s", "4s"]),
        idle=st.just("8s"),
    )
