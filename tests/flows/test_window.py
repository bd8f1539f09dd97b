"""What a window flow promises, one promise a test. Windows are 10 s, grace 5 s, idle 30 s."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ringmain.flows.settings import Aggregate, Late, WindowSettings
from ringmain.flows.state import SLOTS_MAX

from .recording import Recording, Row, fold

SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND

MINUTE = WindowSettings(
    to="out",
    window="10s",
    grace="5s",
    idle="30s",
    max_ahead="5m",
    values=(Aggregate.COUNT, Aggregate.SUM, Aggregate.FIRST, Aggregate.LAST),
)


def at(seconds: float) -> int:
    return START + int(seconds * SECOND)


def reading(series: int, seconds: float, value: float, quality: int = 0) -> Row:
    return series, at(seconds), value, quality


class Story:
    """Readings and ticks at seconds since START."""

    def __init__(self, devices: dict[int, str | None] | None = None) -> None:
        self.recording = Recording()
        if devices is not None:
            self.recording.entries(devices, at(-100))

    def readings(self, seconds: float, *rows: Row) -> Story:
        self.recording.readings(rows, at(seconds))
        return self

    def tick(self, seconds: float) -> Story:
        self.recording.tick(at(seconds))
        return self

    def windows(self, flow: WindowSettings = MINUTE) -> list[tuple[object, ...]]:
        """Rows emitted: series, start in seconds, revision, values."""
        rows = fold(self.recording, flow)[0]
        return [(row[0], (row[1] - START) / SECOND, *row[2:]) for row in rows]  # type: ignore[operator]


def test_a_window_is_emitted_when_its_devices_newest_time_reaches_end_and_grace() -> None:
    story = Story().readings(1, reading(0, 1, 1.0)).readings(14.9, reading(0, 14.9, 2.0)).tick(15)
    assert story.windows() == []
    story.readings(15, reading(0, 15, 3.0)).tick(16)
    assert story.windows() == [(0, 0, 0, 1, 1.0, 1.0, 1.0)]


def test_a_reading_at_the_end_of_a_window_belongs_to_the_next_one() -> None:
    story = Story().readings(10, reading(0, 0, 1.0), reading(0, 9.999, 2.0), reading(0, 10, 4.0)).tick(60)
    assert story.windows() == [(0, 0, 0, 2, 3.0, 1.0, 2.0), (0, 10, 0, 1, 4.0, 4.0, 4.0)]


def test_a_silent_device_stalls_nobody_and_closes_nobody_else() -> None:
    story = Story({0: "a", 1: "b"}).readings(1, reading(0, 1, 1.0), reading(1, 1, 1.0))
    story.readings(16, reading(0, 16, 1.0)).tick(17)
    assert story.windows() == [(0, 0, 0, 1, 1.0, 1.0, 1.0)]


def test_the_series_of_a_device_share_its_watermark() -> None:
    story = Story({0: "a", 1: "a"}).readings(1, reading(0, 1, 1.0), reading(1, 1, 2.0))
    story.readings(16, reading(0, 16, 1.0)).tick(17)
    assert story.windows() == [(0, 0, 0, 1, 1.0, 1.0, 1.0), (1, 0, 0, 1, 2.0, 2.0, 2.0)]


def test_series_without_a_device_are_devices_of_their_own() -> None:
    story = Story({0: None, 1: None}).readings(1, reading(0, 1, 1.0), reading(1, 1, 2.0))
    story.readings(16, reading(0, 16, 1.0)).tick(17)
    assert [row[0] for row in story.windows()] == [0]


def test_a_device_named_after_the_first_reading_changes_nothing() -> None:
    story = Story({0: None, 1: None}).readings(1, reading(0, 1, 1.0), reading(1, 1, 2.0))
    story.recording.entries({0: "a", 1: "a"}, at(2))
    story.readings(16, reading(0, 16, 1.0)).tick(17)
    assert [row[0] for row in story.windows()] == [0]


def test_an_idle_devices_windows_close_on_ticks_whatever_their_end() -> None:
    story = Story().readings(1, reading(0, 1, 1.0)).tick(30.9)
    assert story.windows() == []
    story.tick(31)
    assert story.windows() == [(0, 0, 0, 1, 1.0, 1.0, 1.0)]


def test_a_reading_for_a_window_that_idleness_closed_revises_it() -> None:
    story = Story().readings(1, reading(0, 1, 1.0)).tick(40).readings(41, reading(0, 2, 2.0)).tick(42)
    assert story.windows() == [(0, 0, 0, 1, 1.0, 1.0, 1.0), (0, 0, 1, 2, 3.0, 1.0, 2.0)]


def test_a_time_far_ahead_of_its_arrival_moves_no_watermark_and_is_in_no_window() -> None:
    story = Story().readings(1, reading(0, 1, 1.0)).readings(2, reading(0, 303, 9.0)).tick(3)
    assert story.windows() == []
    assert fold(story.recording, MINUTE)[2].counts.ahead == 1
    assert [row[2:] for row in story.tick(40).windows()] == [(0, 1, 1.0, 1.0, 1.0)]


def test_a_device_that_sends_nothing_but_times_far_ahead_is_idle() -> None:
    story = Story().readings(1, reading(0, 1, 1.0))
    for second in range(2, 40):
        story.readings(second, reading(0, 10_000, 9.0))
    assert len(story.windows()) == 1


def test_the_same_value_twice_counts_once_at_once_or_later() -> None:
    story = Story().readings(1, reading(0, 1, 1.0), reading(0, 1, 1.0)).readings(2, reading(0, 1, 1.0))
    story.readings(3, reading(0, 3, 2.0)).readings(4, reading(0, 1, 1.0)).tick(60)
    assert story.windows() == [(0, 0, 0, 2, 3.0, 1.0, 2.0)]


def test_another_value_for_the_same_time_replaces_the_first_one() -> None:
    story = Story().readings(1, reading(0, 1, 1.0)).readings(2, reading(0, 1, 5.0)).tick(60)
    assert story.windows() == [(0, 0, 0, 1, 5.0, 5.0, 5.0)]


def test_a_late_repeat_makes_no_revision() -> None:
    story = Story().readings(1, reading(0, 1, 1.0)).readings(16, reading(0, 16, 1.0)).tick(17)
    story.readings(18, reading(0, 1, 1.0)).tick(19)
    assert len(story.windows()) == 1
    assert fold(story.recording, MINUTE)[2].counts.late == 1


def test_every_late_change_is_the_next_revision_at_most_one_a_second() -> None:
    story = Story().readings(1, reading(0, 1, 1.0)).readings(16, reading(0, 16, 1.0)).tick(17)
    for second, value in ((18, 2.0), (18.2, 3.0), (18.4, 4.0), (20, 5.0)):
        story.readings(second, reading(0, 1, value))
    story.tick(21)
    assert [row[2:5] for row in story.windows()] == [(0, 1, 1.0), (1, 1, 2.0), (2, 1, 4.0), (3, 1, 5.0)]


def test_a_late_reading_of_a_window_without_any_is_revision_0() -> None:
    story = Story().readings(50, reading(0, 50, 1.0)).tick(51).readings(52, reading(0, 1, 7.0)).tick(53)
    assert story.windows() == [(0, 0, 0, 1, 7.0, 7.0, 7.0)]


def test_late_readings_are_dropped_and_counted_if_told_so() -> None:
    drop = WindowSettings(to="out", window="10s", grace="5s", late=Late.DROP, values=MINUTE.values)
    story = Story().readings(1, reading(0, 1, 1.0)).readings(16, reading(0, 16, 1.0)).tick(17)
    story.readings(18, reading(0, 2, 2.0)).tick(19)
    windows, late, step = fold(story.recording, drop)
    assert (len(windows), late, step.counts.late) == (1, [], 1)


def test_late_readings_are_put_aside_as_they_came_if_told_so() -> None:
    side = WindowSettings(to="out", window="10s", grace="5s", late=Late.SIDE, values=MINUTE.values)
    story = Story().readings(1, reading(0, 1, 1.0)).readings(16, reading(0, 16, 1.0)).tick(17)
    story.readings(18, reading(0, 18, 1.0), reading(0, 2, 2.0, 0x100), reading(0, 9999, 1.0)).tick(19)
    assert fold(story.recording, side)[1] == [(0, at(2), 2.0, 0x100, at(18))]


def test_readings_that_arrive_together_are_never_late_for_each_other() -> None:
    rows = [reading(0, second, 1.0) for second in range(60, -1, -1)]
    story = Story().readings(60, *rows).tick(61)
    assert [row[1:4] for row in story.windows()] == [(start, 0, 10) for start in range(0, 50, 10)]


def test_invalid_values_and_nan_are_left_out_and_can_take_a_value_back() -> None:
    story = Story().readings(1, reading(0, 1, 1.0), reading(0, 2, 5.0, 2), reading(0, 3, math.nan))
    assert story.readings(4, reading(0, 4, 2.0)).tick(60).windows() == [(0, 0, 0, 2, 3.0, 1.0, 2.0)]
    story.readings(61, reading(0, 1, 1.0, 2)).tick(62).readings(63, reading(0, 4, 2.0, 3)).tick(64)
    assert story.windows()[1:] == [(0, 0, 1, 1, 2.0, 2.0, 2.0), (0, 0, 2, 0, None, None, None)]


def test_first_and_last_go_by_time_and_not_by_arrival() -> None:
    story = Story().readings(
        5, reading(0, 5, 5.0), reading(0, 1, 1.0), reading(0, 9, 9.0), reading(0, 3, 3.0)
    )
    assert story.tick(60).windows() == [(0, 0, 0, 4, 18.0, 1.0, 9.0)]


def test_sums_are_formed_in_order_of_time_value_by_value() -> None:
    values = [1e16, 1.0, -1e16, 1.0]
    rows = [reading(0, second, value) for second, value in enumerate(values)]
    expected = ((1e16 + 1.0) + -1e16) + 1.0
    for order in (rows, rows[::-1], [rows[2], rows[0], rows[3], rows[1]]):
        [row] = Story().readings(4, *order).tick(60).windows()
        assert row[4] == expected


@pytest.mark.parametrize("grace", ["0s", "5s", "35s", "100s"])
def test_a_device_that_sends_a_backlog_in_one_frame_gets_all_its_windows(grace: str) -> None:
    flow = WindowSettings(to="out", window="10s", grace=grace, idle="30s", values=(Aggregate.COUNT,))
    rows = [reading(0, second, 1.0) for second in range(10 * 10 * SLOTS_MAX)]
    story = Story().readings(len(rows), *rows).tick(len(rows) + 60)
    assert [row[2:] for row in story.windows(flow)] == [(0, 10)] * (10 * SLOTS_MAX)


def test_times_all_over_the_place_cost_no_more_than_their_readings() -> None:
    random = np.random.default_rng(4)
    story = Story()
    for frame in range(20):
        times = random.integers(-(2**63), 2**63 - 1, 500)
        rows = [(int(series), int(time), 1.0, 0) for series, time in zip(range(500), times, strict=True)]
        wild = [(2**32 - 1, at(frame), 1.0, 0), (3, -(2**63), 1.0, 0), (3, 2**63 - 1, math.inf, 0)]
        story.readings(frame, *rows, *wild)
    windows, _, step = fold(story.tick(1000).recording, MINUTE)
    counts = step.counts
    assert counts.rows == 20 * 503
    assert counts.unusable + counts.ahead + len(windows) == counts.rows
    assert len(step.state.deferred) == len(step.state.late) == len(step.state.waiting) == 0
    assert step.state.series_size < 2000


def test_a_frame_whose_rows_all_lie_ahead_or_that_is_empty_changes_no_window() -> None:
    story = Story().readings(0).readings(1, reading(0, 5000, 1.0)).tick(60)
    assert story.windows() == []
