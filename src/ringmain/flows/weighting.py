"""How much of a window a value stands for: the integral over time between one reading and the next.

    held     a value holds until the next reading, but for `hold` at most
    linear   between two readings that are no more than `hold` apart lies a straight line; where they are further apart
             there is nothing

Either way the last value of a window holds to the end of the window, but for `hold` at most, because the reading behind
it is not known when the window closes; and a condition on the value is judged on the value that holds.
"""

from __future__ import annotations

import numpy as np

from ringmain.flows.aggregates import Accumulator
from ringmain.flows.totals import Floats, Ints
from ringmain.flows.windowing import Windowing

Weights = dict[Accumulator, Floats]


def between(
    windowing: Windowing,
    before_time: Ints,
    before_value: Floats,
    time: Ints,
    value: Floats,
    start: Ints | int,
) -> Weights:
    """What lies between readings and those before them, from `start` (of the window) on.

    `before_time`: that of the valid reading before each, far in the past where there is none.
    """
    begin = np.maximum(before_time, start)
    end = np.minimum(time, before_time + windowing.hold_ns)
    held = np.where(end > begin, end - begin, 0).astype(np.float64)
    found: Weights = {}
    wanted = windowing.accumulators
    if Accumulator.ACTIVE in wanted and windowing.condition is not None:
        found[Accumulator.ACTIVE] = windowing.condition.fulfilled(before_value) * held
    if Accumulator.AREA not in wanted:
        return found
    if not windowing.linear:
        found[Accumulator.AREA] = np.where(held > 0, before_value * held, 0.0)
        found[Accumulator.COVERED] = held
        return found
    near = (time - windowing.hold_ns <= before_time) & (time > begin)
    covered = np.where(near, time - begin, 0).astype(np.float64)
    whole = np.where(near, time - before_time, 1).astype(np.float64)
    at_begin = before_value + (value - before_value) * ((begin - before_time) / whole)
    found[Accumulator.AREA] = np.where(near, (at_begin + value) * 0.5 * covered, 0.0)
    found[Accumulator.COVERED] = covered
    return found


def behind(windowing: Windowing, last_time: Ints, last_value: Floats, end: Ints) -> Weights:
    """What the last readings of windows stand for until the windows' ends."""
    held = (np.minimum(end, last_time + windowing.hold_ns) - last_time).astype(np.float64)
    found: Weights = {}
    wanted = windowing.accumulators
    if Accumulator.ACTIVE in wanted and windowing.condition is not None:
        found[Accumulator.ACTIVE] = windowing.condition.fulfilled(last_value) * held
    if Accumulator.AREA in wanted:
        found[Accumulator.AREA] = last_value * held
        found[Accumulator.COVERED] = held
    return found
