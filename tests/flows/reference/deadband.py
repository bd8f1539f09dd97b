"""The deadband row by row."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import strategies as st

from ringmain.flows.ordering_settings import Lateness
from ringmain.flows.steps.deadband import DeadbandSettings
from ringmain.model.duration import parse_duration

from .ordering import OrderingReference, Row, by_time

Settings = DeadbandSettings


class Reference:
    def __init__(self, settings: DeadbandSettings, known: Any = None) -> None:
        self.settings = settings
        self.order = OrderingReference(settings)
        self.last: dict[int, Row] = {}

    def take(self, row: Row, now_ns: int) -> list[Row]:
        self.order.take(row, now_ns)
        return []

    def advance(self, now_ns: int) -> list[Row]:
        rows, late = self.order.release(now_ns)
        passed = []
        for row in rows:
            if self.needed(row, self.last.get(row["series"])):
                self.last[row["series"]] = row
                passed.append(row)
        return late + by_time(passed)

    def needed(self, row: Row, last: Row | None) -> bool:
        if last is None or row["quality"] & 2 or math.isnan(row["value"]):
            return True
        if row["quality"] != last["quality"] or not math.isfinite(row["value"] - last["value"]):
            return True
        settings = self.settings
        if settings.max_interval and row["time"] - last["time"] >= parse_duration(settings.max_interval):
            return True
        change = abs(row["value"] - last["value"])
        if settings.absolute is not None and change <= settings.absolute:
            return False
        return not (settings.percent is not None and change <= settings.percent / 100.0 * abs(last["value"]))


def settings() -> st.SearchStrategy[DeadbandSettings]:
    return st.builds(
        DeadbandSettings,
        absolute=st.sampled_from([0.0, 0.5, 1.0, 10.0]),
        percent=st.sampled_from([None, 1.0, 20.0, 100.0]),
        max_interval=st.sampled_from([None, "3s", "10s"]),
        late=st.sampled_from(list(Lateness)),
        grace=st.sampled_from(["0s", "0s", "4s"]),
        idle=st.just("8s"),
    )
