"""Alerts about devices: one series of each device, the first that was heard of, stands for it in arrays by series."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ringmain.flows.alerts.watch import copied
from ringmain.flows.block import Ids, Ints
from ringmain.flows.state import grown
from ringmain.flows.step import Context, StepState
from ringmain.flows.text_pieces import TextPieces


class Spokesmen:
    """Series by the device that they had when they were heard of first. Those without a device stand for themselves."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._of: NDArray[np.int32] = np.empty(0, np.int32)
        """By series: the series that stands for its device; -1: not heard of yet."""
        self._by_device: dict[str, int] = {}
        self._names: list[str] = []
        """Devices in order of appearance."""
        self._first: Ints = np.empty(0, np.int64)
        """The series of each: who stands for it."""
        self._pieces = TextPieces()

    def of(self, series: Ids) -> NDArray[np.int32]:
        """Who stands for these series, in their order."""
        size = int(series.max()) + 1
        if size > len(self._of):
            self._of = grown(self._of, max(size, min(2 * len(self._of), len(self._of) + 262_144), 1024), -1)
        found: NDArray[np.int32] = self._of[series]
        if (found < 0).any():
            for one in series[found < 0].tolist():
                self._learn(one)
            self._pieces.keep_up(self._names)
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
            self._of[series] = self._spokesman(attributes.texts("device")[code], series)

    def _spokesman(self, device: str, series: int) -> int:
        """Who stands for a device: this series, where nobody does."""
        found = self._by_device.setdefault(device, series)
        number = len(self._names)
        if len(self._by_device) > number:
            self._names.append(device)
            if number >= len(self._first):
                self._first = grown(self._first, max(1024, 2 * number), 0)
            self._first[number] = series
        return found

    def state(self) -> StepState:
        """Everything remembered."""
        return {
            "devices_of": self._of,
            "devices_first": self._first[: len(self._names)],
            **self._pieces.state("devices_by_name", self._names),
        }

    def restore(self, state: StepState) -> None:
        """Take over what `state` gave."""
        self._of = copied(state["devices_of"], np.int32)
        self._first = copied(state["devices_first"], np.int64)
        self._names = self._pieces.restore("devices_by_name", state)
        self._by_device = dict(zip(self._names, self._first.tolist(), strict=True))
