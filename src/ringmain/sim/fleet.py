"""Which devices the simulated utility has, where they are, and what their series are called.

One seed, one number of households and one rate give one fleet, point for point: every simulator process
builds it for itself and works on its share of the gateways. A gateway is one MQTT connection; all senders
of a device are on the same one, so a device's readings keep their order.

    device      how many                 topic                               payload
    hh-0001     3/5 of the households    meters/hh-0001/power                {"t": epoch ms or RFC 3339, "v": 412.5}
    ir-0001     3/10, infrared readers   tele/ir-0001/SENSOR                 {"Time": .., "ENERGY": {"Power": .., "Total": ..}}
    dc-0001     1/10, data concentrator  meters/dc-0001/power                [[epoch ms, 412.5], ..]
    sh-001      6 in 100 households      meters/sh-001/power                 as hh
    gm-0001     10 in 100 households     meters/gm-0001/power                as hh
    pv-01       6 inverters              meters/pv-01/power (negative)       as hh
    weather     1                        meters/weather/temperature          as hh
    heat-00     the plant (negative)     meters/heat-00/power                as hh
    heat-01     6 heat stations          meters/heat-01/supply-temperature   as hh
    ss-01       3 substations            substations/ss-01/feeder-1/current  [{"t": .., "v": ..}, ..]
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

import numpy as np

UTILITY = "leipzig-west"
SUBSTATIONS = 3
FEEDERS = 8
INVERTERS = 6
HEAT_STATIONS = 7
HOUSEHOLDS_MIN = 20
INTERVAL_MIN_MS = 100
SAMPLES_MAX = 5
"""Readings of a point in one array message, at most: fewer where they would span more than a few seconds."""

_SUBSTATION_STEP_MS = 200
_ARRAY_SPAN_MS = 8000
_PLANT_INTERVAL_MS = 2000
_ENERGY_EVERY = 3
_GATEWAYS_PER_FEEDER_MAX = 4


class Signal(IntEnum):
    """What a point measures; its parameters are row `Point.row` of that signal."""

    HOUSEHOLD_POWER = 0
    HOUSEHOLD_ENERGY = 1
    SHOP_POWER = 2
    SHOP_ENERGY = 3
    GAS_POWER = 4
    GAS_ENERGY = 5
    PV_POWER = 6
    PV_ENERGY = 7
    IRRADIANCE = 8
    AIR_TEMPERATURE = 9
    HEAT_SUPPLY = 10
    HEAT_RETURN = 11
    HEAT_FLOW = 12
    HEAT_POWER = 13
    VOLTAGE = 14
    FREQUENCY = 15
    CURRENT = 16
    OIL_TEMPERATURE = 17


class Speech(IntEnum):
    """How a sender puts its readings."""

    EPOCH_MS = 0
    RFC_3339 = 1
    PLUG = 2
    PAIRS = 3
    OBJECTS = 4


@dataclass(frozen=True, slots=True)
class Point:
    """One series: its catalogue entry, and what it measures."""

    key: str
    unit: str
    quantity: str
    medium: str
    device: str
    place: str
    owner: str
    signal: Signal
    row: int
    decimals: int = 1


@dataclass(frozen=True, slots=True)
class Sender:
    """One topic of one device: sends its points every `interval_ms`, first `first_ms` after the start.

    A message carries `samples` readings of each point, `interval_ms / samples` apart, the last one at its time.
    """

    device: str
    topic: str
    gateway: int
    speech: Speech
    points: tuple[int, ...]
    interval_ms: int
    first_ms: int
    samples: int = 1


@dataclass(frozen=True, slots=True)
class Fleet:
    """All points, senders and gateways. `feeder_*[row]` is 0..23: the feeder of a household, of a shop."""

    points: tuple[Point, ...]
    senders: tuple[Sender, ...]
    gateways: tuple[str, ...]
    feeder_of_household: tuple[int, ...]
    feeder_of_shop: tuple[int, ...]
    gas_meters: int

    def readings_per_s(self) -> float:
        """The rate without faults, as planned; `--rate` is met as far as intervals >= 100 ms allow."""
        return sum(1000 * s.samples * len(s.points) / s.interval_ms for s in self.senders)


def build_fleet(households: int, rate: float, seed: int) -> Fleet:
    """The fleet of a seed. Raises ValueError for less than 20 households or a rate that is not positive."""
    if households < HOUSEHOLDS_MIN:
        raise ValueError(f"expected at least {HOUSEHOLDS_MIN} households, found {households}")
    if not rate > 0:
        raise ValueError(f"expected a positive rate in readings a second, found {rate}")
    return _Builder(households, rate, seed).build()


def write_catalogue(fleet: Fleet, file: Path) -> None:
    """The fleet's series as a catalogue file: key, unit, quantity, medium, device, place, owner."""
    with file.open("w", newline="", encoding="utf-8") as out:
        rows = csv.writer(out)
        rows.writerow(["key", "unit", "quantity", "medium", "device", "place", "owner"])
        for p in fleet.points:
            rows.writerow([p.key, p.unit, p.quantity, p.medium, p.device, p.place, p.owner])


