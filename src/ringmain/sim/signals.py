"""What the simulated devices measure at an instant: real days and weather, scaled, shifted and made lively.

A value depends on the seed, the point and the time alone, however the calls are cut; only energy registers
carry state, as registers do: each counts on from its own previous reading. Loads hang together: a feeder's
current and a busbar's voltage follow the households and shops behind them, the heat network and the PV park
follow the same weather.

Sources: SigLinDe heat demand as in `profiles`; PV after the linear irradiance model with a temperature
coefficient of -0.4 %/K and a cell temperature of air + 0.03 K m2/W (Ross); heat flow P = rho c V' dT, with
water at 1.163 kWh/(m3 K).
"""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from ringmain.sim.fleet import FEEDERS, SUBSTATIONS, Fleet, Signal
from ringmain.sim.profiles import QUARTERS, SHOP_PROFILES, SLOTS, Profiles

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_ZONE = ZoneInfo("Europe/Berlin")
_DAY_MS = 86_400_000
_HOUR_MS = 3_600_000
_PULSE_MS = 90_000
_PULSE_SHARE = 0.03
_INVERTER_W = 180_000.0
_HEAT_PLANT_MEAN_W = 3.2e6
_WATER_WH_PER_M3_K = 1163.0
_MV_LINE_V = 10_400.0
_HOLIDAYS = ((1, 1), (5, 1), (10, 3), (12, 25), (12, 26))
_POWER_OF_ENERGY = {
    Signal.HOUSEHOLD_ENERGY: Signal.HOUSEHOLD_POWER,
    Signal.SHOP_ENERGY: Signal.SHOP_POWER,
    Signal.GAS_ENERGY: Signal.GAS_POWER,
    Signal.PV_ENERGY: Signal.PV_POWER,
}


