"""A flow over a real log: exactly once through any stop, crash, damage, fencing and full disk."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from ringmain.flows.runner import FlowState
from ringmain.flows.settings import Late, WindowSettings
from ringmain.log import open_log, open_reader
from ringmain.log.interface import Batch, LogFullError, StreamKind
from ringmain.log.journal import Journal
from ringmain.model.schemas import READING
from tests.promises import Fault, Part, promise

from .real_log import (
    SECOND,
    SIMPLE,
    START,
    Feed,
    copy_inputs,
    emitted,
    feed_step,
    feed_story,
    last_input,
    put_aside,
    run_to_end,
    runner,
    undisturbed,
    until,
)
from .recording import batch

FLOW = WindowSettings(
    to="readings.10s", window="10s", grace="5s", idle="30s", values=SIMPLE, late=Late.REVISE
)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "data"


def test_windows_appear_with_start_end_values_and_revision(directory: Path) -> None:
    with open_log(directory) as log:
        feed = Feed(log)
        feed.readings(
            [(0, START + 1, 1.0, 0), (0, START + 2, 4.0, 0), (0, START + 3, 1.0, 0)], START + SECOND
        )
        feed.readings([(0, START + 15 * SECOND, 7.0, 0)], START + 15 * SECOND)
        feed.tick(START + 16 * SECOND)
        flow = runner(log, directory, FLOW)
        flow.start()
        run_to_end(log, flow)
        [frame] = log.read("readings.10s")
        assert frame.rows.schema.names == [
            *("series", "start", "end", "count", "sum", "mean", "min", "max", "first", "last", "revision")
        ]
        start = pa.scalar(START, frame.rows.schema.field("start").type)
        end = pa.scalar(START + 10 * SECOND, frame.rows.schema.field("end").type)
        assert frame.rows.to_pylist() == [
            {
                "series": 0,
                "start": start.as_py(),
                "end": end.as_py(),
                "count": 3,
                "sum": 6.0,
                "mean": 2.0,
                "min": 1.0,
                "max": 4.0,
                "first": 1.0,
                "last": 1.0,
                "revision": 0,
            }
        ]
        assert frame.origin_arrival_ns == START + 16 * SECOND


def test_a_flow_follows_what_is_appended_while_it_runs(directory: Path) -> None:
    with open_log(directory) as log:
        flow = runner(log, directory, FLOW)
        flow.start()
        feed = Feed(log)
        feed.readings([(0, START, 1.0, 0)], START)
        feed.tick(START + 31 * SECOND)
        until(lambda: flow.status().windows == 1, "the idle device's window is emitted")
        until(
            lambda: log.positions("flow/minute").get("flow/minute") == str(last_input(log)).encode(),
            "position",
        )
        assert flow.status().lag_s == 0.0
        assert flow.stop()
        assert flow.status().state is FlowState.STOPPED


class Crash(Exception):
    """A flow's end between two instructions."""


def crash_at(log: Journal, append_number: int, *, durable: bool) -> None:
    """Let an append of a flow's outputs end the flow: before it reaches the log, or when it is durable already."""
    appends = 0
    real_append = log.append

    def append(batches: list[Batch], **rest: Any) -> Any:
        nonlocal appends
        mine = rest["claim"].name.startswith("flow/")
        appends += mine
        if mine and appends == append_number and not durable:
            raise Crash
        answer = real_append(batches, **rest)
        if mine and appends == append_number:
            raise Crash
        return answer

    log.append = append  # type: ignore[assignment,method-assign]


def test_a_flow_that_dies_at_any_append_emits_what_an_undisturbed_one_emits(
    directory: Path, tmp_path: Path
) -> None:
    chance = random.Random(3)
    crashes = 0
    for life in range(40):
        if life >= 10 and crashes > 4:  # how many appends a life has is a matter of time
            break
        with open_log(directory) as log:
            crash_at(log, chance.randrange(1, 4), durable=chance.random() < 0.5)
            flow = runner(log, directory, FLOW, often=life % 2 == 0)
            flow.start()
            feed_story(Feed(log), life, 30)
            until(
                lambda flow=flow: flow.status().state is FlowState.BACKOFF or flow.caught_up(),
                "crash or end",
            )
            crashes += flow.status().state is FlowState.BACKOFF
            flow.stop()
        if life % 4 == 3:
            shutil.rmtree(directory / "snapshots", ignore_errors=True)
    assert crashes > 4
    with open_log(directory) as log:
        flow = runner(log, directory, FLOW)
        flow.start()
        run_to_end(log, flow)
        found = emitted(log, FLOW)
        assert sum(len(frame) - 1 for frame in found) > 1000
        assert sum(row[2] > 0 for frame in found for row in frame[1:]) > 50
        assert repr(found) == repr(undisturbed(log, tmp_path / "zero", FLOW))


