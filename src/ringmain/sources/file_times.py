"""Times of recorded rows, as columns, in nanoseconds since 1970 UTC.

A local time becomes UTC by the rules of its zone (tz database). The hour that comes twice in autumn: by the order of a
series' rows (the second time that its times go back, or stand still, within the hour, it is the later one), or always the
earlier or the later. A local time that does not exist, in the hour skipped in spring, is a bad row.
"""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ringmain.sources.file_settings import RepeatedHour

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
_NS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
_DAY_NS = 86_400 * 10**9
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LAST_NS = 2**63 - 1 - _DAY_NS
_ISO = (
    r"^[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,9})?)?)?"
    r"(Z|[+-][0-9]{2}:?[0-9]{2})?$"
)
_OFFSET = r"(Z|[+-][0-9]{2}:?[0-9]{2})$"


class Zone:
    """Local times of one zone. `open` remembers series that are within a repeated hour, between blocks."""

    def __init__(self, name: str, repeated: RepeatedHour) -> None:
        self._zone = ZoneInfo(name)
        self._years: dict[int, list[int]] = {}
        self._repeated = repeated
        self.open: dict[int, tuple[int, bool]] = {}
        """Series -> its last local time in the hour, and whether it is in there for the second time."""

    def to_utc(self, local: Ints, series: NDArray[np.uint32]) -> tuple[Ints, Bools | None]:
        """UTC of local times, and which of them do not exist (None: all do)."""
        if not len(local):
            return local, None
        changes, offsets = self._changes(int(local.min()), int(local.max()))
        if not len(changes):
            self.open.clear()
            return local - offsets[0], None
        # an offset ends, in its own local time or in the next one's: two answers where these are not the same
        ends, begins = changes + offsets[:-1], changes + offsets[1:]
        before = np.searchsorted(np.maximum(ends, begins), local, side="right")
        behind = np.searchsorted(np.minimum(ends, begins), local, side="right")
        first = local - offsets[before]
        differ = np.flatnonzero(before != behind)
        if not len(differ):
            return first, None
        second = local - offsets[behind]
        twice = offsets[before[differ]] > offsets[behind[differ]]
        gone: Bools | None = None
        if not twice.all():
            gone = np.zeros(len(local), np.bool_)
            gone[differ[~twice]] = True
        self._choose(first, second, differ[twice], local, series)
        return first, gone

    def _changes(self, low_ns: int, high_ns: int) -> tuple[Ints, Ints]:
        """Instants at which the zone's offset changes near local times of a range, and the offsets before, between, behind."""
        years = range(_moment(low_ns - _DAY_NS).year, _moment(high_ns + _DAY_NS).year + 1)
        for year in years:
            if year not in self._years:
                self._years[year] = self._changes_of(year)
        found = [change for year in years for change in self._years[year]]
        near = [at for at in found if low_ns - 2 * _DAY_NS <= at <= high_ns + 2 * _DAY_NS]
        points = [near[0] - 1 if near else low_ns, *near]
        return np.array(near, np.int64), np.array([self._offset(at) for at in points], np.int64)

    def _changes_of(self, year: int) -> list[int]:
        """Instants (ns UTC) within a year, to the second. An offset lasts two days at least."""
        found = []
        start_ns = _year_ns(year)
        day_ns, offset = start_ns, self._offset(start_ns)
        while day_ns < _year_ns(year + 1):
            next_ns = min(day_ns + _DAY_NS, _year_ns(year + 1))
            after = self._offset(next_ns)
            if after != offset:
                low, high = day_ns // 10**9, next_ns // 10**9
                while high - low > 1:
                    middle = (low + high) // 2
                    if self._offset(middle * 10**9) == offset:
                        low = middle
                    else:
                        high = middle
                found.append(high * 10**9)
            day_ns, offset = next_ns, after
        return found

    def _offset(self, utc_ns: int) -> int:
        offset = _moment(utc_ns).astimezone(self._zone).utcoffset()
        assert offset is not None
        return int(offset.total_seconds()) * 10**9

    def _choose(
        self, chosen: Ints, later: Ints, places: Ints, local: Ints, series: NDArray[np.uint32]
    ) -> None:
        """Put the later instant where the rule says so. Row by row: an hour a year."""
        if self._repeated is RepeatedHour.EARLIER:
            return
        if self._repeated is RepeatedHour.LATER:
            chosen[places] = later[places]
            return
        for place in places.tolist():
            number, at = int(series[place]), int(local[place])
            before = self.open.get(number)
            fresh = before is None or abs(at - before[0]) > _DAY_NS
            second = not fresh and before is not None and (before[1] or at <= before[0])
            self.open[number] = (at, second)
            if second:
                chosen[place] = later[place]

    def save(self) -> bytes:
        """`open`, for a position."""
        rows = [(number, at, second) for number, (at, second) in self.open.items()]
        return np.array(rows, _OPEN).tobytes() if rows else b""

    def restore(self, saved: bytes) -> None:
        """Take over what `save` gave."""
        rows = np.frombuffer(saved, _OPEN)
        self.open = {int(row["series"]): (int(row["at"]), bool(row["second"])) for row in rows}


