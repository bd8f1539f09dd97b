"""The corridor of swinging door trending, in two forms with equal results: a loop over rows, and NumPy over a round.

E. H. Bristol, "Swinging door trending: adaptive trend recording?", ISA National Conference Proceedings, 1990. From the
last reading passed on (the *base*) straight lines to later readings are looked at. Each reading since then, with the
deviation above and below it, narrows the slopes that a line may have (the *corridor*). While the slope to the newest
reading lies within the corridor of all before it, that reading is held, and those between may be left out. When it does
not, the reading that was held is passed on and becomes the base. So, other than with doors that look at their own opening
only, a line that is passed on was compared with every reading under it.

Rounding. With u = 2**-53, v the change of value since the base and t the time since then (scaled by 2**-63, so that
quotients do not underflow), computed slopes have a relative error of less than 4u. For a reading i that was left out and the
line to the reading n that is passed on, |slope(n) t(i) - v(i)| therefore exceeds the deviation that was put into the
corridor by less than 16u (|v(i)| + deviation) and some denormal numbers. The corridor is made with a deviation that is
smaller by 64u (|v(i)| + deviation) and 2**-1070; where nothing is left of it, or a quotient overflows, the corridor is shut and
the next reading is passed on. The error in real numbers, and thus for whoever interpolates exactly, is never above the
deviation.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ringmain.flows.block import Bools, Floats, Ids, Ints, Qualities
from ringmain.flows.compiled import compiled
from ringmain.flows.growing import NEVER, grown
from ringmain.flows.readings import INVALID_BIT
from ringmain.flows.sweep import Places

_SCALE = 2.0**-63
_ROUNDING = 2.0**-47
_DENORMAL = 2.0**-1070
_INFINITY = np.inf

Passed = tuple[Ids, Ints, Floats, Qualities]
"""Series, time, value, quality of readings that are passed on."""

BASE_TIME, HELD_TIME, SEEN, PASSED = range(4)
BASE_VALUE, HELD_VALUE, LOW, HIGH = range(4)


class Corridors:
    """State by series. Without a base, BASE_TIME is NEVER; without a held reading, HELD_TIME.

    `times`: base, held reading, log times of the newest reading and of the last one passed on. `values`: base, held
    reading, lowest and highest slope (a scaled nanosecond). `quality`: of base and held reading, which have the same.
    """

    __slots__ = ("quality", "times", "values")

    def __init__(self) -> None:
        self.times: tuple[Ints, ...] = tuple(np.empty(0, np.int64) for _ in range(4))
        self.values: tuple[Floats, ...] = tuple(np.empty(0) for _ in range(4))
        self.quality: Qualities = np.empty(0, np.uint16)

    def __len__(self) -> int:
        return len(self.quality)

    def reserve(self, size: int) -> None:
        """Make room for series below `size`."""
        if size <= len(self):
            return
        size = max(size, 2 * len(self), 1024)
        self.times = tuple(grown(array, size, NEVER) for array in self.times)
        self.values = tuple(grown(array, size, 0.0) for array in self.values)
        self.quality = grown(self.quality, size, 0)


@compiled
def swing_rows(
    series: Ids,
    time: Ints,
    value: Floats,
    quality: Qualities,
    now_ns: int,
    deviation: float,
    share: float,
    interval_ns: int,
    times: tuple[Ints, ...],
    values: tuple[Floats, ...],
    base_quality: Qualities,
    out_series: Ids,
    out_time: Ints,
    out_value: Floats,
    out_quality: Qualities,
) -> int:
    """Readings in order of series and time: what is passed on goes to `out_*` (room for twice as many); how many.

    `deviation`: in the unit of the values, or `share` of the base's value where that is not 0.
    """
    base_time, held_time, seen, passed = times
    base_value, held_value, low, high = values
    count = 0
    for row in range(len(series)):
        place = series[row]
        t, v, q = time[row], value[row], quality[row]
        seen[place] = now_ns
        usable = q & INVALID_BIT == 0 and abs(v) < _INFINITY
        if usable and base_time[place] != NEVER and q == base_quality[place]:
            while True:
                since = t - base_time[place]
                span = since * _SCALE
                change = v - base_value[place]
                slope = change / span
                if 0 < since <= interval_ns and abs(slope) < _INFINITY and low[place] <= slope <= high[place]:
                    bound = share * abs(base_value[place]) if share != 0.0 else deviation
                    room = bound - _ROUNDING * (abs(change) + bound) - _DENORMAL
                    if change == 0.0:
                        room = max(room, 0.0)
                    lowest = (change - room) / span
                    highest = (change + room) / span
                    if room >= 0.0 and abs(lowest) < _INFINITY and abs(highest) < _INFINITY:
                        low[place] = max(low[place], lowest)
                        high[place] = min(high[place], highest)
                    else:
                        low[place] = _INFINITY
                    held_time[place] = t
                    held_value[place] = v
                    break
                moved = held_time[place] != NEVER
                if moved:
                    out_series[count] = place
                    out_time[count] = base_time[place] = held_time[place]
                    out_value[count] = base_value[place] = held_value[place]
                else:
                    out_series[count] = place
                    out_time[count] = base_time[place] = t
                    out_value[count] = base_value[place] = v
                out_quality[count] = q
                count += 1
                held_time[place] = NEVER
                passed[place] = now_ns
                low[place] = -_INFINITY
                high[place] = _INFINITY
                if not moved:
                    break
            continue
        if held_time[place] != NEVER:
            out_series[count] = place
            out_time[count] = held_time[place]
            out_value[count] = held_value[place]
            out_quality[count] = base_quality[place]
            count += 1
            held_time[place] = NEVER
        out_series[count] = place
        out_time[count] = t
        out_value[count] = v
        out_quality[count] = q
        count += 1
        passed[place] = now_ns
        base_time[place] = t if usable else NEVER
        base_value[place] = v
        base_quality[place] = q
        low[place] = -_INFINITY
        high[place] = _INFINITY
    return count


def swing_round(
    series: Places,
    time: Ints,
    value: Floats,
    quality: Qualities,
    now_ns: int,
    deviation: float,
    share: float,
    interval_ns: int,
    times: tuple[Ints, ...],
    values: tuple[Floats, ...],
    base_quality: Qualities,
) -> Passed:
    """As `swing_rows`, for readings of which no two belong to one series; what is passed on, in no order."""
    base_time, held_time, seen, passed = times
    base_value, held_value, low, high = values
    place: Ints = np.arange(series.start, series.stop) if isinstance(series, slice) else series
    seen[place] = now_ns
    follows = ((quality & INVALID_BIT) == 0) & np.isfinite(value)
    usable = follows.copy()
    follows &= (base_time[place] != NEVER) & (quality == base_quality[place])
    held = held_time[place] != NEVER
    parts: list[Passed] = []

    def pass_on(rows: Bools, moment: Ints, number: Floats, bits: Qualities) -> None:
        if rows.any():
            parts.append((place[rows].astype(np.uint32), moment[rows], number[rows], bits[rows]))
            passed[place[rows]] = now_ns

    def begin(rows: Bools, moment: Ints, number: Floats) -> None:
        chosen = place[rows]
        base_time[chosen], base_value[chosen] = moment[rows], number[rows]
        low[chosen], high[chosen], held_time[chosen] = -np.inf, np.inf, NEVER

    def narrow(rows: Bools) -> Bools:
        """Hold those whose line lies within the corridor; which were not."""
        chosen = place[rows]
        since = time[rows] - base_time[chosen]
        span = since * _SCALE
        change = value[rows] - base_value[chosen]
        slope = change / span
        within = (since > 0) & (since <= interval_ns) & np.isfinite(slope)
        within &= (low[chosen] <= slope) & (slope <= high[chosen])
        bound = share * np.abs(base_value[chosen]) if share != 0.0 else np.full(len(chosen), deviation)
        room = bound - _ROUNDING * (np.abs(change) + bound) - _DENORMAL
        room = np.where(change == 0.0, np.maximum(room, 0.0), room)
        lowest, highest = (change - room) / span, (change + room) / span
        open_ = (room >= 0.0) & np.isfinite(lowest) & np.isfinite(highest)
        kept = chosen[within]
        low[kept] = np.where(open_, np.maximum(low[chosen], lowest), np.inf)[within]
        high[kept] = np.where(open_, np.minimum(high[chosen], highest), high[chosen])[within]
        held_time[kept], held_value[kept] = time[rows][within], value[rows][within]
        outside = rows.copy()
        outside[rows] = ~within
        return outside

    outside = narrow(follows)
    moved = outside & held
    if moved.any():
        pass_on(moved, held_time[place], held_value[place], quality)
        begin(moved, held_time[place], held_value[place])
    outside = (outside & ~held) | narrow(moved)
    pass_on(outside, time, value, quality)
    begin(outside, time, value)
    broken = ~follows
    if broken.any():
        pass_on(broken & held, held_time[place], held_value[place], base_quality[place])
        pass_on(broken, time, value, quality)
        begin(broken, np.where(usable, time, NEVER), value)
        base_quality[place[broken]] = quality[broken]
    return joined_parts(parts)


def joined_parts(parts: list[Passed]) -> Passed:
    """All of them, one after the other."""
    parts = [part for part in parts if len(part[0])]
    if len(parts) == 1:
        return parts[0]
    if not parts:
        return np.empty(0, np.uint32), np.empty(0, np.int64), np.empty(0), np.empty(0, np.uint16)
    columns: list[NDArray[np.generic]] = [
        np.concatenate([part[column] for part in parts]) for column in range(4)
    ]
    return columns[0], columns[1], columns[2], columns[3]  # type: ignore[return-value]
