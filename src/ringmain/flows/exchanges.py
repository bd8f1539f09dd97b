"""Which series got another device: what the catalogue said of them before, beside what it says now."""

from __future__ import annotations

import msgspec
import numpy as np

from ringmain.flows.attributes import Attributes
from ringmain.flows.block import Ints
from ringmain.flows.growing import grown
from ringmain.flows.ordering_rows import kept
from ringmain.flows.step import StepState


class Exchanges:
    """The device of each series, by numbers of its own, so that a snapshot does not depend on those of the catalogue.

    A series that had no device before was not exchanged when it gets one, and none is forgotten when it loses it.
    """

    def __init__(self, attributes: Attributes) -> None:
        self._attributes = attributes
        self._version = -1
        self._numbers: dict[str, int] = {}
        self._device = np.empty(0, np.int32)

    def found(self) -> Ints:
        """The series that got another device since the last call, in order."""
        attributes = self._attributes
        if attributes.version == self._version or "device" not in attributes.names:
            return np.empty(0, np.int64)
        self._version = attributes.version
        codes = attributes.codes("device")
        numbers = [self._numbers.setdefault(text, len(self._numbers)) for text in attributes.texts("device")]
        now = np.array([*numbers, -1], np.int32)[codes]
        if len(now) > len(self._device):
            self._device = grown(self._device, len(now), -1)
        before = self._device[: len(now)]
        other = (now != before) & (now >= 0)
        changed = np.flatnonzero(other & (before >= 0))
        before[other] = now[other]
        return changed

    def state(self) -> StepState:
        """Everything remembered."""
        return {"devices": self._device, "device_names": msgspec.json.encode(list(self._numbers))}

    def restore(self, state: StepState) -> None:
        """Take over what `state` gave."""
        self._device = kept(state, "devices", np.int32)
        names = msgspec.json.decode(bytes(state["device_names"]), type=list[str])
        self._numbers = {name: number for number, name in enumerate(names)}