def test_late_rows_put_aside_survive_restarts_once_each(directory: Path, tmp_path: Path) -> None:
    side = WindowSettings(to="out", window="10s", grace="0s", idle="30s", late=Late.SIDE)
    for life in range(4):
        with open_log(directory) as log:
            flow = runner(log, directory, side, often=life % 2 == 0)
            flow.start()
            feed_story(Feed(log), life, 30)
            flow.stop()
    with open_log(directory) as log:
        flow = runner(log, directory, side)
        flow.start()
        run_to_end(log, flow)
        found = put_aside(log, side)
        assert len(found) > 20
        with copy_inputs(log, tmp_path / "zero") as other:
            again = runner(other, tmp_path / "zero", side)
            again.start()
            run_to_end(other, again)
            assert repr(put_aside(other, side)) == repr(found)
            assert repr(emitted(other, side)) == repr(emitted(log, side))


CHILD = """
import sys, random
from pathlib import Path
from ringmain.log import open_log
sys.path.insert(0, sys.argv[2])
from flows.real_log import Feed, START, SECOND, feed_step, runner
from flows.test_runner import FLOW
directory, seed = Path(sys.argv[1]), int(sys.argv[3])
log = open_log(directory)
flow = runner(log, directory, FLOW, often=seed % 2 == 0)
flow.start()
feed = Feed(log)
chance = random.Random(seed)
now = START + seed * 600 * SECOND
past = []
feed.devices({number: f"device-{number // 3}" for number in range(30)})
print("ready", flush=True)
while True:
    feed_step(feed, chance, past, now)
    now += chance.choice([1, 1, 2, 5]) * SECOND
"""


