"""Devices that are dead, fast, or were away: what everybody's windows are, to the row."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from ringmain.flows.aggregates import Aggregate
from ringmain.flows.block import readings_block
from ringmain.flows.chain import Chain
from ringmain.flows.settings import WindowSettings
from ringmain.flows.steps.window import WindowStepSettings
from ringmain.log import open_log
from tests.flows.real_log import Feed, emitted, run_to_end, runner
from tests.flows.recording import Recording
from tests.flows.steps.driving import SECOND, START, Instant, plan_of, record, run

STEP = WindowStepSettings(
    window="10s", grace="5s", idle="30s", values=(Aggregate.COUNT, Aggregate.LAST), max_ahead="5m"
)
HOUR = 3600 * SECOND
Told = list[tuple[int, int, int, float, int]]
"""Series, start in seconds since START, count, last value, revision."""


class Fleet:
    """Frames of many series, each a device of its own, and what a chain gives of each, with its log time."""

    def __init__(self, step: WindowStepSettings) -> None:
        self.log = Recording()
        self.chain = Chain(plan_of(step), self.log)
        self.told: list[tuple[int, pa.RecordBatch]] = []

    def readings(self, second: float, series: np.ndarray, time_s: np.ndarray, value: np.ndarray) -> None:
        now = START + int(second * SECOND)
        times = START + (time_s * SECOND).astype(np.int64)
        quality = np.zeros(len(series), np.uint16)
        rows = readings_block(series.astype(np.uint32), times, value.astype(np.float64), quality, now).rows
        self._step(self.log.append("readings", rows, now))

    def tick(self, second: float) -> None:
        self._step(self.log.tick(START + int(second * SECOND)))

    def _step(self, frame: object) -> None:
        blocks = self.chain.step(frame)  # type: ignore[arg-type]
        self.told += [(block.arrival_ns, block.rows) for block in blocks]

    def windows(self) -> dict[tuple[int, int], tuple[np.ndarray, np.ndarray]]:
        """By log time and start (s since START): series and last values of revision 0, in the order given."""
        found: dict[tuple[int, int], tuple[np.ndarray, np.ndarray]] = {}
        for arrival, rows in self.told:
            assert not rows.column("revision").to_numpy().any()
            starts = rows.column("start").cast(pa.int64()).to_numpy()
            for start in np.unique(starts):
                mine = starts == start
                key = ((arrival - START) // SECOND, (int(start) - START) // SECOND)
                assert key not in found
                found[key] = (
                    rows.column("series").to_numpy()[mine],
                    rows.column("last").to_numpy()[mine],
                )
        return found


def test_one_dead_meter_among_fifty_thousand_delays_nobody_and_has_its_windows_when_it_is_idle() -> None:
    fleet = Fleet(STEP)
    everybody, dead = np.arange(50_000), 17
    others = everybody[everybody != dead]
    for second in range(0, 70, 5):
        alive = everybody if second <= 20 else others
        fleet.readings(second, alive, np.full(len(alive), second), alive + second)
    fleet.tick(70)
    windows = fleet.windows()
    assert {key: len(series) for key, (series, _) in windows.items()} == {
        (20, 0): 50_000,  # the reading of second 15 reached the end and 5 s; told when log time moves on
        (30, 10): 49_999,
        (40, 20): 49_999,
        (50, 30): 49_999,
        (50, 10): 1,
        (50, 20): 1,
        (60, 40): 49_999,
        (70, 50): 49_999,
    }
    for (told_at, start), (series, last) in windows.items():
        mine = np.array([dead]) if (told_at, start) in ((50, 10), (50, 20)) else others
        mine = everybody if start == 0 else mine
        newest = 20 if mine[0] == dead and start == 20 else start + 5
        np.testing.assert_array_equal(series, mine)
        np.testing.assert_array_equal(last, mine + newest)


def test_one_fast_clock_closes_its_own_windows_only_and_one_that_is_far_off_moves_nothing() -> None:
    fleet = Fleet(STEP)
    right, fast, far_off = np.arange(1000), 1000, 1001
    everybody = np.arange(1002)
    for second in range(0, 40, 5):
        times = np.full(1002, second)
        times[fast] += 60
        times[far_off] += 3600
        fleet.readings(second, everybody, times, everybody + second)
    fleet.tick(41)
    windows = fleet.windows()
    assert {key: series.tolist() for key, (series, _) in windows.items()} == {
        (20, 0): right.tolist(),
        (20, 60): [fast],
        (30, 10): right.tolist(),
        (30, 70): [fast],
        (41, 20): right.tolist(),
        (41, 80): [fast],
    }
    for (_, start), (series, last) in windows.items():
        begin = start if series[0] != fast else start - 60
        np.testing.assert_array_equal(last, series + begin + 5)
    assert fleet.chain.contexts[0].counts["ahead"] == 8


def away(*, newest_first: bool) -> list[Instant]:
    """Three days of a site of 20 meters that report every quarter of an hour, all of it sent at their end.

    Another site reports all the time.
    """
    days = 3 * 24 * 4
    quarter = 900 * SECOND
    story: list[Instant] = []
    for number in range(days):
        at = START + number * quarter
        story.append((at, [(100, at, 1.0, 0)]))
    back = START + days * quarter
    backlog = [
        (meter, START + number * quarter, float(meter + number), 0)
        for number in range(days)
        for meter in range(20)
    ]
    now = [(meter, back, -1.0, 0) for meter in range(20)]
    if newest_first:
        story += [(back, now), *((back + k * SECOND, backlog[k::5]) for k in range(1, 5))]
        story.append((back + 5 * SECOND, backlog[0::5]))
    else:
        story += [(back, backlog), (back + SECOND, now)]
    return story


@pytest.mark.parametrize("newest_first", [False, True])
def test_a_site_that_was_away_for_three_days_and_sends_all_of_it_has_every_window_of_them(
    newest_first: bool,
) -> None:
    step = WindowStepSettings(
        window="1h", grace="1m", idle="2h", values=(Aggregate.COUNT, Aggregate.SUM, Aggregate.LAST)
    )
    known = {meter: {"device": f"meter-{meter}"} for meter in range(20)}
    log = record(away(newest_first=newest_first), known=known, ticks=False, tail_s=130)
    rows = [row for row in run(plan_of(step), log)["out"] if row["series"] < 20]
    newest: dict[tuple[int, int], dict[str, float]] = {}
    for row in rows:
        newest[row["series"], row["start"]] = row
    readings: dict[tuple[int, int], list[float]] = {}
    for number in range(3 * 24 * 4):
        at = START + number * 900 * SECOND
        for meter in range(20):
            readings.setdefault((meter, at // HOUR * HOUR), []).append(float(meter + number))
    last_hour = (START + 3 * 24 * HOUR) // HOUR * HOUR
    told = {key: (row["count"], row["sum"], row["last"]) for key, row in newest.items() if key[1] < last_hour}
    assert told == {
        key: (len(values), sum(values), values[-1]) for key, values in readings.items() if key[1] < last_hour
    }
    if not newest_first:  # in order of time nothing is late, however old it is
        assert len(rows) == len(newest)
        assert {row["revision"] for row in rows} == {0}


def test_a_correction_after_five_weeks_is_a_revision_of_exactly_that_window(tmp_path: Path) -> None:
    flow = WindowSettings(
        to="out", window="1h", grace="1m", idle="2h", values=(Aggregate.COUNT, Aggregate.SUM, Aggregate.LAST)
    )
    hours = 40 * 24
    with open_log(tmp_path) as log:
        feed = Feed(log)
        first = START // HOUR * HOUR
        for hour in range(hours):
            at = first + hour * HOUR
            feed.readings(
                [(s, at + m * 900 * SECOND, float(s + hour), 0) for s in range(4) for m in (0, 1)],
                at + 900 * SECOND,
            )
        now = first + hours * HOUR
        feed.tick(now + 3 * HOUR)
        started = runner(log, tmp_path, flow)
        started.start()
        run_to_end(log, started)
        before = len(emitted(log, flow))
        now += 4 * HOUR
        old = [first + day * 24 * HOUR for day in (0, 1, 5, 20, 39)]
        feed.readings([(2, at, 1000.0, 0) for at in old], now)
        feed.readings([(3, old[0] + 1, 5.0, 0)], now + SECOND)
        feed.readings([(0, old[0], float(0), 0)], now + 2 * SECOND)
        feed.tick(now + 200 * SECOND)
        again = runner(log, tmp_path, flow)  # with nothing in memory
        again.start()
        run_to_end(log, again)
        assert again.status().late == 7
        rows = [row for _, *rows in emitted(log, flow)[before:] for row in rows]
    day = 24
    assert sorted(row for row in rows if row[1] < first + hours * HOUR) == sorted(
        [
            (2, at, 1, 2, 1000.0 + 2 + n * day, 2.0 + n * day)
            for n, at in zip((0, 1, 5, 20, 39), old, strict=True)
        ]
        + [(3, old[0], 1, 3, 3.0 + 5.0 + 3.0, 3.0)]
    )
