"""The fold of step `alert`: readings of an instant, then what log time itself brings; events of both.

Log time is looked at as far as it passed under observation: a node writes a tick every second, so a longer pause (the
node was down, its clock was set, it booted in 1970) is nobody's silence and counts as `UNSEEN_NS` at most, or a quarter
of the silence that is waited for.

A series is expected to send from its entry in the catalogue on, where the step sees all readings: one that never does
becomes silent like any other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from ringmain.flows.alerts.conditions import Leaf, LeafKind
from ringmain.flows.alerts.life import BY_SERIES, Lives, Ranks, Timing
from ringmain.flows.alerts.rows import AlertRows, row_form
from ringmain.flows.alerts.spokesmen import Spokesmen
from ringmain.flows.alerts.telling import Teller
from ringmain.flows.alerts.watch import Watch
from ringmain.flows.alerts.wording import Wording
from ringmain.flows.block import Block, Ids, Ints, numbers, readings_block
from ringmain.flows.conditions import Condition, condition
from ringmain.flows.ordering import Ordering
from ringmain.flows.ordering_rows import Ordered
from ringmain.flows.picture import Picture
from ringmain.flows.readings import SERIES_MAX
from ringmain.flows.state import NEVER
from ringmain.flows.step import Context, Shape, StepState
from ringmain.model.duration import format_duration, parse_duration

if TYPE_CHECKING:
    from ringmain.flows.steps.alert import AlertSettings

UNSEEN_NS = 60_000_000_000


class AlertStep:
    """The fold. An instant's readings are worked on when log time moves, then what log time itself brings."""

    def __init__(self, settings: AlertSettings, shape: Shape, context: Context) -> None:
        self._context = context
        tree = settings.tree
        leaf = None if tree.measured is None else tree.leaves[tree.measured]
        timing = Timing(
            parse_duration(settings.for_),
            parse_duration(settings.clear_for),
            parse_duration(settings.update),
            settings.flap,
            parse_duration(settings.flap_within),
        )
        beyond = tuple(
            (
                np.inf if one.above is None else one.above,
                -np.inf if one.below is None else one.below,
                one.priority,
            )
            for one in settings.escalate
        )
        unit, per = _unit(leaf, shape)
        wording = Wording(
            flow=context.surroundings.flow,
            subject="device" if settings.of_devices else "key",
            text=settings.text,
            condition=tree.text,
            limit=None if leaf is None else leaf.limit,
            unit=unit,
            per=per,
            update_ns=timing.update_ns,
        )
        self._ordering = Ordering(
            context, late=settings.late, grace_ns=settings.grace_ns, idle_ns=settings.idle_ns
        )
        self._where = None
        if settings.where is not None:
            compiled = condition("where", settings.where, shape, context.surroundings)
            self._where = Condition(compiled, context.attributes)
        self._watch = Watch(tree)
        self._lives = Lives(timing, Ranks(settings.priority, beyond), leaf)
        self._rows = AlertRows(row_form(shape, settings.value), context.attributes)
        self._teller = Teller(wording, settings.grouping(), context, self._rows.names)
        self._devices = Spokesmen(context) if settings.of_devices else None
        self._values = not tree.of_silence_only
        self._silence = tree.has_silence
        shortest = min(
            (leaf.duration_ns for leaf in tree.leaves if leaf.kind is LeafKind.SILENCE), default=4 * UNSEEN_NS
        )
        self._catalogued = (
            self._silence
            and settings.never_sent
            and context.first
            and context.surroundings.input == "readings"
            and (self._where is None or self._where.of_series)
        )
        """Whether series of the catalogue are to send: it sees all readings, and which series matter is known without."""
        self._step_ns = min(UNSEEN_NS, shortest // 4)
        self._now = NEVER
        self._clock = 0
        """Log time as far as it passed under observation, from 0 on."""

    def take(self, block: Block) -> Sequence[Block]:
        """Rows of the present instant."""
        if self._where is not None:
            places = self._where.places(block)
            if places is not None:
                self._context.count("filtered", len(block) - len(places))
                block = block.take(places)
        if not len(block):
            return ()
        block = self._rows.readings(block)
        if self._silence:
            self._arrived(block.series)
        if self._values:
            self._ordering.take(block)
        return ()

    def learn(self, entries: pa.RecordBatch) -> None:
        """Entries of the catalogue: series that are to send."""
        if not self._catalogued or not entries.num_rows:
            return
        series = np.unique(numbers(entries, "id", np.uint32))
        series = series[series < SERIES_MAX]
        if self._where is not None and len(series):
            places = self._where.places(_of_nothing(series))
            series = series if places is None else series[places]
        if not len(series):
            return
        self._reserve(int(series.max()) + 1)
        self._watch.known(series if self._devices is None else self._devices.of(series), self._clock)

    def advance(self, now_ns: int) -> Sequence[Block]:
        """The instant has ended: what its readings say, then what its time says."""
        before, clock = self._now, self._clock
        if self._silence:
            self._follow(self._watch.heard(clock), before, clock)
        ordered = self._ordering.release(now_ns) if self._values else None
        if ordered is not None:
            self._readings(ordered, before, clock)
        self._now = now_ns
        if before != NEVER:
            self._clock += min(now_ns - before, self._step_ns)
            self._lives.pass_time(clock, before)
            if self._silence:
                self._follow(self._watch.silent(clock), before, clock)
        return [*self._ordering.late_blocks(), *self._teller.tell(self._lives.happenings(), now_ns)]

    @property
    def era(self) -> int:
        """How often the definition has changed on the way."""
        return self._teller.era

    def take_over(self, era: int) -> Sequence[Block]:
        """The definition is this one from here on: see `Teller.tell_anew`."""
        return self._teller.tell_anew(self._lives.standing(self._now), era, self._now)

    def standing(self) -> dict[str, int]:
        """See `Announces`."""
        return self._teller.standing(self._lives.open())

    def _arrived(self, series: Ids) -> None:
        if int(series.max()) >= SERIES_MAX:
            series = series[series < SERIES_MAX]
        if not len(series):
            return
        self._reserve(int(series.max()) + 1)
        if self._devices is None:
            self._watch.arrived(series, self._clock)
        else:
            self._watch.arrived(self._devices.of(series), self._clock)

    def _follow(self, series: Ints, time_ns: int, clock: int) -> None:
        """The silence of these series began or ended."""
        if len(series):
            holds = self._watch.holds(self._watch.truth[series])
            time = np.full(len(series), time_ns, np.int64)
            self._lives.follow(series, time, holds, None, clock, time_ns)

    def _readings(self, ordered: Ordered, now: int, clock: int) -> None:
        self._reserve(ordered.size)
        for step in ordered.rounds():
            time = ordered.time[step.rows]
            bits, measured = self._watch.readings(
                step.series, time, ordered.value[step.rows], ordered.quality[step.rows]
            )
            holds = self._watch.holds(bits)
            matters = holds | (self._lives.status[step.series] != 0)
            if not matters.any():
                continue
            at = np.flatnonzero(matters)
            series = at + step.series.start if isinstance(step.series, slice) else step.series[at]
            when = np.full(len(at), now, np.int64) if self._silence else time[at]
            self._lives.follow(
                series, when, holds[at], None if measured is None else measured[at], clock, now
            )

    def _reserve(self, size: int) -> None:
        self._watch.reserve(size)
        self._lives.reserve(self._watch.size)
        self._teller.reserve(self._watch.size)

    def state(self) -> StepState:
        """Everything remembered."""
        return {
            "alert_moments": np.array([self._now, self._clock], np.int64),
            **self._ordering.state(),
            **self._watch.state(),
            **self._lives.state(),
            **self._teller.state(),
            **self._rows.state(),
            **({} if self._devices is None else self._devices.state()),
        }

    def tables(self, state: StepState) -> Mapping[str, Sequence[str]]:
        """What lies by series, but for what was told of it."""
        watched = [name for name in state if name.startswith("watch_")]
        return {**self._ordering.tables(), "watch": watched, "lives": BY_SERIES}

    def tell(self, pictures: Mapping[str, Picture]) -> None:
        """Say of series when they are about to be written to."""
        self._ordering.tell(pictures)
        self._watch.picture, self._lives.picture = pictures.get("watch"), pictures.get("lives")

    def restore(self, state: StepState) -> None:
        """Take over what `state` gave."""
        moments = state["alert_moments"]
        assert isinstance(moments, np.ndarray)
        self._now, self._clock = int(moments[0]), int(moments[1])
        self._ordering.restore(state)
        self._watch.restore(state)
        self._lives.restore(state)
        self._teller.restore(state)
        self._rows.restore(state)
        if self._devices is not None:
            self._devices.restore(state)


def _of_nothing(series: Ids) -> Block:
    """Series as if each had sent a reading that says nothing, for conditions that look at the series alone."""
    count = len(series)
    times, quality = np.zeros(count, np.int64), np.zeros(count, np.uint16)
    return readings_block(series, times, np.full(count, np.nan), quality, 0)


def _unit(leaf: Leaf | None, shape: Shape) -> tuple[str | None, str | None]:
    """The unit of what an alarm tells, and what follows a series' unit (None: it is not told in that)."""
    if leaf is None:
        return None, None
    if leaf.kind is LeafKind.QUALITY:
        return "readings", None
    return shape.unit, f"/{format_duration(leaf.duration_ns)}" if leaf.kind is LeafKind.RATE else ""