class Signals:
    """The measurements of one fleet. Times are int64 epoch ms, values float64 in the points' units."""

    def __init__(self, profiles: Profiles, fleet: Fleet, seed: int) -> None:
        self._profiles = profiles
        self._seed = seed
        self._signal = np.array([p.signal for p in fleet.points], dtype=np.int64)
        self._row = np.array([p.row for p in fleet.points], dtype=np.int64)
        self._scale: Floats = np.array([10.0**p.decimals for p in fleet.points])
        self._per_wh: Floats = np.array([0.001 if p.unit == "kWh" else 1.0 for p in fleet.points])
        self._household_feeder = np.array(fleet.feeder_of_household)
        self._shop_feeder = np.array(fleet.feeder_of_shop)
        households, shops = len(self._household_feeder), len(self._shop_feeder)
        rng = np.random.default_rng([seed, 2])
        self._household_w: Floats = 320.0 * rng.lognormal(-0.1, 0.45, households)
        self._household_shift_ms: Ints = rng.integers(-45 * 60_000, 45 * 60_000, households)
        self._shop_w: Floats = 2500.0 * rng.lognormal(-0.2, 0.6, shops)
        self._shop_profile: Ints = rng.integers(len(SHOP_PROFILES), size=shops)
        self._shop_shift_ms: Ints = rng.integers(-10 * 60_000, 10 * 60_000, shops)
        self._gas_w: Floats = 1650.0 * rng.lognormal(-0.1, 0.4, fleet.gas_meters)
        self._gas_shift_ms: Ints = rng.integers(-45 * 60_000, 45 * 60_000, fleet.gas_meters)
        self._inverter: Floats = rng.uniform(0.95, 1.02, 64)
        self._heat_share: Floats = np.concatenate([[1.0], rng.dirichlet(np.full(63, 8.0))])
        self._register_wh: Floats = rng.uniform(2e5, 3e7, len(fleet.points))
        self._register_ms = np.zeros(len(fleet.points), dtype=np.int64)
        self._hour = -1
        self._offset_ms = 0
        self._date = date.min
        self._second = -1
        self._feeder_w: Floats = np.zeros(SUBSTATIONS * FEEDERS)
        stations = max((p.row for p in fleet.points if p.signal == Signal.HEAT_POWER), default=0)
        self._heat_share[1 : stations + 1] /= self._heat_share[1 : stations + 1].sum()

    def values(self, points: Ints, time_ms: Ints) -> Floats:
        """The points' measurements at their times (equal lengths), rounded to what their devices display.

        Times of one point must not run backwards from call to call; each point at most once a call.
        """
        if len(points) == 0:
            return np.empty(0)
        self._set_clock(int(time_ms[0]))
        values = np.empty(len(points))
        signal = self._signal[points]
        for code in np.unique(signal).tolist():
            mask = signal == code
            kind = Signal(code)
            if kind in _POWER_OF_ENERGY:
                values[mask] = self._energy(_POWER_OF_ENERGY[kind], points[mask], time_ms[mask])
            else:
                values[mask] = self._measure(kind, self._row[points[mask]], time_ms[mask])
        scale = self._scale[points]
        rounded: Floats = np.rint(values * scale) / scale
        return rounded + 0.0

    def _set_clock(self, now_ms: int) -> None:
        """Follow the local calendar: the UTC offset by the hour, the household-days by the date."""
        hour = now_ms // _HOUR_MS
        if hour == self._hour:
            return
        self._hour = hour
        now = datetime.fromtimestamp(now_ms / 1000, UTC).astimezone(_ZONE)
        self._offset_ms = int((now.utcoffset() or timedelta()).total_seconds() * 1000)
        if now.date() == self._date:
            return
        self._date = now.date()
        p = self._profiles
        self._household_day = p.days[self._choose_days(p.day_month, p.day_weekend, len(self._household_w), 0)]
        self._gas_day = p.gas_days[self._choose_days(p.gas_day_month, p.gas_day_weekend, len(self._gas_w), 1)]
        kind = 2 if self._date.weekday() < 5 else self._date.weekday() - 5
        if (self._date.month, self._date.day) in _HOLIDAYS:
            kind = 1
        self._shop_day = p.shops[:, self._date.month - 1, kind, :]

    def _choose_days(
        self, month: NDArray[np.int8], weekend: NDArray[np.bool_], count: int, salt: int
    ) -> Ints:
        """For each of `count` meters a measured day of the season and of the kind (working day or not)."""
        distance = np.abs(month.astype(np.int64) - self._date.month)
        season = np.minimum(distance, 12 - distance) <= 1
        fitting = np.flatnonzero(season & (weekend == (self._date.weekday() >= 5)))
        rng = np.random.default_rng([self._seed, 3, salt, self._date.toordinal()])
        return fitting[rng.integers(len(fitting), size=count)]

    def _energy(self, power: Signal, points: Ints, time_ms: Ints) -> Floats:
        """Registers in Wh (or kWh), counting absolute power since their own previous reading."""
        previous = self._register_ms[points]
        elapsed_h = np.where(previous > 0, time_ms - previous, 0) / _HOUR_MS
        self._register_ms[points] = time_ms
        self._register_wh[points] += np.abs(self._measure(power, self._row[points], time_ms)) * elapsed_h
        return self._register_wh[points] * self._per_wh[points]

    def _measure(self, signal: Signal, row: Ints, time_ms: Ints) -> Floats:
        if signal == Signal.HOUSEHOLD_POWER:
            bucket = (time_ms + self._household_shift_ms[row]) // _PULSE_MS
            base = self._household_base(row, time_ms)
            share = np.minimum(_PULSE_SHARE * base / self._household_w[row], 0.25) + 1e-9
            chance = self._uniform(10, row, bucket)
            pulse: Floats = np.where(chance < share, 600 + 2000 * chance / share, 0.0)
            return (base + pulse) * self._flicker(11, row, time_ms, 0.03)
        if signal == Signal.SHOP_POWER:
            return self._shop_base(row, time_ms) * self._flicker(12, row, time_ms, 0.04)
        if signal == Signal.GAS_POWER:
            day = self._gas_day
            position = self._slot(time_ms, self._gas_shift_ms[row], SLOTS)
            return _along(day, row, position) * self._gas_w[row] * self._flicker(13, row, time_ms, 0.01)
        if signal in (Signal.PV_POWER, Signal.IRRADIANCE, Signal.AIR_TEMPERATURE):
            return self._sky(signal, row, time_ms)
        if signal <= Signal.HEAT_POWER:
            return self._heat(signal, row, time_ms)
        return self._grid(signal, row, time_ms)

    def _household_base(self, row: Ints, time_ms: Ints) -> Floats:
        position = self._slot(time_ms, self._household_shift_ms[row], SLOTS)
        return _along(self._household_day, row, position) * self._household_w[row]

    def _shop_base(self, row: Ints, time_ms: Ints) -> Floats:
        position = self._slot(time_ms, self._shop_shift_ms[row], QUARTERS)
        return _along(self._shop_day, self._shop_profile[row], position) * self._shop_w[row]

    def _slot(self, time_ms: Ints, shift_ms: Ints, slots: int) -> Floats:
        """Position within the local day in slots, measured between the middles of slots."""
        of_day = ((time_ms + self._offset_ms + shift_ms) % _DAY_MS).astype(np.float64)
        return of_day * (slots / _DAY_MS) - 0.5

    def _sky(self, signal: Signal, row: Ints, time_ms: Ints) -> Floats:
        air_c, global_w_m2 = self._weather(time_ms)
        if signal == Signal.AIR_TEMPERATURE:
            return air_c + 0.1 * (self._uniform(14, row, time_ms) - 0.5)
        clouds = 1 + 0.25 * (self._smooth(15, np.zeros_like(row), time_ms, 45_000) - 0.5)
        irradiance = global_w_m2 * clouds
        if signal == Signal.IRRADIANCE:
            return irradiance
        cell_c = air_c + 0.03 * irradiance
        power = _INVERTER_W * self._inverter[row] * irradiance / 1000 * (1 - 0.004 * (cell_c - 25))
        return -np.minimum(power, _INVERTER_W) * self._flicker(16, row, time_ms, 0.01)

    def _weather(self, time_ms: Ints) -> tuple[Floats, Floats]:
        """Air temperature and global radiation: the reference year, by date and hour in MEZ (UTC+1)."""
        day = self._date
        of_year = date(2023, day.month, min(day.day, 28) if day.month == 2 else day.day)
        midnight_ms = _DAY_MS * (day.toordinal() - date(1970, 1, 1).toordinal()) - _HOUR_MS
        hour = (of_year.timetuple().tm_yday - 1) * 24 + (time_ms - midnight_ms) / _HOUR_MS
        return (
            _around(self._profiles.temperature_c, hour - 1.0),
            _around(self._profiles.global_w_m2, hour - 0.5),
        )

    def _heat(self, signal: Signal, row: Ints, time_ms: Ints) -> Floats:
        """Row 0 is the plant, which feeds all stations and the network's losses (7 %): its power is negative."""
        air_c, _ = self._weather(time_ms)
        a, b, c, d = self._profiles.heat_sigmoid.tolist()
        demand: Floats = a / (1 + (b / (np.minimum(air_c, 39.0) - 40.0)) ** c) + d
        share = np.where(row == 0, 1.07, self._heat_share[row])
        swing = 1 + 0.12 * (self._smooth(17, row, time_ms, 120_000) - 0.5)
        power: Floats = _HEAT_PLANT_MEAN_W * demand * share * swing
        supply_c: Floats = np.clip(95.0 - 1.1 * air_c, 75.0, 120.0) - np.where(row == 0, 0.0, 2.0 + 0.3 * row)
        return_c: Floats = 52.0 + 0.1 * row + 3.0 * (self._smooth(18, row, time_ms, 180_000) - 0.5)
        if signal == Signal.HEAT_SUPPLY:
            return supply_c + 0.2 * (self._uniform(19, row, time_ms) - 0.5)
        if signal == Signal.HEAT_RETURN:
            return return_c
        if signal == Signal.HEAT_FLOW:
            return power / (_WATER_WH_PER_M3_K * (supply_c - return_c))
        return np.where(row == 0, -power, power)

    def _grid(self, signal: Signal, row: Ints, time_ms: Ints) -> Floats:
        """Voltage sags with its substation's load; current is its feeder's load at 10 kV; one frequency."""
        if signal == Signal.FREQUENCY:
            slow = self._smooth(20, np.zeros_like(row), time_ms, 20_000)
            return 50.0 + 0.05 * (slow - 0.5) + 0.004 * (self._uniform(21, row, time_ms) - 0.5)
        feeder_w = self._feeder_loads(int(time_ms[0]) // 1000)
        flicker = self._flicker(22, row, time_ms, 0.01)
        if signal == Signal.CURRENT:
            return feeder_w[row] / (math.sqrt(3) * _MV_LINE_V * 0.97) * flicker
        substation = row // 3 if signal == Signal.VOLTAGE else row
        load: Floats = feeder_w.reshape(SUBSTATIONS, FEEDERS).sum(axis=1)[substation]
        share: Floats = load / (FEEDERS * (len(self._household_w) / (SUBSTATIONS * FEEDERS) * 1000 + 5000))
        if signal == Signal.OIL_TEMPERATURE:
            air_c, _ = self._weather(time_ms)
            return air_c + 22 + 35 * share**1.6 + 0.2 * self._smooth(23, row, time_ms, 60_000)
        slow = self._smooth(24, row, time_ms, 15_000)
        return (
            _MV_LINE_V / math.sqrt(3) * (1 - 0.025 * share + 0.004 * (slow - 0.5)) * (1 + (flicker - 1) / 20)
        )

    def _feeder_loads(self, second: int) -> Floats:
        """Watts on each of the feeders: its households and shops, worked out once a second."""
        if second != self._second:
            self._second = second
            feeders = SUBSTATIONS * FEEDERS
            households, shops = np.arange(len(self._household_w)), np.arange(len(self._shop_w))
            now = np.full(1, second * 1000, dtype=np.int64)
            homes = np.bincount(self._household_feeder, self._household_base(households, now), feeders)
            others = np.bincount(self._shop_feeder, self._shop_base(shops, now), feeders)
            self._feeder_w = (homes + others).astype(np.float64)
        return self._feeder_w

    def _uniform(self, salt: int, row: Ints, count: Ints) -> Floats:
        """Numbers in [0, 1) that depend on seed, salt, row and count alone (splitmix64)."""
        mixed = (self._seed * 64 + salt) * 0x9E3779B97F4A7C15 % 2**64
        x = count.astype(np.uint64) * np.uint64(0xBF58476D1CE4E5B9) + np.uint64(mixed)
        x += (row.astype(np.uint64) + np.uint64(1)) * np.uint64(0xD1342543DE82EF95)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        x ^= x >> np.uint64(31)
        return (x >> np.uint64(11)).astype(np.float64) * 2.0**-53

    def _smooth(self, salt: int, row: Ints, time_ms: Ints, period_ms: int) -> Floats:
        """As `_uniform`, drawn once a period and joined by straight lines."""
        count, rest = np.divmod(time_ms, period_ms)
        here, there = self._uniform(salt, row, count), self._uniform(salt, row, count + 1)
        return here + (there - here) * (rest / period_ms)

    def _flicker(self, salt: int, row: Ints, time_ms: Ints, amplitude: float) -> Floats:
        return 1 + amplitude * 2 * (self._uniform(salt, row, time_ms) - 0.5)


def _along(days: NDArray[np.float32], row: Ints, position: Floats) -> Floats:
    """Row by row, the straight line between the slots on either side; a day's end meets its start."""
    slots = days.shape[1]
    low = np.floor(position)
    part = position - low
    left = low.astype(np.int64) % slots
    mixed: Floats = days[row, left] * (1 - part) + days[row, (left + 1) % slots] * part
    return mixed


def _around(year: NDArray[np.float32], hour: Floats) -> Floats:
    """The straight line between full hours of a year whose end meets its start."""
    low = np.floor(hour)
    part = hour - low
    left = low.astype(np.int64) % len(year)
    mixed: Floats = year[left] * (1 - part) + year[(left + 1) % len(year)] * part
    return mixed
