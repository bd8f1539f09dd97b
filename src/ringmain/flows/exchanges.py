"""Which series got another device: what the catalogue said of them before, beside what it says now."""

from __future__ import annotations

import numpy as np

from ringmain.flows.attributes import Attributes
from ringmain.flows.block import Ints
from ringmain.flows.growing import grown
from ringmain.flows.ordering_rows import kept
from ringmain.flows.step import StepState
from ringmain.flows.text_pieces import TextPieces


class Exchanges:
    """The device of each series, by numbers of its own, so that a snapshot does not depend on those of the catalogue.

    A series that had no device before was not exchanged when it gets one, and none is forgotten when it loses it.
    """

    def __init__(self, attributes: Attributes) -> None:
        self._attributes = attributes
        self._version = -1
        self._numbers: dict[str, int] = {}
        self._names: list[str] = []
        """By number."""
        self._pieces = TextPieces()
        self._device = np.empty(0, np.int32)

    def found(self) -> Ints:
        """The series that got another device since the last call, in order."""
        attributes = self._attributes
        if attributes.version == self._version or "device" not in attributes.names:
            return np.empty(0, np.int64)
        self._version = attributes.version
        codes = attributes.codes("device")
        numbers = [self._number(text) for text in attributes.texts("device")]
        self._pieces.keep_up(self._names)
        now = np.array([*numbers, -1], np.int32)[codes]
        if len(now) > len(self._device):
            self._device = grown(self._device, len(now), -1)
        before = self._device[: len(now)]
        other = (now != before) & (now >= 0)
        changed = np.flatnonzero(other & (before >= 0))
        before[other] = now[other]
        return changed

    def _number(self, name: str) -> int:
        number = self._numbers.setdefault(name, len(self._numbers))
        if number == len(self._names):
            self._names.append(name)
        return number

    def state(self) -> StepState:
        """Everything remembered."""
        return {"devices": self._device, **self._pieces.state("device_names", self._names)}

    def restore(self, state: StepState) -> None:
        """Take over what `state` gave."""
        self._device = kept(state, "devices", np.int32)
        self._names = self._pieces.restore("device_names", state)
        self._numbers = {name: number for number, name in enumerate(self._names)}
