"""How far event time has come for a whole flow, whose rows of many series belong together.

The watermark is the oldest of the newest times of those series that hold it: a series does while it is not silent (for
`idle` of log time) and not behind the watermark already. So a dead meter holds it for `idle` at most, one that was away
for days and sends all of it holds nothing up, and a fast clock moves nothing, since the slowest decides. When no series
holds it, it goes to the newest time of all. It never goes back.
"""

from __future__ import annotations

import numpy as np

from ringmain.flows.block import Ids, Ints
from ringmain.flows.state import NEVER, grown
from ringmain.flows.step import StepState


class FlowWatermark:
    """State by series: newest event time, and log time at which a row came last."""

    def __init__(self, idle_ns: int) -> None:
        self._idle_ns = idle_ns
        self._newest: Ints = np.empty(0, np.int64)
        self._seen: Ints = np.empty(0, np.int64)
        self.value_ns = NEVER
        """The watermark, ns UTC; NEVER before the first row."""

    def take(self, series: Ids, time: Ints, arrival_ns: int) -> None:
        """Rows of the present instant."""
        if not len(series):
            return
        size = int(series.max()) + 1
        if size > len(self._newest):
            larger = max(size, 2 * len(self._newest))
            self._newest = grown(self._newest, larger, NEVER)
            self._seen = grown(self._seen, larger, NEVER)
        if bool((series[1:] > series[:-1]).all()):
            self._newest[series] = np.maximum(self._newest[series], time)
        else:
            np.maximum.at(self._newest, series, time)
        self._seen[series] = arrival_ns

    def advance(self, now_ns: int) -> bool:
        """Log time is `now_ns`. Whether every series is silent: there is nothing to wait for."""
        holding = (self._newest >= max(self.value_ns, NEVER + 1)) & (self._seen > now_ns - self._idle_ns)
        if holding.any():
            self.value_ns = max(self.value_ns, int(self._newest[holding].min()))
            return False
        if len(self._newest):
            self.value_ns = max(self.value_ns, int(self._newest.max()))
        return True

    def state(self) -> StepState:
        """Everything that is remembered."""
        return {
            "newest": self._newest,
            "seen": self._seen,
            "watermark": np.array([self.value_ns], np.int64),
        }

    def restore(self, state: StepState) -> None:
        """Take over what `state` gave."""
        self._newest = np.array(state["newest"], np.int64)
        self._seen = np.array(state["seen"], np.int64)
        self.value_ns = int(np.array(state["watermark"], np.int64)[0])
