"""What dies is started again, what hangs is killed, and the end comes in order: with processes that only play parts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ringmain.parts.supervised import Limits, PartPlan
from ringmain.parts.supervision import Supervision
from ringmain.runtime.part_status import PartState, PartStatus
from tests.conftest import wait_until

STUB = Path(__file__).with_name("stub_part.py")
PATIENT = Limits(stop_s=20.0, backoff_first_s=0.05)
HARD = Limits(stop_s=1.0, backoff_first_s=0.05)
QUICK = Limits(start_s=5.0, silent_s=0.8, silence_s=3.0, stop_s=1.0, backoff_first_s=0.05)
STILL = Limits(start_s=60.0, silent_s=0.5, silence_s=2.5, stop_s=20.0)


class Watched:
    """A supervision that runs on the main thread while a test's body runs beside it."""

    def __init__(self, directory: Path, names: tuple[str, ...], limits: Limits) -> None:
        self.directory = directory
        self.addresses: list[dict[str, str]] = []
        self.stop = threading.Event()
        self.supervision = Supervision(
            [
                PartPlan(
                    name,
                    (sys.executable, str(STUB), name, str(directory)),
                    has_log=position == 0,
                    informed=name == "server",
                )
                for position, name in enumerate(names)
            ],
            self.addresses.append,
            limits,
        )

    def part(self, name: str) -> PartStatus:
        return next(part for part in self.supervision.statuses() if part.name == name)

    def heard(self, name: str) -> list[str]:
        place = self.directory / f"heard-{name}"
        return place.read_text().split() if place.exists() else []

    def run(self, body: Callable[[Watched], None]) -> str | None:
        """Run `body` beside the supervision, then tell it to stop; what `run` says."""
        failures: list[BaseException] = []

        def beside() -> None:
            try:
                body(self)
            except BaseException as error:
                failures.append(error)
            self.stop.set()
            self.supervision.wake()

        thread = threading.Thread(target=beside)
        thread.start()
        refusal = self.supervision.run(self.stop)
        thread.join(60)
        if failures:
            raise failures[0]
        return refusal


@pytest.fixture
def watch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Watched]:
    root = Path(__file__).parents[2]
    monkeypatch.setenv("PYTHONPATH", f"{root / 'src'}{os.pathsep}{root}")

    def watched(*names: str, limits: Limits = PATIENT) -> Watched:
        return Watched(tmp_path, names, limits)

    return watched


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_the_log_begins_first_ready_is_said_once_and_the_end_comes_in_order(
    watch: Callable[..., Watched],
) -> None:
    one = watch("intake", "flows", "server")

    def body(one: Watched) -> None:
        wait_until(lambda: bool(one.addresses), what="ready")
        assert {part.state for part in one.supervision.statuses()} == {PartState.RUNNING}

    assert one.run(body) is None
    assert one.addresses == [{"intake": "intake:1", "flows": "flows:1", "server": "server:1"}]
    assert one.heard("intake") == ["started", "begin", "drain", "stop"]
    assert one.heard("flows") == ["started", "begin", "stop"]
    assert "ready" in one.heard("server"), "the node was said to be ready before its server knew"
    assert [part.state for part in one.supervision.statuses()] == [PartState.STOPPED] * 3


def test_a_part_that_dies_is_started_again_with_growing_pauses_and_the_reason_is_shown(
    watch: Callable[..., Watched],
) -> None:
    one = watch("intake", "dies-twice")

    def body(one: Watched) -> None:
        wait_until(lambda: one.part("dies-twice").restarts == 2, what="two restarts")
        wait_until(lambda: one.part("dies-twice").state is PartState.RUNNING, what="the part")
        assert one.part("dies-twice").last_error == "no more paper"
        os.kill(one.part("dies-twice").pid, signal.SIGKILL)
        wait_until(lambda: one.part("dies-twice").restarts == 3, what="the third restart")
        assert one.part("dies-twice").last_error == "it was ended by signal SIGKILL"
        wait_until(lambda: one.part("dies-twice").state is PartState.RUNNING, what="the part")

    one.run(body)
    assert one.heard("dies-twice").count("begin") == 1, "what is said once was said again"
    assert one.part("intake").restarts == 0


