"""What each fault makes of a meter's readings, message by message."""

from __future__ import annotations

import json
from datetime import datetime

import pytest

from ringmain.sim.faults import AHEAD_MS, Outgoing, Tampering
from ringmain.sim.fleet import Fleet, build_fleet
from ringmain.sim.messages import Malformed
from ringmain.sim.schedule import Fault, FaultKind, build_schedule
from ringmain.sim.tally import Kind

START_MS = 1_795_419_774_000
SCHEDULE = build_schedule(90)


@pytest.fixture(scope="module")
def fleet() -> Fleet:
    return build_fleet(300, 500, 5)


@pytest.fixture
def tampering(fleet: Fleet) -> Tampering:
    return Tampering(SCHEDULE, fleet, 5, START_MS)


def befallen(tampering: Tampering, kind: FaultKind) -> tuple[int, Fault]:
    """A sender whom the fault befalls, and the fault."""
    for sender, fault in sorted(tampering.fault_of_sender.items()):
        if fault.kind == kind:
            return sender, fault
    raise AssertionError(kind)


def at(second: float) -> int:
    return START_MS + int(second * 1000)


def reading(outgoing: Outgoing) -> tuple[int, float]:
    decoded = json.loads(outgoing.payload)
    when = decoded["t"]
    return when if isinstance(when, int) else round(datetime.fromisoformat(when).timestamp() * 1000), decoded[
        "v"
    ]


def test_every_fault_has_meters_of_its_own(fleet: Fleet, tampering: Tampering) -> None:
    devices: dict[str, set[FaultKind]] = {}
    for sender, fault in tampering.fault_of_sender.items():
        devices.setdefault(fleet.senders[sender].device, set()).add(fault.kind)
    assert all(len(kinds) == 1 for kinds in devices.values())
    assert {kind for kinds in devices.values() for kind in kinds} == set(FaultKind) - {FaultKind.OFFLINE}
    assert Tampering(SCHEDULE, fleet, 5, START_MS).fault_of_sender == tampering.fault_of_sender


@pytest.mark.parametrize("kind", [k for k in FaultKind if k != FaultKind.OFFLINE])
def test_outside_its_time_a_fault_does_nothing(tampering: Tampering, kind: FaultKind) -> None:
    sender, fault = befallen(tampering, kind)
    for second in (fault.start_s - 0.001, fault.end_s):
        (only,) = tampering.messages(sender, at(second), 12.5)
        assert reading(only) == (at(second), 12.5)
        assert only.tag == (Kind.REGULAR, 1, 0, 12_500)


def test_a_duplicate_is_the_same_message_again(tampering: Tampering) -> None:
    sender, fault = befallen(tampering, FaultKind.DUPLICATES)
    first, second = tampering.messages(sender, at(fault.start_s), 1.0)
    assert first.payload == second.payload
    assert (first.tag[0], second.tag[0]) == (Kind.REGULAR, Kind.DUPLICATE)


def test_out_of_order_readings_follow_their_successors_and_none_is_lost(tampering: Tampering) -> None:
    sender, fault = befallen(tampering, FaultKind.OUT_OF_ORDER)
    sent = []
    for n in range(7):
        sent += tampering.messages(sender, at(fault.start_s + n), float(n))
    sent += tampering.flush()
    assert [reading(o)[1] for o in sent] == [1, 0, 3, 2, 5, 4, 6]


def test_late_readings_are_held_until_their_release(tampering: Tampering) -> None:
    sender, fault = befallen(tampering, FaultKind.LATE)
    assert fault.release_s is not None
    assert tampering.messages(sender, at(fault.start_s), 1.0) == []
    assert tampering.messages(sender, at(fault.start_s + 1), 2.0) == []
    assert tampering.due(at(fault.release_s - 0.001)) == []
    released = tampering.due(at(fault.release_s))
    assert [reading(o) for o in released] == [(at(fault.start_s), 1.0), (at(fault.start_s + 1), 2.0)]
    assert all(o.tag[0] == Kind.LATE for o in released)
    assert tampering.due(at(fault.release_s)) == tampering.flush() == []


def test_a_revision_has_the_same_time_and_another_value(tampering: Tampering) -> None:
    sender, fault = befallen(tampering, FaultKind.REVISIONS)
    (regular,) = tampering.messages(sender, at(fault.start_s), 1.1)
    (revision,) = tampering.flush()
    assert reading(regular) == (at(fault.start_s), 1.1)
    assert reading(revision) == (at(fault.start_s), 2.1)
    assert revision.tag == (Kind.REVISION, 1, 0, 2100)


def test_wrong_clocks_are_an_hour_ahead_or_in_1970(tampering: Tampering) -> None:
    sender, fault = befallen(tampering, FaultKind.CLOCK_AHEAD)
    (ahead,) = tampering.messages(sender, at(fault.start_s), 1.0)
    assert reading(ahead)[0] == at(fault.start_s) + AHEAD_MS
    sender, fault = befallen(tampering, FaultKind.BOOT_1970)
    (booted,) = tampering.messages(sender, at(fault.start_s), 1.0)
    assert json.loads(booted.payload)["t"] == "1970-01-01T00:00:36.000Z"


def test_a_silent_meter_says_nothing(tampering: Tampering) -> None:
    sender, fault = befallen(tampering, FaultKind.SILENT)
    assert tampering.messages(sender, at(fault.start_s), 1.0) == []


def test_all_kinds_of_malformed_messages_come_and_each_costs_one_dead_letter(tampering: Tampering) -> None:
    sender, fault = befallen(tampering, FaultKind.MALFORMED)
    spoilt = []
    for n in range(4 * len(Malformed)):
        spoilt += tampering.messages(sender, at(fault.start_s) + 100 * n, 1.5)
    spoilt = [o for o in spoilt if o.tag[0] == Kind.MALFORMED]
    assert len({o.payload for o in spoilt}) == len(Malformed)
    assert all(o.tag[2] == 1 for o in spoilt)
    with_good_elements = [o for o in spoilt if o.tag[1]]
    assert [(o.tag[1], o.tag[3]) for o in with_good_elements] == [(2, 3000)]
    assert len(json.loads(with_good_elements[0].payload)) == 3


def test_every_cycle_of_an_endless_schedule_has_its_own_releases(fleet: Fleet) -> None:
    schedule = build_schedule(None)
    tampering = Tampering(schedule, fleet, 5, START_MS)
    sender, fault = befallen(tampering, FaultKind.LATE)
    assert fault.release_s is not None
    assert tampering.messages(sender, at(schedule.cycle_s + fault.start_s), 1.0) == []
    assert tampering.due(at(fault.release_s)) == []
    assert len(tampering.due(at(schedule.cycle_s + fault.release_s))) == 1
