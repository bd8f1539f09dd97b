"""Flows over recorded input, without a node: as it came, cut anew, and with restarts.

Log time is made of arrivals and of ticks between them. What a flow gives is appended to the recording at once, behind
the frame that it follows from, so flows that read other flows' streams see the same order each time.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa

from ringmain.flows.block import Block
from ringmain.flows.cases.elsewhere import elsewhere
from ringmain.flows.cases.layout import TICKS_MAX, CaseError
from ringmain.flows.cases.recording import CATALOGUE, Recording
from ringmain.flows.cases.tables import Recorded, csv_text
from ringmain.flows.chain import Chain
from ringmain.flows.flow import FlowPlan, stored
from ringmain.flows.later import made
from ringmain.flows.step import Step, StepSettings, StepState
from ringmain.flows.steps.python import PythonSettings
from ringmain.flows.user_function import find_function
from ringmain.log.interface import Frame
from ringmain.model.schemas import TIMESTAMP

RESTARTS = 7
"""About how often flows are restarted in a play with restarts."""


@dataclass(frozen=True, slots=True)
class Manner:
    """How a play differs from the recording, which must not change what comes out. `seed`: of the dice."""

    name: str
    seed: int = 0
    cut: bool = False
    """The rows of each arrival are cut into other frames."""
    restart: bool = False
    """Flows are made anew out of their saved state, in mid-stream."""
    elsewhere: bool = False
    """Users' functions find other clocks and dice."""


AS_RECORDED = Manner("as recorded")
MANNERS = (
    Manner("its rows cut into other frames", 1, cut=True),
    Manner("flows restarted in between", 2, cut=True, restart=True),
)
OTHER_WORLDS = (
    Manner("another clock and other randomness", 3, elsewhere=True),
    Manner("a third clock and randomness", 4, elsewhere=True),
)
"""For flows with steps that run code of the user's."""


@dataclass(slots=True)
class Played:
    """What came out: by stream, tables with `arrived` (log time of their cause) behind the stream's own columns."""

    outputs: dict[str, pa.Table]
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    """By flow and step what the step counted."""
    given: dict[str, bytes] = field(default_factory=dict)
    """By flow and step that runs code of the user's: a digest of what it gave."""


def play(
    recorded: Recorded,
    plans: Sequence[FlowPlan],
    *,
    tail_ns: int,
    tick_ns: int,
    manner: Manner = AS_RECORDED,
) -> Played:
    """Run flows over recorded input. `plans`: whoever writes a stream before whoever reads it.

    Raises StepFailureError, CaseError for a time that needs more ticks than a case may have.
    """
    with elsewhere(manner.seed, _users_modules(plans)) if manner.elsewhere else contextlib.nullcontext():
        return _played(recorded, plans, tail_ns, tick_ns, manner)


def _played(
    recorded: Recorded, plans: Sequence[FlowPlan], tail_ns: int, tick_ns: int, manner: Manner
) -> Played:
    playing = _Playing(recorded, plans, manner)
    for entries in recorded.catalogue.to_batches():
        playing.give(CATALOGUE, entries, recorded.arrivals[0].arrival_ns if recorded.arrivals else 0)
    for clock in _clock(recorded, tail_ns, tick_ns):
        if isinstance(clock, int):
            playing.tick(clock)
        else:
            arrival = recorded.arrivals[clock.place]
            playing.give(arrival.stream, arrival.rows, arrival.arrival_ns)
    return playing.played()


def _users_modules(plans: Sequence[FlowPlan]) -> list[str]:
    """The importable modules of users' functions."""
    found = [
        find_function(step.settings.function, plan.around.directory).module
        for plan in plans
        for step in plan.steps
        if isinstance(step.settings, PythonSettings)
    ]
    return [module for module in found if module is not None]


@dataclass(frozen=True, slots=True)
class _Place:
    place: int