def test_a_part_that_never_works_or_is_never_heard_of_is_shown_killed_and_tried_again(
    watch: Callable[..., Watched],
) -> None:
    one = watch("intake", "never-works", "mute", "falls-silent", limits=QUICK)

    def body(one: Watched) -> None:
        wait_until(lambda: one.part("falls-silent").state is PartState.SILENT, what="the state `silent`")
        nothing = "nothing was heard of it"
        whys = (("never-works", "did not come to work"), ("mute", nothing), ("falls-silent", nothing))
        for name, why in whys:
            wait_until(lambda name=name, why=why: why in (one.part(name).last_error or ""), what=why)
            wait_until(lambda name=name: one.part(name).restarts >= 1, what=f"{name} started again")

    one.run(body)
    assert not one.addresses


def test_a_part_that_does_not_end_is_killed_and_the_others_are_not(watch: Callable[..., Watched]) -> None:
    one = watch("intake", "stubborn", limits=HARD)
    assert one.run(lambda one: wait_until(lambda: bool(one.addresses), what="ready")) is None
    assert one.heard("intake")[-1] == "stop"


def test_a_first_start_that_is_refused_ends_all_and_tells_why(watch: Callable[..., Watched]) -> None:
    one = watch("refuses", "flows")
    assert one.supervision.run(one.stop) == "the log is open in process 1"
    assert "begin" not in one.heard("flows")


def test_a_part_that_cannot_be_started_at_all_is_tried_again(tmp_path: Path) -> None:
    one = Watched(tmp_path, (), PATIENT)
    one.supervision = Supervision([PartPlan("gone", ("/nothing/here",))], one.addresses.append, PATIENT)

    def body(one: Watched) -> None:
        wait_until(lambda: one.part("gone").restarts >= 2, what="restarts")
        assert "No such file" in (one.part("gone").last_error or "")

    one.run(body)


@contextmanager
def supervisor_process(directory: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A supervising process of its own with three parts; it writes their pids."""
    program = f"""
import sys, threading
from pathlib import Path
from ringmain.parts.supervised import PartPlan
from ringmain.parts.supervision import Supervision
names = ("intake", "flows", "server")
plans = [
    PartPlan(n, (sys.executable, {str(STUB)!r}, n, {str(directory)!r}), n == "intake", n == "server") for n in names
]
s = Supervision(plans, lambda _: Path({str(directory)!r}, "pids").write_text(" ".join(str(p.pid) for p in s.statuses())))
s.run(threading.Event())
"""
    process = subprocess.Popen([sys.executable, "-c", program])
    try:
        yield process
    finally:
        process.kill()
        process.wait(60)


def test_when_the_supervising_process_is_killed_its_parts_end_by_themselves(
    tmp_path: Path, watch: Callable[..., Watched]
) -> None:
    with supervisor_process(tmp_path) as process:
        wait_until(lambda: (tmp_path / "pids").exists() and (tmp_path / "pids").read_text(), what="the parts")
        pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
        assert len(pids) == 3
        process.kill()
        process.wait(60)
        wait_until(lambda: not any(lives(pid) for pid in pids), what="the end of all parts")
    for name in ("intake", "flows", "server"):
        assert (tmp_path / f"heard-{name}").read_text().split()[-1] == "stop", "it did not end in order"


def test_the_supervising_process_needs_no_library_that_parts_need() -> None:
    program = (
        "import sys, ringmain.cli.run, ringmain.parts.supervision; "
        "print([name for name in ('numpy', 'pyarrow', 'starlette', 'duckdb') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


SUPERVISING = """
import sys, threading, signal
from pathlib import Path
from tests.parts.test_supervision import STILL, Watched
one = Watched(Path(sys.argv[1]), ("intake", "flows"), STILL)
signal.signal(signal.SIGTERM, lambda *_: one.stop.set())
one.supervision._on_ready = lambda _: print("ready", flush=True)
one.supervision.run(one.stop)
"""


def test_parts_are_not_late_for_a_time_in_which_the_supervisor_itself_stood_still(
    watch: Callable[..., Watched], tmp_path: Path
) -> None:
    one = watch()
    supervisor = subprocess.Popen(
        [sys.executable, "-c", SUPERVISING, str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert supervisor.stdout is not None
    assert supervisor.stdout.readline() == "ready\n"
    os.kill(supervisor.pid, signal.SIGSTOP)
    until_s = time.monotonic() + 1.5 * STILL.silence_s
    wait_until(lambda: time.monotonic() > until_s, what="a time in which nobody listens")
    os.kill(supervisor.pid, signal.SIGCONT)
    os.kill(supervisor.pid, signal.SIGTERM)
    _, errors = supervisor.communicate(timeout=60)
    assert "killed" not in errors
    for name in ("intake", "flows"):
        assert one.heard(name)[-1] == "stop"
        assert one.heard(name).count("started") == 1
