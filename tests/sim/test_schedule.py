"""The programme of faults: everything within 90 s, shorter runs compressed, endless ones repeated."""

from __future__ import annotations

import msgspec
import pytest

from ringmain.sim.schedule import FaultKind, Schedule, build_schedule


def test_ninety_seconds_show_every_fault_to_its_end() -> None:
    schedule = build_schedule(90)
    assert {fault.kind for fault in schedule.faults} == set(FaultKind)
    assert all(0 < fault.start_s < fault.end_s <= fault.last_s < 90 for fault in schedule.faults)
    assert build_schedule(600).faults == schedule.faults


def test_what_is_held_back_comes_after_its_window_has_closed_wherever_the_minute_turns() -> None:
    late = next(f for f in build_schedule(90).faults if f.kind == FaultKind.LATE)
    assert late.release_s is not None
    assert late.release_s - late.end_s > 60 + 10


def test_a_shorter_run_is_the_same_programme_compressed() -> None:
    short, whole = build_schedule(30), build_schedule(90)
    for quick, slow in zip(short.faults, whole.faults, strict=True):
        assert quick.kind == slow.kind
        assert quick.start_s == pytest.approx(slow.start_s / 3, abs=1e-3)
        assert quick.last_s < 30


def test_an_endless_run_repeats_and_the_substation_is_gone_for_a_minute() -> None:
    schedule = build_schedule(None)
    offline = next(f for f in schedule.faults if f.kind == FaultKind.OFFLINE)
    assert offline.end_s - offline.start_s == 60
    assert max(f.last_s for f in schedule.faults) < schedule.cycle_s
    assert schedule.place_in_cycle(2 * schedule.cycle_s + 5) == (2, 5)


def test_the_table_shows_every_fault_and_json_brings_the_schedule_back() -> None:
    schedule = build_schedule(None)
    for fault in schedule.faults:
        assert f"{fault.kind}" in schedule.table()
        assert fault.what in schedule.table()
    assert msgspec.json.decode(msgspec.json.encode(schedule), type=Schedule) == schedule


@pytest.mark.parametrize("seconds", [0, 4.9, float("nan"), float("inf")])
def test_a_run_that_is_too_short_is_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match="at least 5 seconds"):
        build_schedule(seconds)
