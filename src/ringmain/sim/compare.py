"""The tally against the node's own counts: equal, or the exact difference.

What has to be equal after every message was acknowledged and every window closed:

    rows of readings            the readings acknowledged
    sum of their values         exact, in thousandths
    rows of readings_current    different (series, time)
    flagged rows of it          readings stamped too far ahead
    series                      those with at least one reading
    rows of deadletters         the malformed messages and elements
    sum of the windows' counts  different (series, time) that are not flagged

A message that had to be sent again because its connection broke may be stored twice: exactly then the rows
of `readings` and `deadletters` may exceed the tally, by no more than was sent again, and the sum of values is
not compared. Everything distinct stays exact.
"""

from __future__ import annotations

import msgspec

from ringmain.sim.tally import Tally

NODE_COUNTS_SQL = """
select (select count(*) from readings) as readings,
       (select cast(coalesce(sum(cast(round(value * 1000) as hugeint)), 0) as varchar) from readings) as milli,
       (select count(*) from readings_current) as distinct_readings,
       (select count(*) from readings_current where (quality & 128) <> 0) as ahead,
       (select count(distinct series) from readings) as series,
       (select count(*) from deadletters) as letters,
       (select coalesce(sum("count"), 0)::bigint from "readings.1m") as in_windows,
       (select count(*) from "readings.1m.all" where revision > 0) as revised
"""


class NodeCounts(msgspec.Struct, frozen=True):
    """What `NODE_COUNTS_SQL` answers, in its order."""

    readings: int
    milli: int
    distinct: int
    ahead: int
    series: int
    letters: int
    in_windows: int
    revised: int

    @classmethod
    def of_row(cls, row: list[int | str]) -> NodeCounts:
        """From the one row of the answer."""
        return cls(*(int(value) for value in row))


class Comparison(msgspec.Struct, frozen=True):
    """One line: what the devices were told, what the node shows, and by how much the node may exceed it."""

    what: str
    tally: int
    node: int
    may_exceed: int = 0
    at_least: bool = False

    @property
    def agrees(self) -> bool:
        """Whether the node shows what it must."""
        if self.at_least:
            return self.node >= self.tally
        return self.tally <= self.node <= self.tally + self.may_exceed

    @property
    def exceeded(self) -> bool:
        """Whether the node shows more than it may: no later count makes that agree, since what is stored stays."""
        return not self.at_least and self.node > self.tally + self.may_exceed

    @property
    def verdict(self) -> str:
        """`equal`, or the difference in words."""
        if self.agrees:
            if self.node == self.tally:
                return "equal"
            return (
                "enough" if self.at_least else f"agrees: {self.node - self.tally} stored twice after a resend"
            )
        return f"DIFFERS by {self.node - self.tally:+d}"


def compare(tally: Tally, node: NodeCounts, *, revisions_min: int = 0) -> list[Comparison]:
    """All comparisons, in the order of the table. `revisions_min`: windows that the schedule makes late."""
    lines = [
        Comparison("readings stored", tally.readings, node.readings, tally.resent_readings),
        Comparison("different (series, time)", tally.distinct, node.distinct),
        Comparison("of these stamped ahead", tally.ahead, node.ahead),
        Comparison("counted in windows", tally.in_windows, node.in_windows),
        Comparison("series", tally.series, node.series),
        Comparison("dead letters", tally.letters, node.letters, tally.resent_letters),
        Comparison("unacknowledged messages", 0, tally.unacknowledged),
    ]
    if not tally.resent:
        lines.insert(1, Comparison("sum of values, thousandths", tally.milli, node.milli))
    if revisions_min:
        lines.append(Comparison("revised windows, at least", revisions_min, node.revised, at_least=True))
    return lines


def table(lines: list[Comparison]) -> str:
    """The comparison as text."""
    rows = [("", "devices", "node", "")]
    rows += [(line.what, f"{line.tally:,}", f"{line.node:,}", line.verdict) for line in lines]
    widths = [max(len(row[n]) for row in rows) for n in range(3)]
    return "\n".join(
        f"{what.ljust(widths[0])}  {ours.rjust(widths[1])}  {theirs.rjust(widths[2])}  {verdict}".rstrip()
        for what, ours, theirs, verdict in rows
    )
