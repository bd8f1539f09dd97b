"""The fold of the step `latest-sum`: readings in, a row a group for every instant in which something changed out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from ringmain.flows.block import Block, Bools, Floats, Ints, arrow
from ringmain.flows.expression import Expression
from ringmain.flows.expression_values import Column
from ringmain.flows.grouping import Codes, SeriesGroups, Term, group_fields
from ringmain.flows.latest import Heard, Latest, Listening, WhenStale
from ringmain.flows.ordering_rows import kept
from ringmain.flows.pending import Pending, together
from ringmain.flows.state import NEVER, grown
from ringmain.flows.step import Context, StepState
from ringmain.model.quality import Quality
from ringmain.model.schemas import TIMESTAMP

if TYPE_CHECKING:
    from ringmain.flows.steps.latest_sum import LatestSumSettings


def total_schema(terms: tuple[Term, ...]) -> pa.Schema:
    """The schema of totals: group, log time, sum, quality; series in it, known, stale; the oldest time in it."""
    return pa.schema(
        [
            *group_fields(terms),
            pa.field("time", TIMESTAMP, nullable=False),
            pa.field("value", pa.float64()),
            pa.field("quality", pa.uint16(), nullable=False),
            pa.field("reporting", pa.int64(), nullable=False),
            pa.field("expected", pa.int64(), nullable=False),
            pa.field("stale", pa.int64(), nullable=False),
            pa.field("oldest", TIMESTAMP),
        ]
    )


class LatestSum:
    """The step. What follows from an instant is worked out when it has ended."""

    def __init__(
        self,
        settings: LatestSumSettings,
        terms: tuple[Term, ...],
        factor: Expression | None,
        context: Context,
    ) -> None:
        self._schema = total_schema(terms)
        self._stale_ns = settings.stale_ns
        self._every_ns = settings.every_ns
        self._keep_stale = settings.when_stale is WhenStale.KEEP
        self._attributes = context.attributes
        self._groups = SeriesGroups(terms, context.attributes)
        self._factor = None if factor is None else factor.evaluator(context.attributes)
        self._latest = Latest()
        self._listening = Listening(self._latest, context)
        self._pending = Pending()
        self._now = NEVER
        self._stale_at = NEVER
        self._version = -1
        self._group: Ints = np.empty(0, np.int64)
        """By series: its group, -1 where nothing came yet."""
        self._weight: Floats = np.empty(0)
        self._stale: Bools = np.empty(0, np.bool_)
        self._codes = {place: np.empty(0, np.int32) for place in self._groups.by_column}
        """By series: the codes of columns as in its newest row."""
        self._changed: Bools = np.empty(0, np.bool_)
        """By group: whether a row is due."""
        self._told: Ints = np.empty(0, np.int64)
        """By group: log time of its newest row."""
        self._members: Members | None = None

    def take(self, block: Block) -> tuple[()]:
        """Collect the instant."""
        self._pending.take(block)
        return ()

    def advance(self, now_ns: int) -> list[Block]:
        """The instant has ended: the totals that changed in it."""
        moment, self._now = self._now, now_ns
        blocks = self._pending.end()
        if blocks:
            self._hear(blocks, moment)
        if self._attributes.version != self._version:
            changed = self._attributes.changed_since(self._version)
            self._version = self._attributes.version
            changed = changed[changed < len(self._group)]
            self._regroup(changed[self._latest.time[changed] != NEVER])
        if self._stale_ns is not None and moment >= self._stale_at:
            self._age(moment, self._stale_ns)
        due = self._changed
        if self._every_ns and due.any():
            due = due & ((self._told == NEVER) | (moment - self._told >= self._every_ns))
        if not due.any():
            return []
        groups = np.flatnonzero(due)
        self._changed[groups] = False
        self._told[groups] = moment
        return [Block(self._totals(groups, moment), now_ns)]

    # An instant

    def _hear(self, blocks: list[Block], moment: int) -> None:
        whole, arrival = together(blocks)
        heard = self._listening.hear(whole, arrival, moment)
        self._reserve()
        if heard is None:
            return
        if self._factor is not None:
            self._weigh(heard, self._factor.column(Block(whole.rows, moment)))
        moved = self._columns_of(heard, whole)
        if heard.new is not None:
            moved = heard.ids[heard.new] if moved is None else np.union1d(moved, heard.ids[heard.new])
        self._stale[heard.series] = False
        if moved is not None and len(moved):
            self._regroup(moved)
        self._changed[self._group[heard.series]] = True

    def _reserve(self) -> None:
        size = len(self._latest.time)
        if size > len(self._group):
            self._group = grown(self._group, size, -1)
            self._weight = grown(self._weight, size, 1.0)
            self._stale = grown(self._stale, size, False)
            self._codes = {place: grown(codes, size, -1) for place, codes in self._codes.items()}

    def _columns_of(self, heard: Heard, whole: Block) -> Ints | None:
        """Take over the columns that make groups; the series for which one changed."""
        moved: list[Ints] = []
        for place, known in self._codes.items():
            term = self._groups.terms[place]
            column = whole.rows.column(whole.rows.schema.get_field_index(term.source))
            codes = heard.chosen(self._groups.codes[place].of_column(column))
            changed = known[heard.series] != codes
            if changed.any():
                known[heard.series] = codes
                moved.append(heard.ids[changed])
        return np.unique(np.concatenate(moved)) if moved else None

    def _regroup(self, series: Ints) -> None:
        """Give these series the group and weight that they have now."""
        if not len(series):
            return
        columns: dict[int, Codes] = {place: codes[series] for place, codes in self._codes.items()}
        groups = self._groups.of(series, columns)
        if self._groups.count > len(self._changed):
            size = max(self._groups.count, 2 * len(self._changed))
            self._changed = grown(self._changed, size, False)
            self._told = grown(self._told, size, NEVER)
        before = self._group[series]
        moved = groups != before
        if moved.any():
            left = before[moved]
            self._changed[left[left >= 0]] = True
            self._changed[groups[moved]] = True
            self._group[series] = groups
            self._members = None

    def _weigh(self, heard: Heard, factors: Column) -> None:
        """Take over the factor of each series' newest value; without one the series counts as without value."""
        factor = np.asarray(factors.data, np.float64)
        if factors.null is not None:
            factor = np.where(factors.null, np.nan, factor)
        factor = heard.chosen(factor)
        self._weight[heard.series] = factor
        self._latest.good[heard.series] &= np.isfinite(factor)

    def _age(self, moment: int, stale_ns: int) -> None:
        """Find the series that have fallen silent."""
        fresh = (self._latest.time != NEVER) & ~self._stale
        silent = fresh & (self._latest.seen <= moment - stale_ns)
        if silent.any():
            self._stale |= silent
            self._changed[self._group[silent]] = True
            fresh &= ~silent
        oldest = self._latest.seen[fresh].min(initial=moment)
        self._stale_at = int(oldest) + stale_ns

    # Totals

    def _members_now(self) -> Members:
        if self._members is None:
            self._members = Members(self._group)
        return self._members

    def _totals(self, groups: Ints, moment: int) -> pa.RecordBatch:
        chosen, place, starts = self._members_now().of(groups)
        latest = self._latest
        count = len(groups)
        good, stale = latest.good[chosen], self._stale[chosen]
        used = good if self._keep_stale else good & ~stale
        value = latest.value[chosen]
        if self._factor is not None:
            value = value * self._weight[chosen]
        everything = bool(used.all())
        total = np.bincount(
            place, weights=value if everything else np.where(used, value, 0.0), minlength=count
        )
        expected = np.bincount(place, minlength=count)
        series = expected if everything else np.bincount(place[used], minlength=count)
        silent = np.bincount(place[stale], minlength=count) if stale.any() else np.zeros(count, np.int64)
        time = latest.time[chosen]
        oldest = np.full(count, NEVER, np.int64)
        within = expected > 0
        oldest[within] = (
            np.minimum.reduceat(
                time if everything else np.where(used, time, np.int64(2**63 - 1)), starts[within]
            )
            if len(chosen)
            else oldest[within]
        )
        none = series == 0
        doubt = used & (latest.doubtful[chosen] | stale)
        questionable = (series < expected) | (np.bincount(place[doubt], minlength=count) > 0)
        quality = np.where(
            none, np.uint16(Quality.INVALID), np.where(questionable, np.uint16(1), np.uint16(0))
        )
        masked = none if none.any() else None
        return pa.RecordBatch.from_arrays(
            [
                *self._groups.columns(groups),
                arrow(np.full(count, moment, np.int64), TIMESTAMP),
                pa.array(total, mask=masked),
                pa.array((quality | np.uint16(Quality.CALCULATED)).astype(np.uint16)),
                pa.array(series.astype(np.int64)),
                pa.array(expected.astype(np.int64)),
                pa.array(silent.astype(np.int64)),
                pa.array(np.where(none, 0, oldest), pa.int64(), mask=masked).view(TIMESTAMP),
            ],
            schema=self._schema,
        )

    # State

    def state(self) -> StepState:
        """Everything remembered."""
        latest = self._latest
        return {
            "moments": np.array([self._now, self._stale_at], np.int64),
            **self._pending.state(),
            "time": latest.time,
            "value": latest.value,
            "seen": latest.seen,
            "good": latest.good,
            "doubtful": latest.doubtful,
            "group": self._group,
            "weight": self._weight,
            "stale": self._stale,
            **self._groups.state(),
            "changed": self._changed,
            "told": self._told,
            **{f"column_{place}": codes for place, codes in self._codes.items()},
        }

    def restore(self, state: StepState) -> None:
        """Take over a state."""
        self._now, self._stale_at = (int(moment) for moment in kept(state, "moments", np.int64))
        self._pending.restore(state)
        latest = self._latest
        latest.time = kept(state, "time", np.int64)
        latest.value = kept(state, "value", np.float64)
        latest.seen = kept(state, "seen", np.int64)
        latest.good = kept(state, "good", np.bool_)
        latest.doubtful = kept(state, "doubtful", np.bool_)
        self._group = kept(state, "group", np.int64)
        self._weight = kept(state, "weight", np.float64)
        self._stale = kept(state, "stale", np.bool_)
        self._groups.restore(state)
        self._changed = kept(state, "changed", np.bool_)
        self._told = kept(state, "told", np.int64)
        self._codes = {place: kept(state, f"column_{place}", np.int32) for place in self._codes}


class Members:
    """The series of each group, in order."""

    def __init__(self, group: Ints) -> None:
        known = np.flatnonzero(group >= 0)
        order = np.argsort(group[known], kind="stable")
        self.series: Ints = known[order]
        """By group, then by series."""
        self._group: Ints = group[known][order]
        self._groups = int(self._group[-1]) + 1 if len(known) else 0
        self._starts = np.searchsorted(self._group, np.arange(self._groups + 1))

    def of(self, groups: Ints) -> tuple[Ints, Ints, Ints]:
        """The series of these (rising) groups; for each the place of its group among them; where each group begins."""
        if not self._groups:
            return self.series, self.series, np.zeros(len(groups), np.int64)
        within = np.minimum(groups, self._groups - 1)
        counts = np.where(groups < self._groups, self._starts[within + 1] - self._starts[within], 0)
        ends = np.cumsum(counts)
        starts = ends - counts
        place = np.repeat(np.arange(len(groups)), counts)
        if len(place) == len(self.series):
            return self.series, place, starts
        return (
            self.series[np.repeat(self._starts[within] - starts, counts) + np.arange(len(place))],
            place,
            starts,
        )
