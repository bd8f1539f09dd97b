"""What the devices measure: repeatable, independent of how it is asked for, and hanging together."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest

from ringmain.sim.fleet import Fleet, Signal, build_fleet
from ringmain.sim.profiles import Profiles
from ringmain.sim.signals import Signals

NOON_MS = int(datetime(2026, 6, 23, 11, tzinfo=UTC).timestamp() * 1000)
MIDNIGHT_MS = int(datetime(2026, 6, 22, 23, tzinfo=UTC).timestamp() * 1000)
WINTER_MS = int(datetime(2026, 1, 13, 11, tzinfo=UTC).timestamp() * 1000)


@pytest.fixture(scope="module")
def fleet() -> Fleet:
    return build_fleet(200, 500, 3)


def at(signals: Signals, fleet: Fleet, time_ms: int) -> dict[str, float]:
    points = np.arange(len(fleet.points))
    values = signals.values(points, np.full(len(points), time_ms))
    return {point.key: value for point, value in zip(fleet.points, values.tolist(), strict=True)}


def total(fleet: Fleet, values: dict[str, float], signal: Signal) -> float:
    return sum(values[point.key] for point in fleet.points if point.signal == signal)


def test_the_same_seed_measures_the_same_and_another_seed_something_else(
    profiles: Profiles, fleet: Fleet
) -> None:
    first = at(Signals(profiles, fleet, 3), fleet, NOON_MS)
    assert at(Signals(profiles, fleet, 3), fleet, NOON_MS) == first
    assert at(Signals(profiles, fleet, 4), fleet, NOON_MS) != first


def test_values_do_not_depend_on_how_the_calls_are_cut(profiles: Profiles, fleet: Fleet) -> None:
    together, apart = Signals(profiles, fleet, 3), Signals(profiles, fleet, 3)
    points = np.arange(len(fleet.points))
    for step in range(4):
        times = np.full(len(points), NOON_MS + step * 1700)
        whole = together.values(points, times)
        parts = [apart.values(part, times[part]) for part in np.array_split(points, 7)]
        assert np.array_equal(whole, np.concatenate(parts))


def test_registers_never_count_backwards_and_follow_the_power(profiles: Profiles, fleet: Fleet) -> None:
    signals = Signals(profiles, fleet, 3)
    keys = [(p.key, p.signal) for p in fleet.points]
    energies = [
        key
        for key, signal in keys
        if signal in (Signal.HOUSEHOLD_ENERGY, Signal.PV_ENERGY, Signal.GAS_ENERGY)
    ]
    before = at(signals, fleet, NOON_MS)
    steps = [at(signals, fleet, NOON_MS + minute * 60_000) for minute in range(1, 31)]
    for earlier, later in zip([before, *steps], steps, strict=False):
        assert all(later[key] >= earlier[key] for key in energies)
    park_w = np.mean([-total(fleet, values, Signal.PV_POWER) for values in steps])
    park_wh = total(fleet, steps[-1], Signal.PV_ENERGY) - total(fleet, before, Signal.PV_ENERGY)
    assert park_wh == pytest.approx(park_w / 2, rel=0.02)


def test_the_sun_feeds_in_by_day_only(profiles: Profiles, fleet: Fleet) -> None:
    signals = Signals(profiles, fleet, 3)
    assert total(fleet, at(signals, fleet, MIDNIGHT_MS), Signal.PV_POWER) == 0
    assert total(fleet, at(signals, fleet, NOON_MS), Signal.PV_POWER) < -50_000


def test_the_heat_plant_feeds_what_the_stations_take_and_more_in_winter(
    profiles: Profiles, fleet: Fleet
) -> None:
    def plant_and_stations(time_ms: int) -> tuple[float, float]:
        values = at(Signals(profiles, fleet, 3), fleet, time_ms)
        powers = [values[p.key] for p in fleet.points if p.signal == Signal.HEAT_POWER]
        return powers[0], sum(powers[1:])

    plant, stations = plant_and_stations(WINTER_MS)
    assert stations > 0
    assert -plant == pytest.approx(1.07 * stations, rel=0.15)
    assert plant < 2 * plant_and_stations(NOON_MS)[0] < 0


def test_currents_follow_the_households_and_voltage_and_frequency_stay_in_their_bands(
    profiles: Profiles, fleet: Fleet
) -> None:
    signals = Signals(profiles, fleet, 3)
    for time_ms in (NOON_MS, MIDNIGHT_MS + 3_600_000, WINTER_MS):
        values = at(Signals(profiles, fleet, 3), fleet, time_ms)
        load_w = total(fleet, values, Signal.HOUSEHOLD_POWER) + total(fleet, values, Signal.SHOP_POWER)
        amperes = total(fleet, values, Signal.CURRENT)
        assert amperes * 3**0.5 * 10_400 * 0.97 == pytest.approx(load_w, rel=0.35)
    values = at(signals, fleet, NOON_MS)
    for point in fleet.points:
        if point.signal == Signal.VOLTAGE:
            assert values[point.key] == pytest.approx(10_400 / 3**0.5, rel=0.06)
        if point.signal == Signal.FREQUENCY:
            assert abs(values[point.key] - 50) < 0.05


def test_no_value_has_more_than_three_decimals_or_a_negative_zero(profiles: Profiles, fleet: Fleet) -> None:
    values = np.array(list(at(Signals(profiles, fleet, 3), fleet, MIDNIGHT_MS).values()))
    assert np.array_equal(np.rint(values * 1000) / 1000, values)
    assert not np.signbit(values[values == 0]).any()