def _clock(recorded: Recorded, tail_ns: int, tick_ns: int) -> Sequence[int | _Place]:
    """Ticks (ns) and the places of arrivals, in the order in which a node would write them."""
    if not recorded.arrivals:
        return []
    first, last = recorded.arrivals[0].arrival_ns, recorded.arrivals[-1].arrival_ns
    ticks = (last + tail_ns) // tick_ns - first // tick_ns
    if ticks > TICKS_MAX:
        raise CaseError(
            f"expected at most {TICKS_MAX} ticks from the first arrival to the last, found {ticks}: "
            'give a longer `tick` in case.toml, such as tick = "1m"'
        )
    order: list[int | _Place] = []
    tick = (first // tick_ns + 1) * tick_ns
    for place, arrival in enumerate(recorded.arrivals):
        while tick < arrival.arrival_ns:
            order.append(tick)
            tick += tick_ns
        order.append(_Place(place))
    while tick <= last + tail_ns:
        order.append(tick)
        tick += tick_ns
    return order


class _Playing:
    """Chains beside one recording."""

    def __init__(self, recorded: Recorded, plans: Sequence[FlowPlan], manner: Manner) -> None:
        self._manner = manner
        self._chance = random.Random(manner.seed)
        self._log = Recording(recorded.catalogue)
        for name, (kind, schema) in recorded.schemas.items():
            self._log.create(name, kind, schema)
        for plan in plans:
            for name, shape in plan.streams.items():
                self._log.create(name, *stored(shape))
        self._digests: dict[str, Any] = {}
        self._chains = [self._chain(plan) for plan in plans]
        self._told: list[dict[str, dict[str, int]]] = [{} for _ in plans]
        self._outputs: dict[str, list[tuple[int, pa.RecordBatch]]] = {
            name: [] for plan in plans for name in plan.streams
        }
        moves = max(1, len(recorded.arrivals))
        self._restart_share = min(1.0, RESTARTS / moves) if manner.restart else 0.0

    def _chain(self, plan: FlowPlan) -> Chain:
        """A chain of the plan; what users' code gives in it is watched."""
        chain = Chain(plan, self._log)
        for number, step in enumerate(plan.steps):
            if runs_users_code(step.settings):
                name = f"{plan.name}: step {chain.rows[number].step}"
                digest = self._digests.setdefault(name, hashlib.sha256())
                chain.steps[number] = _Watched(chain.steps[number], digest)
        return chain

    def give(self, stream: str, rows: pa.RecordBatch, arrival_ns: int) -> None:
        """Rows that arrive."""
        if self._restart_share and self._chance.random() < self._restart_share:
            self._restart()
        for piece in self._cut(rows):
            self._spread(self._log.append(stream, piece, arrival_ns))

    def tick(self, now_ns: int) -> None:
        """The next tick."""
        self._spread(self._log.tick(now_ns))

    def _spread(self, frame: Frame) -> None:
        """A frame to every flow that reads its stream, and what follows from it behind it."""
        waiting = deque([frame])
        while waiting:
            frame = waiting.popleft()
            for chain in self._chains:
                if frame.stream not in chain.streams:
                    continue
                for block in chain.step(frame):
                    stream = block.stream or chain.plan.settings.to
                    self._outputs[stream].append((block.arrival_ns, block.rows))
                    for piece in self._cut(block.rows):
                        waiting.append(self._log.append(stream, piece, block.arrival_ns))

    def _cut(self, rows: pa.RecordBatch) -> list[pa.RecordBatch]:
        if not self._manner.cut or rows.num_rows < 2:
            return [rows]
        cuts = sorted(self._chance.randint(0, rows.num_rows) for _ in range(2))
        bounds = [0, *cuts, rows.num_rows]
        return [rows.slice(start, stop - start) for start, stop in pairwise(bounds) if stop > start]

    def _restart(self) -> None:
        for number, chain in enumerate(self._chains):
            if chain.position is None:
                continue
            self._tell(number)
            states: list[StepState] = [
                {
                    name: found if isinstance(found := made(part), bytes) else np.array(found)
                    for name, part in step.items()
                }
                for step in chain.state()
            ]
            anew = self._chain(chain.plan)
            for frame in self._log.read(CATALOGUE, until=chain.position):
                anew.attributes.learn(frame.rows)
            anew.restore(states, chain.now, chain.lead_ns, chain.position)
            anew.instant = list(chain.instant)
            self._chains[number] = anew

    def _tell(self, number: int) -> None:
        """Add up what the steps of a chain counted."""
        chain = self._chains[number]
        for rows, context in zip(chain.rows, chain.contexts, strict=True):
            told = self._told[number].setdefault(rows.step, {})
            for name, count in context.counts.items():
                told[name] = told.get(name, 0) + count

    def played(self) -> Played:
        """The outputs."""
        schemas = {
            name: stored(shape)[1] for chain in self._chains for name, shape in chain.plan.streams.items()
        }
        counts: dict[str, dict[str, int]] = {}
        for number, chain in enumerate(self._chains):
            self._tell(number)
            for step, told in self._told[number].items():
                counts[f"{chain.plan.name}: {step}"] = told
        return Played(
            {name: _table(pieces, schemas[name]) for name, pieces in self._outputs.items()},
            {name: told for name, told in counts.items() if told},
            {name: digest.digest() for name, digest in self._digests.items()},
        )


class _Watched:
    """A step, with a digest of what it gives."""

    def __init__(self, step: Step, digest: Any) -> None:
        self._step = step
        self._digest = digest
        self.state = step.state
        self.restore = step.restore

    def take(self, block: Block) -> Sequence[Block]:
        return self._watched(self._step.take(block))

    def advance(self, now_ns: int) -> Sequence[Block]:
        return self._watched(self._step.advance(now_ns))

    def _watched(self, blocks: Sequence[Block]) -> Sequence[Block]:
        for block in blocks:
            self._digest.update(csv_text(block.rows).encode())
        return blocks


def runs_users_code(settings: StepSettings) -> bool:
    """Whether a step runs code that is not Ringmain's."""
    return isinstance(settings, PythonSettings)


def _table(pieces: Sequence[tuple[int, pa.RecordBatch]], schema: pa.Schema) -> pa.Table:
    rows = pa.Table.from_batches([rows for _, rows in pieces], schema)
    arrived = np.repeat(
        np.array([arrival for arrival, _ in pieces], np.int64), [rows.num_rows for _, rows in pieces]
    )
    name = "arrived" if "arrived" not in schema.names else "log_time"
    return rows.append_column(
        pa.field(name, TIMESTAMP, nullable=False), pa.array(arrived, pa.int64()).view(TIMESTAMP)
    )