_OPEN = np.dtype([("series", "<u4"), ("at", "<i8"), ("second", "u1")])


class ParsedTimes:
    """`ns`: of each row; `local`: which of them are local (all, none, or some); `bad`: which are no times."""

    __slots__ = ("bad", "local", "ns")

    def __init__(self, ns: Ints, local: Bools | bool, bad: Bools | None) -> None:
        self.ns = ns
        self.local = local
        self.bad = bad


def read_times(column: pa.Array, form: str) -> ParsedTimes:
    """Times as a column holds them: timestamps, numbers since 1970 (`form`: their unit), or texts."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        read = read_times(column.dictionary, form)
        places = column.indices.fill_null(0).to_numpy()
        null = column.is_null().to_numpy(zero_copy_only=False) if column.null_count else None
        if not len(read.ns):
            return ParsedTimes(np.zeros(len(column), np.int64), False, np.ones(len(column), np.bool_))
        bad = _either(None if read.bad is None else read.bad[places], null)
        return ParsedTimes(
            read.ns[places], read.local[places] if isinstance(read.local, np.ndarray) else read.local, bad
        )
    missing = column.is_null().to_numpy(zero_copy_only=False) if column.null_count else None
    if pa.types.is_timestamp(kind):
        wide = column.fill_null(0) if column.null_count else column
        try:
            ns = wide.cast(pa.timestamp("ns", tz=kind.tz)).cast(pa.int64()).to_numpy()
        except pa.ArrowInvalid:
            return _from_numbers(wide.cast(pa.int64()), _NS[kind.unit], missing, local=kind.tz is None)
        return _bounded(ns, kind.tz is None, missing)
    if pa.types.is_date(kind):
        return read_times(column.cast(pa.timestamp("s")), form)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return _from_texts(column.cast(pa.string()), form, missing)
    if form in _NS and (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        return _from_numbers(column, _NS[form], missing, local=False)
    return ParsedTimes(np.zeros(len(column), np.int64), False, np.ones(len(column), np.bool_))


def _from_numbers(column: pa.Array, unit_ns: int, missing: Bools | None, *, local: bool) -> ParsedTimes:
    filled = column.fill_null(0)
    if pa.types.is_floating(column.type):
        numbers = filled.cast(pa.float64()).to_numpy()
        bad = ~(np.isfinite(numbers) & (np.abs(numbers) * unit_ns < LAST_NS))
        numbers = np.where(bad, 0.0, numbers)
        whole = np.floor(numbers)
        ns = whole.astype(np.int64) * unit_ns
        # a double holds microseconds of the present time, not nanoseconds
        ns += np.rint((numbers - whole) * (unit_ns / 1e3)).astype(np.int64) * 1000 if unit_ns >= 1000 else 0
        return _bounded(ns, local, _either(missing, bad))
    integers = filled.cast(pa.int64(), safe=False).to_numpy()
    bad = np.abs(integers) > LAST_NS // unit_ns
    return _bounded(np.where(bad, 0, integers) * unit_ns, local, _either(missing, bad))


def _from_texts(column: pa.StringArray, form: str, missing: Bools | None) -> ParsedTimes:
    texts = pc.utf8_trim_whitespace(column).fill_null("")
    if form in _NS:
        match = pc.match_substring_regex(texts, r"^-?[0-9]{1,19}(\.[0-9]+)?$").to_numpy(zero_copy_only=False)
        kept = pc.if_else(pa.array(match), texts, "0")
        whole = not pc.any(pc.match_substring(kept, ".")).as_py()
        numbers, wrong = casted(kept, pa.int64() if whole else pa.float64())
        return _from_numbers(numbers, _NS[form], _either(_either(missing, ~match), wrong), local=False)
    if form != "iso":
        parsed = pc.strptime(texts, format=form, unit="s", error_is_null=True)
        # strptime(3) takes 31 February for 3 March, and 26 for the year 26: what does not read back is looked at again
        same = pc.equal(pc.strftime(parsed.fill_null(0), format=form), texts).fill_null(False)
        bad = ~pc.and_(same, parsed.is_valid()).to_numpy(zero_copy_only=False)
        ns = np.array(parsed.fill_null(0).cast(pa.int64()).to_numpy() * 10**9)
        for place in np.flatnonzero(bad).tolist():
            with contextlib.suppress(ValueError):
                moment = datetime.strptime(texts[place].as_py(), form).replace(tzinfo=UTC)
                ns[place], bad[place] = int((moment - _EPOCH).total_seconds()) * 10**9, False
        return _bounded(ns, True, _either(missing, bad if bad.any() else None))
    match = pc.match_substring_regex(texts, _ISO).to_numpy(zero_copy_only=False)
    offset = pc.match_substring_regex(texts, _OFFSET).to_numpy(zero_copy_only=False) & match
    ns = np.zeros(len(texts), np.int64)
    wrong = ~match
    for chosen, kind in (
        (match & ~offset, pa.timestamp("ns")),
        (offset, pa.timestamp("ns", tz="UTC")),
    ):
        if not chosen.any():
            continue
        some = texts if chosen.all() else texts.filter(pa.array(chosen))
        if kind.tz is not None:
            some = pc.replace_substring_regex(some, r"([+-][0-9]{2})([0-9]{2})$", r"\1:\2")
        parsed, failed = casted(some, kind)
        ns[chosen] = parsed.fill_null(0).cast(pa.int64()).to_numpy()
        if failed is not None:
            places = np.flatnonzero(chosen)
            wrong[places[failed]] = True
    local: Bools | bool = not offset.any() or (~offset if not offset[match].all() else False)
    return _bounded(ns, local, _either(missing, wrong if wrong.any() else None))


def casted(column: pa.Array, kind: pa.DataType) -> tuple[pa.Array, Bools | None]:
    """The column as `kind`, with null where an element cannot be cast; and which those are."""
    try:
        return column.cast(kind), None
    except pa.ArrowInvalid:
        if len(column) == 1:
            return pa.nulls(1, kind), np.ones(1, np.bool_)
    middle = len(column) // 2
    left, left_bad = casted(column.slice(0, middle), kind)
    right, right_bad = casted(column.slice(middle), kind)
    bad = np.zeros(len(column), np.bool_)
    if left_bad is not None:
        bad[:middle] = left_bad
    if right_bad is not None:
        bad[middle:] = right_bad
    return pa.concat_arrays([left, right]), bad


def _moment(utc_ns: int) -> datetime:
    return _EPOCH + timedelta(seconds=utc_ns // 10**9)


def _year_ns(year: int) -> int:
    return int((datetime(year, 1, 1, tzinfo=UTC) - _EPOCH).total_seconds()) * 10**9


def _bounded(ns: Ints, local: Bools | bool, bad: Bools | None) -> ParsedTimes:
    if len(ns) and (int(ns.min()) < -LAST_NS or int(ns.max()) > LAST_NS):
        beyond = (ns < -LAST_NS) | (ns > LAST_NS)
        return ParsedTimes(np.where(beyond, 0, ns), local, _either(bad, beyond))
    return ParsedTimes(ns, local, bad)


def _either(one: Bools | None, other: Bools | None) -> Bools | None:
    if one is None or other is None:
        return other if one is None else one
    return one | other
