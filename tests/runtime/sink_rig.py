"""A real log with rows in it, a sink that answers as a test says, and the runner around it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa

from ringmain.log import open_log
from ringmain.log.catalogue import SeriesRegistry
from ringmain.log.clock import Clock
from ringmain.log.interface import Batch
from ringmain.model.catalogue import SeriesAttributes
from ringmain.model.schemas import READING, TICK, TIMESTAMP
from ringmain.runtime.backoff import Backoff
from ringmain.runtime.counters import Counters
from ringmain.runtime.sink import ACCEPTED, Answer, Sink, SinkBatch, SinkContext
from ringmain.runtime.sink_position import Mark
from ringmain.runtime.sink_runner import SinkPlan, SinkRunner
from ringmain.runtime.sink_status import SinkState
from tests.conftest import wait_until
from tests.runtime.disk import TestDisk

SECOND = 10**9


class Room:
    """A log, and what a test puts into it."""

    def __init__(self, directory: Path, *, clock: Clock | None = None, segment_bytes: int = 1 << 26) -> None:
        self.directory = directory
        self.disk = TestDisk()
        self.clock = clock
        self.segment_bytes = segment_bytes
        self.runners: list[SinkRunner] = []
        self.open()

    def open(self) -> None:
        self.log = open_log(self.directory, fs=self.disk, clock=self.clock, segment_bytes=self.segment_bytes)
        self.registry = SeriesRegistry(self.log)
        self.counters = Counters()
        self.series = [
            self.registry.register(
                "rig", f"ss-01/feeder-{n}/p", SeriesAttributes("W", "power", "electricity")
            )
            for n in range(4)
        ]
        self.registry.save()
        self._claim = self.log.claim("rig")
        self._sequence = 0

    def reopen(self) -> None:
        """As after a stop of the node."""
        self.stop()
        self.log.close()
        self.open()

    def put(self, *values: float, stream: str = "readings", first_time: int = 0) -> None:
        """One frame of readings of the first series, a value a row, second by second."""
        count = len(values)
        rows = pa.RecordBatch.from_arrays(
            [
                pa.array([self.series[0]] * count, pa.uint32()),
                pa.array([(first_time + n) * SECOND for n in range(count)], pa.int64()).view(TIMESTAMP),
                pa.array(values, pa.float64()),
                pa.array([0] * count, pa.uint16()),
            ],
            schema=READING,
        )
        self.append(Batch(stream, rows))

    def tick(self) -> None:
        self.append(Batch("ticks", pa.record_batch([pa.array([0], TIMESTAMP)], schema=TICK)))

    def append(self, *batches: Batch) -> None:
        self._sequence += 1
        self.log.append(list(batches), claim=self._claim, sequence=self._sequence)

    def run(
        self,
        sink: Sink,
        *,
        name: str = "out",
        streams: tuple[str, ...] = ("readings",),
        newest: bool = False,
        batch_rows_max: int = 40_000,
        backoff: Backoff | None = None,
    ) -> SinkRunner:
        plan = SinkPlan(name, "test", streams, newest, batch_rows_max)
        backoff = backoff or Backoff(0.001, 0.01, healthy_s=0.0)
        runner = SinkRunner(plan, sink, self.log, self.counters, backoff=backoff)
        self.runners.append(runner)
        runner.start()
        return runner

    def stop(self) -> None:
        for runner in self.runners:
            assert runner.stop(60)
        self.runners.clear()

    def position(self, name: str = "out") -> bytes | None:
        return self.log.positions(f"sink/{name}").get(f"sink/{name}")

    def letters(self) -> list[tuple[str, str, str]]:
        """(source, topic, reason) of each dead letter."""
        return [
            (row["source"], row["topic"], row["reason"])
            for frame in self.log.read("deadletters")
            for row in frame.rows.drop_columns(["time", "payload"]).to_pylist()
        ]

    def close(self) -> None:
        self.disk.mend()
        self.disk.release()
        self.stop()
        self.log.close()


class Recorder:
    """A sink that keeps what it accepts, and answers as `answer` says; without it, it accepts."""

    def __init__(self, answer: Callable[[SinkBatch], Answer | Exception] | None = None) -> None:
        self.answer = answer or (lambda batch: ACCEPTED)
        self.handed: list[SinkBatch] = []
        self.values: list[float] = []
        self.ids: list[str] = []
        self.opened = 0
        self.closed = 0
        self.gate = threading.Event()
        self.gate.set()
        self.context: SinkContext | None = None
        self.open_error: Exception | None = None

    def open(self, context: SinkContext) -> str:
        self.opened += 1
        self.context = context
        if self.open_error is not None:
            raise self.open_error
        return "memory"

    def deliver(self, batches: Sequence[SinkBatch], now_ns: int) -> Sequence[Answer]:
        self.gate.wait(60)
        answers: list[Answer] = []
        for batch in batches:
            self.handed.append(batch)
            answer = self.answer(batch)
            if isinstance(answer, Exception):
                raise answer
            answers.append(answer)
            if type(answer).__name__ == "Retry":
                break
            if type(answer).__name__ == "Accepted":
                self.values += batch.rows.column("value").to_pylist()
                self.ids.append(str(batch.id))
        return answers

    def close(self) -> None:
        self.closed += 1


def wait_lag(runner: SinkRunner) -> None:
    """Wait until everything in its streams is answered for, and that is stored with the letters that belong to it."""
    log, claim = runner._log, f"sink/{runner.name}"

    def stored() -> bool:
        text = log.positions(claim).get(claim)
        if text is None or runner.state is not SinkState.RUNNING or runner.lag()[1] != 0:
            return False
        rows = Mark.decode(text).rows
        return all(
            rows.get(one.stream.name, 0) >= one.rows
            for one in log.streams()
            if one.stream.name in runner.plan.streams
        )

    wait_until(stored, what=f"no lag: {runner.status()}")
