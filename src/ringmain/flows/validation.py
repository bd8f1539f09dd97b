"""Which rules a reading breaks, in two forms with equal results: a loop over rows, and NumPy over a round.

The spike rule is the Hampel identifier: F. R. Hampel, "The influence curve and its role in robust estimation", JASA 69
(1974); the factor 1.4826 makes the median absolute deviation of normally distributed values their standard deviation.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntFlag

import numpy as np

from ringmain.flows.block import Floats, Ids, Ints, Qualities
from ringmain.flows.compiled import compiled
from ringmain.flows.growing import NEVER, grown
from ringmain.flows.readings import INVALID_BIT
from ringmain.flows.sweep import Places

MAD_TO_DEVIATION = 1.4826
_INFINITY = np.inf


class Rule(IntFlag):
    """Rules that a reading breaks."""

    RANGE = 1
    RATE = 2
    STUCK = 4
    SPIKE = 8


@dataclass(frozen=True, slots=True)
class Rules:
    """What is allowed; a rule that is not asked for allows everything.

    `rate`: change a nanosecond. `except_value`: one that may stay unchanged, NaN for none. `values`: how many readings before
    a spike is compared with, 0 for none; `factor`: of their median absolute deviation, without 1.4826.
    """

    lowest: float = -np.inf
    highest: float = np.inf
    rate: float = np.inf
    stuck_ns: int = 2**63 - 1
    except_value: float = np.nan
    values: int = 0
    factor: float = np.inf
    floor: float = 0.0


class Before:
    """State by series: time (NEVER: none) and value of the newest reading with a finite value, since when it has been the
    same, and the last values in a ring of `values` places."""

    __slots__ = ("count", "last_time", "last_value", "ring", "since", "values")

    def __init__(self, values: int) -> None:
        self.values = values
        self.last_time: Ints = np.empty(0, np.int64)
        self.last_value: Floats = np.empty(0)
        self.since: Ints = np.empty(0, np.int64)
        self.count: Ints = np.empty(0, np.int64)
        """How many values ever came; the next one goes to this place modulo `values`."""
        self.ring: Floats = np.empty(0)

    def reserve(self, size: int) -> None:
        """Make room for series below `size`."""
        have = len(self.last_time)
        if size <= have:
            return
        size = max(size, min(2 * have, have + 262_144), 1024)
        self.last_time = grown(self.last_time, size, NEVER)
        self.last_value = grown(self.last_value, size, 0.0)
        self.since = grown(self.since, size, NEVER)
        self.count = grown(self.count, size, 0)
        ring = np.zeros(size * self.values)  # memory that nothing is written to is not taken from the system
        ring[: len(self.ring)] = self.ring
        self.ring = ring


@compiled
def check_rows(
    series: Ids,
    time: Ints,
    value: Floats,
    quality: Qualities,
    lowest: float,
    highest: float,
    rate: float,
    stuck_ns: int,
    except_value: float,
    values: int,
    factor: float,
    floor: float,
    last_time: Ints,
    last_value: Floats,
    since: Ints,
    count: Ints,
    ring: Floats,
) -> Ints:
    """Readings in order of series and time; the rules that each breaks (`Rule`), -1 for one without a value."""
    broken = np.zeros(len(series), np.int64)
    window = np.empty(values)
    for row in range(len(series)):
        place = series[row]
        t, v = time[row], value[row]
        if quality[row] & INVALID_BIT != 0 or v != v:
            broken[row] = -1
            continue
        found = 0
        if v < lowest or v > highest:
            found |= 1
        if abs(v) == _INFINITY:
            broken[row] = found
            continue
        if last_time[place] != NEVER and abs(v - last_value[place]) > rate * (t - last_time[place]):
            found |= 2
        if last_time[place] == NEVER or v != last_value[place]:
            since[place] = t
        elif v != except_value and t - since[place] > stuck_ns:
            found |= 4
        if values > 0:
            start = np.int64(place) * values
            if count[place] >= values:
                for position in range(values):
                    number = ring[start + position]
                    below = position
                    while below > 0 and window[below - 1] > number:
                        window[below] = window[below - 1]
                        below -= 1
                    window[below] = number
                middle = window[(values - 1) // 2] * 0.5 + window[values // 2] * 0.5
                above = 0
                while above < values and window[above] <= middle:
                    above += 1
                below = above - 1
                one = other = 0.0  # the two deviations in the middle of all, from the median outwards
                for _ in range(values // 2 + 1):
                    one = other
                    if above >= values or (below >= 0 and middle - window[below] <= window[above] - middle):
                        other = middle - window[below]
                        below -= 1
                    else:
                        other = window[above] - middle
                        above += 1
                spread = other if values % 2 == 1 else one * 0.5 + other * 0.5
                distance = abs(v - middle)
                if distance > factor * spread and distance > floor:
                    found |= 8
            ring[start + count[place] % values] = v
            count[place] += 1
        last_time[place], last_value[place] = t, v
        broken[row] = found
    return broken


def check_round(
    series: Places, time: Ints, value: Floats, quality: Qualities, rules: Rules, before: Before
) -> Ints:
    """As `check_rows`, for readings of which no two belong to one series."""
    broken = np.zeros(len(time), np.int64)
    broken[(value < rules.lowest) | (value > rules.highest)] |= int(Rule.RANGE)
    none = ((quality & INVALID_BIT) != 0) | np.isnan(value)
    broken[none] = -1
    finite = np.isfinite(value) & ~none
    place: Ints = np.arange(series.start, series.stop) if isinstance(series, slice) else series
    if not finite.all():
        place, time, value = place[finite], time[finite], value[finite]
    last_time, last_value = before.last_time[place], before.last_value[place]
    known = last_time != NEVER
    found = np.zeros(len(place), np.int64)
    if rules.rate < np.inf:
        fast = np.abs(value - last_value) > rules.rate * (time - last_time)
        found[known & fast] |= int(Rule.RATE)
    same = known & (value == last_value)
    stuck = same & (value != rules.except_value) & (time - before.since[place] > rules.stuck_ns)
    found[stuck] |= int(Rule.STUCK)
    before.since[place[~same]] = time[~same]
    if rules.values:
        found[_spikes(place, value, rules, before)] |= int(Rule.SPIKE)
        before.ring[place * rules.values + before.count[place] % rules.values] = value
        before.count[place] += 1
    before.last_time[place], before.last_value[place] = time, value
    broken[finite] |= found
    return broken


def _spikes(place: Ints, value: Floats, rules: Rules, before: Before) -> Ints:
    """Which of the values are spikes, beside those before them."""
    full = np.flatnonzero(before.count[place] >= rules.values)
    window = before.ring.reshape(-1, rules.values)[place[full]]
    window.sort(axis=1)
    low, high = (rules.values - 1) // 2, rules.values // 2
    middle = window[:, low] * 0.5 + window[:, high] * 0.5
    window -= middle[:, None]
    np.abs(window, out=window)
    window.sort(axis=1)
    spread = window[:, low] * 0.5 + window[:, high] * 0.5
    distance = np.abs(value[full] - middle)
    spikes: Ints = full[(distance > rules.factor * spread) & (distance > rules.floor)]
    return spikes
