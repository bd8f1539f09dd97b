"""Values that stand in for readings that did not come: where they are taken from.

`Week` remembers what was measured, for as long as a week ago may be asked for; `Profile` is a table by local time of day.
Local days are those of a time zone: a week ago is the same local time seven days before, which may be 167 or 169 hours.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np

from ringmain.flows.block import Floats, Ids, Ints
from ringmain.flows.growing import NEVER, grown
from ringmain.flows.ordering_rows import kept
from ringmain.flows.picture import Picture
from ringmain.flows.step import StepState

REMEMBERED_MAX = 32_000_000
"""Slots that are remembered of all series together (16 bytes each); series that come after have no week ago."""
PROFILE_ROWS_MAX = 20_000
_NS = 1_000_000_000
_WEEK_NS = 169 * 3600 * _NS
_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_SETS = {"all": range(7), "workday": range(5), "weekend": range(5, 7)}


class Week:
    """Measured values by series and slot (time divided by the series' interval), the newest ones only.

    A slot is remembered as long as it lies fewer than `length` slots before the newest of its series.
    """

    def __init__(self, interval_min_ns: int, slots_back: int, zone: ZoneInfo) -> None:
        self._zone = zone
        self.length = -(-_WEEK_NS // interval_min_ns) + slots_back + 2
        self._row: Ints = np.empty(0, np.int64)
        """By series: its row of the memory, NEVER for none."""
        self._rows = 0
        self._newest: Ints = np.empty(0, np.int64)
        """By row: the newest slot."""
        self._slot: Ints = np.empty(0, np.int64)
        self._value: Floats = np.empty(0)
        self.picture: Picture | None = None
        """Told of a place of the memory before it is written to."""

    def learn(self, series: Ids, slot: Ints, value: Floats) -> int:
        """Take note of measured values, in order of series and time; how many were not: too many series."""
        size = int(series.max()) + 1
        if size > len(self._row):
            self._row = grown(self._row, max(size, 2 * len(self._row), 1024), NEVER)
        new = np.unique(series[self._row[series] == NEVER])[: REMEMBERED_MAX // self.length - self._rows]
        if len(new):
            self._row[new] = np.arange(self._rows, self._rows + len(new))
            self._rows += len(new)
            need = self._rows * self.length
            if need > len(self._slot):
                need = max(need, min(2 * len(self._slot), REMEMBERED_MAX))
                self._slot = grown(self._slot, need, NEVER)
                self._value = grown(self._value, need, np.nan)
                self._newest = grown(self._newest, len(self._slot) // self.length, NEVER)
        row = self._row[series]
        known = row != NEVER
        place = row[known] * self.length + slot[known] % self.length
        newer = slot[known] >= self._slot[place]
        if self.picture is not None:
            self.picture.before(place[newer])
        self._slot[place[newer]] = slot[known][newer]
        self._value[place[newer]] = value[known][newer]
        np.maximum.at(self._newest, row[known], slot[known])
        return len(series) - int(known.sum())

    def ago(self, series: Ids, slot: Ints, interval_ns: Ints) -> Floats:
        """The values a week before these slots; NaN where none was measured or is remembered."""
        start = slot * interval_ns
        moments, inverse = np.unique(start, return_inverse=True)
        before = np.array([_week_before(moment, self._zone) for moment in moments.tolist()], np.int64)
        wanted = before[inverse] // interval_ns
        found = np.full(len(series), np.nan)
        row = np.where(
            series < len(self._row), self._row[np.minimum(series, max(len(self._row) - 1, 0))], NEVER
        )
        known = row != NEVER
        place = row[known] * self.length + wanted[known] % self.length
        remembered = wanted[known] > self._newest[row[known]] - self.length
        found[known] = np.where((self._slot[place] == wanted[known]) & remembered, self._value[place], np.nan)
        return found

    def state(self) -> StepState:
        """Everything remembered."""
        used = self._rows * self.length
        return {"week_row": self._row, "week_slot": self._slot[:used], "week_value": self._value[:used]}

    def restore(self, state: StepState) -> None:
        """Take over what `state` gave."""
        self._row = kept(state, "week_row", np.int64)
        self._slot = kept(state, "week_slot", np.int64)
        self._value = kept(state, "week_value", np.float64)
        self._rows = int((self._row != NEVER).sum())
        self._newest = self._slot.reshape(self._rows, self.length).max(axis=1, initial=NEVER)


def _week_before(moment_ns: int, zone: ZoneInfo) -> int:
    local = _local(moment_ns, zone)
    before = (local - timedelta(days=7)).astimezone(UTC)
    return int(before.timestamp()) * _NS + moment_ns % _NS


def _local(moment_ns: int, zone: ZoneInfo) -> datetime:
    return datetime.fromtimestamp(moment_ns // _NS, UTC).astimezone(zone)


class ProfileError(ValueError):
    """A profile cannot be used; the message says why, with file and line."""


@dataclass(frozen=True, slots=True)
class Profile:
    """Values by weekday and local time of day; each holds until the next of its day. `minutes` of the day, rising."""

    minutes: tuple[tuple[int, ...], ...]
    values: tuple[tuple[float, ...], ...]
    zone: ZoneInfo

    @classmethod
    def read(cls, path: Path, zone: ZoneInfo) -> Profile:
        """Columns day (monday ... sunday, workday, weekend, all), time (HH:MM) and value. Raises ProfileError.

        The more exact day counts: a weekday before workday and weekend, those before all. Before the first time of a day
        its last value holds.
        """
        try:
            text = path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise ProfileError(f"{path}: cannot be read ({error})") from None
        tables: dict[str, dict[int, float]] = {}
        reader = csv.DictReader(text.splitlines())
        if not {"day", "time", "value"} <= set(reader.fieldnames or ()):
            raise ProfileError(
                f"{path}:1: expected columns day, time, value, found {', '.join(reader.fieldnames or ())}"
            )
        for row in reader:
            where = f"{path}:{reader.line_num}"
            if reader.line_num > PROFILE_ROWS_MAX:
                raise ProfileError(f"{where}: expected at most {PROFILE_ROWS_MAX} lines")
            day = (row["day"] or "").strip().lower()
            if day not in _DAYS and day not in _SETS:
                expected = ", ".join((*_DAYS, *_SETS))
                raise ProfileError(f"{where}: expected a day ({expected}), found {row['day']!r}")
            try:
                hour, minute = (row["time"] or "").strip().split(":")[:2]
                clock = int(hour) * 60 + int(minute)
                value = float(row["value"] or "")
            except ValueError:
                raise ProfileError(
                    f"{where}: expected a time such as 06:15 and a number, found {row['time']!r}, {row['value']!r}"
                ) from None
            if not 0 <= clock < 1440 or not np.isfinite(value):
                raise ProfileError(
                    f"{where}: expected a time from 00:00 to 23:59 and a finite number, found {row['time']!r}, {row['value']!r}"
                )
            tables.setdefault(day, {})[clock] = value
        minutes, values = [], []
        for number, name in enumerate(_DAYS):
            group = "workday" if number < 5 else "weekend"
            table = tables.get(name) or tables.get(group) or tables.get("all")
            if not table:
                raise ProfileError(f"{path}: expected values for every day, found none for {name}")
            minutes.append(tuple(sorted(table)))
            values.append(tuple(table[clock] for clock in sorted(table)))
        return cls(tuple(minutes), tuple(values), zone)

    def at(self, moments: Ints) -> Floats:
        """The values at these times (ns UTC)."""
        distinct, inverse = np.unique(moments, return_inverse=True)
        found = np.array([self._one(moment) for moment in distinct.tolist()], np.float64)
        values: Floats = found[inverse]
        return values

    def _one(self, moment_ns: int) -> float:
        local = _local(moment_ns, self.zone)
        day = local.weekday()
        place = int(np.searchsorted(self.minutes[day], local.hour * 60 + local.minute, "right")) - 1
        return self.values[day][place]
