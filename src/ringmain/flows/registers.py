"""What a register (a meter's counter) has counted between readings, in two forms with equal results.

A loop over rows knows every case. The NumPy form works on a round: readings that simply continue the one before, which
is nearly all, are subtracted at once, and the loop gets the others.

A reading that does not continue its base (the newest reading that was believed) is a *suspect*: nothing is said before
the next reading shows whether it was an outlier (the next one continues the base) or a new beginning (the next one
continues the suspect). So a single wrong reading neither invents consumption nor loses any.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from ringmain.flows.block import Bools, Floats, Ids, Ints, Qualities
from ringmain.flows.compiled import compiled
from ringmain.flows.growing import NEVER, grown
from ringmain.flows.ordering_rows import Ordered
from ringmain.flows.readings import INVALID_BIT
from ringmain.flows.sweep import Places
from ringmain.model.quality import Quality

_SUBSTITUTED, _ESTIMATED, _CALCULATED = (
    int(Quality.SUBSTITUTED),
    int(Quality.ESTIMATED),
    int(Quality.CALCULATED),
)
_WITHOUT_ORIGIN = 0xFFFF & ~_CALCULATED
_DOUBT = int(Quality.QUESTIONABLE | Quality.INACCURATE)
_INFINITY = np.inf
_FOREVER = 2**63 - 1


class Break(IntEnum):
    """Why consumption was not simply the difference of two readings."""

    EXCHANGE = 0
    JUMP = 1
    RESET = 2
    OUTLIER = 3
    GAP = 4


@dataclass(slots=True)
class Registers:
    """State by series. Times are NEVER where there is no such reading."""

    base_time: Ints
    base_value: Floats
    base_quality: Qualities
    suspect_time: Ints
    suspect_value: Floats
    suspect_quality: Qualities
    exchanged: Bools
    """The series has another device than its base had."""

    @classmethod
    def new(cls) -> Registers:
        """No series."""
        none, number, bits = np.empty(0, np.int64), np.empty(0), np.empty(0, np.uint16)
        return cls(none, number, bits, none, number, bits, np.empty(0, np.bool_))

    def reserve(self, size: int) -> None:
        """Make room for series below `size`."""
        have = len(self.base_time)
        if size <= have:
            return
        size = max(size, 2 * have, 1024)
        for name in self.__slots__:
            setattr(self, name, grown(getattr(self, name), size, NEVER if name.endswith("time") else 0))

    @property
    def arrays(self) -> tuple[Ints, Floats, Qualities, Ints, Floats, Qualities, Bools]:
        """All of them, as the loop takes them."""
        return (
            self.base_time,
            self.base_value,
            self.base_quality,
            self.suspect_time,
            self.suspect_value,
            self.suspect_quality,
            self.exchanged,
        )


@dataclass(frozen=True, slots=True)
class Limits:
    """What is plausible. `per_ns`: highest consumption a nanosecond. `step`: of one interval. Infinite: anything.

    `modulus`: the register's capacity, 0 if it does not roll over. `from_zero`: after a reset it counted from zero.
    `gap_ns`: after a longer interval the register begins anew.
    """

    per_ns: float
    step: float
    modulus: float
    from_zero: bool
    gap_ns: int


@dataclass(slots=True)
class Counted:
    """Intervals (start to time) with what was counted in them, and breaks; the columns of each of equal length."""

    series: Ids
    start: Ints
    time: Ints
    amount: Floats
    quality: Qualities
    break_series: Ids
    break_time: Ints
    break_value: Floats
    break_quality: Qualities
    why: Ints
    rollovers: int = 0
    invalid: int = 0

    @classmethod
    def room(cls, rows: int) -> Counted:
        """Room for what so many readings can give."""
        return cls(
            np.empty(2 * rows, np.uint32),
            np.empty(2 * rows, np.int64),
            np.empty(2 * rows, np.int64),
            np.empty(2 * rows),
            np.empty(2 * rows, np.uint16),
            np.empty(2 * rows, np.uint32),
            np.empty(2 * rows, np.int64),
            np.empty(2 * rows),
            np.empty(2 * rows, np.uint16),
            np.empty(2 * rows, np.int64),
        )

    @classmethod
    def plain(cls, series: Ids, start: Ints, time: Ints, amount: Floats, quality: Qualities) -> Counted:
        """Intervals without breaks."""
        return cls(series, start, time, amount, quality, *_NO_BREAKS)

    @staticmethod
    def joined(parts: list[Counted]) -> Counted:
        """All of them, one after the other."""
        if len(parts) == 1:
            return parts[0]
        out = Counted.room(0)
        for name in Counted.__slots__[:10]:
            setattr(out, name, np.concatenate([getattr(part, name) for part in parts]))
        out.rollovers = sum(part.rollovers for part in parts)
        out.invalid = sum(part.invalid for part in parts)
        return out


_NO_BREAKS: tuple[Ids, Ints, Floats, Qualities, Ints] = (
    np.empty(0, np.uint32),
    np.empty(0, np.int64),
    np.empty(0),
    np.empty(0, np.uint16),
    np.empty(0, np.int64),
)


@compiled
def count_rows(
    series: Ids,
    time: Ints,
    value: Floats,
    quality: Qualities,
    per_ns: float,
    step: float,
    modulus: float,
    from_zero: bool,
    gap_ns: int,
    base_time: Ints,
    base_value: Floats,
    base_quality: Qualities,
    suspect_time: Ints,
    suspect_value: Floats,
    suspect_quality: Qualities,
    exchanged: Bools,
    out_series: Ids,
    out_start: Ints,
    out_time: Ints,
    out_amount: Floats,
    out_quality: Qualities,
    break_series: Ids,
    break_time: Ints,
    break_value: Floats,
    break_quality: Qualities,
    why: Ints,
) -> tuple[int, int, int, int]:
    """Readings in order of series and time; how many intervals, breaks, roll-overs, readings without a value."""
    rows = breaks = rollovers = invalid = 0
    limited = per_ns < _INFINITY or step < _INFINITY
    for row in range(len(series)):
        place = series[row]
        t, v, q = time[row], value[row], quality[row]
        if q & INVALID_BIT != 0 or not abs(v) < _INFINITY:
            invalid += 1
            continue
        begins = base_time[place] == NEVER
        if not begins and (exchanged[place] or t - base_time[place] > gap_ns):
            begins = True
            break_series[breaks], break_time[breaks] = place, t
            break_value[breaks], break_quality[breaks] = v, q
            why[breaks] = 0 if exchanged[place] else 4
            breaks += 1
        exchanged[place] = False
        believed = False
        amount = 0.0
        if not begins:
            for attempt in range(2):
                if attempt == 0:
                    t0, v0, q0 = base_time[place], base_value[place], base_quality[place]
                elif suspect_time[place] == NEVER:
                    break
                else:
                    t0, v0, q0 = suspect_time[place], suspect_value[place], suspect_quality[place]
                amount = v - v0
                rolled = False
                if amount < 0.0 and v0 < modulus and v >= 0.0:
                    amount += modulus
                    rolled = limited or amount < modulus / 2
                    believed = rolled
                else:
                    believed = amount >= 0.0
                believed = believed and amount <= step and amount <= per_ns * (t - t0)
                if not believed:
                    continue
                if suspect_time[place] != NEVER:
                    ts, vs, qs = suspect_time[place], suspect_value[place], suspect_quality[place]
                    break_series[breaks], break_time[breaks] = place, ts
                    break_value[breaks], break_quality[breaks] = vs, qs
                    why[breaks] = 3
                    if attempt == 1:
                        tb, qb = base_time[place], base_quality[place]
                        dropped = vs < base_value[place]
                        why[breaks] = 2 if dropped else 1
                        if dropped and from_zero and vs >= 0.0 and vs <= step and vs <= per_ns * (ts - tb):
                            out_series[rows] = place
                            out_start[rows], out_time[rows], out_amount[rows] = tb, ts, vs
                            one, other = qb & _CALCULATED, qs & _CALCULATED
                            formed = _CALCULATED
                            if one in (_SUBSTITUTED, _ESTIMATED) or other in (_SUBSTITUTED, _ESTIMATED):
                                formed = _ESTIMATED
                            out_quality[rows] = ((qb | qs) & _WITHOUT_ORIGIN) | formed | _DOUBT
                            rows += 1
                    breaks += 1
                if rolled:
                    rollovers += 1
                out_series[rows] = place
                out_start[rows], out_time[rows], out_amount[rows] = t0, t, amount
                one, other = q0 & _CALCULATED, q & _CALCULATED
                formed = _CALCULATED
                if one in (_SUBSTITUTED, _ESTIMATED) or other in (_SUBSTITUTED, _ESTIMATED):
                    formed = _ESTIMATED
                out_quality[rows] = ((q0 | q) & _WITHOUT_ORIGIN) | formed
                rows += 1
                break
        if not believed and suspect_time[place] != NEVER:
            break_series[breaks], break_time[breaks] = place, suspect_time[place]
            break_value[breaks], break_quality[breaks] = suspect_value[place], suspect_quality[place]
            why[breaks] = 3
            breaks += 1
        if begins or believed:
            base_time[place], base_value[place], base_quality[place] = t, v, q
            suspect_time[place] = NEVER
        else:
            suspect_time[place], suspect_value[place], suspect_quality[place] = t, v, q
    return rows, breaks, rollovers, invalid


def count(
    series: Ids,
    time: Ints,
    value: Floats,
    quality: Qualities,
    limits: Limits,
    state: Registers,
    scratch: Counted | None = None,
) -> Counted:
    """The loop over rows. `scratch`: room for what it gives, which nothing that it returned is part of."""
    out = Counted.room(len(series)) if scratch is None else scratch
    columns = [getattr(out, name) for name in Counted.__slots__[:10]]
    for column in (series, time, value, quality):
        column.flags.writeable = (
            False  # as those of `Ordered` are: the loop is compiled for one kind of array only
        )
    rows, breaks, rollovers, invalid = count_rows(
        series,
        time,
        value,
        quality,
        limits.per_ns,
        limits.step,
        limits.modulus,
        limits.from_zero,
        limits.gap_ns,
        *state.arrays,
        *columns,
    )
    given = Counted.room(0)
    given.rollovers, given.invalid = rollovers, invalid
    for place, name in enumerate(Counted.__slots__[:10]):
        setattr(given, name, columns[place][: rows if place < 5 else breaks].copy())
    return given


@compiled
def count_plain(
    series: Ids,
    time: Ints,
    value: Floats,
    quality: Qualities,
    scattered: bool,
    limits: tuple[float, float, int],
    base: tuple[Ints, Floats, Qualities],
    suspect_time: Ints,
    exchanged: Bools,
    out: tuple[Ints, Floats, Qualities],
) -> bool:
    """Readings, one a series, that all continue their base: what was counted. False, and nothing is done, if one does not.

    `limits`: `per_ns`, `step`, `gap_ns` of Limits. `out`: start, amount, quality of the intervals. `scattered`: rows belong
    to the places of their series in the state; else to their own, so that processors do many of them at a time.
    """
    per_ns, step, gap_ns = limits
    base_time, base_value, base_quality = base
    start, amount, formed = out
    rows = len(time)
    strange = False
    if not scattered:
        for row in range(rows):
            start[row] = base_time[row]
        for row in range(rows):
            amount[row] = value[row] - base_value[row]
        for row in range(rows):
            formed[row] = quality[row] | base_quality[row]
        for row in range(rows):
            strange |= (suspect_time[row] != NEVER) | exchanged[row]
    else:
        for row in range(rows):
            place = series[row]
            start[row] = base_time[place]
            amount[row] = value[row] - base_value[place]
            formed[row] = quality[row] | base_quality[place]
            strange |= (suspect_time[place] != NEVER) | exchanged[place]
    for row in range(rows):
        strange |= (not amount[row] >= 0.0) | (amount[row] > step) | (abs(value[row]) == _INFINITY)
    for row in range(rows):
        strange |= (start[row] == NEVER) | (time[row] - start[row] > gap_ns)
    both = 0
    for row in range(rows):
        strange |= quality[row] & INVALID_BIT != 0
        both |= formed[row]
    if per_ns < _INFINITY:
        for row in range(rows):
            strange |= amount[row] > per_ns * (time[row] - start[row])
    if strange:
        return False
    if both & _CALCULATED == 0:
        for row in range(rows):
            formed[row] |= _CALCULATED
    else:
        for row in range(rows):
            one, other = (
                base_quality[series[row] if scattered else row] & _CALCULATED,
                quality[row] & _CALCULATED,
            )
            origin = _CALCULATED
            if one in (_SUBSTITUTED, _ESTIMATED) or other in (_SUBSTITUTED, _ESTIMATED):
                origin = _ESTIMATED
            formed[row] = (formed[row] & _WITHOUT_ORIGIN) | origin
    if scattered:
        for row in range(rows):
            place = series[row]
            base_time[place], base_value[place], base_quality[place] = time[row], value[row], quality[row]
    else:
        base_time[:rows] = time
        base_value[:rows] = value
        base_quality[:rows] = quality
    return True


def count_whole(ordered: Ordered, limits: Limits, state: Registers) -> Counted | None:
    """As `count_round`, in one go, where all readings continue their base; None, and nothing is done, where they do not."""
    series, places = ordered.series, ordered.places
    scattered = not isinstance(places, slice)
    chosen = slice(None) if scattered else places
    rows = len(series)
    start, amount, formed = np.empty(rows, np.int64), np.empty(rows), np.empty(rows, np.uint16)
    done = count_plain(
        series,
        ordered.time,
        ordered.value,
        ordered.quality,
        scattered,
        (limits.per_ns, limits.step, limits.gap_ns),
        (state.base_time[chosen], state.base_value[chosen], state.base_quality[chosen]),
        state.suspect_time[chosen],
        state.exchanged[chosen],
        (start, amount, formed),
    )
    return Counted.plain(series, start, ordered.time, amount, formed) if done else None


def count_round(
    series: Places, time: Ints, value: Floats, quality: Qualities, limits: Limits, state: Registers
) -> list[Counted]:
    """As `count`, for readings of which no two belong to one series."""
    place: Ints = np.arange(series.start, series.stop) if isinstance(series, slice) else series
    start, before, bits = state.base_time[series], state.base_value[series], state.base_quality[series]
    amount = value - before
    plain: Bools = (amount >= 0.0) & np.isfinite(value) & (start != NEVER)
    plain &= (quality & INVALID_BIT) == 0
    plain &= (state.suspect_time[series] == NEVER) & ~state.exchanged[series]
    if limits.gap_ns < _FOREVER:
        plain &= time - start <= limits.gap_ns
    if limits.step < np.inf:
        plain &= amount <= limits.step
    if limits.per_ns < np.inf:
        plain &= amount <= limits.per_ns * (time - start)
    parts = []
    if not plain.all():
        rest = ~plain
        parts.append(
            count(place[rest].astype(np.uint32), time[rest], value[rest], quality[rest], limits, state)
        )
        place, start, bits, amount = place[plain], start[plain], bits[plain], amount[plain]
        time, value, quality = time[plain], value[plain], quality[plain]
        series = place
    else:
        start, bits = start.copy(), bits.copy()
    if len(place):
        both = quality | bits
        formed: Qualities = (both & np.uint16(_WITHOUT_ORIGIN)) | np.uint16(_CALCULATED)
        if both.any():
            estimated = np.zeros(len(both), np.bool_)
            for part in (quality & np.uint16(_CALCULATED), bits & np.uint16(_CALCULATED)):
                estimated |= (part == _SUBSTITUTED) | (part == _ESTIMATED)
            formed[estimated] ^= np.uint16(_SUBSTITUTED)
        state.base_time[series], state.base_value[series] = time, value
        state.base_quality[series] = quality
        parts.append(Counted.plain(place.astype(np.uint32), start, time, amount, formed))
    return parts
