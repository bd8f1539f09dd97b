"""What flows count."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields

from ringmain.flows.emission import Counts
from ringmain.runtime.counters import Cell, Counters, Kind, Metric, declare

_LABELS = ("flow",)


def _rows(name: str, text: str, unit: str = "rows") -> Metric:
    return declare(f"ringmain_flow_{name}_total", Kind.COUNTER, text, labels=_LABELS, unit=unit)


_COUNTS = {
    "rows": _rows("rows", "Readings that a flow folded."),
    "late": _rows("late", "Readings whose window was closed."),
    "ahead": _rows("ahead", "Readings with a time too far ahead of their arrival: outside windows."),
    "invalid": _rows("invalid", "Readings without a valid value: not in aggregates."),
    "unusable": _rows(
        "unusable", "Readings with a time before 1900 or an impossible series: outside windows."
    ),
    "duplicates": _rows("duplicates", "Readings that repeated the newest one of their series."),
    "windows": _rows("windows", "Windows emitted for the first time.", "windows"),
    "revisions": _rows("revisions", "Windows emitted again.", "windows"),
    "recomputed": _rows("recomputed", "Windows computed from their stored readings.", "windows"),
    "gone": _rows("gone", "Windows that could not be: their readings may have been removed.", "windows"),
}
_SCANS = _rows("scans", "Times that the log was read again to compute windows.", "scans")
_SNAPSHOTS = _rows("snapshots", "Snapshots taken.", "snapshots")
_SNAPSHOT_FAILURES = _rows("snapshot_failures", "Snapshots that could not be written.", "snapshots")
_SNAPSHOT_BYTES = declare(
    "ringmain_flow_snapshot_bytes", Kind.GAUGE, "Size of the newest snapshot.", labels=_LABELS, unit="bytes"
)
_LAG = declare(
    "ringmain_flow_lag_seconds",
    Kind.GAUGE,
    "Arrival time of the input that is not yet folded.",
    labels=_LABELS,
    unit="seconds",
)


class FlowCounters:
    """The counters of one flow. Written by its thread."""

    def __init__(self, counters: Counters, flow: str, lag_s: Callable[[], float | None]) -> None:
        self.counted = Counts()
        """Everything counted since the flow was made, over all its runs."""
        self._last = Counts()
        self._cells: dict[str, Cell] = {name: counters.cell(metric, flow) for name, metric in _COUNTS.items()}
        self._scans = counters.cell(_SCANS, flow)
        self._last_scans = 0
        self._snapshots = counters.cell(_SNAPSHOTS, flow)
        self._failures = counters.cell(_SNAPSHOT_FAILURES, flow)
        self._bytes = counters.cell(_SNAPSHOT_BYTES, flow)

        def lag() -> float:
            known = lag_s()
            return math.nan if known is None else known

        counters.observe_with(_LAG, lag, flow)

    def begin(self) -> None:
        """A new run counts from zero."""
        self._last = Counts()
        self._last_scans = 0

    def count(self, counts: Counts, scans: int) -> None:
        """Take over how far the counts of this run have come."""
        for field in fields(Counts):
            more = getattr(counts, field.name) - getattr(self._last, field.name)
            if more:
                self._cells[field.name].add(more)
                setattr(self.counted, field.name, getattr(self.counted, field.name) + more)
                setattr(self._last, field.name, getattr(counts, field.name))
        self._scans.add(scans - self._last_scans)
        self._last_scans = scans

    def snapshot_taken(self, size_bytes: int) -> None:
        """A snapshot was written."""
        self._snapshots.add()
        self._bytes.set(size_bytes)

    def snapshot_failed(self) -> None:
        """A snapshot could not be written."""
        self._failures.add()
