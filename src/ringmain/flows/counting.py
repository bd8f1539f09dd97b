"""What flows count: rows through each step, and what steps count under names of their own."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable

from ringmain.flows.chain import Chain, StepRows
from ringmain.flows.flow_status import FlowState, FlowStatus, StepStatus
from ringmain.runtime.counters import Cell, Counters, Kind, Metric, declare

_LABELS = ("flow",)


def _rows(name: str, text: str, unit: str = "rows", labels: tuple[str, ...] = _LABELS) -> Metric:
    return declare(f"ringmain_flow_{name}_total", Kind.COUNTER, text, labels=labels, unit=unit)


_ROWS = _rows("rows", "Rows that a flow folded.")
_COUNTS = {
    "late": _rows("late", "Readings that came too late for their step, their window being closed, say."),
    "ahead": _rows("ahead", "Readings with a time too far ahead of their arrival: they take no part."),
    "invalid": _rows("invalid", "Readings without a valid value: not in aggregates."),
    "unusable": _rows(
        "unusable", "Readings with a time before 1900 or an impossible series: they take no part."
    ),
    "duplicates": _rows("duplicates", "Readings that repeated the newest one of their series."),
    "windows": _rows("windows", "Windows emitted for the first time.", "windows"),
    "revisions": _rows("revisions", "Windows emitted again.", "windows"),
    "recomputed": _rows("recomputed", "Windows computed from their stored readings.", "windows"),
    "gone": _rows("gone", "Windows that could not be: their readings may have been removed.", "windows"),
    "scans": _rows("scans", "Times that the log was read again to compute windows.", "scans"),
}
_STEP = ("flow", "step")
_STEP_IN = _rows("step_in", "Rows that went into a step.", labels=_STEP)
_STEP_OUT = _rows("step_out", "Rows that a step gave to the next one or the flow's output.", labels=_STEP)
_STEP_ASIDE = _rows("step_aside", "Rows that a step sent to a stream of its own.", labels=_STEP)
_STEP_COUNTED = _rows(
    "step_counted", "What a step counts under a name of its own, see its page.", labels=(*_STEP, "what")
)
_FAILED = _rows("failed", "Batches that became dead letters, because a step failed on them.", "batches")
_SNAPSHOTS = _rows("snapshots", "Snapshots taken.", "snapshots")
_SNAPSHOT_FAILURES = _rows("snapshot_failures", "Snapshots that could not be written.", "snapshots")
_SNAPSHOT_BYTES = declare(
    "ringmain_flow_snapshot_bytes", Kind.GAUGE, "Size of the newest snapshot.", labels=_LABELS, unit="bytes"
)
_SNAPSHOT_PAUSE = declare(
    "ringmain_flow_snapshot_pause_seconds",
    Kind.GAUGE,
    "The longest that the flow did nothing but copy its state, at a time, for the newest snapshot.",
    labels=_LABELS,
    unit="seconds",
)
_LAG = declare(
    "ringmain_flow_lag_seconds",
    Kind.GAUGE,
    "Arrival time of the input that is not yet folded.",
    labels=_LABELS,
    unit="seconds",
)


class FlowCounters:
    """The counters of one flow. Written by its thread; `status` is for any."""

    def __init__(self, counters: Counters, flow: str, lag_s: Callable[[], float | None]) -> None:
        self._counters = counters
        self._flow = flow
        self.totals: Counter[str] = Counter()
        """Everything counted since the flow was made, by name, over all its runs and steps."""
        self._steps: dict[str, StepRows] = {}
        self._state_bytes: list[int] = []
        self._newest_ns: int | None = None
        self._last: dict[tuple[str, str], int] = {}
        self._rows = counters.cell(_ROWS, flow)
        self._cells: dict[str, Cell] = {name: counters.cell(metric, flow) for name, metric in _COUNTS.items()}
        self._failed = counters.cell(_FAILED, flow)
        self._snapshots = counters.cell(_SNAPSHOTS, flow)
        self._snapshot_failures = counters.cell(_SNAPSHOT_FAILURES, flow)
        self._bytes = counters.cell(_SNAPSHOT_BYTES, flow)
        self._pause = counters.cell(_SNAPSHOT_PAUSE, flow)

        def lag() -> float:
            known = lag_s()
            return math.nan if known is None else known

        self.end = counters.observe_with(_LAG, lag, flow)
        """Stop telling of the flow what only a living one has."""

    def begin(self, chain: Chain) -> None:
        """A new run: what its chain counted so far was counted before."""
        self._last = dict(_counted(chain))

    def count(self, chain: Chain) -> None:
        """Take over how far the counts of this run have come."""
        for key, value in _counted(chain).items():
            more = value - self._last.get(key, 0)
            if not more:
                continue
            self._last[key] = value
            self._take(key[0], key[1], more)
        self._newest_ns = chain.newest if chain.newest > 0 else None

    def _take(self, step: str, name: str, more: int) -> None:
        rows = self._steps.setdefault(step, StepRows(step))
        if name == "+in":
            rows.rows_in += more
            self._counters.cell(_STEP_IN, self._flow, step).add(more)
            if step.startswith("1 "):
                self.totals["rows"] += more
                self._rows.add(more)
        elif name == "+out":
            rows.rows_out += more
            self._counters.cell(_STEP_OUT, self._flow, step).add(more)
        elif name == "+aside":
            rows.rows_aside += more
            self._counters.cell(_STEP_ASIDE, self._flow, step).add(more)
        else:
            self.totals[name] += more
            cell = self._cells.get(name)
            if cell is None:
                cell = self._counters.cell(_STEP_COUNTED, self._flow, step, name)
            cell.add(more)

    def sized(self, state_bytes: list[int]) -> None:
        """The size of each step's state."""
        self._state_bytes = state_bytes

    def failed(self, batches: int) -> None:
        """Batches became dead letters."""
        self._failed.add(batches)
        self.totals["failed"] += batches

    def paused(self, seconds: float) -> None:
        """The flow stood still for a snapshot."""
        self._pause.set(seconds)

    def snapshot_taken(self, size_bytes: int) -> None:
        """A snapshot was written."""
        self._snapshots.add()
        self._bytes.set(size_bytes)

    def snapshot_failed(self) -> None:
        """A snapshot could not be written."""
        self._snapshot_failures.add()

    def status(
        self,
        *,
        name: str,
        to: str,
        state: FlowState,
        position: str | None,
        lag_s: float | None,
        last_error: str | None,
    ) -> FlowStatus:
        """The flow at this moment."""
        totals = self.totals
        sizes = self._state_bytes
        steps = tuple(
            StepStatus(
                rows.step,
                rows.rows_in,
                rows.rows_out,
                rows.rows_aside,
                sizes[place] if place < len(sizes) else 0,
            )
            for place, rows in enumerate(list(self._steps.values()))
        )
        return FlowStatus(
            name,
            to,
            state,
            position,
            lag_s,
            totals["rows"],
            totals["late"],
            totals["revisions"],
            totals["ahead"],
            totals["duplicates"],
            totals["invalid"],
            totals["windows"],
            last_error,
            totals["failed"],
            self._newest_ns,
            steps,
        )


def _counted(chain: Chain) -> Counter[tuple[str, str]]:
    """Everything that a chain counts: by step and name; names of rows begin with `+`."""
    counted: Counter[tuple[str, str]] = Counter()
    for rows, context in zip(chain.rows, chain.contexts, strict=True):
        counted[rows.step, "+in"] = rows.rows_in
        counted[rows.step, "+out"] = rows.rows_out
        counted[rows.step, "+aside"] = rows.rows_aside
        for name, value in context.counts.items():
            counted[rows.step, name] = value
    return counted
