"""What the scheduled faults do to the readings of the meters that they befall.

Each fault has meters of its own, drawn with the seed from the `hh` meters, so that one fault never hides
another. `Tampering` is given each reading that such a meter would send and answers with the messages that it
does send, each with its entry for the tally. The substation's time offline is the gateway's business.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from ringmain.sim import messages
from ringmain.sim.fleet import Fleet, Speech
from ringmain.sim.messages import Malformed
from ringmain.sim.schedule import Fault, FaultKind, Schedule
from ringmain.sim.tally import Kind

Tag = tuple[int, int, int, int]
"""Kind, readings, dead letters to expect, sum of the values in thousandths."""

AHEAD_MS = 3_600_007
"""An hour, and a little: the false times must not be true ones an hour later."""

_MALFORMED_EVERY = 4


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message as it leaves. `topic` None: the sender's own."""

    sender: int
    payload: bytes
    tag: Tag
    topic: str | None = None


def milli(value: float) -> int:
    """The value in thousandths, exact: no device shows more than three decimals."""
    return round(value * 1000)


class Tampering:
    """The faults of one run, for all meters of the fleet. Times are epoch ms by the device's right clock."""

    def __init__(self, schedule: Schedule, fleet: Fleet, seed: int, start_ms: int) -> None:
        self._schedule = schedule
        self._fleet = fleet
        self._start_ms = start_ms
        self._held: deque[tuple[int, Outgoing]] = deque()
        self._swapped: dict[int, Outgoing] = {}
        self._malformed = 0
        self._eligible = 0
        self.fault_of_sender = assign_faults(schedule, fleet, seed)

    def messages(self, sender: int, time_ms: int, value: float) -> list[Outgoing]:
        """What the sender of a meter in `fault_of_sender` says instead of this reading."""
        fault = self.fault_of_sender[sender]
        regular = self._reading(sender, time_ms, value, Kind.REGULAR)
        cycle, second = self._schedule.place_in_cycle((time_ms - self._start_ms) / 1000)
        active = fault.start_s <= second < fault.end_s
        if fault.kind == FaultKind.OUT_OF_ORDER:
            return self._swap(sender, time_ms, value, active)
        if not active:
            return [regular]
        match fault.kind:
            case FaultKind.DUPLICATES:
                return [regular, self._reading(sender, time_ms, value, Kind.DUPLICATE)]
            case FaultKind.LATE:
                self._hold(fault, cycle, self._reading(sender, time_ms, value, Kind.LATE))
                return []
            case FaultKind.REVISIONS:
                corrected = round(value + 1.0, 3)
                self._hold(fault, cycle, self._reading(sender, time_ms, corrected, Kind.REVISION))
                return [regular]
            case FaultKind.CLOCK_AHEAD:
                return [self._reading(sender, time_ms + AHEAD_MS, value, Kind.AHEAD)]
            case FaultKind.BOOT_1970:
                return [self._reading(sender, time_ms - self._start_ms, value, Kind.BOOTED_IN_1970)]
            case FaultKind.MALFORMED:
                return [self._spoil(sender, time_ms, value, regular)]
            case _:
                return []

    def due(self, now_ms: int) -> list[Outgoing]:
        """Held-back messages whose time has come, in the order in which they were measured."""
        released = [outgoing for release_ms, outgoing in self._held if release_ms <= now_ms]
        if released:
            self._held = deque(entry for entry in self._held if entry[0] > now_ms)
        return released

    def flush(self) -> list[Outgoing]:
        """Everything still held back: the run ends."""
        rest = [outgoing for _, outgoing in self._held] + list(self._swapped.values())
        self._held.clear()
        self._swapped.clear()
        return rest

    def _reading(self, sender: int, time_ms: int, value: float, kind: Kind) -> Outgoing:
        speech = self._fleet.senders[sender].speech
        if kind == Kind.BOOTED_IN_1970:
            speech = Speech.RFC_3339
        return Outgoing(sender, messages.single(speech, time_ms, value), (int(kind), 1, 0, milli(value)))

    def _hold(self, fault: Fault, cycle: int, outgoing: Outgoing) -> None:
        release_s = cycle * self._schedule.cycle_s + (fault.release_s or fault.end_s)
        self._held.append((self._start_ms + round(release_s * 1000), outgoing))

    def _swap(self, sender: int, time_ms: int, value: float, active: bool) -> list[Outgoing]:
        earlier = self._swapped.pop(sender, None)
        if earlier is not None:
            return [self._reading(sender, time_ms, value, Kind.REGULAR), earlier]
        if active:
            self._swapped[sender] = self._reading(sender, time_ms, value, Kind.OUT_OF_ORDER)
            return []
        return [self._reading(sender, time_ms, value, Kind.REGULAR)]

    def _spoil(self, sender: int, time_ms: int, value: float, regular: Outgoing) -> Outgoing:
        self._eligible += 1
        if self._eligible % _MALFORMED_EVERY:
            return regular
        kind = Malformed(self._malformed % len(Malformed))
        self._malformed += 1
        topic, payload, good = messages.malformed(kind, self._fleet.senders[sender].topic, time_ms, value)
        tag = (int(Kind.MALFORMED), len(good), 1, sum(milli(v) for v in good))
        return Outgoing(sender, payload, tag, topic)


def assign_faults(schedule: Schedule, fleet: Fleet, seed: int) -> dict[int, Fault]:
    """Which fault befalls a sender: by number of sender, for those concerned. At least one meter a fault."""
    senders_of: dict[str, list[int]] = {}
    for number, sender in enumerate(fleet.senders):
        if sender.device.startswith("hh-"):
            senders_of.setdefault(sender.device, []).append(number)
    order = np.random.default_rng([seed, 4]).permutation(len(senders_of)).tolist()
    devices = [list(senders_of)[n] for n in order]
    assigned: dict[int, Fault] = {}
    for fault in schedule.faults:
        if fault.kind == FaultKind.OFFLINE:
            continue
        for _ in range(max(1, round(fault.share * len(senders_of)))):
            for sender_number in senders_of[devices.pop()]:
                assigned[sender_number] = fault
    return assigned
