"""The fleet: same seed, same town; keys unique; the rate is met."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import pytest

from ringmain.sim.fleet import Speech, build_fleet, write_catalogue


def test_a_seed_gives_one_fleet_and_another_seed_another() -> None:
    assert build_fleet(100, 500, 7) == build_fleet(100, 500, 7)
    assert build_fleet(100, 500, 7) != build_fleet(100, 500, 8)


def test_every_series_has_a_key_of_its_own_and_exactly_one_sender() -> None:
    fleet = build_fleet(2000, 3000, 1)
    assert len({point.key for point in fleet.points}) == len(fleet.points)
    assert 4000 <= len(fleet.points) <= 6000
    sent = Counter(point for sender in fleet.senders for point in sender.points)
    assert sent == Counter(range(len(fleet.points)))


@pytest.mark.parametrize("rate", [500, 2000, 3000, 10_000])
def test_the_rate_is_what_was_asked_for(rate: float) -> None:
    assert build_fleet(2000, rate, 1).readings_per_s() == pytest.approx(rate, rel=0.02)


def test_a_device_stays_on_one_connection_and_there_are_many_connections() -> None:
    fleet = build_fleet(2000, 3000, 1)
    gateways: dict[str, set[int]] = {}
    for sender in fleet.senders:
        gateways.setdefault(sender.device, set()).add(sender.gateway)
    assert {len(numbers) for numbers in gateways.values()} == {1}
    used = {number for numbers in gateways.values() for number in numbers}
    assert used == set(range(len(fleet.gateways)))
    assert 50 <= len(used) <= 200


def test_every_way_of_speaking_occurs_and_arrays_span_whole_steps() -> None:
    fleet = build_fleet(2000, 3000, 1)
    assert {sender.speech for sender in fleet.senders} == set(Speech)
    for sender in fleet.senders:
        assert sender.interval_ms % sender.samples == 0
        assert sender.first_ms >= (sender.samples - 1) * sender.interval_ms // sender.samples


def test_the_catalogue_names_unit_quantity_medium_device_place_and_owner(tmp_path: Path) -> None:
    fleet = build_fleet(50, 500, 1)
    file = tmp_path / "series.csv"
    write_catalogue(fleet, file)
    with file.open(encoding="utf-8") as text:
        rows = list(csv.DictReader(text))
    assert [row["key"] for row in rows] == [point.key for point in fleet.points]
    assert all(all(row.values()) for row in rows)
    by_key = {row["key"]: row for row in rows}
    assert by_key["ir-0007/e"]["unit"] == "kWh"
    assert by_key["pv-01/power"]["quantity"] == "power"
    assert by_key["ss-02/feeder-7/current"]["place"] == "leipzig-west/ss-02/feeder-7"
    assert {row["medium"] for row in rows} == {"electricity", "gas", "heat"}


@pytest.mark.parametrize(("households", "rate"), [(19, 500.0), (50, 0.0), (50, float("nan"))])
def test_what_makes_no_fleet_is_refused(households: int, rate: float) -> None:
    with pytest.raises(ValueError, match=r"expected .* found"):
        build_fleet(households, rate, 1)
