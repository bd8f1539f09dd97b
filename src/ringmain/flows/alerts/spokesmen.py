"""Alerts about devices: one series of each device, the first that was heard of, stands for it in arrays by series."""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from ringmain.flows.alerts.watch import copied
from ringmain.flows.block import Ids
from ringmain.flows.state import grown
from ringmain.flows.step import Context, StepState


class Spokesmen:
    """Series by the device that they had when they were heard of first. Those without a device stand for themselves."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._of: NDArray[np.int32] = np.empty(0, np.int32)
        """By series: the series that stands for its device; -1: not heard of yet."""
        self._by_device: dict[str, int] = {}

    def of(self, series: Ids) -> NDArray[np.int32]:
        """Who stands for these series, in their order."""
        size = int(series.max()) + 1
        if size > len(self._of):
            self._of = grown(self._of, max(size, min(2 * len(self._of), len(self._of) + 262_144), 1024), -1)
        found: NDArray[np.int32] = self._of[series]
        if (found < 0).any():
            for one in series[found < 0].tolist():
                self._learn(one)
            found = self._of[series]
        return found

    def _learn(self, series: int) -> None:
        if self._of[series] >= 0:
            return
        attributes = self._context.attributes
        codes = attributes.codes("device")
        code = int(codes[series]) if series < len(codes) else -1
        if code < 0:
            self._of[series] = series
        else:
            self._of[series] = self._by_device.setdefault(attributes.texts("device")[code], series)

    def state(self) -> StepState:
        """Everything remembered."""
        return {"devices_of": self._of, "devices_by_name": msgspec.msgpack.encode(self._by_device)}

    def restore(self, state: StepState) -> None:
        """Take over what `state` gave."""
        self._of = copied(state["devices_of"], np.int32)
        names = state["devices_by_name"]
        assert isinstance(names, bytes)
        self._by_device = msgspec.msgpack.decode(names, type=dict[str, int])
