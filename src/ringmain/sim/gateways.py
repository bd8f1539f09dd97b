"""The gateways of one simulator process at work: measure what is due, say it, keep the books.

Twenty times a second all senders whose time has come are measured together (columns), put into words and
handed to their gateways' publishers, each of which writes once. Readings carry the instant at which they
were due, not that of the tick. A gateway that cannot send keeps what its devices measured, up to
`BACKLOG_MAX` messages in the process; beyond that, devices skip readings, which is counted.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import msgspec
import numpy as np

from ringmain.sim import messages
from ringmain.sim.faults import Outgoing, Tag, Tampering
from ringmain.sim.fleet import Fleet, Speech, build_fleet
from ringmain.sim.profiles import load_profiles
from ringmain.sim.publisher import Publisher, topic_field
from ringmain.sim.schedule import OFFLINE_SUBSTATION, FaultKind, build_schedule
from ringmain.sim.signals import Ints, Signals
from ringmain.sim.tally import Kind, Tally

BACKLOG_MAX = 200_000
TICK_S = 0.05


class Plan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one simulator process has to do: its share of the fleet, and where to send."""

    profiles: str
    host: str
    port: int
    households: int = 2000
    rate: float = 3000.0
    seed: int = 1
    seconds: float | None = None
    part: int = 0
    parts: int = 1
    window: int = 100


