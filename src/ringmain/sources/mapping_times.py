"""Times as devices write them, to nanoseconds since 1970 in UTC.

A time is a text after RFC 3339 (5.6; a space for the `T` and an offset without colon are accepted, because
devices write them) or a number since 1970 in seconds, milli-, micro- or nanoseconds: in `time_unit`, or by
magnitude. The thresholds are those at which the smaller unit would lie beyond what 64 bits of nanoseconds hold:
up to 9,223,372,036 are seconds, up to 1,000 times that milliseconds, and so on, so every number has one
reading (milliseconds before 17 April 1970 need `time_unit`). Fractions of seconds and milliseconds are rounded
to microseconds, which is what a double holds.

A text without offset is local time of a zone. In the hour that comes twice in autumn it is taken as the later
one that is not ahead of arrival, and flagged CLOCK_UNSYNCHRONISED when both were possible; in the hour that is
skipped in spring it is taken as if the clock had not been put forward, and flagged too.

`read_time` defines all that for one time; `read_times` does the same for columns.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo
from enum import Enum
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ringmain.model.quality import Quality

TIME_MAX_NS = 2**63 - 1
"""2262-04-11T23:47:16.854775807Z: the last time that a reading can have. The first is 1970-01-01."""

_EPOCH_DAY = date(1970, 1, 1).toordinal()
_TEXT = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt ]([0-9]{2}):([0-9]{2}):([0-9]{2})(?:[.,]([0-9]{1,40}))?"
    r"(?:([Zz])|([+-])([0-9]{2})(?::?([0-9]{2}))?)?"
)
_PLAIN_TEXT = (
    r"^(19[7-9][0-9]|20[0-9]{2}|21[0-9]{2}|22[0-5][0-9])-[0-9]{2}-[0-9]{2}[T ]([01][0-9]|2[0-3])"
    r":[0-5][0-9]:[0-5][0-9](\.[0-9]{1,9})?"
)
_PLAIN_OFFSET = r"(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])"
_MINUTE_NS = 60 * 10**9
_FLAGGED = int(Quality.CLOCK_UNSYNCHRONISED)

RawTime = int | float | str | None
"""A time as JSON gives it; None where there is none."""


_NS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}


class TimeUnit(Enum):
    """What a number counts since 1970-01-01T00:00:00Z."""

    S = "s"
    MS = "ms"
    US = "us"
    NS = "ns"

    @property
    def ns(self) -> int:
        """Nanoseconds of one."""
        return _NS[self.value]


_GREATEST = tuple((unit, TIME_MAX_NS // unit.ns) for unit in (TimeUnit.S, TimeUnit.MS, TimeUnit.US))
"""Up to where a number that is given without unit counts in it."""


@dataclass(frozen=True, slots=True)
class TimeForm:
    """How a mapping reads its times: the unit of numbers (None: by magnitude), and the zone of local texts."""

    unit: TimeUnit | None = None
    zone: tzinfo = UTC


@dataclass(frozen=True, slots=True)
class Times:
    """Times as columns. Rows with `failed` could not be read; what the other columns hold there means nothing."""

    ns: NDArray[np.int64]
    quality: NDArray[np.uint16]
    failed: NDArray[np.bool_]


def read_time(raw: RawTime, form: TimeForm, arrival_ns: int, max_ahead_ns: int) -> tuple[int, int]:
    """(nanoseconds, quality bits) of one time. Raises ValueError that says what was expected and found."""
    if raw is None:
        return arrival_ns, int(Quality.ARRIVAL_TIME)
    if isinstance(raw, str):
        ns, flags = _of_text(raw, form.zone, arrival_ns + max_ahead_ns)
    elif isinstance(raw, bool) or not isinstance(raw, int | float):
        raise ValueError(f"expected a time as RFC 3339 text or a number, found {type(raw).__name__}")
    else:
        ns, flags = _of_number(raw, form.unit), 0
    if not 0 <= ns <= TIME_MAX_NS:
        raise ValueError(f"expected a time from 1970 to 2262-04-11, found {_shown(raw)}")
    return ns, flags | (int(Quality.CLOCK_FAILED) if ns > arrival_ns + max_ahead_ns else 0)


def read_times(
    raws: Sequence[RawTime],
    codes: NDArray[np.uint8],
    forms: Sequence[TimeForm],
    arrival_ns: int,
    max_ahead_ns: int,
) -> Times:
    """As `read_time` for each of `raws`, whose form is `forms[code]`."""
    count = len(raws)
    if set(map(type, raws)) == {int} and (len(forms) == 1 or (codes == codes[0]).all()):
        try:
            ns, good = epoch_ns(np.array(raws, np.int64), forms[codes[0]].unit)
        except OverflowError:
            pass  # one beyond 64 bits is among them
        else:
            return Times(ns, _ahead(ns, arrival_ns + max_ahead_ns), ~good)
    times = Times(np.zeros(count, np.int64), np.zeros(count, np.uint16), np.zeros(count, np.bool_))
    of_kind: dict[type, list[int]] = {}
    for index, raw in enumerate(raws):
        of_kind.setdefault(type(raw), []).append(index)
    for kind, indices in of_kind.items():
        rows = np.array(indices, np.int64)
        if kind is int:
            _numbers([raws[i] for i in indices], rows, codes[rows], forms, times, np.int64)
        elif kind is float:
            _numbers([raws[i] for i in indices], rows, codes[rows], forms, times, np.float64)
        elif kind is str:
            latest_ns = arrival_ns + max_ahead_ns
            _texts([str(raws[i]) for i in indices], rows, codes[rows], forms, times, latest_ns)
        elif kind is type(None):
            times.ns[rows] = arrival_ns
            times.quality[rows] |= int(Quality.ARRIVAL_TIME)
        else:
            times.failed[rows] = True
    times.quality[times.ns > arrival_ns + max_ahead_ns] |= int(Quality.CLOCK_FAILED)
    return times


def _ahead(ns: NDArray[np.int64], latest_ns: int) -> NDArray[np.uint16]:
    """CLOCK_FAILED for each time beyond `latest_ns`."""
    return (ns > latest_ns).astype(np.uint16) * np.uint16(Quality.CLOCK_FAILED)


def epoch_ns(
    numbers: NDArray[np.int64], unit: TimeUnit | None
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """(nanoseconds, which could be read) of whole numbers since 1970; the others are given as 0."""
    if not len(numbers):
        return numbers, np.ones(0, np.bool_)
    least, greatest = int(numbers.min()), int(numbers.max())
    common = unit or _unit_of(least)
    if least >= 0 and greatest <= TIME_MAX_NS // common.ns and common in (unit, _unit_of(greatest)):
        return numbers * common.ns, np.ones(len(numbers), np.bool_)
    if unit is None:
        scale = np.ones(len(numbers), np.int64)
        for smaller in (TimeUnit.US, TimeUnit.MS, TimeUnit.S):
            scale[numbers <= TIME_MAX_NS // smaller.ns] = smaller.ns
        good = numbers >= 0
    else:
        scale = np.full(len(numbers), unit.ns, np.int64)
        good = (numbers >= 0) & (numbers <= TIME_MAX_NS // unit.ns)
    return np.where(good, numbers, 0) * scale, good


def _unit_of(number: int | float) -> TimeUnit:
    """The unit of a number that is given without one."""
    for unit, greatest in _GREATEST:
        if number <= greatest:
            return unit
    return TimeUnit.NS


def _of_number(number: int | float, unit: TimeUnit | None) -> int:
    """Nanoseconds; any size, the caller checks the range."""
    if number != number or number in (float("inf"), float("-inf")):
        raise ValueError(f"expected a time, found {number}")
    if unit is None:
        unit = _unit_of(number)
    if isinstance(number, int):
        return number * unit.ns
    if unit is TimeUnit.NS:
        return round(number)
    microseconds = number * (unit.ns // 1000)
    return round(microseconds) * 1000 if abs(microseconds) < 1e18 else TIME_MAX_NS + 1


def _of_text(text: str, zone: tzinfo, latest_ns: int) -> tuple[int, int]:
    """(nanoseconds, flags) of an RFC 3339 text; any range, the caller checks it."""
    match = _TEXT.fullmatch(text)
    if match is None:
        raise ValueError(f"expected a time such as 2026-11-23T07:42:54.125+01:00, found {_shown(text)}")
    year, month, day, hour, minute, second = (int(match[group]) for group in range(1, 7))
    try:
        days = date(year, month, day).toordinal() - _EPOCH_DAY
    except ValueError:
        raise ValueError(f"expected a day of the calendar, found {_shown(text)}") from None
    if hour > 23 or minute > 59 or second > 60:
        raise ValueError(f"expected a time of day, found {_shown(text)}")
    fraction_ns = int((match[7] or "0")[:9].ljust(9, "0"))
    local_s = (
        (days * 24 + hour) * 60 + minute
    ) * 60 + second  # second 60 is the next minute's first, as in POSIX
    if match[8]:
        return local_s * 10**9 + fraction_ns, 0
    if match[9]:
        hours, minutes = int(match[10]), int(match[11] or 0)
        if hours > 23 or minutes > 59:
            raise ValueError(f"expected an offset such as +01:00, found {_shown(text)}")
        offset_s = (hours * 60 + minutes) * 60 * (1 if match[9] == "+" else -1)
        return (local_s - offset_s) * 10**9 + fraction_ns, 0
    if not 0 <= local_s <= TIME_MAX_NS // 10**9:
        raise ValueError(f"expected a time from 1970 to 2262-04-11, found {_shown(text)}")
    earlier_s, later_s = _offsets(zone, local_s // 60)
    first_ns = (local_s - earlier_s) * 10**9 + fraction_ns
    if earlier_s == later_s:
        return first_ns, 0
    second_ns = (local_s - later_s) * 10**9 + fraction_ns
    if second_ns < first_ns:  # skipped in spring: the clock was not put forward
        return first_ns, _FLAGGED
    return (first_ns, 0) if second_ns > latest_ns else (second_ns, _FLAGGED)


@lru_cache(maxsize=4096)
def _offsets(zone: tzinfo, local_minute: int) -> tuple[int, int]:
    """Seconds east of UTC of the zone's clocks at this local minute since 1970: at its first and second pass."""
    local = datetime(1970, 1, 1) + timedelta(minutes=local_minute)
    passes = [local.replace(tzinfo=zone, fold=fold).utcoffset() for fold in (0, 1)]
    first_s, second_s = (0 if offset is None else int(offset.total_seconds()) for offset in passes)
    return first_s, second_s