class _Builder:
    def __init__(self, households: int, rate: float, seed: int) -> None:
        self.households = households
        self.shops = max(8, households * 6 // 100)
        self.gas_meters = max(4, households // 10)
        self.rng = np.random.default_rng([seed, 1])
        self.points: list[Point] = []
        self.senders: list[Sender] = []
        self.gateways: list[str] = []
        self.per_feeder = min(_GATEWAYS_PER_FEEDER_MAX, 1 + households // (FEEDERS * SUBSTATIONS * 20))
        substations = SUBSTATIONS * (FEEDERS + 5) * 1000 / _SUBSTATION_STEP_MS
        plants = (INVERTERS * 2 + 2 + HEAT_STATIONS * 4) * 1000 / _PLANT_INTERVAL_MS
        meters = households + self.shops + self.gas_meters
        per_meter_per_s = max(rate - substations - plants, rate / 10) / meters
        self.power_ms = (1 + 1 / _ENERGY_EVERY) / per_meter_per_s * 1000

    def build(self) -> Fleet:
        for substation in range(SUBSTATIONS):
            self._substation(substation)
        self._photovoltaics()
        self._heat()
        street = len(self.gateways)
        for feeder in range(SUBSTATIONS * FEEDERS):
            for n in range(self.per_feeder):
                self.gateways.append(f"gw-ss{feeder // FEEDERS + 1:02d}-f{feeder % FEEDERS + 1}-{n + 1}")
        household_feeders = self._feeders(self.households)
        for row, feeder in enumerate(household_feeders):
            self._household(row, feeder, street)
        shop_feeders = self._feeders(self.shops)
        for row, feeder in enumerate(shop_feeders):
            signals = (Signal.SHOP_POWER, Signal.SHOP_ENERGY)
            self._meter(f"sh-{row + 1:03d}", feeder, street, row, "electricity", "customer", signals)
        for row, feeder in enumerate(self._feeders(self.gas_meters)):
            signals = (Signal.GAS_POWER, Signal.GAS_ENERGY)
            self._meter(f"gm-{row + 1:04d}", feeder, street, row, "gas", "customer", signals)
        return Fleet(
            points=tuple(self.points),
            senders=tuple(self.senders),
            gateways=tuple(self.gateways),
            feeder_of_household=household_feeders,
            feeder_of_shop=shop_feeders,
            gas_meters=self.gas_meters,
        )

    def _feeders(self, count: int) -> tuple[int, ...]:
        return tuple(int(f) for f in self.rng.permutation(count) % (SUBSTATIONS * FEEDERS))

    def _household(self, row: int, feeder: int, street: int) -> None:
        number = f"{row + 1:04d}"
        kind = row % 10
        signals = (Signal.HOUSEHOLD_POWER, Signal.HOUSEHOLD_ENERGY)
        if kind < 6:
            self._meter(f"hh-{number}", feeder, street, row, "electricity", "customer", signals)
        elif kind < 9:
            self._plug(f"ir-{number}", feeder, street, row)
        else:
            self._concentrator(f"dc-{number}", feeder, street, row)

    def _meter(
        self,
        device: str,
        feeder: int,
        street: int,
        row: int,
        medium: str,
        owner: str,
        signals: tuple[Signal, Signal],
    ) -> None:
        gateway = street + feeder * self.per_feeder + row % self.per_feeder
        place = _place(feeder)
        speech = Speech.EPOCH_MS if row % 2 else Speech.RFC_3339
        for quantity, signal, every in (("power", signals[0], 1), ("energy", signals[1], _ENERGY_EVERY)):
            unit = "W" if quantity == "power" else "Wh"
            point = self._point(device, quantity, unit, quantity, medium, place, owner, signal, row)
            topic = f"meters/{device}/{quantity}"
            self._sender(device, topic, gateway, speech, (point,), self.power_ms * every)

    def _concentrator(self, device: str, feeder: int, street: int, row: int) -> None:
        """Sends the arrays of both its series at the same instant, so that neither is late for the other."""
        gateway = street + feeder * self.per_feeder + row % self.per_feeder
        step_ms = max(INTERVAL_MIN_MS, round(self._both_ms()))
        samples = min(SAMPLES_MAX, 1 + _ARRAY_SPAN_MS // step_ms)
        interval_ms = step_ms * samples
        first_ms = interval_ms + int(self.rng.integers(interval_ms))
        for quantity, unit, signal in (
            ("power", "W", Signal.HOUSEHOLD_POWER),
            ("energy", "Wh", Signal.HOUSEHOLD_ENERGY),
        ):
            point = self._point(
                device, quantity, unit, quantity, "electricity", _place(feeder), "customer", signal, row
            )
            topic = f"meters/{device}/{quantity}"
            self.senders.append(
                Sender(device, topic, gateway, Speech.PAIRS, (point,), interval_ms, first_ms, samples)
            )

    def _both_ms(self) -> float:
        """The interval at which a device that sends power and energy together meets its share of the rate."""
        return self.power_ms * 2 / (1 + 1 / _ENERGY_EVERY)

    def _plug(self, device: str, feeder: int, street: int, row: int) -> None:
        gateway = street + feeder * self.per_feeder + row % self.per_feeder
        place = _place(feeder)
        power = self._point(
            device, "p", "W", "power", "electricity", place, "customer", Signal.HOUSEHOLD_POWER, row
        )
        energy = self._point(
            device, "e", "kWh", "energy", "electricity", place, "customer", Signal.HOUSEHOLD_ENERGY, row, 3
        )
        self._sender(device, f"tele/{device}/SENSOR", gateway, Speech.PLUG, (power, energy), self._both_ms())

    def _substation(self, substation: int) -> None:
        device = f"ss-{substation + 1:02d}"
        gateway = self._gateway(device)
        first_ms = 40 + 10 * substation

        def point(name: str, quantity: str, unit: str, signal: Signal, row: int, decimals: int) -> None:
            place = f"{UTILITY}/{device}/{name.split('/')[0]}"
            index = self._point(
                device, name, unit, quantity, "electricity", place, "utility", signal, row, decimals
            )
            interval = _SUBSTATION_STEP_MS * SAMPLES_MAX
            first = first_ms + interval
            topic = f"substations/{device}/{name}"
            self.senders.append(
                Sender(device, topic, gateway, Speech.OBJECTS, (index,), interval, first, SAMPLES_MAX)
            )

        for phase in range(3):
            row = substation * 3 + phase
            point(f"busbar/voltage-l{phase + 1}", "voltage", "V", Signal.VOLTAGE, row, 1)
        point("busbar/frequency", "frequency", "Hz", Signal.FREQUENCY, substation, 3)
        point("transformer/temperature", "temperature", "°C", Signal.OIL_TEMPERATURE, substation, 2)
        for feeder in range(FEEDERS):
            row = substation * FEEDERS + feeder
            point(f"feeder-{feeder + 1}/current", "current", "A", Signal.CURRENT, row, 2)

    def _photovoltaics(self) -> None:
        gateway = self._gateway("pv-park")
        place = f"{UTILITY}/pv-park"
        for row in range(INVERTERS):
            device = f"pv-{row + 1:02d}"
            for quantity, unit, signal in (
                ("power", "W", Signal.PV_POWER),
                ("energy", "Wh", Signal.PV_ENERGY),
            ):
                point = self._point(
                    device, quantity, unit, quantity, "electricity", place, "utility", signal, row
                )
                self._plant_sender(device, quantity, gateway, point)
        for quantity, unit, signal, decimals in (
            ("irradiance", "W/m2", Signal.IRRADIANCE, 1),
            ("temperature", "°C", Signal.AIR_TEMPERATURE, 2),
        ):
            point = self._point(
                "weather", quantity, unit, quantity, "electricity", place, "utility", signal, 0, decimals
            )
            self._plant_sender("weather", quantity, gateway, point)

    def _heat(self) -> None:
        gateway = self._gateway("heat-network")
        for row in range(HEAT_STATIONS):
            device = f"heat-{row:02d}"
            place = f"{UTILITY}/heat/plant" if row == 0 else f"{UTILITY}/heat/station-{row}"
            for name, quantity, unit, signal, decimals in (
                ("supply-temperature", "temperature", "°C", Signal.HEAT_SUPPLY, 2),
                ("return-temperature", "temperature", "°C", Signal.HEAT_RETURN, 2),
                ("flow", "flow", "m3/h", Signal.HEAT_FLOW, 3),
                ("power", "power", "W", Signal.HEAT_POWER, 1),
            ):
                point = self._point(
                    device, name, unit, quantity, "heat", place, "utility", signal, row, decimals
                )
                self._plant_sender(device, name, gateway, point)

    def _gateway(self, name: str) -> int:
        self.gateways.append(name)
        return len(self.gateways) - 1

    def _point(
        self,
        device: str,
        name: str,
        unit: str,
        quantity: str,
        medium: str,
        place: str,
        owner: str,
        signal: Signal,
        row: int,
        decimals: int = 1,
    ) -> int:
        key = f"{device}/{name}"
        self.points.append(Point(key, unit, quantity, medium, device, place, owner, signal, row, decimals))
        return len(self.points) - 1

    def _plant_sender(self, device: str, name: str, gateway: int, point: int) -> None:
        topic = f"meters/{device}/{name}"
        self._sender(device, topic, gateway, Speech.EPOCH_MS, (point,), _PLANT_INTERVAL_MS)

    def _sender(
        self,
        device: str,
        topic: str,
        gateway: int,
        speech: Speech,
        points: tuple[int, ...],
        interval_ms: float,
    ) -> None:
        """Intervals differ by up to 3 % from device to device, so that they do not beat."""
        interval = max(INTERVAL_MIN_MS, round(interval_ms * self.rng.uniform(0.97, 1.03)))
        first = int(self.rng.integers(interval))
        self.senders.append(Sender(device, topic, gateway, speech, points, interval, first))


def _place(feeder: int) -> str:
    return f"{UTILITY}/ss-{feeder // FEEDERS + 1:02d}/feeder-{feeder % FEEDERS + 1}"
