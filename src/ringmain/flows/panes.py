"""Panes of hopping windows: how several closed ones make a window, and the newest of each series.

A window that hops is put together out of panes that lie side by side (their length is the greatest common divisor of the
window's length and of `every`), so that a reading is added once, however many windows it belongs to. Its values are
defined that way: panes are windows as `totals.py` says, and are combined in order of time; the sum of a window is the
sum of its panes' sums.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ringmain.flows.aggregates import Accumulator
from ringmain.flows.growing import NEVER, grown
from ringmain.flows.later import Part
from ringmain.flows.picture import Picture
from ringmain.flows.totals import Bools, Ints, Totals
from ringmain.flows.windowing import Windowing

_NAMES = ("count", "sum", "min", "max", "first", "last")


class PaneRing:
    """The newest closed panes of each series, as many as a window has; and up to where windows were dealt with."""

    def __init__(self, windowing: Windowing) -> None:
        self._panes = windowing.panes
        self._accumulators = windowing.accumulators
        self.number: Ints = np.empty((0, self._panes), np.int64)
        """By series: the numbers of the panes held, NEVER where there is none; pane n lies at n modulo their number."""
        self._totals = Totals.empty(0, self._accumulators)
        self.dealt: Ints = np.empty(0, np.int64)
        """By series: windows whose first pane has a lower number have been put out, as far as there was anything."""
        self.picture: Picture | None = None
        """Told of a series before it is written to."""

    def reserve(self, size: int) -> None:
        """Make room for series ids below `size`."""
        have = len(self.dealt)
        if size <= have:
            return
        self.dealt = grown(self.dealt, size, NEVER)
        more = np.full((size - have, self._panes), NEVER)
        self.number = np.concatenate((self.number, more))
        added = Totals.empty((size - have) * self._panes, self._accumulators)
        self._totals = Totals.concatenate([self._totals, added])

    def put(self, series: Ints, pane: Ints, totals: Totals) -> None:
        """Hold these panes, which are in order of number, unless a newer one lies in their place."""
        if self.picture is not None:
            self.picture.before(series)
        place = pane % self._panes
        fresh = np.flatnonzero(self.number[series, place] <= pane)
        at = (series * self._panes + place)[fresh]  # where one comes twice the last one stays
        self.number.reshape(-1)[at] = pane[fresh]
        self._totals.put(at, totals.take(fresh))

    def deal(self, series: Ints, until: Ints) -> None:
        """Windows of these series, each once, have been put out up to before this one, each its own."""
        if self.picture is not None:
            self.picture.before(series)
        self.dealt[series] = until

    def held(self, series: Ints) -> tuple[Ints, Ints, Totals]:
        """The panes held for these series: series, number, totals."""
        row, place = np.nonzero(self.number[series] != NEVER)
        of_series = series[row]
        return of_series, self.number[of_series, place], self._totals.take(of_series * self._panes + place)

    def stored(self) -> dict[str, Part]:
        """Everything, as arrays by series, some with so many elements a series as a window has panes."""
        totals = self._totals
        found: dict[str, Part] = {"panes.dealt": self.dealt, "panes.numbers": self.number.reshape(-1)}
        found |= {f"panes.{name}": getattr(totals, name) for name in _NAMES}
        found |= {f"panes.extra.{name}": values for name, values in totals.extra.items()}
        return found

    def restore(self, found: Mapping[str, Part]) -> None:
        """Take over what `stored` gave, or `compact` made of it."""
        parts = compact(found).items()
        arrays = {name: np.asarray(part) for name, part in parts if name.startswith("panes.")}
        self.reserve(len(arrays["panes.dealt"]))
        self.dealt[: len(arrays["panes.dealt"])] = arrays["panes.dealt"]
        count, total, low, high, first, last = (arrays[f"panes.{name}"] for name in _NAMES)
        extra = {name: arrays[f"panes.extra.{name}"] for name in self._accumulators}
        self.put(
            arrays["panes.series"],
            arrays["panes.number"],
            Totals(count, total, low, high, first, last, extra=extra),
        )


def compact(found: Mapping[str, Part]) -> dict[str, Part]:
    """What `stored` gave, among other things, without the places in which there is no pane."""
    kept = dict(found)
    if "panes.numbers" not in found:
        return kept
    numbers = np.asarray(kept.pop("panes.numbers"))
    held = np.flatnonzero(numbers != NEVER)
    panes = len(numbers) // max(1, len(np.asarray(found["panes.dealt"])))
    kept["panes.series"], kept["panes.number"] = held // max(1, panes), numbers[held]
    for name in found:
        if name.startswith("panes.") and name not in ("panes.dealt", "panes.numbers"):
            kept[name] = np.asarray(found[name])[held]
    return kept


def combined(
    windowing: Windowing, series: Ints, pane: Ints, panes: Totals, newest: Ints, window: Ints
) -> Totals:
    """Windows out of panes that are in order of (series, number).

    `newest`: for each window, the place of its newest pane that is not empty; `window`: the number of its first pane.
    """
    count = np.zeros(len(window), np.int64)
    for back in range(windowing.panes):
        place = np.maximum(newest - back, 0)
        mine = (newest >= back) & (series[place] == series[newest]) & (pane[place] >= window)
        count += mine
    totals = Totals.empty(len(window), windowing.accumulators)
    for back in range(int(count.max(initial=0)) - 1, -1, -1):
        chosen = np.flatnonzero(count > back)
        _add(totals, chosen, panes.take(newest[chosen] - back))
    return totals


def _add(totals: Totals, place: Ints, pane: Totals) -> None:
    """Add a pane to each of these windows."""
    valued: Bools = pane.count > 0
    begun = totals.count[place] > 0
    fresh = valued & ~begun
    totals.first[place[fresh]] = pane.first[fresh]
    extra = totals.extra
    if Accumulator.SHIFTED in extra:
        # sums of differences to the first value of the window, from those to the first value of the pane
        shift = np.where(valued, pane.first - totals.first[place], 0.0)
        shifted, squared = pane.extra[Accumulator.SHIFTED], pane.extra[Accumulator.SQUARED]
        extra[Accumulator.SHIFTED][place] += shifted + pane.count * shift
        extra[Accumulator.SQUARED][place] += squared + 2.0 * shift * shifted + pane.count * shift * shift
    for name in (Accumulator.READINGS, Accumulator.GOOD):
        if name in extra:
            extra[name][place] += pane.extra[name]
    totals.count[place] += pane.count
    totals.sum[place] += pane.sum
    totals.min[place] = np.minimum(totals.min[place], pane.min)
    totals.max[place] = np.maximum(totals.max[place], pane.max)
    totals.last[place[valued]] = pane.last[valued]