def _numbers(
    raws: Sequence[RawTime],
    rows: NDArray[np.int64],
    codes: NDArray[np.uint8],
    forms: Sequence[TimeForm],
    times: Times,
    dtype: type[np.int64 | np.float64],
) -> None:
    try:
        numbers = np.array(raws, dtype)
    except OverflowError:  # an integer beyond 64 bits among them
        for row, raw, code in zip(rows, raws, codes, strict=True):
            _one_number(raw, int(row), forms[code].unit, times)
        return
    for code in np.unique(codes):
        unit = forms[code].unit
        chosen = codes == code
        picked = numbers[chosen]
        if dtype is np.int64:
            ns, good = epoch_ns(picked.astype(np.int64, copy=False), unit)
        else:
            ns, good = _fractions(picked.astype(np.float64, copy=False), unit)
        times.ns[rows[chosen]] = ns
        times.failed[rows[chosen]] = ~good


def _one_number(raw: RawTime, row: int, unit: TimeUnit | None, times: Times) -> None:
    ns = _of_number(raw, unit) if isinstance(raw, int) else -1
    if 0 <= ns <= TIME_MAX_NS:
        times.ns[row] = ns
    else:
        times.failed[row] = True


def _fractions(
    numbers: NDArray[np.float64], unit: TimeUnit | None
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """`epoch_ns` for doubles."""
    finite = np.isfinite(numbers)
    numbers = np.where(finite, numbers, -1.0)
    if unit is None:
        units = [(u, numbers <= _floor(TIME_MAX_NS // u.ns)) for u in (TimeUnit.S, TimeUnit.MS, TimeUnit.US)]
    else:
        units = [(unit, np.ones(len(numbers), np.bool_))] if unit is not TimeUnit.NS else []
    ns = np.full(len(numbers), -1, np.int64)
    left = np.ones(len(numbers), np.bool_)
    for scale, fits in units:
        chosen = left & fits
        with np.errstate(over="ignore"):  # beyond all times, and so told below
            microseconds = np.rint(numbers[chosen] * (scale.ns // 1000))
        within = (microseconds >= 0) & (microseconds <= TIME_MAX_NS // 1000)
        ns[chosen] = np.where(within, np.where(within, microseconds, 0).astype(np.int64) * 1000, -1)
        left &= ~fits
    within = left & (numbers >= -0.5) & (numbers < 2.0**63)
    ns[within] = np.rint(numbers[within]).astype(np.int64)
    good = finite & (ns >= 0)
    return np.where(good, ns, 0), good


def _floor(number: int) -> float:
    """The greatest double that is not above `number`: doubles compare with it as they do with `number`."""
    nearest = float(number)
    return nearest if nearest <= number else float(np.nextafter(nearest, 0))


def _texts(
    texts: list[str],
    rows: NDArray[np.int64],
    codes: NDArray[np.uint8],
    forms: Sequence[TimeForm],
    times: Times,
    latest_ns: int,
) -> None:
    """Texts of the usual form by columns; whatever else, one by one."""
    column = pa.array(texts, pa.string())
    zoned, zoned_ns = _parsed(column, _PLAIN_TEXT + _PLAIN_OFFSET + "$", pa.timestamp("ns", tz="UTC"))
    times.ns[rows[zoned]] = zoned_ns
    times.failed[rows[zoned]] = zoned_ns < 0
    done = zoned
    if not done.all():
        local, local_ns = _parsed(column, _PLAIN_TEXT + "$", pa.timestamp("ns"))
        for code in np.unique(codes[local]):
            chosen = codes[local] == code
            found_ns, found_flags = _of_local(local_ns[chosen], forms[code].zone, latest_ns)
            where = rows[np.flatnonzero(local)[chosen]]
            times.ns[where] = found_ns
            times.failed[where] = found_ns < 0
            times.quality[where] |= found_flags
        done = zoned | local
    for index in np.flatnonzero(~done):
        row = rows[index]
        try:
            ns, flags = _of_text(texts[index], forms[codes[index]].zone, latest_ns)
        except ValueError:
            times.failed[row] = True
            continue
        if 0 <= ns <= TIME_MAX_NS:
            times.ns[row] = ns
            times.quality[row] |= flags
        else:
            times.failed[row] = True


def _parsed(
    column: pa.StringArray, form: str, kind: pa.DataType
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Which texts have the form, and their nanoseconds; none at all where one of them is no day of the calendar."""
    fits = pc.match_substring_regex(column, form).to_numpy(zero_copy_only=False)
    if fits.any():
        try:
            stamps = column.filter(pa.array(fits)).cast(kind)
        except pa.ArrowInvalid:
            return np.zeros(len(column), np.bool_), np.zeros(0, np.int64)
        return fits, stamps.cast(pa.int64()).to_numpy()
    return fits, np.zeros(0, np.int64)


def _of_local(
    local_ns: NDArray[np.int64], zone: tzinfo, latest_ns: int
) -> tuple[NDArray[np.int64], NDArray[np.uint16]]:
    """(nanoseconds, flags) of local times, as `_of_text` takes them."""
    minutes, where = np.unique(local_ns // _MINUTE_NS, return_inverse=True)
    offsets_ns = np.array([_offsets(zone, int(minute)) for minute in minutes], np.int64)[where] * 10**9
    first_ns, second_ns = local_ns - offsets_ns[:, 0], local_ns - offsets_ns[:, 1]
    skipped = second_ns < first_ns
    later = (second_ns > first_ns) & (second_ns <= latest_ns)
    flags = np.where(skipped | later, np.uint16(_FLAGGED), np.uint16(0)).astype(np.uint16)
    return np.where(later, second_ns, first_ns), flags


def _shown(raw: object) -> str:
    """A value for a message: short, and printable whatever it is."""
    text = ascii(raw)
    return text if len(text) <= 80 else text[:77] + "..."