class Gateways:
    """The gateways with number `part` modulo `parts`, their devices and their tally."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.tally = Tally()
        self.schedule = build_schedule(plan.seconds)
        self.fleet: Fleet = build_fleet(plan.households, plan.rate, plan.seed)
        self._signals = Signals(load_profiles(Path(plan.profiles)), self.fleet, plan.seed)
        senders = self.fleet.senders
        self._mine = np.array(
            [n for n, s in enumerate(senders) if s.gateway % plan.parts == plan.part], dtype=np.int64
        )
        mine = [senders[n] for n in self._mine.tolist()]
        self._interval_ms = np.array([s.interval_ms for s in mine], dtype=np.int64)
        self._first_ms = np.array([s.first_ms for s in mine], dtype=np.int64)
        self._speech = np.array([s.speech for s in mine], dtype=np.int64)
        self._point = np.array([s.points[0] for s in mine], dtype=np.int64)
        self._second_point = np.array([s.points[-1] for s in mine], dtype=np.int64)
        self._samples = np.array([s.samples for s in mine], dtype=np.int64)
        self._topics = {int(n): topic_field(senders[n].topic) for n in self._mine}
        self._seen = np.zeros(len(self.fleet.points), dtype=np.bool_)
        self._away: set[int] = set()
        self.skipped = 0

    def start(self, start_ms: int) -> None:
        """Connect all gateways; the devices' clocks and the schedule count from `start_ms`."""
        plan = self.plan
        self._start_ms = start_ms
        self._tampering = Tampering(self.schedule, self.fleet, plan.seed, start_ms)
        tampered = np.array(sorted(self._tampering.fault_of_sender), dtype=np.int64)
        self._tampered = np.isin(self._mine, tampered)
        self._next_ms = start_ms + self._first_ms
        self._publishers: dict[int, Publisher[Tag]] = {}
        for number, name in enumerate(self.fleet.gateways):
            if number % plan.parts == plan.part:
                publisher = Publisher(
                    name,
                    plan.host,
                    plan.port,
                    self.tally.acknowledged,
                    resent=self.tally.sent_again,
                    window=plan.window,
                )
                publisher.start()
                self._publishers[number] = publisher
        self._by_sender = {int(n): self._publishers[self.fleet.senders[n].gateway] for n in self._mine}

    async def run(self, stop: asyncio.Event) -> None:
        """Tick until told to stop."""
        comings = asyncio.get_running_loop().create_task(self._follow_offline())
        try:
            while not stop.is_set():
                now_ms = time.time_ns() // 1_000_000
                self.tick(now_ms)
                try:
                    await asyncio.wait_for(stop.wait(), TICK_S - (time.time() % TICK_S))
                except TimeoutError:
                    continue
        finally:
            comings.cancel()

    async def finish(self, timeout_s: float) -> Tally:
        """Send what is held back, wait until everything is acknowledged, disconnect, close the books."""
        for outgoing in self._tampering.flush():
            self._send(outgoing)
        for publisher in self._publishers.values():
            publisher.come_back()
        everything = asyncio.gather(*(p.drained() for p in self._publishers.values()))
        try:
            await asyncio.wait_for(everything, timeout_s)
        except TimeoutError:
            self.tally.unacknowledged = self.backlog
        await asyncio.gather(*(p.close() for p in self._publishers.values()))
        return self.balance()

    def balance(self) -> Tally:
        """The books as they stand."""
        connections = [p.connections for p in self._publishers.values()]
        self.tally.series = int(self._seen.sum())
        self.tally.losses = sum(c.losses for c in connections)
        self.tally.connects = sum(c.connects for c in connections)
        self.tally.last_error = next((c.last_error for c in connections if c.last_error), "")
        return self.tally

    @property
    def backlog(self) -> int:
        """Messages not yet acknowledged, of all gateways."""
        return sum(p.backlog for p in self._publishers.values())

    def tick(self, now_ms: int) -> None:
        """Measure and hand over everything that was due up to now."""
        full = self.backlog >= BACKLOG_MAX
        while True:
            due = np.flatnonzero(self._next_ms <= now_ms)
            if not len(due):
                break
            due_ms = self._next_ms[due]
            self._next_ms[due] += self._interval_ms[due]
            if full:
                self.skipped += len(due)
                continue
            self._singles(due, due_ms)
            self._plugs(due, due_ms)
            self._arrays(due, due_ms)
        for outgoing in self._tampering.due(now_ms):
            self._send(outgoing)
        for publisher in self._publishers.values():
            publisher.flush()

    def _singles(self, due: Ints, due_ms: Ints) -> None:
        chosen = self._speech[due] <= Speech.RFC_3339
        due, due_ms = due[chosen], due_ms[chosen]
        values = self._signals.values(self._point[due], due_ms)
        regular = ~self._tampered[due]
        self._seen[self._point[due[regular]]] = True
        thousandths = np.rint(values * 1000).astype(np.int64)
        topics, publishers, kind = self._topics, self._by_sender, int(Kind.REGULAR)
        single = messages.single
        for sender, speech, time_ms, value, milli, plain in zip(
            self._mine[due].tolist(),
            self._speech[due].tolist(),
            due_ms.tolist(),
            values.tolist(),
            thousandths.tolist(),
            regular.tolist(),
            strict=True,
        ):
            if plain:
                payload = single(speech, time_ms, value)
                publishers[sender].publish(topics[sender], payload, (kind, 1, 0, milli))
            else:
                for outgoing in self._tampering.messages(sender, time_ms, value):
                    self._send(outgoing)

    def _plugs(self, due: Ints, due_ms: Ints) -> None:
        chosen = self._speech[due] == Speech.PLUG
        due, due_ms = due[chosen], due_ms[chosen]
        power = self._signals.values(self._point[due], due_ms)
        energy = self._signals.values(self._second_point[due], due_ms)
        self._seen[self._point[due]] = True
        self._seen[self._second_point[due]] = True
        thousandths = np.rint(power * 1000).astype(np.int64) + np.rint(energy * 1000).astype(np.int64)
        for sender, time_ms, p, e, milli in zip(
            self._mine[due].tolist(),
            due_ms.tolist(),
            power.tolist(),
            energy.tolist(),
            thousandths.tolist(),
            strict=True,
        ):
            tag = (int(Kind.REGULAR), 2, 0, milli)
            self._by_sender[sender].publish(self._topics[sender], messages.plug(time_ms, p, e), tag)

    def _arrays(self, due: Ints, due_ms: Ints) -> None:
        chosen = self._speech[due] >= Speech.PAIRS
        due, due_ms = due[chosen], due_ms[chosen]
        for samples in np.unique(self._samples[due]).tolist():
            same = self._samples[due] == samples
            group, last_ms = due[same], due_ms[same]
            step_ms = self._interval_ms[group] // samples
            times_ms = last_ms[:, None] - step_ms[:, None] * np.arange(samples - 1, -1, -1)
            points = self._point[group]
            values = np.column_stack([self._signals.values(points, times_ms[:, n]) for n in range(samples)])
            self._seen[points] = True
            thousandths = np.rint(values * 1000).astype(np.int64).sum(axis=1)
            for sender, speech, when, what, milli in zip(
                self._mine[group].tolist(),
                self._speech[group].tolist(),
                times_ms.tolist(),
                values.tolist(),
                thousandths.tolist(),
                strict=True,
            ):
                away = self.fleet.senders[sender].gateway in self._away
                kind = Kind.BACKLOG if away else Kind.REGULAR
                payload = messages.array(speech, when, what)
                tag = (int(kind), samples, 0, milli)
                self._by_sender[sender].publish(self._topics[sender], payload, tag)

    def _send(self, outgoing: Outgoing) -> None:
        sender = outgoing.sender
        topic = self._topics[sender] if outgoing.topic is None else topic_field(outgoing.topic)
        if outgoing.tag[1]:
            self._seen[list(self.fleet.senders[sender].points)] = True
        self._by_sender[sender].publish(topic, outgoing.payload, outgoing.tag)

    async def _follow_offline(self) -> None:
        """Cut the substation off and bring it back, as the schedule says."""
        gateway = self.fleet.gateways.index(OFFLINE_SUBSTATION)
        fault = next(f for f in self.schedule.faults if f.kind == FaultKind.OFFLINE)
        publisher = self._publishers.get(gateway)
        if publisher is None:
            return
        cycle = 0
        while True:
            begin_s = cycle * self.schedule.cycle_s
            await self._until(begin_s + fault.start_s)
            self._away.add(gateway)
            await publisher.go_away()
            await self._until(begin_s + fault.end_s)
            self._away.discard(gateway)
            publisher.come_back()
            if not self.schedule.cycle_s:
                return
            cycle += 1

    async def _until(self, since_start_s: float) -> None:
        await asyncio.sleep(max(0.0, self._start_ms / 1000 + since_start_s - time.time()))