@promise(
    Fault.KILL,
    Part.SNAPSHOTS,
    "A flow goes on from its newest whole snapshot and emits what a fold from zero emits.",
)
def test_a_process_killed_with_kill_9_leaves_a_log_whose_windows_equal_a_fold_from_zero(
    directory: Path, tmp_path: Path
) -> None:
    tests = Path(__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": str(tests.parent / "src")}
    chance = random.Random(11)
    for seed in range(4):
        command = [sys.executable, "-c", CHILD, str(directory), str(tests), str(seed)]
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
            wanted = chance.randrange(1, 2000)
            reader = open_reader(directory)
            before = {state.stream.name: state.rows for state in reader.streams()}["readings"]
            until(
                lambda reader=reader, wanted=wanted + before: (
                    {state.stream.name: state.rows for state in reader.streams()}["readings"] >= wanted
                ),
                "rows of the child",
            )
            child.send_signal(signal.SIGKILL)
            reader.close()
    with open_log(directory) as log:
        flow = runner(log, directory, FLOW)
        flow.start()
        run_to_end(log, flow)
        found = emitted(log, FLOW)
        assert sum(len(frame) - 1 for frame in found) > 100
        assert repr(found) == repr(undisturbed(log, tmp_path / "zero", FLOW))


@promise(
    Fault.BIT_FLIP,
    Part.SNAPSHOTS,
    "The flow goes on from the snapshot before, or from its input, with the same result.",
)
def test_a_damaged_snapshot_is_passed_over_for_the_one_before_and_for_the_input(
    directory: Path, tmp_path: Path
) -> None:
    for life in range(3):
        with open_log(directory) as log:
            flow = runner(log, directory, FLOW)
            flow.start()
            feed_story(Feed(log), life, 20)
            run_to_end(log, flow)
    for kept in (1, 0):
        snapshots = sorted((directory / "snapshots").iterdir())
        assert len(snapshots) == 2
        for path in snapshots[kept:]:
            data = bytearray(path.read_bytes())
            data[len(data) // 2] ^= 1
            path.write_bytes(data)
        with open_log(directory) as log:
            flow = runner(log, directory, FLOW)
            flow.start()
            feed_story(Feed(log), 5, 20)
            run_to_end(log, flow)
            assert repr(emitted(log, FLOW)) == repr(undisturbed(log, tmp_path / str(kept), FLOW))


def test_a_second_copy_of_a_flow_fences_the_first_which_stops_and_nothing_is_emitted_twice(
    directory: Path, tmp_path: Path
) -> None:
    with open_log(directory) as log:
        first = runner(log, directory, FLOW)
        first.start()
        feed = Feed(log)
        feed_story(feed, 0, 20)
        until(lambda: first.status().windows > 0, "the first copy emits")
        second = runner(log, directory, FLOW)
        second.start()
        until(lambda: second.status().state is FlowState.RUNNING, "the second copy runs")
        feed_story(feed, 1, 20)
        assert first.wait_ended(60)
        assert first.status().state is FlowState.FAILED
        assert "another copy" in (first.status().last_error or "")
        run_to_end(log, second)
        assert repr(emitted(log, FLOW)) == repr(undisturbed(log, tmp_path / "zero", FLOW))


def test_outputs_of_one_frame_that_exceed_an_append_are_completed_after_a_crash_between_its_parts(
    directory: Path, tmp_path: Path
) -> None:
    series = 57_344
    ids = np.arange(series)

    def sweep(at: int) -> list[list[tuple[int, int, float, int]]]:
        return [[(int(n), at, float(n), 0) for n in part] for part in np.array_split(ids, 4)]

    log = open_log(directory)
    feed = Feed(log)
    for part in sweep(START):
        feed.readings(part, START)
    feed.tick(START + 60 * SECOND)
    feed.readings([(5, START, 1.5, 0), (6, START + 1, 1.5, 0)], START + 61 * SECOND)
    feed.tick(START + 70 * SECOND)
    crash_at(log, 3, durable=True)
    flow = runner(log, directory, FLOW)
    flow.start()
    until(lambda: flow.status().state is FlowState.BACKOFF, "the first part is in the log")
    flow.stop()
    assert "flow/minute/partial" in log.positions("flow/minute")
    log.close()
    with open_log(directory) as log:
        flow = runner(log, directory, FLOW)
        flow.start()
        run_to_end(log, flow)
        assert "flow/minute/partial" not in log.positions("flow/minute")
        found = emitted(log, FLOW)
        assert sum(len(frame) - 1 for frame in found) == series + 2
        assert repr(found) == repr(undisturbed(log, tmp_path / "zero", FLOW))


def test_a_full_log_makes_the_flow_wait_and_go_on(directory: Path) -> None:
    with open_log(directory) as log:
        feed = Feed(log)
        feed.readings([(0, START, 1.0, 0)], START)
        feed.tick(START + 60 * SECOND)
        full = threading.Event()
        full.set()
        real_append = log.append

        def append(batches: list[Batch], **rest: object) -> object:
            if full.is_set() and batches:
                raise LogFullError("no space")
            return real_append(batches, **rest)  # type: ignore[arg-type]

        log.append = append  # type: ignore[assignment,method-assign]
        flow = runner(log, directory, FLOW)
        flow.start()
        until(lambda: flow.status().state is FlowState.WAITING, "the flow waits")
        assert "no space" in (flow.status().last_error or "")
        assert emitted(log, FLOW) == []
        full.clear()
        until(lambda: flow.status().state is FlowState.RUNNING, "the flow goes on")
        run_to_end(log, flow)
        assert len(emitted(log, FLOW)) == 1


def test_a_full_log_does_not_keep_a_flow_from_stopping(directory: Path) -> None:
    with open_log(directory) as log:
        feed = Feed(log)
        feed.readings([(0, START, 1.0, 0)], START)
        feed.tick(START + 60 * SECOND)

        def append(batches: list[Batch], **rest: object) -> object:
            raise LogFullError("no space")

        real_append, log.append = log.append, append  # type: ignore[assignment,method-assign]
        flow = runner(log, directory, FLOW)
        flow.start()
        until(lambda: flow.status().state is FlowState.WAITING, "the flow waits")
        assert flow.stop()
        log.append = real_append  # type: ignore[method-assign]
        again = runner(log, directory, FLOW)
        again.start()
        run_to_end(log, again)
        assert len(emitted(log, FLOW)) == 1


def test_another_definition_with_the_same_output_is_refused_and_with_a_new_one_begins_anew(
    directory: Path,
) -> None:
    changed = WindowSettings(to=FLOW.to, window="20s", grace="5s", values=FLOW.values)
    renamed = WindowSettings(to="other", window="20s", grace="5s", values=FLOW.values)
    same = WindowSettings(to=FLOW.to, window="10000ms", grace="5s", idle="0.5m", values=FLOW.values)
    with open_log(directory) as log:
        feed_story(Feed(log), 0, 20)
        flow = runner(log, directory, FLOW)
        flow.start()
        run_to_end(log, flow)
        before = emitted(log, FLOW)
        refused = runner(log, directory, changed)
        refused.start()
        assert refused.wait_ended(60)
        assert refused.status().state is FlowState.FAILED
        assert "window_ns: was 10000000000, now 20000000000" in (refused.status().last_error or "")
        equal = runner(log, directory, same)
        equal.start()
        run_to_end(log, equal)
        anew = runner(log, directory, renamed)
        anew.start()
        run_to_end(log, anew)
        assert emitted(log, FLOW) == before
        assert emitted(log, renamed)
        back = runner(log, directory, FLOW)
        back.start()
        assert back.wait_ended(60)
        assert "name a new stream" in (back.status().last_error or "")


def test_a_flow_from_a_stream_that_does_not_exist_says_so_and_goes_on_when_there_is_one(
    directory: Path,
) -> None:
    with open_log(directory) as log:
        flow = runner(log, directory, WindowSettings(to="out", from_="later", window="1s", grace="0s"))
        flow.start()
        until(lambda: flow.status().state is FlowState.WAITING, "it says that it waits")
        assert "'later'" in (flow.status().last_error or "")
        log.create_stream("later", StreamKind.READING, READING)
        feed = Feed(log)
        feed.append([Batch("later", batch([(1, START, 1.0, 0)]), START)])
        feed.tick(START + 60 * SECOND)
        run_to_end(log, flow)
        assert flow.status().windows == 1


def test_a_late_reading_whose_window_lost_its_inputs_is_told_and_never_a_wrong_revision(
    directory: Path,
) -> None:
    with open_log(directory, segment_bytes=64 * 1024) as log:
        feed = Feed(log)
        flow = runner(log, directory, FLOW)
        flow.start()
        now = START
        for _ in range(400):
            feed.readings([(n, now, 1.0, 0) for n in range(300)], now)
            now += SECOND
        feed.tick(now + SECOND)
        run_to_end(log, flow)
        assert log.retain(size_bytes=256 * 1024) > 0
        rows = sum(len(frame) - 1 for frame in emitted(log, FLOW))
        feed.readings([(7, START + 1, 99.0, 0)], now + 2 * SECOND)
        feed.tick(now + 4 * SECOND)
        again = runner(log, directory, FLOW)
        again.start()
        run_to_end(log, again)
        assert sum(len(frame) - 1 for frame in emitted(log, FLOW)) == rows
        [told] = put_aside(log, FLOW)
        assert told[:4] == (7, START, None, None)


def test_a_flow_without_snapshot_and_without_the_beginning_of_its_input_stops_and_says_so(
    directory: Path,
) -> None:
    with open_log(directory, segment_bytes=64 * 1024) as log:
        feed = Feed(log)
        flow = runner(log, directory, FLOW)
        flow.start()
        for second in range(100):
            feed.readings([(n, START + second * SECOND, 1.0, 0) for n in range(300)], START + second * SECOND)
        run_to_end(log, flow)
        assert log.retain(size_bytes=256 * 1024) > 0
        shutil.rmtree(directory / "snapshots")
        again = runner(log, directory, FLOW)
        again.start()
        assert again.wait_ended(60)
        assert again.status().state is FlowState.FAILED
        assert "removed from the log" in (again.status().last_error or "")


__all__ = ["FLOW", "feed_step"]
