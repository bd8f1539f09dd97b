"""Windows out of their stored readings, all at once: the same additions in the same order as `accumulation.py`."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ringmain.flows.aggregates import Accumulator
from ringmain.flows.keys import KeyIndex, Keys
from ringmain.flows.readings import GOOD, VALID_MAX, Grades
from ringmain.flows.recent import Rows
from ringmain.flows.totals import Bools, Floats, Ints, Totals
from ringmain.flows.weighting import behind, between
from ringmain.flows.windowing import Windowing

FAR_PAST_NS = -(2**63)
_ONE = np.zeros(1, np.int64)
"""In place of the windows of rows that all lie in one."""


def fold(
    windowing: Windowing,
    window: Ints,
    time: Ints,
    value: Floats,
    grade: Grades,
    bounds: tuple[Ints, Ints],
) -> Totals:
    """Readings in log order to the totals of their windows.

    `window` numbers each reading's window from 0, `bounds` are begin and end of each window. Readings before the begin
    of their window are what came before it: the newest of them holds into the window.
    """
    start, end = bounds
    totals = Totals.empty(len(start), windowing.accumulators)
    if not len(window):
        return totals
    order = np.lexsort((time, window))
    window, time = window[order], time[order]
    newest = np.empty(len(order), np.bool_)
    newest[-1] = True
    np.not_equal(time[1:], time[:-1], out=newest[:-1])
    newest[:-1] |= window[1:] != window[:-1]
    if windowing.graded:
        _count_grades(totals, window[newest], time[newest], grade[order[newest]], start)
    keep = newest & (grade[order] <= VALID_MAX)
    window, time, value = window[keep], time[keep], value[order[keep]]
    inside = time >= start[window] if windowing.weighted else np.ones(len(window), np.bool_)
    if windowing.weighted:
        _weigh(totals, windowing, window, time, value, inside, bounds)
        window, time, value = window[inside], time[inside], value[inside]
    if not len(window):
        return totals
    windows = len(start)
    starts = np.flatnonzero(np.concatenate(([True], window[1:] != window[:-1])))
    ends = np.concatenate((starts[1:], [len(window)])) - 1
    present = window[starts]
    totals.count = np.bincount(window, minlength=windows)
    totals.sum = _summed(window, value, windows)
    totals.min[present] = np.minimum.reduceat(value, starts)
    totals.max[present] = np.maximum.reduceat(value, starts)
    totals.first[present] = value[starts]
    totals.last[present] = value[ends]
    if Accumulator.SHIFTED in totals.extra:
        shifted = value - totals.first[window]
        totals.extra[Accumulator.SHIFTED] = _summed(window, shifted, windows)
        totals.extra[Accumulator.SQUARED] = _summed(window, shifted * shifted, windows)
    if windowing.weighted:
        rest = behind(windowing, time[ends], value[ends], end[present])
        for name, weight in rest.items():
            totals.extra[name][present] += weight
    return totals


def _summed(window: Ints, values: Floats, windows: int) -> Floats:
    return np.bincount(window, weights=values, minlength=windows).astype(np.float64, copy=False)


def _count_grades(totals: Totals, window: Ints, time: Ints, grade: Grades, start: Ints) -> None:
    inside = time >= start[window]
    window, grade = window[inside], grade[inside]
    windows = len(start)
    totals.extra[Accumulator.READINGS] = np.bincount(window, minlength=windows).astype(np.float64)
    good = window[grade == GOOD]
    totals.extra[Accumulator.GOOD] = np.bincount(good, minlength=windows).astype(np.float64)


def _weigh(
    totals: Totals,
    windowing: Windowing,
    window: Ints,
    time: Ints,
    value: Floats,
    inside: Bools,
    bounds: tuple[Ints, Ints],
) -> None:
    """Add what lies between each reading of a window and the one before it, in order of time."""
    before_time = np.concatenate(([FAR_PAST_NS], time[:-1]))
    before_value = np.concatenate(([0.0], value[:-1]))
    first = np.concatenate(([True], window[1:] != window[:-1]))
    before_time[first], before_value[first] = FAR_PAST_NS, 0.0
    window_inside = window[inside]
    weights = between(
        windowing,
        before_time[inside],
        before_value[inside],
        time[inside],
        value[inside],
        bounds[0][window_inside],
    )
    for name, weight in weights.items():
        totals.extra[name] = _summed(window_inside, weight, len(bounds[0]))


def time_range(windowing: Windowing, keys: Keys) -> tuple[int, int]:
    """First and last ns of the readings that windows may depend on."""
    low = windowing.grid.start_of(int(keys.window.min())) - windowing.hold_ns
    return low, windowing.grid.start_of(int(keys.window.max()) + 1) - 1


class TooManyReadingsError(Exception):
    """The windows hold more readings than may be put together at once."""


def window_totals(
    keys: Keys, chunks: Iterable[Rows], windowing: Windowing, readings_max: int | None = None
) -> Totals:
    """What the windows of `keys` add up to over these readings, those of a series in log order.

    Raises TooManyReadingsError when they are more than `readings_max`.
    """
    grid = windowing.grid
    bounds = grid.start(keys.window), grid.start(keys.window + 1)
    index = KeyIndex(keys)
    windows: list[Ints] = []
    times: list[Ints] = []
    values: list[Floats] = []
    grades: list[Grades] = []
    readings = 0
    for chunk in chunks:
        low, high = grid.at(chunk.time_min), grid.at(chunk.time_max)
        window = grid.of(chunk.time) if low != high else _ONE
        for further in range(windowing.reach + 1):  # the value before a window holds into it
            at = window + further
            for rows, key in index.rows(chunk.series, at, low + further, high + further, rising=chunk.rising):
                time = chunk.time[rows]
                if further:
                    near = np.flatnonzero(time >= bounds[0][key] - windowing.hold_ns)
                    rows, key, time = rows[near], key[near], time[near]
                readings += len(rows)
                if readings_max is not None and readings > readings_max:
                    raise TooManyReadingsError
                windows.append(key)
                times.append(time)
                values.append(chunk.value[rows])
                grades.append(np.zeros(len(rows), np.uint8) if chunk.grade is None else chunk.grade[rows])
    if not windows:
        return Totals.empty(len(keys.series), windowing.accumulators)
    return fold(
        windowing,
        np.concatenate(windows),
        np.concatenate(times),
        np.concatenate(values),
        np.concatenate(grades),
        bounds,
    )
